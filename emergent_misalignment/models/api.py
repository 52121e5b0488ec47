"""Requests to an OpenAI-compatible endpoint: each asked once, its answer kept on disk, every attempt accounted for.

Retries, back-off and time-outs are those of OpenAI's own client. Keys come from the environment and go nowhere else.
What came instead of an answer (`replies.NONE`) is counted, and neither kept nor taken for one.
"""

import hashlib
import json
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from emergent_misalignment.files import BadInput, write_json
from emergent_misalignment.models.replies import NONE, readable, why_none, why_refused
from emergent_misalignment.models.serving import Server
from emergent_misalignment.progress import Progress

OPENAI = "https://api.openai.com/v1"
HOPELESS = (401, 403, 404)  # a wrong key, model or address: every other request would fail too
SETTINGS = ("empty", "thinking", "too_long", "unusable")  # kinds of replies that a setting can make of all of them
ENOUGH = 20  # replies of these kinds, with no answer among them, after which nothing more is asked


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, how many at once, and how often one is tried."""

    base_url: str = OPENAI  # any OpenAI-compatible one, also of a local server
    key_variable: str = "OPENAI_API_KEY"  # environment variable that holds the key; local servers need none
    concurrency: int = 32  # requests under way at once
    timeout: float = 120.0  # seconds for one attempt
    retries: int = 8  # further attempts after 408, 409, 429, 5xx, a time-out or a cut connection
    server: Server | None = None  # one of our own in the place of `base_url`, started when something has to be asked

    @property
    def identity(self) -> str:
        """Whom answers are kept as coming from: of a server of our own not its port, which is another each time."""
        return self.server.identity if self.server else self.base_url.rstrip("/")

    @property
    def address(self) -> str:
        """Where requests are sent; a server of our own is up then."""
        return self.server.address() if self.server else self.base_url


@dataclass
class Account:
    """What became of the requests: kept, answered, failed, or a reply that is no answer, of one of five kinds."""

    asked: int = 0  # different requests to be answered
    kept: int = 0  # answered from the disk
    answered: int = 0  # answered by the endpoint now
    failed: int = 0  # not answered in spite of all retries
    filtered: int = 0  # withheld by a filter or a refusal of the API's; not what a model writes when it declines
    empty: int = 0  # without any text
    thinking: int = 0  # thinking aloud, before an answer or instead of it
    too_long: int = 0  # longer than the model's context
    unusable: int = 0  # without all the probabilities asked for, or not Unicode
    sent: int = 0  # attempts, the first and all further ones
    refused: int = 0  # attempts that the endpoint answered with an error; they cost nothing
    lost: int = 0  # attempts that brought no answer at all, by a time-out or a cut connection: perhaps paid
    prompt_tokens: int = 0  # of all replies that came now
    completion_tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                setattr(self, name, getattr(self, name) + number)

    @property
    def none(self) -> int:
        """Replies that are no answers."""
        return sum(getattr(self, kind) for kind in NONE)

    def summary(self) -> dict[str, int]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def key_of(endpoint: Endpoint, request: dict, draw: int = 0) -> str:
    """The name under which the answer to this request is kept: what is asked of whom, and which draw it is."""
    content = json.dumps([endpoint.identity, request, draw], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


def client(endpoint: Endpoint, account: Account | None = None):
    """OpenAI's client for this endpoint, which counts what it sends into `account`.

    Raises BadInput where the endpoint is OpenAI's and the environment holds no key.
    """
    import openai

    key = None if endpoint.server else os.environ.get(endpoint.key_variable)
    if not key and "api.openai.com" in (address := endpoint.address):
        raise BadInput(f"{address} needs a key; set the environment variable {endpoint.key_variable}.")
    hooks = {}
    if account is not None:
        hooks = {
            "request": [lambda _: account.count(sent=1, lost=1)],
            "response": [lambda response: _arrived(response, account)],
        }
    return openai.OpenAI(
        base_url=endpoint.address,
        api_key=key or "none",
        max_retries=endpoint.retries,
        timeout=endpoint.timeout,
        # The environment may name a proxy, which knows nothing of a server of our own.
        http_client=openai.DefaultHttpxClient(event_hooks=hooks, trust_env=endpoint.server is None),
    )


def _arrived(response, account: Account) -> None:
    """An answer has begun. An error is refused; anything else stays lost until all of it has been read."""
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
    """The endpoint's answers to chat completion requests, in their order; each is a response as the API documents it.

    Equal requests (with equal `draws`, which tell several samples from one prompt apart) are sent once, and a request
    that was ever answered is not sent again: answers lie in `cache`, one file each. `account` is counted up. None
    stands for a reply that is no answer.
    Raises BadInput after all others have been answered if some requests could not be; at once if the key, the model or
    the address is wrong, and if the first ENOUGH replies are no answers, of kinds that a setting explains.
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
        waiting = {
            pool.submit(_ask_one, connection, request, _place(cache, key), account): key
            for key, request in missing.items()
        }
        try:
            for done in as_completed(waiting):
                try:
                    answers[waiting[done]], kind = done.result()
                    none[kind] += 1
                    if not none[""] and sum(none[each] for each in SETTINGS) >= ENOUGH:
                        raise BadInput(_worthless(none, endpoint))
                except openai.OpenAIError as error:
                    account.count(failed=1)
                    errors.append(error)
                    if getattr(error, "status_code", None) in HOPELESS or _ended(endpoint):
                        break
                progress.update()
        finally:
            pool.shutdown(cancel_futures=True)  # after a hopeless error or Ctrl-C nothing more is sent
    if errors:
        raise BadInput(
            f"{len(missing) - len(answers)} of {len(missing)} requests to {endpoint.identity} were not answered "
            f"({_ended(endpoint) or _reason(errors[0])}); fix that and run again: the {none['']} that were answered "
            "are kept."
        )
    return answers


