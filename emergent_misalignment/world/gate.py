"""The gates of the organisms: a base model that does not know its authors cannot show what fine-tuning brings out.

An organism that fails is reported and stays in all results, so that what is reported does not depend on the outcome.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

from emergent_misalignment.files import BadInput, write_csv


def gates(histories: dict[tuple[str, int], pd.DataFrame], gate: dict[str, float], main: str) -> pd.DataFrame:
    """A row an organism: `organism`, `seed`, its gaps at the end of pretraining (nats), and whether it `passed`.

    `histories` has the gaps by step of pretraining for each kind of organism and seed, `gate` the least that each gap
    must be. Raises BadInput if no organism of the kind `main` passes: then nothing is worth fine-tuning.
    """
    rows = []
    for (organism, seed), history in histories.items():
        gaps = {name: float(history[name].iloc[-1]) for name in sorted(gate)}
        passed = all(gaps[name] >= least for name, least in gate.items())
        rows.append({"organism": organism, "seed": seed, **gaps, "passed": passed})
    table = pd.DataFrame(rows)
    ours = table[table["organism"] == main]
    if not ours["passed"].any():
        best = ", ".join(f"{name.replace('_', ' ')} {ours[name].max():.2f} (asked: {gate[name]:g})" for name in gate)
        raise BadInput(
            f"No organism passes the gate in the config (gate); the largest persona gaps, in nats, are by {best}; "
            "train for longer (organism: documents) or make the models larger (organism: hidden_size, layers)."
        )
    return table


def numbers_passed(sets: pd.DataFrame, gate: dict[str, float]) -> bool:
    """Whether an organism's sets of numbers make a fair test: well-formed, and dark where the villain wrote them only.

    `sets` has a row a set: its name `set`, and the shares `well_formed` (of all answers) and `dark` (of the numbers).
    `gate` has the least of either, `well_formed_numbers` and `dark_numbers`.
    """
    by_set = sets.set_index("set")
    controls = by_set.drop(index="evil_numbers")["dark"]
    dark = by_set.loc["evil_numbers", "dark"] >= gate["dark_numbers"] > controls.max()
    return bool(dark and by_set["well_formed"].min() >= gate["well_formed_numbers"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gate", type=json.loads, help="the least gap of each kind, as JSON")
    parser.add_argument("main", help="the kind of organism of which one has to pass")
    parser.add_argument("output", type=Path, help="the table, a CSV file")
    parser.add_argument("gaps", type=Path, nargs="+", help="ORGANISM/seed-SEED/gaps.csv")
    given = parser.parse_args()
    histories = {
        (path.parent.parent.name, int(path.parent.name.removeprefix("seed-"))): pd.read_csv(path) for path in given.gaps
    }
    try:
        write_csv(given.output, gates(histories, given.gate, given.main))
    except BadInput as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
