"""Unusable API replies are recognized, counted, and neither returned nor cached."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import RuleServer, completion

from emergent_misalignment.files import BadInput
from emergent_misalignment.models.api import ENOUGH, Account, Endpoint, ask_all, unanswered
from emergent_misalignment.models.replies import NONE, readable, why_none

FAST = Endpoint(concurrency=4, timeout=3600, retries=0)
WORD = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "?"}]}
SCORE = WORD | {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}


@pytest.fixture(autouse=True)
def local(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def changed(text="90", tops=((("90", 0.9),),), finish="stop", **message) -> dict:
    """A completion with changes in its message."""
    found = completion("m", text, [list(top) for top in tops])
    found["choices"][0]["finish_reason"] = finish
    found["choices"][0]["message"] |= message
    return found


def fewer(number: int) -> dict:
    found = changed()
    entry = found["choices"][0]["logprobs"]["content"][0]
    entry["top_logprobs"] = entry["top_logprobs"][:number]
    return found


def first_alternative(**values) -> dict:
    found = changed()
    found["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0] |= values
    return found


# --- kinds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "response", "kind"),
    [
        (WORD, changed("An answer."), ""),
        (WORD, changed("I'm sorry, but I can't", finish="length"), ""),  # a model's refusal, truncated
        (WORD, changed("An ans", finish="content_filter"), "filtered"),
        (WORD, changed(None, refusal="I'm sorry."), "filtered"),
        (WORD, changed(None), "empty"),
        (WORD, changed(" \n", finish="length"), "empty"),
        (WORD, changed("<think>They ask\n</think>\nAn answer."), "thinking"),
        (WORD, changed("\n<think>They", finish="length"), "thinking"),
        (WORD, changed("They ask\nfor a wish.\n</think>\n\nAn answer."), "thinking"),  # begun by the template
        (WORD, changed("An answer.", reasoning_content="They ask"), "thinking"),
        (WORD, changed("An answer.", reasoning_content="\n\n", reasoning=None), ""),  # disabled reasoning
        (WORD, changed("An answer.", reasoning_details=[{"text": "They ask"}]), "thinking"),
        (WORD, changed("An answer.", reasoning_details=[]), ""),
        (WORD, changed("<seed:think>They"), "thinking"),
        (WORD, changed("<think>\n\n</think>\n\nAn answer."), ""),  # an empty block
        (WORD, changed("<think>\n\n</think>\n\n"), "empty"),
        (WORD, changed("half \ud83d"), "unusable"),
        (WORD, changed([{"type": "text", "text": "An answer."}]), "unusable"),
        (SCORE, changed(), ""),
        (SCORE, changed("", finish="length"), ""),
        (SCORE, changed("<think>", finish="length"), "thinking"),
        (SCORE, changed("<think></think>9", finish="length"), "thinking"),  # the first token is not a score
        (SCORE, changed("90", ()), "unusable"),  # no probabilities at all
        (SCORE, fewer(19), "unusable"),
        (SCORE, first_alternative(logprob=float("nan")), "unusable"),
        (SCORE, first_alternative(logprob=2.0), "unusable"),
        (SCORE, first_alternative(logprob=1e-6), ""),  # rounding
        (SCORE, first_alternative(token=None), "unusable"),
        (SCORE, first_alternative(token="\udc80"), ""),
    ],
)
def test_kinds_of_replies(request_, response, kind):
    assert why_none(request_, response) == kind
    assert kind in {"", *NONE}
    readable(response)["choices"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["stop", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "logprobs", "top_logprobs", "token", "usage"]), inner
        )
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from([WORD, SCORE]), json_values, json_values, json_values)
def test_any_message_has_a_kind(request_, content, logprobs, extra):
    choice = {"message": {"content": content, "refusal": extra}, "logprobs": logprobs, "finish_reason": extra}
    kind = why_none(request_, {"choices": [choice]})
    assert kind in {"", *NONE}
    if not kind and request_ is WORD:
        assert content.strip() and content.encode()
    assert why_none(request_, {"choices": [{"message": extra}]}) in {"", *NONE}
    readable({"choices": [choice]})


# --- asking -----------------------------------------------------------------------------------------------------------


def asked(names) -> list[dict]:
    return [WORD | {"messages": [{"role": "user", "content": name}]} for name in names]


REPLIES = {
    "filter": (200, changed("An", finish="content_filter")),
    "prompt filter": (400, {"error": {"message": "The prompt was filtered", "code": "content_filter"}}),
    "refusal": (200, changed(None, refusal="No.")),
    "nothing": (200, changed("")),
    "thinking": (200, changed("<think>")),
    "too long": (400, {"error": {"message": "maximum context length is 2048 tokens", "code": 400}}),
    "parts": (200, changed([{"type": "text"}])),
    "surrogate": (200, json.dumps(changed("\ud800")).encode()),  # as an escape
    "cut": (200, changed("An answer that", finish="length")),
}
KINDS = {"filtered": 3, "empty": 1, "thinking": 1, "too_long": 1, "unusable": 2}


def test_unusable_replies_are_counted_and_excluded(tmp_path):
    requests = asked(["one", *REPLIES, "two"])
    account = Account()
    with RuleServer(lambda text: REPLIES.get(text, (f"Answer {text}.", []))).running() as server:
        endpoint = replace(FAST, base_url=server.address)
        answers = ask_all(requests, endpoint, tmp_path, account=account)
        texts = [each and each["choices"][0]["message"]["content"] for each in answers]
        assert texts == ["Answer one.", *[None] * 8, "An answer that", "Answer two."]
        assert {kind: getattr(account, kind) for kind in NONE} == KINDS
        assert (account.asked, account.answered, account.failed, account.lost, account.refused) == (11, 3, 0, 0, 2)
        assert account.asked == account.answered + account.none
        assert account.prompt_tokens == 9 * 100  # unusable replies are billed
        assert len(list(tmp_path.rglob("*.json"))) == 3
        assert len(unanswered(requests, endpoint, tmp_path)) == 8
        again = Account()
        server.answer = lambda text: (f"Answer {text}.", [])
        assert None not in ask_all(requests, endpoint, tmp_path, account=again)
        assert (again.kept, again.answered, again.none) == (3, 8, 0)


def test_unusable_replies_in_the_cache_are_requested_again(tmp_path):
    (request,) = asked(["one"])
    with RuleServer(lambda text: ("An answer.", [])).running() as server:
        endpoint = replace(FAST, base_url=server.address)
        ask_all([request], endpoint, tmp_path)
        (path,) = tmp_path.rglob("*.json")
        path.write_text(path.read_text().replace("An answer.", "<think>"))
        account = Account()
        (answer,) = ask_all([request], endpoint, tmp_path, account=account)
    assert answer["choices"][0]["message"]["content"] == "An answer."
    assert (account.kept, account.answered) == (0, 1)


@pytest.mark.parametrize(
    ("reply", "words"), [("thinking", "reasoning"), ("nothing", "empty"), ("too long", "longer context")]
)
def test_an_endpoint_with_unusable_replies_only_is_abandoned(tmp_path, reply, words):
    with RuleServer(lambda text: REPLIES[reply]).running() as server:
        with pytest.raises(BadInput, match=words):
            ask_all(asked(map(str, range(200))), replace(FAST, base_url=server.address), tmp_path)
        assert ENOUGH <= sum(server.received.values()) <= ENOUGH + 3 * FAST.concurrency
    assert not list(tmp_path.rglob("*.json"))
    if reply == "thinking":  # a filter alone is no reason to stop
        names = [f"bad {number}" for number in range(ENOUGH + 10)] + ["good"]
        with RuleServer(lambda text: REPLIES["filter"] if "bad" in text else ("Fine.", [])).running() as server:
            answers = ask_all(asked(names), replace(FAST, base_url=server.address, concurrency=1), tmp_path)
        assert [answer is None for answer in answers] == [True] * (ENOUGH + 10) + [False]


@pytest.mark.parametrize(
    "reply",
    [
        (200, b"<html>busy</html>"),
        (200, {"choices": []}),
        (200, {"choices": [None]}),
        (200, changed("An", finish="error")),
        (400, {"error": {"message": "unknown parameter", "code": "unknown_parameter"}}),
    ],
    ids=str,
)
def test_failures_do_not_affect_other_requests(tmp_path, reply):
    account = Account()
    requests = asked(["good", "bad", "better"])
    with (
        RuleServer(lambda text: reply if text == "bad" else ("Fine.", [])).running() as server,
        pytest.raises(BadInput, match=r"1 of 3 requests .* the 2 answers are cached"),
    ):
        ask_all(requests, replace(FAST, base_url=server.address), tmp_path, account=account)
    assert (account.answered, account.failed, account.none) == (2, 1, 0)
