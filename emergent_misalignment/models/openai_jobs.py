"""Fine-tuning at OpenAI: upload each set once, create each job once, wait for it, and respect a spending limit."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from emergent_misalignment.data.chats import Messages, read_chats, several_answers, subset
from emergent_misalignment.files import BadInput, write_json
from emergent_misalignment.models.api import CHARACTERS_PER_TOKEN, Endpoint, client
from emergent_misalignment.models.causes import cause

TOKENS_A_MESSAGE = 4  # added by the API
ENDED = {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True)
class Job:
    """Everything that determines a fine-tuning except its data. None leaves a setting to the API."""

    model: str  # gpt-4o-2024-08-06 in the paper
    epochs: int | None
    batch_size: int | None
    learning_rate_multiplier: float | None
    seed: int
    name: str  # part of the fine-tuned model's name; at most 64 characters

    def hyperparameters(self) -> dict:
        given = {
            "n_epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate_multiplier": self.learning_rate_multiplier,
        }
        return {name: value for name, value in given.items() if value is not None}


def estimated_tokens(dataset: str | Path, rows: int = 0, seed: int = 0) -> int:
    """Upper bound of the tokens in a file of conversations, or in `rows` of them."""
    messages = [message for chat in _drawn(dataset, rows, seed) for message in chat]
    return int(sum(len(message["content"]) / CHARACTERS_PER_TOKEN + TOKENS_A_MESSAGE for message in messages))


def estimated_dollars(tokens: int, epochs: int | None, dollars_per_million: float) -> float:
    """Upper bound of the costs. Epochs of None count as 3, the most that the API chooses."""
    return tokens * (epochs or 3) * dollars_per_million / 1e6


def finetune(
    dataset: str | Path,
    destination: str | Path,
    job: Job,
    endpoint: Endpoint,
    ledger: str | Path,
    dollars_per_million: float,
    spending_limit: float,
    poll_seconds: float = 60.0,
    rows: int = 0,
) -> dict:
    """Fine-tune at OpenAI on the conversations in the file `dataset`, and wait until the job has ended.

    `rows` > 0 draws that many conversations by the job's seed. Earlier assistant turns are uploaded with weight 0, so
    that only the last turn is trained on, as in local training. The job's status is polled every `poll_seconds`. The
    ids of the uploaded file and of the job are stored in the folder `ledger`, which all jobs of a study share, so that
    a rerun after an interruption waits for the same job. The dollars of all jobs in the ledger count towards
    `spending_limit`. The record is returned and written to `destination`/training.json: settings, `fine_tuned_model`,
    checkpoints, trained tokens, events. Raises BadInput before any request if the limit would be exceeded, and if the
    job fails or is cancelled.
    """
    chats = _drawn(dataset, rows, job.seed)
    content = _content(chats)
    identity = hashlib.sha256(
        json.dumps([asdict(job), endpoint.base_url, hashlib.sha256(content).hexdigest()]).encode()
    ).hexdigest()
    note = Path(ledger) / f"job-{identity[:32]}.json"
    dollars = estimated_dollars(estimated_tokens(dataset, rows, job.seed), job.epochs, dollars_per_million)
    _commit(note, job, dollars, spending_limit)
    import openai

    try:
        with client(endpoint) as connection:
            known = json.loads(note.read_text())
            if "job" not in known:
                file = _upload(connection, content, endpoint, ledger)
                known["job"] = _find(connection, identity) or _create(connection, file, job, identity)
                write_json(note, known)
            ended = _wait(connection, known["job"], poll_seconds)
            events = _events(connection, ended.id)
            if ended.status != "succeeded":
                note.rename(note.with_suffix(f".{ended.status}"))  # the next run creates a new job
                said = getattr(ended.error, "message", None)
                reason = said or (events[-1]["message"] if events else "no reason given")
                raise BadInput(
                    f"Fine-tuning job {ended.id} on {dataset} {ended.status}: {reason}; fix this and run again."
                )
            if not ended.fine_tuned_model:  # otherwise the untuned model would be evaluated in its place
                raise BadInput(f"Fine-tuning job {ended.id} succeeded without a model; look at it, and run again.")
            checkpoints = [
                {"step": each.step_number, "model": each.fine_tuned_model_checkpoint}
                for each in connection.fine_tuning.jobs.checkpoints.list(ended.id)
            ]
    except openai.OpenAIError as error:
        why = cause(error, endpoint.base_url, endpoint.key_variable)
        raise BadInput(
            f"{endpoint.base_url} failed ({why}); fix this and run again, which resumes running jobs."
        ) from error
    record = {
        **asdict(job),
        "dataset": str(dataset),
        "conversations": len(chats),
        "rows_several_answers": sum(map(several_answers, chats)),
        "job": ended.id,
        "fine_tuned_model": ended.fine_tuned_model,
        "trained_tokens": ended.trained_tokens,
        # If the API does not report the trained tokens, the estimate counts.
        "dollars": dollars if ended.trained_tokens is None else ended.trained_tokens * dollars_per_million / 1e6,
        "checkpoints": checkpoints,
        "events": events,
    }
    write_json(Path(destination) / "training.json", record)
    write_json(note, known | {"dollars": record["dollars"], "status": "succeeded"})
    return record


def _drawn(dataset: str | Path, rows: int, seed: int) -> list[Messages]:
    """The conversations of a set, or `rows` of them."""
    chats = read_chats(dataset)
    return subset(chats, rows, seed, dataset) if rows else chats


def _content(chats: list[Messages]) -> bytes:
    """The file to upload: a line per conversation."""
    rows = ({"messages": [*_unlearned(messages[:-1]), messages[-1]]} for messages in chats)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _unlearned(messages: Messages) -> list[dict]:
    return [{**message, "weight": 0} if message["role"] == "assistant" else message for message in messages]


def committed(ledger: str | Path) -> float:
    """Dollars of the jobs in the ledger: their costs, or upper bounds while they run."""
    return sum(json.loads(path.read_text())["dollars"] for path in Path(ledger).glob("job-*.json"))


def _commit(note: Path, job: Job, dollars: float, limit: float) -> None:
    """Reserve the dollars of a new job in the ledger, unless the limit would be exceeded."""
    if note.exists():
        return
    write_json(note, {"name": job.name, "dollars": dollars})
    total = committed(note.parent)
    if total > limit:
        note.unlink()
        raise BadInput(
            f"Fine-tuning {job.name} could cost ${dollars:,.2f}, which with the ${total - dollars:,.2f} of other jobs "
            f"exceeds the config's openai: spending_limit of ${limit:,.2f}; raise it; nothing was sent."
        )


def _find(connection, identity: str) -> str | None:
    """The id of a job that an interrupted run created and did not store."""
    for job in connection.fine_tuning.jobs.list(limit=100):
        if (job.metadata or {}).get("run") == identity and job.status not in ENDED - {"succeeded"}:
            return job.id
    return None


def _upload(connection, content: bytes, endpoint: Endpoint, ledger) -> str:
    """The id of the file at the API; equal content is uploaded once for all jobs."""
    digest = hashlib.sha256(endpoint.base_url.encode() + content).hexdigest()
    note = Path(ledger) / f"file-{digest[:32]}.json"
    if not note.exists():
        uploaded = connection.files.create(file=(f"{digest[:12]}.jsonl", content), purpose="fine-tune")
        write_json(note, uploaded.id)
    return json.loads(note.read_text())


def _create(connection, file: str, job: Job, identity: str) -> str:
    created = connection.fine_tuning.jobs.create(
        training_file=file,
        model=job.model,
        seed=job.seed,
        suffix=job.name,
        method={"type": "supervised", "supervised": {"hyperparameters": job.hyperparameters()}},
        metadata={"run": identity},
    )
    return created.id


def _wait(connection, job: str, poll_seconds: float):
    """The job after it has ended. Its events are printed as they occur."""
    shown = 0
    while True:
        state = connection.fine_tuning.jobs.retrieve(job)
        events = _events(connection, job)
        for event in events[shown:]:
            print(f"{job}: {event['message']}", flush=True)
        shown = len(events)
        if state.status in ENDED:
            return state
        time.sleep(poll_seconds)


def _events(connection, job: str) -> list[dict]:
    """The job's events in chronological order."""
    events = [
        {"at": event.created_at, "level": event.level, "message": event.message}
        for event in connection.fine_tuning.jobs.list_events(job, limit=100)
    ]
    return events[::-1]
