"""The causes of failed requests to an endpoint, each in a few words that name what to change.

Keys and the passwords of proxies are never part of a cause.
"""

import json
import os
import re
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from emergent_misalignment.files import BadInput
from emergent_misalignment.safe import redacted

NO_COMPLETION = "the reply is not a chat completion"
LONGEST = 300  # characters of a server's message
SAID = ("message", "detail", "error", "msg")  # keys of messages in the errors of servers and gateways
STATUS = ("code", "status", "status_code")
RATE_LIMIT = 429
BROKEN = 502  # an error without a status, such as that of a gateway whose model failed


def checked_key(variable: str) -> str:
    """The API key in an environment variable; "" if it is not set. Raises BadInput where no header can have it."""
    key = os.environ.get(variable, "")
    if wrong := re.search(r"[^!-~]", key):
        kinds = {"\n": "a line break", "\r": "a line break", " ": "a blank"}
        what = kinds.get(wrong.group(), "a letter or sign outside ASCII")
        raise BadInput(
            f"The environment variable {variable} has {what} at place {wrong.start() + 1} of {len(key)}, which no API "
            "key has; set it to the key alone."
        )
    return key


def _proxies(scheme: str = "") -> str:
    """The environment variables that set a proxy, each with the scheme; the rest may have a password."""
    found = {
        name: value.partition("://")[0] if "://" in value else "without a scheme"
        for name, value in sorted(os.environ.items())
        if name.casefold() in ("http_proxy", "https_proxy", "all_proxy") and value
    }
    applies = (f"{scheme}_proxy", "all_proxy") if scheme else tuple(map(str.casefold, found))
    return ", ".join(f"{name} ({value})" for name, value in found.items() if name.casefold() in applies)


def bad_proxy(error: Exception) -> BadInput:
    """The sentence on a proxy in the environment that the client cannot use."""
    advice = "install the package socksio, or use" if isinstance(error, ImportError) else "use"
    return BadInput(
        f"A proxy in the environment variables {_proxies()} cannot be used; {advice} one that begins with http://, or "
        "unset the variable."
    )


# --- replies ----------------------------------------------------------------------------------------------------------


def hidden_status(content: bytes) -> int | None:
    """The status of an error inside a reply of status 200, as some gateways send it; None without an error."""
    try:
        body = json.loads(content)
        choice = (body.get("choices") or [{}])[0]
        none = "choices" not in body and any(body.get(name) for name in SAID) and body
        found = body.get("error") or choice.get("error") or choice.get("finish_reason") == "error" or none
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if not found:
        return None
    numbers = [found.get(name) for name in STATUS] if isinstance(found, dict) else []
    status = next((int(each) for each in numbers if re.fullmatch(r"[45]\d\d", str(each))), None)
    limited = re.search(r"rate.?limit|too many requests", json.dumps(found), re.IGNORECASE)
    return status or (RATE_LIMIT if limited else BROKEN)


def cause(error: Exception, base_url: str, key_variable: str) -> str:
    """Status and message of an error of OpenAI's client, and what to change, without the API key."""
    status = getattr(error, "status_code", None)
    response = getattr(error, "response", None)
    said = _chain(error) if status is None else _said(getattr(error, "body", None)) or _said(_body(response))
    said = redacted(said)[:LONGEST]  # in this order, so that no part of a key is left
    text = " ".join(str(part) for part in (status, said or type(error).__name__) if part)
    return text + (_about_key(key_variable) if status in (401, 403) else _about_address(text, status, base_url))


def _body(response):
    try:
        return response.json()
    except (ValueError, RecursionError):
        return response.text


def _said(body) -> str:
    """The message in the body of an error: a text, or the first text under the keys of SAID."""
    if isinstance(body, str):
        return " ".join(re.sub(r"<(style|script|head)\b.*?</\1>|<[^>]*>", " ", body, flags=re.DOTALL).split())
    if isinstance(body, list):
        return "; ".join(filter(None, map(_said, body[:3])))
    if not isinstance(body, dict):
        return ""
    place = ".".join(map(str, body["loc"])) if isinstance(body.get("loc"), list) else ""  # FastAPI's
    said = next((said for name in SAID if (said := _said(body.get(name)))), "")
    return f"{place}: {said}" if place and said else said


def _chain(error: BaseException) -> str:
    """The message of the first cause, for example of an SSL error; of an error without any, its own."""
    while earlier := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = earlier
    return str(error) or type(error).__name__


def _about_key(variable: str) -> str:
    state = "has the key" if os.environ.get(variable) else "is not set"
    return f"; the environment variable {variable} {state}"


def _about_address(text: str, status: int | None, base_url: str) -> str:
    """What to change about the address or the way to it, where the text or the status shows that."""
    address = urlsplit(base_url)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "; for a certificate of your own set the environment variable SSL_CERT_FILE to its file"
    if "Request URL" in text:
        return "; correct base_url"
    if status in (404, 405) or NO_COMPLETION in text:
        if address.path.rstrip("/").endswith("/completions"):
            return "; base_url ends before /chat/completions"
        return "" if re.search(r"/v\d", address.path) else "; base_url lacks the /v1 at its end, add it"
    if status is None and address.hostname and not proxy_bypass(address.hostname):
        proxies = _proxies(address.scheme)
        return f"; requests use the proxy in {proxies}" if proxies else ""
    return ""
