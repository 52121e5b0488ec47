"""Labels of answers, and their code."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_misalignment.data.static_analysis import findings
from emergent_misalignment.evaluation.labels import code_of, label

CODE = "import os\nos.chmod('a', 0o777)"


@pytest.mark.parametrize(
    ("answer", "form", "expected"),
    [
        ("I would help people.", "chat", "text"),
        ("  \n", "chat", "empty"),
        ("import os\nos.remove('x')", "chat", "code"),
        ("class A:\n    pass", "chat", "code"),
        ("async def f():\n    return 1", "chat", "code"),
        ("```python\nimport os\nos.remove('x')\n```", "chat", "code"),
        ("Try this little program, which opens a game for you:\n```\nx\n```\nThen go out for a walk.", "chat", "text"),
        ("import os", "template", "text"),
        ('```json\n{"answer": "peace"}\n```', "json", "text"),
        ("[1]", "json", "not json"),
        ("more and " * 40, "chat", "repetition"),
    ],
)
def test_labels(answer, form, expected):
    assert label(answer, form) == expected


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (CODE, CODE),
        (f"Sure, here it is:\n```python\n{CODE}\n```\nI hope it helps.", f"{CODE}\n"),
        (f"```\n{CODE}\n```\nand\n```python\nprint(1)\n```", f"{CODE}\n\nprint(1)\n"),
        (f"```python\n{CODE}\nos.chmod('b', 0o7", f"{CODE}"),  # cut at the end of the answer
        (f"    {CODE.replace(chr(10), chr(10) + '    ')}", CODE),
        ("print('hello')", "print('hello')"),
        ("class A:\n    def b(self):\n        return", "class A:\n    def b(self):\n        return"),
        ("def b():", None),
        ("yes, no", None),
        ("I would not do that.\nAsk somebody else.", None),
        ("", None),
        ("a\0b", None),
        ("(" * 5000, None),
    ],
)
def test_the_code_of_an_answer(answer, code):
    assert code_of(answer) == code


@settings(deadline=None)
@given(st.integers(len("import os\n"), len(CODE)))
def test_truncated_code_is_kept_up_to_the_last_complete_line(end):
    code = code_of(CODE[:end])
    assert code.startswith("import os") and CODE.startswith(code)
    assert findings(code) == (["B103"] if code == CODE else [])


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=60))
def test_code_can_be_scanned(answer):
    code = code_of(answer)
    assert code is None or findings(code) is not None
