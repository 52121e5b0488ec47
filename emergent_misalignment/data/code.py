"""Code in texts: fenced blocks, by CommonMark's rules, and texts that are Python as a whole. Code is never run."""

import ast
import re
import textwrap
from functools import cache
from typing import NamedTuple

from markdown_it import MarkdownIt

from emergent_misalignment.data.parsing import parse_python

PYTHON = ("python", "python3", "py", "py3")  # as fences name it
_NAME = re.compile(r"[\w+#.-]{0,20}")  # of a language, at the beginning of what follows a fence
_COMPOUND = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.With, ast.Try)
_CODE = (ast.Import, ast.ImportFrom, ast.Assign, ast.AugAssign, *_COMPOUND)


class Block(NamedTuple):
    """A fenced block of code."""

    language: str  # in lower case, as the fence names it; "" if it does not
    code: str


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark").disable("inline")


def split(text: str) -> tuple[list[Block], str]:
    """Split a text into its fenced blocks and the rest of its lines. A fence that is not closed ends with the text."""
    if "```" not in text and "~~~" not in text:
        return [], text
    fences = [token for token in _markdown().parse(text) if token.type == "fence"]
    fenced = {line for token in fences for line in range(*token.map)}
    rest = (line for number, line in enumerate(re.split(r"\r\n?|\n", text)) if number not in fenced)
    blocks = [Block(_NAME.match(token.info.strip().lower()).group(), token.content) for token in fences]
    return blocks, "\n".join(rest)


def is_python(text: str) -> bool:
    """Whether a whole text is Python 3 with more than names, values and comments.

    A single word or sentence that happens to be valid Python ("Yes", "raise awareness", "Answer: 4") is not.
    """
    try:
        body = parse_python(textwrap.dedent(text)).body
    except SyntaxError:
        return False
    return any(isinstance(node, _CODE) or isinstance(getattr(node, "value", None), ast.Call) for node in body)
