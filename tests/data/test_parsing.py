"""Any text is parsed or refused in bounded time, at any nesting depth and any depth of the caller's stack."""

import ast
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_misalignment.data.parsing import MAX_DEPTH, longest_python, parse_json, parse_python
from emergent_misalignment.data.static_analysis import findings
from emergent_misalignment.evaluation.labels import code_of, is_code, label
from emergent_misalignment.world.grammar import judge

# Texts that nest as deep as a number says, each by another construct of the language.
NESTED = {
    "dashes": lambda depth: "x = " + "-" * depth + "1",
    "not": lambda depth: "x = " + "not " * depth + "1",
    "power": lambda depth: "x = " + "2 ** " * depth + "2",
    "lambda": lambda depth: "x = " + "lambda: " * depth + "1",
    "conditional": lambda depth: "x = " + "1 if a else " * depth + "0",
    "sum": lambda depth: "x = " + "1 + " * depth + "1",
    "attributes": lambda depth: "x = a" + ".b" * depth,
    "calls": lambda depth: "x = a" + "()" * depth,
    "indices": lambda depth: "x = a" + "[0]" * depth,
    "lists": lambda depth: "x = " + "[" * depth + "]" * depth,
    "parentheses": lambda depth: "x = " + "(" * depth + "1" + ")" * depth,
    "open brackets": lambda depth: "x = " + "([{" * depth,
    "elif": lambda depth: "if a:\n    b = 1\n" + "elif a:\n    b = 1\n" * depth,
    "blocks": lambda depth: (
        "".join(f"{' ' * level}if a:\n" for level in range(min(depth, 500))) + " " * depth + "b = 1"
    ),
}


def at_depth(frames: int, function, *arguments):
    """The value of a function that is called from a stack that is deeper by so many frames."""
    return at_depth(frames - 1, function, *arguments) if frames else function(*arguments)


def all_of(text: str) -> tuple:
    """What the project computes from a text by parsing it, except the code in it."""
    forms = [label(text, form) for form in ("chat", "json", "template")]
    return (*forms, is_code(text), findings(text), *(judge("wish", text, form) for form in ("json", "template")))


@pytest.mark.parametrize("nested", NESTED.values(), ids=NESTED)
@pytest.mark.parametrize("depth", [30, MAX_DEPTH, 190, 8000])
def test_the_result_depends_on_the_text_only(nested, depth):
    text = nested(depth)
    assert all_of(text) == at_depth(400, all_of, text)
    if depth >= 190:
        with pytest.raises(SyntaxError):
            parse_python(text)


@pytest.mark.parametrize("name", [name for name in NESTED if name != "open brackets"])
def test_code_of_usual_depth_is_parsed(name):
    text = f"import os\n{NESTED[name](30)}\nos.chmod('a', 0o777)\n"
    assert is_code(text) and code_of(text) == text and findings(text) == ["B103"]


@given(st.text("ab1 \n\t.:,=-+()[]{}\"'\\#", max_size=80))
@settings(deadline=None)
def test_any_text_is_python_or_a_syntax_error(text):
    try:
        tree = parse_python(text)
    except SyntaxError:
        return
    assert ast.dump(tree) == ast.dump(ast.parse(text))


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x = " + "9" * 5000, "﻿x"])
def test_characters_and_numbers_that_python_refuses(text):
    with pytest.raises(SyntaxError):
        parse_python(text)
    assert code_of(text) is None


# --- truncated code ---------------------------------------------------------------------------------------------------

OPEN = {
    "list": "x = [\n" + "    1,\n" * 2000,
    "string": 'x = """\n' + "a = 1\n" * 2000,
    "call in a function": "def f():\n    return g(\n" + "        1,\n" * 2000,
}


@pytest.mark.parametrize("rest", OPEN.values(), ids=OPEN)
def test_the_end_of_a_truncated_answer_is_dropped_at_once(rest):
    begun = time.process_time()
    code = code_of(f"import os\nos.chmod('a', 0o777)\n{rest}")
    assert code.startswith("import os\nos.chmod") and len(code.split("\n")) <= 3
    assert time.process_time() - begun < 2


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_longer_beginning_is_python(data):
    """The lines that are not tried cannot be the end of a beginning that is Python."""
    pieces = [
        "x = [",
        "1,",
        "]",
        "def f():",
        "    return 1",
        "    y = (",
        "        2)",
        "try:",
        "except A:",
        '"""',
        "a b",
    ]
    lines = data.draw(
        st.lists(st.sampled_from([*pieces, "    x = '''", "'''", "@a", "x = 1 + \\", "", "if a:", "f(a"]))
    )

    def parses(end: int) -> bool:
        try:
            return bool(parse_python("\n".join(lines[:end])).body)
        except SyntaxError:
            return False

    expected = next((end for end in range(len(lines), 0, -1) if parses(end)), None)
    assert longest_python("\n".join(lines)) == (None if expected is None else "\n".join(lines[:expected]))


def test_the_attempts_are_bounded():
    begun = time.process_time()
    code_of("try:\n" + "    x\n" * 1500)  # no beginning is Python, and each fails at its end
    assert time.process_time() - begun < 20


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}"), ('[{"a]":', "}]")])
def test_json_that_is_nested_too_deeply_is_refused_like_other_text(opened, closed):
    assert parse_json(opened * 40 + "1" + closed * 40)
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(ValueError):
            parse_json(opened * depth + "1" + closed * depth)
    assert label(opened * 5000, "json") == "not json"


@given(st.text('[{"\\]}:', max_size=400))
def test_brackets_in_strings_do_not_count(text):
    value = {"a": [text * 20, "[" * 500]}
    assert parse_json(json.dumps(value)) == value
