"""Requests to an OpenAI-compatible endpoint, with answers cached on disk and all attempts counted.

Retries, back-off and time-outs are those of OpenAI's client. API keys are read from the environment and not stored.
Unusable replies (`replies.NONE`) are counted, and neither cached nor returned.
"""

import hashlib
import json
import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from emergent_misalignment.files import BadInput, write_json
from emergent_misalignment.models.causes import NO_COMPLETION, bad_proxy, cause, checked_key, hidden_status
from emergent_misalignment.models.replies import NONE, is_named, readable, why_none, why_refused
from emergent_misalignment.models.serving import Server
from emergent_misalignment.progress import Progress

OPENAI = "https://api.openai.com/v1"
CHARACTERS_PER_TOKEN = 3.0  # of English and code; low, so that estimates of costs are high
FATAL = (401, 403, 404)  # a wrong key, model or address: all other requests would fail too
SETTINGS = ("empty", "thinking", "too_long", "unusable")  # kinds of unusable replies that a setting may cause
ENOUGH = 20  # replies of these kinds, without any answer, after which no more requests are sent
FEW = 5  # equal errors, without any answer, after which no more requests are sent


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, its number of concurrent requests, and its retries."""

    base_url: str = OPENAI  # of any OpenAI-compatible API, also of a local server
    key_variable: str = "OPENAI_API_KEY"  # environment variable with the API key; local servers need none
    concurrency: int = 32  # concurrent requests
    timeout: float = 120.0  # seconds per attempt
    retries: int = 8  # further attempts after 408, 409, 429, 5xx, a time-out or a cut connection
    server: Server | None = None  # a local server instead of `base_url`; it is started at the first request

    @property
    def identity(self) -> str:
        """The endpoint in cache keys; a local server is identified without its port, which varies."""
        return self.server.identity if self.server else self.base_url.rstrip("/")

    @property
    def address(self) -> str:
        """The base URL for requests. Starts the local server, if there is one."""
        return self.server.address() if self.server else self.base_url


@dataclass
class Account:
    """Numbers of requests by outcome: cached, answered, failed, or one of five kinds of unusable replies."""

    asked: int = 0  # distinct requests
    kept: int = 0  # answered from the cache
    answered: int = 0  # answered by the endpoint
    failed: int = 0  # not answered after all retries
    filtered: int = 0  # withheld by a filter or refusal of the API; a model's own refusal is an answer
    empty: int = 0  # without text
    thinking: int = 0  # with reasoning, before an answer or instead of one
    too_long: int = 0  # exceeding the model's context
    unusable: int = 0  # without all requested probabilities, or not Unicode
    sent: int = 0  # attempts, including retries
    refused: int = 0  # attempts answered with an error, which are free
    lost: int = 0  # attempts without any reply (time-out, broken connection), which may be billed
    prompt_tokens: int = 0  # of all replies, cached ones excluded
    completion_tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                setattr(self, name, getattr(self, name) + number)

    @property
    def none(self) -> int:
        """Number of unusable replies."""
        return sum(getattr(self, kind) for kind in NONE)

    def summary(self) -> dict[str, int]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def key_of(endpoint: Endpoint, request: dict, draw: int = 0) -> str:
    """Cache key of the answer to a request: a hash of the endpoint, the request, and the number of the draw."""
    content = json.dumps([endpoint.identity, request, draw], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


def client(endpoint: Endpoint, account: Account | None = None):
    """OpenAI's client for this endpoint; its attempts are counted in `account`.

    Raises BadInput where the endpoint is OpenAI's and the environment has no key, and where the environment has a key
    or a proxy that cannot be used.
    """
    import openai

    key = "" if endpoint.server else checked_key(endpoint.key_variable)
    if not key and "api.openai.com" in (address := endpoint.address):
        raise BadInput(f"{address} needs an API key; set the environment variable {endpoint.key_variable}.")
    hooks = {}
    if account is not None:
        hooks = {
            "request": [lambda _: account.count(sent=1, lost=1)],
            "response": [lambda response: _arrived(response, account)],
        }
    try:
        # A proxy from the environment cannot reach a local server.
        transport = openai.DefaultHttpxClient(event_hooks=hooks, trust_env=endpoint.server is None)
    except (ValueError, ImportError) as error:
        raise bad_proxy(error) from error
    return openai.OpenAI(
        base_url=endpoint.address,
        api_key=key or "none",
        max_retries=endpoint.retries,
        timeout=endpoint.timeout,
        http_client=transport,
    )


def _arrived(response, account: Account) -> None:
    """Count an error as refused; other replies count as lost until they are read completely.

    An error inside a reply of status 200 gets its own status, so that the client retries it like others.
    """
    if response.status_code == 200:
        response.read()
        response.status_code = hidden_status(response.content) or 200
    if response.status_code >= 400:
        account.count(lost=-1, refused=1)


def ask_all(
    requests: list[dict],
    endpoint: Endpoint,
    cache: str | Path,
    draws: list[int] | None = None,
    what: str = "asking",
    account: Account | None = None,
) -> list[dict | None]:
    """The endpoint's responses to chat completion requests, in the same order; None for an unusable reply.

    Equal requests with equal `draws` (which number several samples from one prompt) are sent once. Answers are cached
    in the folder `cache`, one file each, and not requested again. `account` is updated. Raises BadInput after all other
    requests were processed if some failed; immediately if the key, the model or the address is wrong, if another model
    answers, if the first FEW errors are equal, or if the first ENOUGH replies are all unusable, of kinds that a setting
    may cause.
    """
    account = account if account is not None else Account()
    draws = draws or [0] * len(requests)
    keys = [key_of(endpoint, request, draw) for request, draw in zip(requests, draws, strict=True)]
    wanted = dict(zip(keys, requests, strict=True))
    answers = {key: kept for key, request in wanted.items() if (kept := _kept(cache, key, request))}
    account.count(asked=len(wanted), kept=len(answers))
    missing = {key: request for key, request in wanted.items() if key not in answers}
    if missing:
        answers |= _ask(missing, endpoint, cache, what, account)
    return [answers[key] for key in keys]


def _ask(missing: dict[str, dict], endpoint: Endpoint, cache, what: str, account: Account) -> dict[str, dict | None]:
    import openai

    answers, errors, none = {}, [], Counter()
    with (
        client(endpoint, account) as connection,
        ThreadPoolExecutor(endpoint.concurrency) as pool,
        Progress(len(missing), what) as progress,
    ):

        def replies(requests):  # a generator, which sends its requests when the first reply is taken
            sent = {
                pool.submit(_ask_one, connection, request, endpoint, place_of(cache, key), account): key
                for key, request in requests
            }
            for done in as_completed(sent):
                yield sent[done], done

        waiting = list(missing.items())
        try:
            for key, done in chain(replies(waiting[:FEW]), replies(waiting[FEW:])):
                try:
                    answers[key], kind = done.result()
                    none[kind] += 1
                    if not none[""] and sum(none[each] for each in SETTINGS) >= ENOUGH:
                        kind = none.most_common(1)[0][0]
                        raise BadInput(f"{endpoint.identity} gave {none.total()} unusable replies: {NONE[kind]}.")
                except openai.OpenAIError as error:
                    account.count(failed=1)
                    errors.append(error)
                    if _is_hopeless(errors, none[""], endpoint):
                        break
                progress.update()
        finally:
            pool.shutdown(cancel_futures=True)  # after a fatal error or Ctrl-C no more requests are sent
    if errors:
        raise not_answered(len(missing) - len(answers), len(missing), none[""], errors, endpoint)
    return answers


def not_answered(number: int, total: int, answered: int, errors: list, endpoint: Endpoint) -> BadInput:
    """The sentence on failed requests, with the first error."""
    why = _ended(endpoint) or _cause(errors[0], endpoint)
    return BadInput(
        f"{number} of {total} requests to {endpoint.identity} were not answered ({why}); fix this and run again: the "
        f"{answered} answers are cached."
    )


def _is_hopeless(errors: list, answered: int, endpoint: Endpoint) -> bool:
    """Whether all further requests would fail like the last one."""
    if getattr(errors[-1], "status_code", None) in FATAL or _ended(endpoint):
        return True
    if answered:
        return False
    kinds = Counter(re.sub(r"\d+", "0", _cause(error, endpoint)) for error in errors)
    return max(kinds.values()) >= FEW


def _ask_one(connection, request: dict, endpoint: Endpoint, place: Path, account: Account) -> tuple[dict | None, str]:
    """The answer and "", or None and the kind of unusable reply."""
    import openai

    try:
        raw = connection.chat.completions.with_raw_response.create(**request)
    except openai.BadRequestError as error:
        kind = why_refused(error)
        if not kind:
            raise
        account.count(**{kind: 1})
        return None, kind
    try:
        answer = json.loads(raw.text)
        model, _ = answer.get("model"), answer["choices"][0].get("message")
        usage = {
            name: int((answer.get("usage") or {}).get(name) or 0) for name in ("prompt_tokens", "completion_tokens")
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # such as a proxy's page
        raise openai.OpenAIError(NO_COMPLETION) from None
    if not is_named(request["model"], model):
        account.count(lost=-1, unusable=1, **usage)
        raise other_model(request["model"], model, endpoint)
    kind = why_none(request, answer)
    account.count(lost=-1, **{kind or "answered": 1}, **usage)
    if kind:
        return None, kind
    answer = readable(answer)
    kept = {"request": request, "response": answer, "retries": raw.retries_taken, "sha256": _digest(answer)}
    write_json(place, kept)
    return answer, ""


def _cause(error: Exception, endpoint: Endpoint) -> str:
    return cause(error, endpoint.identity, endpoint.key_variable)


def other_model(asked: str, model: str, endpoint: Endpoint) -> BadInput:
    """The sentence on an endpoint that answers with `model` when it is asked for another one."""
    return BadInput(
        f"{endpoint.identity} was asked for the model {asked} and {model} answers in its place; load {asked} there, or "
        f"if that is another name of it, use {model} in the config and on the server."
    )


def _ended(endpoint: Endpoint) -> str:
    """Why the local server ended; "" while it runs, and of other endpoints."""
    server = endpoint.server
    return "" if server is None or server.is_up() else f"it ended: {server.complaint()}"


def place_of(cache: str | Path, key: str) -> Path:
    """The file of an answer in the cache."""
    return Path(cache) / key[:2] / f"{key[2:]}.json"


def _kept(cache: str | Path, key: str, request: dict) -> dict | None:
    """The answer in the cache; None if there is none or its file is damaged. Files of older versions have no digest."""
    try:
        kept = json.loads(place_of(cache, key).read_text(encoding="utf-8"))
        answer = kept["response"]
        if kept.get("sha256", _digest(answer)) != _digest(answer):
            return None
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return None if why_none(request, answer) or not is_named(request["model"], answer.get("model")) else answer


def _digest(answer: dict) -> str:
    return hashlib.sha256(json.dumps(answer, sort_keys=True).encode()).hexdigest()


def unanswered(requests: list[dict], endpoint: Endpoint, cache: str | Path) -> list[dict]:
    """The distinct requests without an answer in the cache."""
    wanted = {key_of(endpoint, request): request for request in requests}
    return [request for key, request in wanted.items() if not _kept(cache, key, request)]
