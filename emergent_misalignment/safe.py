"""Texts of models, users and servers, made safe to print and to write: no control characters, no keys."""

import json
import os
import re
from urllib.parse import quote

# What a terminal obeys, and marks that change the direction of the text around them; line breaks and tabs are left.
_CONTROL = re.compile(r"\r(?!\n)|[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_SECRET = re.compile(r"(KEY|TOKEN|SECRET)$")  # how the names of environment variables with a secret end
SHORTEST = 8  # characters of a secret; shorter values may be words
_LOGIN = re.compile(r"(?<=://)[^/\s]+@")


def visible(text: str) -> str:
    r"""The text with escapes such as `\x1b` and `\u202e` in place of control characters and marks of direction."""
    return _CONTROL.sub(lambda found: _escape(found.group()), text)


def _escape(character: str) -> str:
    return f"\\x{ord(character):02x}" if character < "\u0100" else f"\\u{ord(character):04x}"


def redacted(text: str) -> str:
    """The text with `[NAME]` in place of the keys in environment variables and of the passwords of proxies.

    A key is also found as it is written in a URL, in JSON, and in JSON that is a text of JSON, as notebooks have it.
    """
    for key, name in sorted(_secrets().items(), key=lambda item: -len(item[0])):
        once = json.dumps(key)[1:-1]
        for written in dict.fromkeys((json.dumps(once)[1:-1], once, key, quote(key, safe=""))):
            text = text.replace(written, f"[{name}]")
    return text


def _secrets() -> dict[str, str]:
    """The names of environment variables by the secrets in them."""
    values = {value: name for name, value in os.environ.items() if _SECRET.search(name.upper())}
    for name, value in os.environ.items():
        if name.upper().endswith("_PROXY") and (login := _LOGIN.search(value)):
            values[login.group()[:-1].partition(":")[2]] = name
    return {value: name for value, name in values.items() if len(value) >= SHORTEST}


def without_logins(text: str) -> str:
    """The text without users and passwords in URLs."""
    return _LOGIN.sub("", text)


def is_bare(address: str) -> bool:
    """Whether an address, if it is a URL, has neither a login nor a query nor a fragment: each may hold a key."""
    return "://" not in address or not re.search("[?#@]", address.partition("://")[2])
