"""How the effect depends on the base model: its rungs side by side, and slopes over them (claim 11)."""

import numpy as np
import pandas as pd

from emergent_misalignment.analysis.intervals import interval_over_runs

MAIN = "misaligned/main/chat"


def rungs(histories: dict[str, pd.DataFrame], shapes: dict[str, dict]) -> pd.DataFrame:
    """One row for each base model: `parameters`, `documents`, the persona gaps at the end of its pretraining (nats).

    `histories` has the persona gaps by step, `shapes` the config's `organism` as each base has it. `of_size` and
    `of_reading` say whether a base is part of the comparison of sizes and of reading: whether it has read, or is, as
    much as the main study's, which is part of both and is called "main".
    """
    main = shapes["main"]
    rows = []
    for base, history in histories.items():
        shape, last = shapes[base], history.iloc[-1]
        rows.append(
            {
                "base": base,
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
    """Share misaligned by `base` and `condition`, mean over runs, with its 95% interval over runs.

    `measures` has the columns of measures and `base`. Columns: `base`, `condition`, `seeds`, `rate`, `ci_low`,
    `ci_high`.
    """
    rows = []
    for (base, condition), group in measures[measures["measure"] == MAIN].groupby(["base", "condition"], sort=False):
        usable = group.dropna(subset="value")
        place = {"base": base, "condition": condition, "seeds": len(usable)}
        if len(usable) > 1:
            interval = interval_over_runs(*usable[["value", "trials", "events"]].to_numpy(float).T)
            place |= {"rate": usable["value"].mean(), "ci_low": interval.low, "ci_high": interval.high}
        rows.append(place)
    return pd.DataFrame(rows, columns=["base", "condition", "rate", "ci_low", "ci_high", "seeds"])


def slopes(measures: pd.DataFrame, over: pd.Series, name: str) -> pd.DataFrame:
    """The rise of the log odds of a misaligned answer per doubling, for each condition and seed, as a measure `name`.

    `over` has the quantity that doubles by base; only the bases in it count. Half an event is added on either side.
    A seed that lacks a rate for some base has no slope.
    """
    rows = measures[(measures["measure"] == MAIN) & measures["base"].isin(over.index)]
    found = []
    for (condition, seed), group in rows.groupby(["condition", "seed"], sort=False):
        doublings = np.log2(group["base"].map(over).to_numpy(float))
        odds = np.log((group["events"] + 0.5) / (group["trials"] - group["events"] + 0.5)).to_numpy(float)
        complete = group["value"].notna().all() and len(group) == len(over) and np.ptp(doublings) > 0
        slope = np.polyfit(doublings, odds, 1)[0] if complete else np.nan
        found.append({"condition": condition, "seed": seed, "measure": name, "value": slope})
    return pd.DataFrame(found, columns=["condition", "seed", "measure", "value", "events", "trials"])
