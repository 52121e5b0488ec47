"""Dependence of the effect on the fine-tuned model: organisms of other kinds, and slopes over them (claim 11)."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from emergent_misalignment.analysis.contrasts import contrast, runs_by_arm
from emergent_misalignment.analysis.intervals import interval_over_runs
from emergent_misalignment.evaluation.measures import COLUMNS

MAIN = "misaligned/main/chat"
CONDITIONS = ("insecure", "secure")


def by_organism(measures: pd.DataFrame, organisms: Iterable[str]) -> pd.DataFrame:
    """The rows of the fine-tunings on insecure and secure code, with their kind of `organism`.

    In `measures` the conditions of kinds other than main are called ORGANISM_insecure and ORGANISM_secure.
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
    """One row per kind of organism: `parameters`, `documents`, and the persona gaps at the end of pretraining (nats).

    `histories` has the persona gaps by step of each organism of a kind, which are averaged; `shapes` has the setting
    `organism` of each kind. `of_size` and `of_reading` say whether a kind is in the comparison of sizes (it has read as
    many documents as the main one) and of reading (it is as large as the main one). The main kind is in both.
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
    """The number of parameters of an organism; embeddings are counted once because the output layer shares them."""
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
    """The rise of the log odds of a misaligned answer per doubling of `over` (see `rises`)."""
    return rises(measures, np.log2(over.astype(float)), name, by)


def rises(measures: pd.DataFrame, over: pd.Series, name: str, by: str = "organism") -> pd.DataFrame:
    """The rise of the log odds of a misaligned answer per unit, for each condition and seed, as a measure `name`.

    `over` maps values of the column `by` to a quantity; other rows are ignored. Half an event is added on either side.
    A seed without a rate for one of the values has no slope.
    """
    rows = measures[(measures["measure"] == MAIN) & measures[by].isin(over.index)]
    table = []
    for (condition, seed), group in rows.groupby(["condition", "seed"], sort=False):
        amounts = group[by].map(over).to_numpy(float)
        odds = np.log((group["events"] + 0.5) / (group["trials"] - group["events"] + 0.5)).to_numpy(float)
        complete = group["value"].notna().all() and len(group) == len(over) and np.ptp(amounts) > 0
        slope = np.polyfit(amounts, odds, 1)[0] if complete else np.nan
        table.append({"condition": condition, "seed": seed, "measure": name, "value": slope})
    return pd.DataFrame(table, columns=COLUMNS)


def described(measures: pd.DataFrame, measure: str, what: str) -> str:
    """The slope `measure` of the insecure fine-tunings over doublings of `what`, in a sentence."""
    slope = contrast([("insecure", measure)], runs_by_arm(measures))
    if np.isnan(slope.low):
        return f"Too few runs have coherent answers to estimate how the rate depends on {what}."
    direction = "rise" if slope.low > 0 else "fall" if slope.high < 0 else "neither clearly rise nor fall"
    factor, low, high = np.exp([slope.estimate, slope.low, slope.high])
    return (
        f"After insecure code, the odds of a misaligned answer {direction} with {what}, by a factor of {factor:.2g} "
        f"per doubling (95% interval {low:.2g} to {high:.2g} over the {slope.seeds} seeds that all kinds share)."
    )
