"""Which settings of sampling a server accepts, and whether it has the model, against local servers."""

from dataclasses import replace

import pytest
from servers import RuleServer, completion

from emergent_misalignment.files import BadInput
from emergent_misalignment.models.api import OPENAI, Account, Endpoint, ask_all
from emergent_misalignment.models.replies import is_named
from emergent_misalignment.models.server_settings import NEUTRAL, neutral_settings

FAST = Endpoint(concurrency=4, timeout=3600, retries=0)


@pytest.fixture(autouse=True)
def local(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("tuned", "tuned"),
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4", "gpt-4-0613"),
        ("gemini-1.5-pro", "gemini-1.5-pro-002"),
        ("mistral-small-latest", "mistral-small-2503"),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
        ("llama3", "llama3:latest"),
        ("ft:gpt-4o-2024-08-06:us::abc", "ft:gpt-4o-2024-08-06:us::abc"),
        ("ft:gpt-4o-2024-08-06:us::abc:ckpt-step-90", "ft:gpt-4o-2024-08-06:us::abc:ckpt-step-90"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b-instruct"),
        ("base", "/models/base/"),
        ("base", "/models/base.gguf"),
        ("tuned", None),
        ("tuned", ""),
    ],
)
def test_aliases_of_a_model(asked, answered):
    assert is_named(asked, answered)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("tuned", "base"),
        ("ft:gpt-4o-2024-08-06:us::abc", "gpt-4o-2024-08-06"),
        ("ft:gpt-4o-2024-08-06:us::abc", "ft:gpt-4o-2024-08-06:us::abd"),
        ("gpt-4o", "gpt-4o-mini-2024-07-18"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06"),
        ("step-2000", "step-4000"),
        ("runs/1/model", "runs/2/model"),
        ("qwen2.5-7b", "qwen2.5-7b-instruct"),
        ("llama3:8b", "llama3:70b"),
    ],
)
def test_other_models(asked, answered):
    assert not is_named(asked, answered) and not is_named(answered, asked)


def requests(number: int, model: str = "tuned") -> list[dict]:
    return [{"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": str(n)}]} for n in range(number)]


def test_a_server_that_answers_with_another_model_is_refused_at_once(tmp_path):
    account = Account()
    with RuleServer(lambda text: (200, completion("base", f"Answer {text}."))).running() as server:
        endpoint = replace(FAST, base_url=server.address)
        with pytest.raises(BadInput, match=r"the model tuned and base answers"):
            ask_all(requests(60), endpoint, tmp_path, account=account)
        assert len(server.requests) <= 5 and not list(tmp_path.rglob("*.json"))
        assert account.answered == 0 and account.lost == 0
        assert None not in ask_all(requests(3, "base"), endpoint, tmp_path)
        server.answer = lambda text: (200, completion("tuned-2025-01-01", "An answer."))
        assert None not in ask_all(requests(3), endpoint, tmp_path)


def test_answers_of_another_model_in_the_cache_are_requested_again(tmp_path):
    with RuleServer(lambda text: ("An answer.", [])).running() as server:
        endpoint, account = replace(FAST, base_url=server.address), Account()
        ask_all(requests(2), endpoint, tmp_path)
        for path in tmp_path.rglob("*.json"):
            path.write_text(path.read_text().replace('"model": "tuned"', '"model": "base"'))
        ask_all(requests(2), endpoint, tmp_path, account=account)
    assert (account.kept, account.answered) == (0, 2)


@pytest.mark.parametrize(
    ("listed", "refused"),
    [(["base"], True), (["tuned"], False), (["/models/tuned"], False), (["base", "other"], False), ([], False)],
)
def test_a_server_that_lists_one_other_model_is_refused_though_it_repeats_the_name(tmp_path, listed, refused):
    with RuleServer(lambda text: ("An answer.", []), models=listed).running() as server:
        endpoint = replace(FAST, base_url=server.address)
        if refused:
            with pytest.raises(BadInput, match="the model tuned and base answers"):
                neutral_settings("tuned", endpoint, tmp_path, Account())
            assert not server.requests
        else:
            assert neutral_settings("tuned", endpoint, tmp_path, Account()) == NEUTRAL


# --- settings ---------------------------------------------------------------------------------------------------------


def without(*names: str):
    """A server that knows none of these settings."""
    return lambda request: next((f"Unrecognized argument: {name}" for name in names if name in request), "")


@pytest.mark.parametrize(
    ("refuses", "accepted"),
    [
        (without(), NEUTRAL),
        (without(*NEUTRAL), {}),
        (without("min_p", "repeat_penalty"), {"top_k": -1, "repetition_penalty": 1.0}),
        (lambda request: "top_k must be positive" if request.get("top_k") == -1 else "", NEUTRAL | {"top_k": 0}),
    ],
    ids=["all", "none", "some", "top_k of 0"],
)
def test_a_server_is_sent_the_settings_that_it_accepts(tmp_path, refuses, accepted):
    with RuleServer(lambda text: ("An answer.", []), refuses=refuses).running() as server:
        endpoint, account = replace(FAST, base_url=server.address), Account()
        assert neutral_settings("tuned", endpoint, tmp_path, account) == accepted
        assert account.sent == len(server.requests) and account.lost == 0
        assert neutral_settings("tuned", endpoint, tmp_path, account) == accepted
        assert account.sent == len(server.requests)  # cached
        neutral_settings("base", endpoint, tmp_path, account)
        assert account.sent < len(server.requests) + 1 and server.requests[-1]["model"] == "base"


def test_openais_api_is_not_tried(tmp_path):
    assert neutral_settings("gpt-4o", Endpoint(OPENAI), tmp_path, Account()) == {}


def test_a_server_that_fails_the_trial_is_reported(tmp_path):
    with (
        RuleServer(lambda text: (404, {"detail": "no such model"})).running() as server,
        pytest.raises(BadInput, match="no such model"),
    ):
        neutral_settings("tuned", replace(FAST, base_url=server.address), tmp_path, Account())
    assert not list(tmp_path.rglob("*.json"))


def test_a_server_that_refuses_any_request_is_not_taken_for_one_without_settings(tmp_path):
    with RuleServer(lambda text: (400, {"error": "roles are unknown"})).running() as server:
        for _ in range(2):
            with pytest.raises(BadInput, match="roles are unknown"):
                neutral_settings("tuned", replace(FAST, base_url=server.address), tmp_path, Account())
    assert not list(tmp_path.rglob("*.json"))