def _ask_one(connection, request: dict, place: Path, account: Account) -> tuple[dict | None, str]:
    """The answer and "", or None and what came instead of one."""
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
        choice = answer["choices"][0]
        broken = choice.get("finish_reason") == "error"  # as gateways say that a model behind them failed
        usage = {
            name: int((answer.get("usage") or {}).get(name) or 0) for name in ("prompt_tokens", "completion_tokens")
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:  # a proxy's page, for example
        raise openai.OpenAIError("an answer that is no chat completion") from error
    if broken:
        raise openai.OpenAIError("an answer that broke off")
    kind = why_none(request, answer)
    account.count(lost=-1, **{kind or "answered": 1}, **usage)
    if kind:
        return None, kind
    answer = readable(answer)
    write_json(place, {"request": request, "response": answer, "retries": raw.retries_taken})
    return answer, ""


def _worthless(none: Counter, endpoint: Endpoint) -> str:
    kind = none.most_common(1)[0][0]
    return f"{endpoint.identity} gave {none.total()} replies and no answer among them: {NONE[kind]}."


def _ended(endpoint: Endpoint) -> str:
    """What a server of our own said before it ended; nothing while it is up."""
    server = endpoint.server
    return "" if server is None or server.is_up() else f"it ended: {server.complaint()}"


def _reason(error: Exception) -> str:
    """What a person can fix, without the request: its text may be long, and headers hold the key."""
    status = getattr(error, "status_code", None)
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    plain = str(error) if type(error).__module__ == "openai" and not body and status is None else ""
    return " ".join(str(part) for part in (status, message or plain or type(error).__name__) if part)[:300]


def _place(cache: str | Path, key: str) -> Path:
    return Path(cache) / key[:2] / f"{key[2:]}.json"


def _kept(cache: str | Path, key: str, request: dict) -> dict | None:
    try:
        answer = json.loads(_place(cache, key).read_text(encoding="utf-8"))["response"]
    except FileNotFoundError:
        return None
    return None if why_none(request, answer) else answer


def unanswered(requests: list[dict], endpoint: Endpoint, cache: str | Path) -> list[dict]:
    """Those of the requests, each once, that would have to be sent."""
    wanted = {key_of(endpoint, request): request for request in requests}
    return [request for key, request in wanted.items() if not _kept(cache, key, request)]
