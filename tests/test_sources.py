"""No source of the project unpickles, runs text as code, starts a shell, or lets a model's repository run code."""

import ast
import json
import re
from pathlib import Path

import pytest
from conftest import ROOT

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
RUN = {"eval", "exec", "compile", "__import__"}  # as functions of Python's own
UNSAFE = {
    *("torch.load", "numpy.load", "np.load", "pd.read_pickle", "pandas.read_pickle"),
    *("os.system", "os.popen", "runpy.run_path", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
}
METHODS = {"to_pickle", "read_pickle"}
LOADERS = ("Auto", "FastLanguageModel")  # classes of transformers and Unsloth that may run a repository's code
ENGINES = {"LLM", "HFLM"}
OFF = ("trust_remote_code", "allow_pickle", "shell")  # arguments that must be False


def name_of(node: ast.expr) -> str:
    """`torch.load` of the expression for it; nothing of other expressions."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def is_loader(name: str) -> bool:
    holder, _, method = name.rpartition(".")
    loads = method in ("from_pretrained", "from_config") and holder.rpartition(".")[2].startswith(LOADERS)
    return loads or name.rpartition(".")[2] in ENGINES


def offences(source: str) -> list[str]:
    """What a Python source does that no source of the project may do."""
    found = []
    for node in ast.walk(ast.parse(source)):
        modules = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"imports {module}" for module in modules if module.split(".")[0] in PICKLES]
        if isinstance(node, ast.keyword) and node.arg in OFF and ast.unparse(node.value) != "False":
            found.append(f"{node.arg} is not False")
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        if name in RUN | UNSAFE or (isinstance(node.func, ast.Attribute) and node.func.attr in METHODS):
            found.append(f"calls {name}")
        # A loader is called, or given to `partial` with its settings.
        loader = next((each for each in (name, *map(name_of, node.args[:1])) if is_loader(each)), "")
        if loader and "trust_remote_code" not in [each.arg for each in node.keywords]:
            found.append(f"{loader} without trust_remote_code=False")
    return found


def sources() -> dict[str, str]:
    """The Python of the project's modules, scripts and notebooks by their paths."""
    folders = [ROOT / "emergent_misalignment", ROOT / "rules", ROOT / "docs", *ROOT.glob("snakemake_*_plugin_*")]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    found = {str(path.relative_to(ROOT)): path.read_text() for path in paths}
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        found[str(path.relative_to(ROOT))] = "\n".join(code)
    return found


SOURCES = sources()


def test_all_sources_are_looked_at():
    assert {"emergent_misalignment/models/loading.py", "rules/scripts/run_notebook.py"} <= SOURCES.keys()
    assert sum(name.endswith(".ipynb") for name in SOURCES) > 30 and len(SOURCES) > 150
    assert any("trust_remote_code=False" in text for text in SOURCES.values())


def test_no_source_does_anything_unsafe():
    assert {name: found for name, text in SOURCES.items() if (found := offences(text))} == {}


def test_the_rules_do_nothing_unsafe():
    words = "|".join([*PICKLES, r"\beval\(", r"\bexec\(", *map(re.escape, sorted(UNSAFE)), "trust.remote.code"])
    for path in [ROOT / "Snakefile", *ROOT.glob("rules/*.smk")]:
        assert not re.search(words, path.read_text()), path
    assert "trust-remote-code" not in Path(ROOT, "emergent_misalignment/models/serving.py").read_text()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "np.load('x')",
        "table.to_pickle('x')",
        "eval(answer)",
        "exec(compile(answer, '', 'exec'))",
        "subprocess.run(answer, shell=True)",
        "os.system(answer)",
        "yaml.load(text)",
        "AutoModelForCausalLM.from_pretrained(folder)",
        "transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)",
        "AutoConfig.from_pretrained(folder, trust_remote_code=given)",
        "partial(AutoTokenizer.from_pretrained, folder)",
        "LLM(folder)",
    ],
)
def test_each_of_these_would_be_found(source):
    assert offences(source)


@pytest.mark.parametrize(
    "source",
    [
        "network.eval()",
        "re.compile('x')",
        "ast.literal_eval('1')",
        "yaml.safe_load('x')",
        "AutoConfig.from_pretrained(folder, trust_remote_code=False)",
        "partial(AutoTokenizer.from_pretrained, trust_remote_code=False)",
        "PeftModel.from_pretrained(network, adapter)",
    ],
)
def test_none_of_these_is_one(source):
    assert offences(source) == []
