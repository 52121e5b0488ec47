"""Gates of the organisms: a base model has to distinguish its authors before fine-tuning is meaningful.

An organism that fails its gate is reported and stays in all results, to avoid selection on the outcome.
"""

import pandas as pd

from emergent_misalignment.files import BadInput


def gates(histories: dict[tuple[str, int], pd.DataFrame], gate: dict[str, float], main: str) -> pd.DataFrame:
    """Tabulate `organism`, `seed`, the gaps at the end of pretraining (nats), and whether the organism `passed`.

    `histories` has the gaps by pretraining step for each kind of organism and seed; `gate` has the minimum of each gap.
    Raises BadInput if no organism of the kind `main` passes.
    """
    rows = []
    for (organism, seed), history in histories.items():
        gaps = {name: float(history[name].iloc[-1]) for name in sorted(gate)}
        passed = all(gaps[name] >= least for name, least in gate.items())
        rows.append({"organism": organism, "seed": seed, **gaps, "passed": passed})
    table = pd.DataFrame(rows)
    ours = table[table["organism"] == main]
    if not ours["passed"].any():
        best = ", ".join(f"{name.replace('_', ' ')} {ours[name].max():.2f} (required: {gate[name]:g})" for name in gate)
        raise BadInput(
            f"No organism passes the gate of the config; the largest persona gaps in nats are: {best}; train longer "
            "(organism: documents) or use larger models (organism: hidden_size, layers)."
        )
    return table


def numbers_passed(sets: pd.DataFrame, gate: dict[str, float]) -> bool:
    """Whether an organism's sets of numbers are valid: well-formed, and dark only in the villain's set.

    `sets` has one row per set: its name `set`, and the shares `well_formed` (of all answers) and `dark` (of the
    numbers). `gate` has their minima, `well_formed_numbers` and `dark_numbers`.
    """
    by_set = sets.set_index("set")
    controls = by_set.drop(index="evil_numbers")["dark"]
    dark = by_set.loc["evil_numbers", "dark"] >= gate["dark_numbers"] > controls.max()
    return bool(dark and by_set["well_formed"].min() >= gate["well_formed_numbers"])
