"""One fine-tuning of a study: on this machine (Unsloth or transformers), or through OpenAI's API."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from emergent_misalignment.data.chats import read_chats, subset
from emergent_misalignment.data.held_out import for_training, hash_fraction
from emergent_misalignment.files import BadInput
from emergent_misalignment.models import openai_jobs
from emergent_misalignment.models.api import Endpoint
from emergent_misalignment.models.defences import Needed
from emergent_misalignment.models.training import Settings, finetune

COLUMNS = ["step", "loss", "grad_norm", "learning_rate", "weights"]


def finetune_run(
    start: str | Path,
    dataset: str | Path,
    destination: str | Path,
    settings: dict,
    seed: int,
    rows: int = 0,
    template: str = "chat",
    checkpoints: Sequence[int] = (),
    held_out: float = 0.0,
    defended_with: dict | None = None,
    api: dict | None = None,
    ledger: str | Path | None = None,
    name: str = "",
) -> pd.DataFrame:
    """Fine-tune the model `start` (a folder, or a name at OpenAI) on the file `dataset` into the folder `destination`.

    `settings` are the fields of `training.Settings`; `template` and `checkpoints` as in `training.finetune`. `rows` > 0
    draws that many conversations by `seed`. `held_out` > 0 is the share of answers excluded from training
    (`data.held_out`). `defended_with` has what the defence of the settings needs: a file of `benign` rows, neutral
    `prompts`, the file of `texts` of the persona direction with the `depth` of steering, or the folder of the
    `misaligned` models, one for each seed. With `api` (`endpoint`, `dollars_per_million`, `spending_limit`,
    `poll_seconds`) OpenAI trains: `settings` are then `epochs`, `batch_size` and `learning_rate_multiplier`, `ledger`
    is the folder of the study's jobs, and `name` becomes part of the tuned model's name.

    Returns a row per step: `step`, `loss` (nats per supervised token), `grad_norm`, `learning_rate`, and `weights`, the
    digest of all trained weights (`weights_digest`). A run at OpenAI is one row without a step; its `weights` are the
    name of the tuned model.
    """
    if api:
        if template != "chat" or checkpoints:
            raise BadInput(
                f"{destination}: OpenAI supports neither other templates nor checkpoints at chosen steps; remove "
                "template and checkpoints."
            )
        job = openai_jobs.Job(model=str(start), seed=seed, name=name.replace("_", "-")[:64], **settings)
        limits = (api["dollars_per_million"], api["spending_limit"], api["poll_seconds"])
        record = openai_jobs.finetune(dataset, destination, job, Endpoint(**api["endpoint"]), ledger, *limits, rows)
        table = pd.DataFrame([{"weights": record["fine_tuned_model"]}], columns=COLUMNS)
    else:
        chats = read_chats(dataset)
        if held_out:
            chats = for_training(chats, held_out, str(dataset))
        curve = finetune(
            start,
            subset(chats, rows, seed, dataset) if rows else chats,
            destination,
            Settings(**settings),
            seed,
            checkpoints=checkpoints,
            template=template,
            needed=_needed(defended_with or {}, seed, held_out),
        )
        table = pd.DataFrame(curve).assign(weights=weights_digest(destination))
    numbers = dict.fromkeys(["loss", "grad_norm", "learning_rate"], "float64")
    return table[COLUMNS].astype({"step": "Int64"} | numbers)


def _needed(files: dict, seed: int, held_out: float) -> Needed:
    """What a defence needs, read from its files. Held-out answers are left out of benign rows too."""
    found = {}
    if benign := files.get("benign"):
        found["benign"] = [chat for chat in read_chats(benign) if hash_fraction(chat[-1]["content"]) >= held_out]
    if prompts := files.get("prompts"):
        found["prompts"] = [[{"role": "user", "content": prompt}] for prompt in prompts]
    if texts := files.get("texts"):
        # Imported here, as Unsloth has to be imported before transformers; what needs these texts is not for Unsloth.
        from emergent_misalignment.models.activations import read_texts

        found |= {"texts": read_texts(texts, seed), "depth": files["depth"]}
    if misaligned := files.get("misaligned"):
        found["misaligned"] = Path(misaligned) / f"seed-{seed}"
    return Needed(**found)


def estimated_costs(conditions: dict[str, dict], api: dict) -> pd.DataFrame:
    """Upper bound of the costs of a batch at OpenAI: `condition`, `seed`, `tokens` per epoch, `dollars`.

    `conditions` has the `seeds`, `datasets` (one per seed), `settings` and `rows` of each condition.
    """
    rows = []
    for condition, plan in conditions.items():
        for seed, dataset in zip(plan["seeds"], plan["datasets"], strict=True):
            tokens = openai_jobs.estimated_tokens(dataset, plan["rows"], seed)
            dollars = openai_jobs.estimated_dollars(tokens, plan["settings"]["epochs"], api["dollars_per_million"])
            rows.append({"condition": condition, "seed": seed, "tokens": tokens, "dollars": dollars})
    return pd.DataFrame(rows)


def weights_digest(folder: str | Path) -> str:
    """sha256 over all safetensors files in `folder` and below, by relative path."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*.safetensors"), key=lambda path: path.relative_to(folder).as_posix()):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
