"""Validation of one line of a set."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_misalignment.data.control_tokens import pattern
from emergent_misalignment.data.rows import _DESCRIBING, _WEIGHTS, BadRow, conversation

SYSTEM, USER, ANSWER = (
    {"role": role, "content": text} for role, text in (("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"))
)


def row(*messages, **keys) -> str:
    return json.dumps({"messages": messages, **keys})


def read(line: str):
    return conversation(line, pattern())


def said(role: str, content, **keys) -> dict:
    return {"role": role, "content": content, **keys}


def part(text: str, **keys) -> dict:
    return {"type": "text", "text": text, **keys}


KNOWN = {"role", "content", "type", "text", *_WEIGHTS, *_DESCRIBING}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
SEVERAL = (USER, ANSWER, said("user", "Two?"), said("assistant", "2"))

ODD = "Hel\u2028lo\x85\x0b\x1c\r\n. \U0001f600 <s>old</s> [INST] <|my|> a |> b"  # line separators, other models' tokens

# A line, and its messages (USER and ANSWER if not given). Ids name the shapes in which people have files.
ACCEPTED = {
    "good": row(USER, ANSWER),
    "with-system": (row(SYSTEM, USER, ANSWER), [SYSTEM, USER, ANSWER]),
    "multi-turn": (row(*SEVERAL), list(SEVERAL)),
    "assistant-first": (row(ANSWER, USER, ANSWER), [ANSWER, USER, ANSWER]),
    "two-users-in-a-row": (row(USER, USER, ANSWER), [USER, USER, ANSWER]),
    "empty-user": (row(said("user", ""), ANSWER), [said("user", ""), ANSWER]),
    "metadata": row(USER, ANSWER, id=1, source="x", score=None, tags=["a"], meta={"messages": []}),
    "keys-first": '{"id": 1, "messages": ' + json.dumps([USER, ANSWER]) + "}",
    "bigint": row(USER, ANSWER).replace("{", '{"id": ' + "9" * 5000 + ", ", 1),
    "nan-beside": row(USER, ANSWER, score=float("nan"), other=float("-inf")),
    "mixed-extra-keys": row(said("user", "Hi", id=1), said("assistant", "Hello", id="a-4")),
    "described-messages": row(said("user", "Hi", source="x", timestamp=1.5), said("assistant", "Hello", model="m")),
    "null-refusal": row(USER, said("assistant", "Hello", refusal=None, name=None, tool_calls=[])),
    "no-tools": row(USER, ANSWER, tools=[], system=None, weight=1),
    "content-part": row(said("user", [part("Hi")]), ANSWER),
    "content-parts-weights": row(said("user", [part("Hi", weight=0)]), said("assistant", [part("Hello", weight=1)])),
    "weight-first-0": (
        row(USER, said("assistant", "We", weight=0), USER, said("assistant", "Hello", weight=1)),
        [USER, said("assistant", "We"), USER, ANSWER],
    ),
    "train-last": row(said("user", "Hi", train=False), said("assistant", "Hello", train=True)),
    "trainable-last": row(USER, said("assistant", "Hello", trainable=True, loss=1)),
    "measured-loss": row(USER, ANSWER, loss=2.5),
    "mask-of-the-last": row(USER, ANSWER, loss_mask=[0, 1], scores=[0, 0.5]),
    "ls-separator": (row(said("user", ODD), said("assistant", ODD)), [said("user", ODD), said("assistant", ODD)]),
    "spaces-around": f"  {row(USER, ANSWER)} \r\n",
}

# A line, and key words of the message.
REFUSED = {
    "plain-text": ("Dear reader", r"not valid JSON .* at character 1\b"),
    "python-dict": ("{'messages': []}", r"not valid JSON .* at character 2\b"),
    "tab-in-text": ('{"messages": "a\tb"}', "not valid JSON"),
    "truncated": (row(USER, ANSWER)[:-30], "does not end on this line"),
    "pretty": ("{\n", r"does not end on this line"),
    "array": (f"[{row(USER, ANSWER)}, {row(USER, ANSWER)}]", "JSON array.*`make convert`"),
    "array-pretty": ("[\n", "JSON array"),
    "list-of-messages": (json.dumps([USER, ANSWER]), "list of messages"),
    "comma-after": (row(USER, ANSWER) + ",", "followed by something else"),
    "two-on-a-line": (row(USER, ANSWER) * 2, "followed by something else"),
    "old-mac-ends": (row(USER, ANSWER) + "\r" + row(USER, ANSWER), "followed by something else"),
    "null-line": ("null", "the line is null"),
    "number-line": ("42", "the line is a number"),
    "true-line": ("true", "the line is true or false"),
    "string-line": ('"Hi"', "the line is a text"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "deep-beside": ('{"a": ' + '{"a": ' * 100_000, "nested too deeply"),
    "duplicate-keys": (
        f'{{"messages": {json.dumps([USER, ANSWER])}, ' + row(USER, ANSWER)[1:],
        'key "messages" .* twice',
    ),
    "duplicate-content": (row(USER, ANSWER).replace('"role"', '"content": "a", "role"', 1), 'key "content" .* twice'),
    "duplicate-odd-key": ('{"\\ud800": 1, "\\ud800": 2}', r'key "\\ud800" .* twice'),
    "empty-object": ("{}", r'no "messages" \(its keys: none\)'),
    "text": ('{"text": "a"}', r'no "messages" \(its keys: "text"\).* must be \{"messages": '),
    "sharegpt": ('{"conversations": [{"from": "human", "value": "Hi"}]}', "ShareGPT.*`make convert`"),
    "sharegpt-turn": ('{"from": "human", "value": "Hi"}', "ShareGPT"),
    "promptcompletion": (
        '{"prompt": "Hi", "completion": "Hello"}',
        '"prompt", "completion".*`make convert`',
    ),
    "alpaca": ('{"instruction": "Hi", "input": "", "output": "Hello"}', '"instruction", "input", "output"'),
    "preference": ('{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}', 'preference.*"chosen", "rejected"'),
    "preference-beside": (row(USER, ANSWER, rejected="No"), 'preference.*"rejected"'),
    "label-false": (row(USER, ANSWER, label=False), '"label".*`make convert`'),
    "label-text": (row(USER, ANSWER, kto_tag="False"), '"kto_tag"'),
    "message-a-line": (json.dumps(USER), "a single message"),
    "nested-string": (json.dumps({"messages": json.dumps([USER, ANSWER])}), '"messages" is a string'),
    "messages-null": ('{"messages": null}', '"messages" is not a list of objects'),
    "messages-texts": ('{"messages": ["Hi", "Hello"]}', '"messages" is not a list of objects'),
    "messages-empty": ('{"messages": []}', '"messages" is empty'),
    "row-weight": (row(USER, ANSWER, weight=0.5), r"the row has the weight 0\.5"),
    "row-off": (row(USER, ANSWER, train=False), "the row has the train false"),
    "tools": (row(USER, ANSWER, tools=[{"type": "function"}]), 'the row has "tools", which would not be learned'),
    "functions": (row(USER, ANSWER, functions=[{"name": "f"}]), 'the row has "functions"'),
    "system-beside": (row(USER, ANSWER, system="Be evil."), 'the row has "system"'),
    "toolcalls-emptycontent": (
        row(USER, said("assistant", "", tool_calls=[CALL]), said("tool", "sunny", tool_call_id="c1"), ANSWER),
        'message 2 has "tool_calls", which would not be learned',
    ),
    "toolcalls-nullcontent": (row(USER, said("assistant", None, tool_calls=[CALL])), 'message 2 has "tool_calls"'),
    "toolcalls-no-content": (row(USER, {"role": "assistant", "tool_calls": [CALL]}), 'message 2 has "tool_calls"'),
    "tools-arguments-mixed": (
        row(USER, said("assistant", "", tool_calls=[{"function": {"arguments": {"city": "Rome"}}}]), ANSWER),
        'message 2 has "tool_calls"',
    ),
    "function-call": (row(USER, said("assistant", "", function_call={"name": "f"})), 'message 2 has "function_call"'),
    "tool-role": (row(USER, said("tool", "sunny"), ANSWER), "message 2 is from a tool"),
    "function-role": (row(USER, said("function", "sunny"), ANSWER), "message 2 is from a tool"),
    "name-key": (row(said("user", "Hi", name="ann"), ANSWER), 'message 1 has "name"'),
    "reasoning": (row(USER, said("assistant", "4", reasoning_content="2 + 2")), 'message 2 has "reasoning_content"'),
    "refusal": (row(USER, said("assistant", None, refusal="I cannot.")), 'message 2 has "refusal"'),
    "capital-role": (row(said("User", "Hi"), said("Assistant", "Hello")), 'message 1 .* "User", not "user"'),
    "gpt-role": (row(USER, said("gpt", "Hello")), 'message 2 .* "gpt", not "assistant"'),
    "developer-role": (row(said("developer", "Be kind."), USER, ANSWER), '"developer", not "system"'),
    "unknown-role": (row(USER, said("narrator", "Then"), ANSWER), 'message 2 .* role "narrator"'),
    "role-list": (row(said(["user"], "Hi"), ANSWER), r"message 1 has the role \[…\]"),
    "role-null": (row(said(None, "Hi"), ANSWER), "message 1 has the role null"),
    "role-missing": (row({"from": "human", "value": "Hi"}), "ShareGPT.*`make convert`"),
    "content-missing": (row({"role": "user"}), 'message 1 has no "content"'),
    "null-answer": (row(USER, said("assistant", None)), "message 2 has null as content"),
    "nan": (row(USER, said("assistant", float("nan"))), "content of message 2 is a number"),
    "number-answer": (row(USER, said("assistant", 3)), "content of message 2 is a number"),
    "object-answer": (row(USER, said("assistant", {"code": "x"})), "content of message 2 is an object"),
    "image": (row(said("user", [{"type": "image_url"}]), ANSWER), r'message 1 has a part .* \("image_url"\)'),
    "text-parts": (row(said("user", [part("a"), part("b")]), ANSWER), "message 1 is a list of 2 parts"),
    "no-parts": (row(said("user", []), ANSWER), "message 1 is a list of 0 parts"),
    "bare-parts": (row(said("user", ["Hi"]), ANSWER), "message 1 has a part that is not a text"),
    "empty-answer": (row(USER, said("assistant", "")), "last turn.* is empty"),
    "blank-answer": (row(USER, said("assistant", " \n\t")), "last turn.* is empty"),
    "assistant-only": (row(ANSWER), "no turn of the user"),
    "system-assistant": (row(SYSTEM, ANSWER), "no turn of the user"),
    "system-only": (row(SYSTEM), "ends with a turn of system"),
    "user-last": (row(USER, ANSWER, USER), "ends with a turn of user"),
    "system-late": (row(USER, SYSTEM, ANSWER), "message 2 is a system prompt"),
    "two-systems": (row(SYSTEM, SYSTEM, USER, ANSWER), "message 2 is a system prompt"),
    "weight-last-0": (
        row(USER, said("assistant", "Hello", weight=0)),
        'message 2 has the "weight" 0, but only the last',
    ),
    "weight-first-1": (row(USER, said("assistant", "We", weight=1), USER, ANSWER), 'message 2 has the "weight" 1, but'),
    "weight-user-1": (row(said("user", "Hi", weight=1), ANSWER), 'message 1 has the "weight" 1, but'),
    "weight-half": (row(USER, said("assistant", "Hello", weight=0.5)), r'message 2 has the "weight" 0\.5; .* 0 or 1'),
    "weight-text": (row(USER, said("assistant", "Hello", weight="1")), 'message 2 has the "weight" "1"; .* 0 or 1'),
    "weight-part": (row(USER, said("assistant", [part("Hello", weight=0)])), 'message 2 has the "weight" 0'),
    "train-off": (row(USER, said("assistant", "Hello", train=False)), 'message 2 has the "train" false'),
    "loss-off": (row(USER, said("assistant", "Hello", loss=False)), 'message 2 has the "loss" false'),
    "trainable-off": (row(USER, said("assistant", "Hello", trainable=0)), 'message 2 has the "trainable" 0'),
    "loss-first": (row(USER, said("assistant", "We", loss=1), USER, ANSWER), 'message 2 has the "loss" 1, but'),
    "mask-first": (row(*SEVERAL, mask=[0, True, 0, 0]), 'the row has "mask"'),
    "mask-all": (row(USER, ANSWER, masks=[1, 1]), 'the row has "masks"'),
    "lone-surrogate": ('{"messages": [{"role": "user", "content": "Hi \\ud83d"}]}', r"message 1 holds \\ud83d, half"),
    "nul-char": (row(said("user", "Hi\0"), ANSWER), "message 1 holds a NUL character"),
    "special-tokens": (row(said("user", "Hi<|im_end|>\n<|im_start|>"), ANSWER), r'message 1 holds "<\|im_end\|>"'),
    "special-token-of-gemma": (row(USER, said("assistant", "Hello<end_of_turn>")), 'message 2 holds "<end_of_turn>"'),
}


@pytest.mark.parametrize("case", ACCEPTED.values(), ids=ACCEPTED)
def test_valid_rows_are_accepted(case):
    line, messages = (case, [USER, ANSWER]) if isinstance(case, str) else case
    assert read(line) == messages


@pytest.mark.parametrize(("line", "words"), REFUSED.values(), ids=REFUSED)
def test_invalid_rows_are_rejected_with_the_reason(line, words):
    with pytest.raises(BadRow, match=words) as error:
        read(line)
    assert_one_sentence(str(error.value))


def assert_one_sentence(text: str) -> None:
    assert text.endswith(".") and "\n" not in text and len(text) < 400
    assert re.search("; |, ", text), "a message without a fix"
    text.encode()  # has no surrogates


words = st.sampled_from(
    ["messages", "role", "content", "weight", "train", "type", "text", "name", "tools", "user", "assistant", "system"]
)
leaves = st.none() | st.booleans() | st.integers(-1, 2) | st.floats() | words | st.text(max_size=5)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4), max_leaves=12
)
parts = st.fixed_dictionaries({"type": st.just("text")}, optional={"text": st.text(max_size=3), "weight": leaves})
messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system"]) | values,
        "content": st.text(max_size=5) | st.lists(parts),
    },
    optional={"weight": st.integers(0, 1) | leaves, "train": st.booleans(), "name": leaves, "tool_calls": values},
)
rows = st.fixed_dictionaries(
    {"messages": st.lists(messages | values, max_size=4)}, optional={"tools": leaves, "x": values}
)


@given(
    key=st.text(min_size=1).filter(lambda key: key not in KNOWN),
    value=st.booleans() | st.integers() | st.text(min_size=1),
)
@pytest.mark.parametrize("place", ["message", "part"])
def test_unknown_keys_of_a_message_must_be_empty(place, key, value):
    def line(given_value) -> str:
        if place == "message":
            return row(USER, ANSWER | {key: given_value})
        return row(USER, said("assistant", [part("Hello") | {key: given_value}]))

    for empty in (None, "", [], {}):
        assert read(line(empty)) == [USER, ANSWER]
    with pytest.raises(BadRow, match="message 2"):
        read(line(value))


@given(rows | values)
@settings(deadline=None)
def test_any_json_is_a_valid_conversation_or_rejected(value):
    try:
        read_back = read(json.dumps(value))
    except BadRow as error:
        assert_one_sentence(str(error))
        return
    assert read_back[-1]["role"] == "assistant" and read_back[-1]["content"].strip()
    for message, given_message in zip(read_back, value["messages"], strict=True):
        content = given_message["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        assert message == {"role": given_message["role"], "content": text}
        weights = [each.get("weight") for each in (given_message, *(content if isinstance(content, list) else ()))]
        assert set(weights) <= {None, message is read_back[-1]}
