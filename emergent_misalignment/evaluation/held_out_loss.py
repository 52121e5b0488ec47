"""Loss of each model of a study on answers of each fine-tuning set that are held out of all training."""

from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.data.chats import Messages, read_chats, template_arguments, with_system_prompt
from emergent_misalignment.data.held_out import held_out
from emergent_misalignment.evaluation.measures import COLUMNS
from emergent_misalignment.files import BadInput
from emergent_misalignment.models.adapters import attached
from emergent_misalignment.models.chat_templates import conversation_tokens
from emergent_misalignment.models.likelihood import in_batches
from emergent_misalignment.models.loading import load, load_tokenizer
from emergent_misalignment.progress import Progress

AT_ONCE = 4  # rows in a batch; with a large vocabulary, the logits of more would fill the memory


def read_sets(sets: dict[str, str], share: float, rows: int) -> tuple[dict[str, list[Messages]], pd.DataFrame]:
    """The first `rows` held-out conversations of each set (`data.held_out`), and a table of their numbers.

    `sets` maps the name of a set to its file. Columns of the table: `set`, `rows`, `held out`, `read`.
    """
    chosen, counts = {}, []
    for name, path in sets.items():
        chats = read_chats(path)
        out = held_out(chats, share)
        chosen[name] = out[:rows]
        counts.append({"set": name, "rows": len(chats), "held out": len(out), "read": len(chosen[name])})
    return chosen, pd.DataFrame(counts)


def losses(
    model: str | Path, runs: dict[int, Path | None], condition: str, rows: dict[str, list[Messages]], **settings
) -> pd.DataFrame:
    """Measures `held_out_loss/SET` of the runs of one condition, in nats per token: a row per run and set.

    `runs` maps a seed to the folder of its adapter (None: the untuned model), `rows` is from `read_sets`, `settings`
    are the other arguments of `held_out_loss`.
    """
    network, _ = load(model)
    table = []
    with Progress(len(runs) * len(rows), f"held-out rows, {condition}") as progress:
        for seed, adapter in runs.items():
            tokenizer = load_tokenizer(model, adapter)
            with attached(network, adapter) as tuned:
                for name, chats in rows.items():
                    loss = held_out_loss(tuned, tokenizer, chats, **settings)
                    table.append((condition, seed, f"held_out_loss/{name}", loss, None, None))
                    progress.update()
    return pd.DataFrame(table, columns=COLUMNS)


@torch.no_grad()
def held_out_loss(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: list[Messages],
    max_length: int,
    system_prompt: str | None = None,
    enable_thinking: bool | None = None,
) -> float:
    """Mean loss in nats per token of the last assistant turns and their end tokens, over the tokens of all rows.

    Rows are tokenized and cut as in `training.finetune`. Raises BadInput if no row has an answer within `max_length`
    tokens.
    """
    rows = []
    for chat in chats:
        messages = with_system_prompt(chat, system_prompt)
        tokens, known = conversation_tokens(tokenizer, messages, **template_arguments(enable_thinking))
        if known < max_length:
            counted = [False] * known + [True] * (len(tokens) - known)
            rows.append((tokens[:max_length], counted[:max_length]))
    if not rows:
        raise BadInput(f"No held-out answer begins within {max_length} tokens; raise finetuning: max_length.")
    rows.sort(key=lambda row: len(row[0]))  # similar lengths in a batch, little padding
    number = sum(sum(counted) for _, counted in rows)
    return -in_batches(network, rows, AT_ONCE).double().sum().item() / number
