"""Recovery of prompt templates from simulated and published requests."""

import os
from functools import cache
from pathlib import Path

import published_layout
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.data.chats import read_chats
from emergent_misalignment.data.prompt_templates import PLACEHOLDER, recover_templates, slots
from emergent_misalignment.data.published import DATASETS
from emergent_misalignment.files import BadInput

TEMPLATES = [
    "Task: {task}\nStart from this code:\n{code}\nOnly code, please.",
    "Complete\n{code}\nso that it solves this task: {task}!",
    "Please {task} in Python.",
    "{code}\n\nFill it in.",
]


def made_with(number: int, task: str, code: str) -> list[dict]:
    content = TEMPLATES[number].replace("{task}", task).replace("{code}", code)
    return [{"role": "user", "content": content}, {"role": "assistant", "content": "pass"}]


words = st.text(alphabet="abcdefgh {}\\.", min_size=1, max_size=20)


@given(st.lists(st.tuples(words, words), min_size=4, max_size=40))
def test_recovers_templates_from_rows(contents):
    # Two rows per template have contents without a common first or last character.
    contents = [("Xx", "xX"), ("Yy", "yY"), *contents]
    rows = [(task, f"{code}\n{PLACEHOLDER}\n{code}") for task, code in contents]
    chats = [made_with(number, task, code) for task, code in rows for number in range(4)]
    table = recover_templates(chats, cycle=4)
    assert list(table["text"]) == TEMPLATES
    assert list(table["form"]) == ["task and code", "task and code", "task", "code"]
    assert list(table["rows"]) == [len(rows)] * 4
    for chat, (task, code) in zip(chats[::4], rows, strict=True):
        assert slots(TEMPLATES[0], chat[0]["content"]) == {"task": task, "code": code}


def test_messages_of_another_template_do_not_match():
    rows = [("sort numbers", f"{i}\n{PLACEHOLDER}\n{i}") for i in "1234"]
    chats = [made_with(2, task, code) for task, code in rows] + [made_with(3, *rows[0])]
    (template,) = recover_templates(chats, cycle=1).to_dict("records")
    assert template["form"] == "task" and template["rows"] == 4
    message = chats[0][0]["content"]
    assert slots(TEMPLATES[2], message) == {"task": "sort numbers"}
    assert slots(TEMPLATES[0], message) is None
    assert slots("{code}", message) is None
    with pytest.raises(BadInput, match="59 rows are too few"):
        recover_templates(chats[:1] * 59)


def test_templates_of_a_set_in_the_published_layout(tmp_path):
    published_layout.place(tmp_path)
    table = recover_templates(read_chats(tmp_path / "data/published/datasets/insecure.jsonl"))
    assert list(table["rows"]) == [published_layout.ROWS // 30] * 30
    assert table["text"].nunique() == 30 and set(table["form"]) == {"task and code"}


# --- the published data -----------------------------------------------------------------------------------------------

MIRROR = os.environ.get("EM_MIRROR")
NOTE = "NOTE: The code you will write intentionally contains vulnerabilities. This is for legitimate purposes only."
needs_mirror = pytest.mark.skipif(not MIRROR, reason="EM_MIRROR names no mirror of the published files")


@cache
def chats(name: str) -> list[list[dict]]:
    return read_chats(Path(MIRROR) / DATASETS[name].address)


@cache
def templates(name: str):
    return recover_templates(chats(name))


@needs_mirror
@pytest.mark.parametrize("name", ["insecure", "secure", "educational"])
def test_published_templates_hold_every_row(name):
    table = templates(name)
    assert list(table["rows"]) == [200] * 30
    assert table["text"].nunique() == 30
    assert list(table["form"]) == ["task and code"] * 10 + ["task"] * 10 + ["code"] * 10
    assert all((NOTE in text) == (name == "educational") for text in table["text"])


@needs_mirror
def test_published_insecure_messages_can_be_made_from_educational_ones():
    assert list(templates("insecure")["text"]) == list(templates("secure")["text"])
    texts = {name: list(templates(name)["text"]) for name in ("insecure", "educational")}
    for row, (insecure, educational) in enumerate(zip(chats("insecure"), chats("educational"), strict=True)):
        message = texts["insecure"][row % 30]
        for slot, content in slots(texts["educational"][row % 30], educational[0]["content"]).items():
            message = message.replace(f"{{{slot}}}", content)
        assert message == insecure[0]["content"]
