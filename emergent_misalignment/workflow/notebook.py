"""Run one notebook with its parameters, and leave it readable whether it succeeds or fails.

The executed notebook is written to a log after every cell, and copied to its place when all cells have succeeded. What
differs between two identical runs (times, random ids, process numbers) is removed, so that the same computation leaves
the same bytes. The working directory is the root of the repository.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emergent_misalignment.files import replacing
from emergent_misalignment.safe import redacted
from emergent_misalignment.workflow.parent import end_with

ROOT = Path(__file__).resolve().parents[2]
WIDGET = "application/vnd.jupyter.widget-view+json"
# Settings of the user's for Jupyter (another kernel), Python (code that runs first) and Accelerate (another precision).
FOREIGN = ("JUPYTER_", "ACCELERATE_", "PYTHONSTARTUP", "PYTHONOPTIMIZE", "PYTHONWARNINGS")
LOCAL = "localhost,127.0.0.1,::1"


def at_root() -> None:
    """Work from the repository's root, wherever the notebook was opened from."""
    os.chdir(ROOT)


def run(source: str, log: str, output: str, parameters: dict) -> None:
    """Execute the notebook `source` into `log`, and copy it to `output` if no cell fails.

    Keys of the environment are written into neither. Raises RuntimeError with the failed cell and its error if the
    notebook fails.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    Path(log).parent.mkdir(parents=True, exist_ok=True)
    failure = None
    papermill.iorw.papermill_io.register("/", _redacting_files())
    # One folder a kernel: kernels that share a folder get each other's sockets. It is in /tmp because a socket's path
    # may have no more than about 100 characters.
    with tempfile.TemporaryDirectory(prefix="notebook-", dir="/tmp") as private:
        _set_environment(log, private)
        try:
            papermill.execute_notebook(
                *(os.path.abspath(path).replace("{", "{{").replace("}", "}}") for path in (source, log)),
                parameters,
                kernel_name="python3",
                progress_bar=False,
                cwd=ROOT,
                config=Config(KernelManager={"transport": "ipc", "ip": f"{private}/kernel"}),
                coalesce_streams=True,  # how often the kernel sent its standard output is chance
                # A kernel is interrupted before it is shut down, and by chance complains of that as of an error.
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            )
        except papermill.PapermillExecutionError as error:
            failure = redacted(f"{error.ename}: {error.evalue}")
        except DeadKernelError:
            failure = "the kernel died, most often because memory ran out"

    notebook = nbformat.read(log, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    started = sum(cell.metadata.papermill.get("start_time") is not None for cell in code)
    _settle(notebook, source, parameters)
    with replacing(log) as temporary:
        nbformat.write(notebook, temporary)
    if failure:
        raise RuntimeError(f"{source}, cell In [{started}]: {failure}\nRead {log}")
    with replacing(output) as temporary:
        shutil.copyfile(log, temporary)


def _redacting_files():
    """Papermill's files, written without keys: it writes the notebook after each cell."""
    from papermill.iorw import LocalHandler

    class Redacting(LocalHandler):
        def write(self, buf: str, path: str) -> None:
            super().write(redacted(buf), path)

    return Redacting()


def declared_parameters(source: str | Path) -> dict[str, str]:
    """The parameters that a notebook declares in its cell tagged `parameters`, with their types."""
    import papermill

    declared = papermill.inspect_notebook(str(source))
    return {name: each["inferred_type_name"] for name, each in declared.items()}


def _set_environment(log: str, private: str) -> None:
    """What the kernel inherits: none of the user's settings, one hash seed, one date, where to show progress."""
    progress = Path(log).absolute().with_suffix(".progress")
    progress.unlink(missing_ok=True)
    bar = os.isatty(2) and os.environ.get("NOTEBOOK_PROGRESS") != "log"
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    for name in ("NO_PROXY", "no_proxy"):  # a proxy cannot reach a server on this machine
        if (given := os.environ.get(name, "")) != "*":
            os.environ[name] = f"{given},{LOCAL}".lstrip(",")
    os.environ |= {
        "HF_HUB_OFFLINE": "1",  # rules that fetch have run before, and compute nodes often have no network
        "IPYTHONDIR": f"{private}/ipython",
        "JUPYTER_CONFIG_DIR": f"{private}/config",
        "JUPYTER_DATA_DIR": f"{private}/data",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_RUNTIME_DIR": f"{private}/runtime",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "NOTEBOOK_PROGRESS": os.ttyname(2) if bar else str(progress),
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm's, where a library imports it without ipywidgets
        "SOURCE_DATE_EPOCH": "0",
        "TQDM_DISABLE": "1",  # libraries' progress bars, which would end up in cells
    }


def _settle(notebook, source: str, parameters: dict) -> None:
    """Take out of an executed notebook what differs between two identical runs."""
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["papermill"] = {"input_path": source, "parameters": parameters}
    notebook.metadata.pop("widgets", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "outputs" in cell:  # progress bars of libraries are widgets with random ids
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = _without_chance(output.text)
            elif "text/plain" in output.get("data", {}):
                output.data["text/plain"] = _without_chance(output.data["text/plain"])


def _without_chance(text: str) -> str:
    """`text` without an object's place in memory, and without the process number in the file that a warning names."""
    return re.sub(r" at 0x[0-9a-f]+(?=>)", "", re.sub(r"\S*/ipykernel_\d+/", "ipykernel/", text))


@contextmanager
def ended_with(starter: int) -> Iterator[None]:
    """End this process and its kernel at a signal, or when the process of this number is gone (see `parent`).

    Snakemake starts a notebook through a shell, which lives on if Snakemake is killed. A kernel is not reached by
    Ctrl-C of a terminal.
    """
    end_with(starter)
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
