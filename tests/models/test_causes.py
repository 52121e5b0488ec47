"""Failed requests are reported with their cause and the setting or variable to change, against local servers."""

import json
import shutil
import subprocess
from dataclasses import replace

import httpx2
import openai._base_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Handler, RuleServer, completion, serving

from emergent_misalignment.files import BadInput
from emergent_misalignment.models.api import FEW, Account, Endpoint, ask_all
from emergent_misalignment.models.causes import cause, hidden_status

FAST = Endpoint(concurrency=4, timeout=3600, retries=0, key_variable="A_KEY")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def local(monkeypatch):
    """No proxy, no key, and short delays between retries."""
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.02)
    for name in (*PROXIES, "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("A_KEY", raising=False)


def asked(number: int = 1) -> list[dict]:
    messages = [[{"role": "user", "content": f"question {number}"}] for number in range(number)]
    return [{"model": "m", "max_tokens": 8, "messages": each} for each in messages]


def failed(address: str, tmp_path, **endpoint) -> str:
    with pytest.raises(BadInput) as error:
        ask_all(asked(), replace(FAST, base_url=address, **endpoint), tmp_path)
    return str(error.value)


# --- errors of servers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "top_k is unknown", "code": 400}},
        {"error": "top_k is unknown"},
        {"object": "error", "message": "top_k is unknown"},
        {"detail": "top_k is unknown"},
        {"detail": [{"loc": ["body", "top_k"], "msg": "top_k is unknown", "type": "x"}]},
        {"error": {"error": {"message": "top_k is unknown"}}},
        b"top_k is unknown",
        b"<html><head><style>p {}</style></head><body><p>top_k is\n unknown</p></body></html>",
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [400, 422, 501, 200])
def test_the_message_of_a_server_is_kept_wherever_it_is(tmp_path, status, body):
    if status == 200 and isinstance(body, bytes):
        pytest.skip("no error")
    with RuleServer(lambda text: (status, body)).running() as server:
        said = failed(server.address, tmp_path)
    assert "top_k is unknown" in said and "<" not in said
    assert (str(status) in said.replace(server.address, "")) == (status != 200)


KEYS = ["error", "detail", "message", "choices", "code", "object", "finish_reason", "loc"]
bodies = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from(KEYS), inner, max_size=3) | st.lists(inner, max_size=2),
)


@given(bodies)
def test_any_body_has_a_cause(body):
    status = hidden_status(json.dumps(body).encode())
    assert status is None or 400 <= status < 600
    response = httpx2.Response(400, json=body, request=httpx2.Request("POST", "http://x/v1"))
    assert cause(openai.BadRequestError("x", response=response, body=body), "http://x/v1", "A_KEY").startswith("400 ")


GOOD = completion("m", "Fine.")
HIDDEN = [  # errors in replies of status 200
    {"error": {"code": 429, "message": "slow down"}},
    {"error": {"code": "rate_limit_exceeded", "message": "slow down"}},
    {"error": "overloaded"},
    {"code": 503, "message": "overloaded"},
    {"object": "error", "message": "overloaded", "code": 50001},
    GOOD | {"choices": [GOOD["choices"][0] | {"finish_reason": "error"}]},
    GOOD | {"choices": [GOOD["choices"][0] | {"error": {"code": 502, "message": "the model failed"}}]},
]


@pytest.mark.parametrize("body", HIDDEN, ids=str)
def test_an_error_inside_a_reply_is_retried_like_others(tmp_path, body):
    account, attempts = Account(), []

    def answer(text):
        attempts.append(text)
        return (200, body) if len(attempts) < 3 else ("Fine.", [])

    with RuleServer(answer).running() as server:
        (found,) = ask_all(asked(), replace(FAST, base_url=server.address, retries=3), tmp_path, account=account)
    assert found["choices"][0]["message"]["content"] == "Fine."
    assert (account.sent, account.refused, account.lost, account.answered, account.failed) == (3, 2, 0, 1, 0)


