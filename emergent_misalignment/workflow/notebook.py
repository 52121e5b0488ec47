"""Run one notebook with its parameters, and leave it readable whether it succeeds or fails.

    python -m emergent_misalignment.workflow.notebook SOURCE LOG OUTPUT name=value ...

The executed notebook is written to LOG after every cell, and copied to OUTPUT once all of them have ended well. What
differs between two identical runs (times, random ids, process numbers) is taken out, so that the same computation
leaves the same bytes. The working directory is the repository's root, where `at_root` takes a notebook that a person
opened.
"""

import ast
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from emergent_misalignment.files import BadInput, replacing

ROOT = Path(__file__).resolve().parents[2]
WIDGET = "application/vnd.jupyter.widget-view+json"


def at_root() -> None:
    """Work from the repository's root, wherever the notebook was opened from."""
    os.chdir(ROOT)


def run(source: str, log: str, output: str, arguments: list[str]) -> None:
    """Execute the notebook `source` into `log`, and copy it to `output` if no cell fails.

    `arguments` are `name=value` texts for parameters that the notebook declares. Raises BadInput if one of them does
    not fit, and RuntimeError with the failed cell and its error if the notebook fails.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    parameters = _parameters(source, arguments)
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    failure = None
    # One folder a kernel: kernels that share a folder get each other's sockets. It lies in /tmp because a socket's path
    # may have no more than about 100 characters.
    with tempfile.TemporaryDirectory(prefix="notebook-", dir="/tmp") as private:
        _set_environment(log, private)
        try:
            papermill.execute_notebook(
                os.path.abspath(source),
                os.path.abspath(log),
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
            failure = f"{error.ename}: {error.evalue}"
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


def declared_parameters(source: str | Path) -> dict:
    """The parameters that a notebook declares in its cell tagged `parameters`, with their defaults.

    Raises BadInput if there is no such notebook, or a default is not written out.
    """
    if not Path(source).is_file():
        raise BadInput(f"There is no notebook {source}; give the path of an .ipynb file.")
    declared = {}
    for cell in json.loads(Path(source).read_text(encoding="utf-8"))["cells"]:
        if "parameters" not in cell["metadata"].get("tags", []):
            continue
        for each in ast.parse("".join(cell["source"])).body:
            target = each.target if isinstance(each, ast.AnnAssign) else each.targets[0]
            value = _literal(ast.unparse(each.value))
            if type(value) not in {str, bool, int, float, list, dict}:
                raise BadInput(
                    f"{source}: the default of {target.id} must be written out, as a str, bool, int, float, list or "
                    "dict."
                )
            declared[target.id] = value
    return declared


def _parameters(source: str, arguments: list[str]) -> dict:
    """The values of `name=value` texts, each of its declared default's type."""
    declared, values = declared_parameters(source), {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals:
            raise BadInput(f"{source}: {argument!r} is no parameter; write name=value.")
        if name not in declared:
            raise BadInput(f"{source} declares no parameter {name}; it declares {', '.join(declared) or 'none'}.")
        kind = type(declared[name])
        values[name] = text if kind is str else _literal(text)
        if kind is float and type(values[name]) is int:
            values[name] = float(values[name])
        if type(values[name]) is not kind:
            raise BadInput(f"{source}: parameter {name} is of type {kind.__name__}, and {text!r} is not.")
    return values


def _literal(text: str):
    """The value that `text` spells as JSON or as a Python literal, or None."""
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, TypeError, SyntaxError):
            return read(text)


def _set_environment(log: str, private: str) -> None:
    """What the kernel inherits: no settings of the user's IPython, one hash seed, one date, where to show progress."""
    progress = Path(log).absolute().with_suffix(".progress")
    progress.unlink(missing_ok=True)
    bar = os.isatty(2) and os.environ.get("NOTEBOOK_PROGRESS") != "log"
    os.environ |= {
        "IPYTHONDIR": f"{private}/ipython",
        "JUPYTER_RUNTIME_DIR": f"{private}/runtime",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "NOTEBOOK_PROGRESS": os.ttyname(2) if bar else str(progress),
        "PYTHONHASHSEED": "0",
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


def _stop(*_) -> None:
    """At a signal, end the kernel, which a terminal's Ctrl-C does not reach, and then this process in good order."""
    for child in psutil.Process().children(recursive=True):
        child.kill()
    raise KeyboardInterrupt


def _end_with(starter: int) -> None:
    """End this process and its kernel when the process of this number is gone, so that nobody's work is computed on.

    Snakemake starts a notebook through a shell. If Snakemake is killed, that shell and this process live on and would
    write files under the feet of the next run. Which process that is has to be told: the shell may be an orphan before
    this one looks at who started it.
    """

    def watch() -> None:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(starter)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("Usage: python -m emergent_misalignment.workflow.notebook SOURCE LOG OUTPUT name=value ...")
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    try:
        if starter := os.environ.get("NOTEBOOK_STARTER"):
            _end_with(int(starter))
        run(*sys.argv[1:4], sys.argv[4:])
    except KeyboardInterrupt:
        sys.exit(130)
    except (BadInput, RuntimeError) as error:
        sys.exit(str(error))
