"""The life of a server: it is up when it is asked, says why it is not, and never outlives who started it.

What runs is a small server in the place of vLLM's, with a child of its own as vLLM's has; vLLM itself: test_vllm.py.
"""

import os
import signal
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import psutil
import pytest
from waiting import wait_until

from emergent_misalignment.files import BadInput, write_json
from emergent_misalignment.models import serving
from emergent_misalignment.models.api import Endpoint, key_of
from emergent_misalignment.models.serving import Server, rank_for

PROGRAM = """
    import http.server, subprocess, sys
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    class Up(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Up).serve_forever()
"""


class Small(Server):
    program = textwrap.dedent(PROGRAM)

    def _command(self) -> list[str]:
        return [sys.executable, "-c", self.program, str(self._port)]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Where the log of a run of the workflow would be; there is a vLLM to run, as far as anybody asks."""
    monkeypatch.setenv("NOTEBOOK_PROGRESS", str(tmp_path / "judging_answers.progress"))
    monkeypatch.setattr(serving, "where", lambda: "")
    write_json(tmp_path / "config.json", {"dtype": "float32", "max_position_embeddings": 512})
    return tmp_path


def answers(address: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(address, timeout=None) as response:
        return response.status == 200


def group(number: int) -> list[int]:
    """The processes of a group that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def ends(number: int) -> bool:
    wait_until(lambda: not group(number))
    return True


def test_a_server_is_up_for_as_long_as_the_outermost_block(place):
    with Small(place, "a-model") as server:
        assert not server.is_up()  # nobody has asked for it
        with server:
            address = server.address()
            assert answers(f"{address}/models") and server.address() == address
        assert server.is_up()
        process = server._process.pid
        assert len(group(process)) == 3  # the server, its child, and who watches over them
    assert not server.is_up() and ends(process)
    with server:
        assert answers(server.address())  # and may be started again


def test_it_ends_with_a_process_that_is_killed(place):
    program = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from emergent_misalignment.models import serving
        from test_serving import Small
        serving.where = lambda: ""
        server = Small({str(place)!r}, "a-model")
        print(server.address(), server._process.pid, flush=True)
        time.sleep(600)
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as starter:
        address, number = starter.stdout.readline().split()
        assert answers(address) and len(group(int(number))) == 3
        os.kill(starter.pid, signal.SIGKILL)
    assert ends(int(number))


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("a line\nthe last line\n", "the last line"),
        (
            "(EngineCore pid=12) ERROR 11-26 16:00:00 [core.py:7] ValueError: no memory for the cache\n"
            "RuntimeError: Engine core initialization failed. See root cause above.\n",
            "ready: ValueError: no memory for the cache; read",
        ),
        ("", "it printed nothing"),
    ],
)
def test_a_server_that_ends_says_why(place, printed, shown):
    server = Small(place, "a-model")
    server.program = f"import sys; sys.stdout.write({printed!r}); sys.exit(1)"
    with pytest.raises(BadInput, match="a-model ended before") as error, server:
        server.address()
    assert shown in str(error.value) and str(place / "judging_answers.vllm.log") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_server_that_never_answers_is_stopped(place):
    server = Small(place, "a-model", ready_within=0.5)
    server.program = "import time; print('reading weights', flush=True); time.sleep(600)"
    with pytest.raises(BadInput, match=r"not ready after 0 seconds|not ready after 1 seconds"), server:
        server.address()
    assert not server.is_up()


def test_the_command_takes_precision_and_context_from_the_folder(place):
    server = Server(place, "a-model", {"tensor_parallel_size": 2, "enable_lora": True, "enforce_eager": False})
    server._port = 1
    command = server._command()
    for option, value in {
        "--model": str(place),
        "--served-model-name": "a-model",
        "--dtype": "float32",
        "--max-model-len": "512",
        "--generation-config": "vllm",
        "--tensor-parallel-size": "2",
    }.items():
        assert command[command.index(option) + 1] == value
    assert "--enable-lora" in command and "--enforce-eager" not in command


def test_answers_are_kept_by_the_model_and_not_by_the_port(place):
    request = {"model": "a-model", "messages": []}
    one, two = (Server(place, "a-model") for _ in range(2))
    one._port, two._port = 1, 2
    assert key_of(Endpoint(server=one), request) == key_of(Endpoint(server=two), request)
    others = [
        Endpoint("http://127.0.0.1:1/v1"),
        Endpoint(server=Server(place, "another")),
        Endpoint(server=Server(place, "a-model", {"quantization": "fp8"})),
    ]
    assert len({key_of(each, request) for each in [Endpoint(server=one), *others]}) == 4


@pytest.mark.parametrize(("rank", "taken"), [(1, 1), (2, 8), (8, 8), (9, 16), (32, 32), (300, 320), (512, 512)])
def test_ranks_are_rounded_up_to_those_of_vllm(rank, taken):
    assert rank_for(rank) == taken


def test_a_rank_beyond_those_of_vllm_is_refused():
    with pytest.raises(BadInput, match="rank 513"):
        rank_for(513)


def test_a_folder_without_vllm_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("EM_VLLM", str(tmp_path))
    with pytest.raises(BadInput, match=f"EM_VLLM is {tmp_path}"):
        serving.is_installed()
    (tmp_path / "vllm").mkdir()
    assert serving.is_installed()


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No vLLM; returns the folder in which `make vllm-cpu` would put it."""
    monkeypatch.undo()
    monkeypatch.delenv("EM_VLLM", raising=False)
    monkeypatch.setattr(serving, "BESIDE", tmp_path / "beside")
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: None)
    return tmp_path / "beside"


def test_without_vllm_a_server_says_so(nowhere, tmp_path):
    with pytest.raises(BadInput, match="run `make vllm-cpu`"), Server(tmp_path, "a-model") as server:
        server.address()


def test_vllm_is_found_where_make_puts_it(nowhere, tmp_path, monkeypatch):
    (nowhere / "vllm").mkdir(parents=True)
    assert serving.where() == str(nowhere)
    (tmp_path / "own/vllm").mkdir(parents=True)
    monkeypatch.setenv("EM_VLLM", str(tmp_path / "own"))
    assert serving.where() == str(tmp_path / "own")
    monkeypatch.delenv("EM_VLLM")
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: name)
    assert serving.where() == ""  # what is a package of the study's own comes first