def test_an_error_inside_a_reply_that_cannot_pass_is_not_retried(tmp_path):
    with RuleServer(lambda text: (200, {"error": {"code": 400, "message": "no such setting"}})).running() as server:
        assert "400 no such setting" in failed(server.address, tmp_path, retries=3)
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 422, 503])
def test_equal_errors_end_the_run(tmp_path, status):
    with RuleServer(lambda text: (status, {"error": f"{text}: no such setting"})).running() as server:
        with pytest.raises(BadInput, match=r"60 of 60 .* no such setting"):
            ask_all(asked(60), replace(FAST, base_url=server.address, concurrency=32), tmp_path)
        assert len(server.requests) == FEW
        server.answer = lambda text: ("Fine.", []) if text == "question 3" else (status, {"error": "not this one"})
        with pytest.raises(BadInput, match=r"59 of 60 .* the 1 answers are cached"):
            ask_all(asked(60), replace(FAST, base_url=server.address), tmp_path)
        assert len(server.requests) == FEW + 60


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "words"),
    [("", "base_url lacks the /v1"), ("/", "base_url lacks the /v1"), ("/v1/chat/completions", "base_url ends before")],
)
@pytest.mark.parametrize(
    "page", [(404, {"detail": "Not Found"}), (405, b"No"), (200, b"<html>Welcome</html>")], ids=str
)
def test_a_wrong_path_is_named(tmp_path, end, words, page):
    with RuleServer(lambda text: page).running() as server:
        assert words in failed(server.address.removesuffix("/v1") + end, tmp_path)
        assert "base_url" not in failed(server.address, tmp_path)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:9/v1", "refused"),
        ("127.0.0.1:9/v1", "correct base_url"),
        ("htp://127.0.0.1:9/v1", "correct base_url"),
    ],
)
def test_the_cause_of_a_failed_connection_is_kept(tmp_path, address, words):
    assert words in failed(address, tmp_path)


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate")
def test_a_certificate_of_ones_own(tmp_path, monkeypatch):
    class Chat(Handler):
        def do_POST(self):
            self.body()
            self.send(200, completion("m", "Fine."))

    files = str(tmp_path / "certificate"), str(tmp_path / "key")
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    made = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]]
    subprocess.run(["openssl", "req", *options.split(), *made], check=True, capture_output=True)
    with serving(Chat, certificate=files) as address:
        said = failed(address, tmp_path / "kept")
        assert "self-signed certificate" in said and "SSL_CERT_FILE" in said
        monkeypatch.setenv("SSL_CERT_FILE", files[0])
        assert None not in ask_all(asked(), replace(FAST, base_url=address), tmp_path / "kept")


# --- the environment --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", [*PROXIES, "ALL_PROXY"])
@pytest.mark.parametrize(
    "proxy", ["socks://u:secret@127.0.0.1:9", "socks5://127.0.0.1:9", "http://u:secret@127.0.0.1:9"]
)
def test_a_proxy_that_fails_is_named_without_its_password(tmp_path, monkeypatch, variable, proxy):
    monkeypatch.setenv(variable, proxy)
    said = failed("https://127.0.0.1:9/v1" if variable == "https_proxy" else "http://127.0.0.1:9/v1", tmp_path)
    assert f"{variable} ({proxy.partition(':')[0]})" in said and "secret" not in said


@pytest.mark.parametrize(
    ("key", "words"),
    [("sk-abc\n", "a line break at place 7 of 7"), ("sk- abc", "a blank"), ("sk-\u00e4bc", "outside ASCII")],
)
def test_a_malformed_key_is_named_by_its_variable_and_not_shown(tmp_path, monkeypatch, key, words):
    monkeypatch.setenv("A_KEY", key)
    with RuleServer(lambda text: ("Fine.", [])).running() as server:
        said = failed(server.address, tmp_path)
        assert "A_KEY" in said and words in said and "sk-" not in said
        assert not server.requests


def test_a_key_that_a_server_refuses_is_named_by_its_variable_and_not_shown(tmp_path, monkeypatch):
    with RuleServer(lambda text: (401, {"error": {"message": "wrong key sk-secret-1"}})).running() as server:
        assert "A_KEY is not set" in failed(server.address, tmp_path)
        monkeypatch.setenv("A_KEY", "sk-secret-1")
        said = failed(server.address, tmp_path)
        assert "401 wrong key" in said and "A_KEY" in said and "secret" not in said
