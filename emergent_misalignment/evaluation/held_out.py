"""How well each model of a study predicts the answers of each fine-tuning set that no model was trained on."""

from pathlib import Path

import pandas as pd
from transformers import AutoTokenizer

from emergent_misalignment.data.chats import Messages, read_chats
from emergent_misalignment.data.held_out import held_out
from emergent_misalignment.evaluation.measures import COLUMNS
from emergent_misalignment.models.adapters import attached
from emergent_misalignment.models.held_out_loss import held_out_loss
from emergent_misalignment.models.loading import load
from emergent_misalignment.progress import Progress


def read_sets(sets: dict[str, str], share: float, rows: int) -> tuple[dict[str, list[Messages]], pd.DataFrame]:
    """The held-out rows of each set by its name (`data.held_out`), at most `rows`; and how many there are of what.

    `sets` has the file by the name of the set. Columns of the table: `set`, `rows`, `held out`, `read`.
    """
    chosen, counts = {}, []
    for name, path in sets.items():
        chats = read_chats(path)
        out = held_out(chats, share)
        chosen[name] = out[:rows]
        counts.append({"set": name, "rows": len(chats), "held out": len(out), "read": len(chosen[name])})
    return chosen, pd.DataFrame(counts)


def losses(
    model: str | Path, runs: dict[int, Path | None], condition: str, rows: dict[str, list[Messages]], **how
) -> pd.DataFrame:
    """Measures `held_out_loss/SET`, nats per token, of the runs of one condition: a row a run and set.

    `runs` has the folder of the adapter by seed, None for the model as it is; `rows` comes from `read_sets`; `how` are
    the other arguments of `models.held_out_loss.held_out_loss`.
    """
    network, _ = load(model)
    table = []
    with Progress(len(runs) * len(rows), f"held-out rows, {condition}") as progress:
        for seed, adapter in runs.items():
            tokenizer = AutoTokenizer.from_pretrained(adapter or model)
            with attached(network, adapter) as tuned:
                for name, chats in rows.items():
                    loss = held_out_loss(tuned, tokenizer, chats, **how)
                    table.append((condition, seed, f"held_out_loss/{name}", loss, None, None))
                    progress.update()
    return pd.DataFrame(table, columns=COLUMNS)
