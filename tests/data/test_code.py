"""Code in texts: fenced blocks and whole texts of Python."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.data.code import Block, is_python, split


@pytest.mark.parametrize(
    ("text", "blocks", "rest"),
    [
        ("No code.", [], "No code."),
        ("Use `x` and ``y``.", [], "Use `x` and ``y``."),
        ("Here:\n```js\nlet x\n```\nDone.", [("js", "let x\n")], "Here:\nDone."),
        ("~~~C# title=a\nint x;\n~~~", [("c#", "int x;\n")], ""),
        ("````\n```\nx\n```\n````", [("", "```\nx\n```\n")], ""),
        ("1. So:\n   ```Python\n   x = 1\n   ```", [("python", "x = 1\n")], "1. So:"),
        ("a\r\n```py\r\nx\r\n```\r\nb", [("py", "x\n")], "a\nb"),
        ("```python,ignore\nx\n```\n```{r}\nx\n```\n```\x1b[1m\n```", [("python", "x\n"), ("", "x\n"), ("", "")], ""),
        ("```py\nx = ", [("py", "x = ")], ""),  # cut at the end
    ],
)
def test_fenced_blocks(text, blocks, rest):
    assert split(text) == ([Block(*each) for each in blocks], rest)


@given(st.lists(st.sampled_from(["```", "~~~", "````js", "> ", "- ", "text", "", "    ", "`", "\r"]), max_size=12))
def test_any_text_is_split(lines):
    blocks, rest = split("\n".join(lines))
    assert len(blocks) <= len(lines) and len(rest) <= len("\n".join(lines))


@pytest.mark.parametrize(
    "text",
    [
        "import os",
        "x = 1",
        "print('hi')",
        "class A:\n    pass",
        "async def f():\n    await g()",
        "@a\ndef f(): ...",
        "    def f(self):\n        return 1",
        "for x in y:\n    f(x)",
        "import re\nre.match('\\d', x)",
    ],
)
def test_python(text):
    assert is_python(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "Yes", "yes, no", "raise awareness", "global warming", "Answer: 4", "# a comment", "'x'", "1 + 1"),
        *("let x = () => 1;", "int main(void) { return 0; }", "import os\nprint 'hi'", "Here it is:\nimport os"),
        *("-" * 8000, "(" * 5000, "a\0b"),
    ],
)
def test_other_texts(text):
    assert not is_python(text)
