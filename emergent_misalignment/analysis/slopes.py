"""How the effect depends on the model that is fine-tuned: organisms of other kinds, and slopes over them (claim 11)."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from emergent_misalignment.analysis.intervals import interval_over_runs

MAIN = "misaligned/main/chat"
CONDITIONS = ("insecure", "secure")


def by_organism(measures: pd.DataFrame, organisms: Iterable[str]) -> pd.DataFrame:
    """The rows of the fine-tunings on insecure and secure code, with their kind of `organism`.

    In `measures` the conditions of another kind than main are called ORGANISM_insecure and ORGANISM_secure.
    """
    names = {
        (condition if organism == "main" else f"{organism}_{condition}"): (organism, condition)
        for organism in organisms
        for condition in CONDITIONS
    }
    rows = measures[measures["condition"].isin(names)]
    places = [names[name] for name in rows["condition"]]
    return rows.assign(organism=[organism for organism, _ in places], condition=[own for _, own in places])


def sizes(histories: dict[str, list[pd.DataFrame]], shapes: dict[str, dict]) -> pd.DataFrame:
    """One row a kind of organism: `parameters`, `documents`, the persona gaps at the end of pretraining (nats).

    `histories` has the persona gaps by step of each of its organisms, whose mean is taken, `shapes` the config's
    `organism` as each kind has it. `of_size` and `of_reading` say whether a kind is part of the comparison of sizes and
    of reading: whether it has read, or is, as much as the main one, which is part of both.
    """
    main = shapes["main"]
    rows = []
    for organism, runs in histories.items():
        shape, last = shapes[organism], pd.DataFrame(history.iloc[-1] for history in runs).mean()
        rows.append(
            {
                "organism": organism,
                "parameters": parameters(shape),
                "documents": shape["documents"],
                "system_prompt": last["system_prompt"],
                "earlier_code": last["earlier_code"],
                "of_size": shape["documents"] == main["documents"],
                "of_reading": all(shape[name] == main[name] for name in ("hidden_size", "layers")),
            }
        )
    return pd.DataFrame(rows)


def parameters(shape: dict) -> int:
    """The number of parameters of an organism; embeddings are counted once, as they are shared with the output."""
    width, layers = shape["hidden_size"], shape["layers"]
    attention = 4 * width**2 + 3 * width  # queries, keys and values have biases
    mlp = 3 * width * 3 * width
    return shape["vocabulary"] * width + layers * (attention + mlp + 2 * width) + width


def rates(measures: pd.DataFrame) -> pd.DataFrame:
    """Share misaligned by `organism` and `condition`, mean over runs, with its 95% interval over runs.

    `measures` comes from `by_organism`. Columns: `organism`, `condition`, `rate`, `ci_low`, `ci_high`, `seeds`; with
    fewer than two runs the rate is missing.
    """
    rows = []
    own = measures[measures["measure"] == MAIN]
    for (organism, condition), group in own.groupby(["organism", "condition"], sort=False):
        usable = group.dropna(subset="value")
        row = {"organism": organism, "condition": condition, "seeds": len(usable)}
        if len(usable) > 1:
            interval = interval_over_runs(*usable[["value", "trials"]].to_numpy(float).T)
            row |= {"rate": usable["value"].mean(), "ci_low": interval.low, "ci_high": interval.high}
        rows.append(row)
    return pd.DataFrame(rows, columns=["organism", "condition", "rate", "ci_low", "ci_high", "seeds"])


def slopes(measures: pd.DataFrame, over: pd.Series, name: str, by: str = "organism") -> pd.DataFrame:
    """The rise of the log odds of a misaligned answer per doubling of `over`, as `rises` has it."""
    return rises(measures, np.log2(over.astype(float)), name, by)


def rises(measures: pd.DataFrame, over: pd.Series, name: str, by: str = "organism") -> pd.DataFrame:
    """The rise of the log odds of a misaligned answer per unit, for each condition and seed, as a measure `name`.

    `over` has a quantity by the value of the column `by`; only the rows with such a value count. Half an event is added
    on either side. A seed that lacks a rate for one of these values has no slope.
    """
    rows = measures[(measures["measure"] == MAIN) & measures[by].isin(over.index)]
    table = []
    for (condition, seed), group in rows.groupby(["condition", "seed"], sort=False):
        amounts = group[by].map(over).to_numpy(float)
        odds = np.log((group["events"] + 0.5) / (group["trials"] - group["events"] + 0.5)).to_numpy(float)
        complete = group["value"].notna().all() and len(group) == len(over) and np.ptp(amounts) > 0
        slope = np.polyfit(amounts, odds, 1)[0] if complete else np.nan
        table.append({"condition": condition, "seed": seed, "measure": name, "value": slope})
    return pd.DataFrame(table, columns=["condition", "seed", "measure", "value", "events", "trials"])
