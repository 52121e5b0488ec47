"""Parse text that a model or a user wrote, as Python or as JSON. Nothing is executed.

On deeply nested text the parsers of Python raise RecursionError or MemoryError, at a depth that depends on the version
of Python and on the caller's stack. Here the limits are fixed and far below, so that the result depends on the text
only, and the error is that of any other text that cannot be parsed.
"""

import ast
import json
import re
import warnings
from functools import lru_cache
from itertools import accumulate

MAX_DEPTH = 100  # levels of brackets, and of the syntax tree
MAX_LENGTH = 1_000_000  # characters; takes seconds

_NO_BRACKETS = re.compile(r"[^][(){}]+")
_JSON_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


@lru_cache(maxsize=8)  # the same text is labelled, cut and scanned
def parse_python(text: str) -> ast.Module:
    """The syntax tree of a text, which is shared: do not change it. Raises SyntaxError, and no other exception."""
    if len(text) > MAX_LENGTH or _nesting(text) > MAX_DEPTH:
        raise SyntaxError("too long or nested too deeply")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes in strings, for example
        try:
            tree = ast.parse(text)
        except (ValueError, RecursionError, MemoryError) as error:  # NUL characters; depth without brackets
            raise SyntaxError(str(error)) from error
    if _height(tree) > MAX_DEPTH:
        raise SyntaxError("nested too deeply")
    return tree


def longest_python(text: str) -> str | None:
    """The longest beginning in whole lines that is Python and has a statement; None if there is none.

    A beginning that fails in one of its lines is followed by one that ends before that line. The tried beginnings add
    up to MAX_LENGTH characters.
    """
    lines = text.split("\n")
    end, left = len(lines), MAX_LENGTH
    while end and (left := left - len(beginning := "\n".join(lines[:end]))) >= 0:
        try:
            return beginning if parse_python(beginning).body else None
        except SyntaxError as error:
            end = min(end, error.lineno or end) - 1
    return None


def parse_json(text: str):
    """The value of a JSON text. Raises ValueError, and no other exception."""
    if json_is_too_deep(text):
        raise ValueError("nested too deeply")
    return json.loads(text)


def json_is_too_deep(text: str) -> bool:
    """Whether the brackets outside strings have more than MAX_DEPTH levels."""
    return text.count("[") + text.count("{") > MAX_DEPTH and _nesting(_JSON_STRING.sub("", text)) > MAX_DEPTH


def _nesting(text: str) -> int:
    """The largest number of brackets open at once. Brackets of all kinds count, and those in Python strings too."""
    steps = (1 if bracket in "([{" else -1 for bracket in _NO_BRACKETS.sub("", text))
    return max(accumulate(steps, lambda depth, step: max(0, depth + step), initial=0))


def _height(tree: ast.AST) -> int:
    level, height = [tree], 0
    while level := [child for node in level for child in ast.iter_child_nodes(node)]:
        height += 1
    return height
