"""The gate between pretraining and everything else: a base model that does not know its authors is not worth tuning."""

import pandas as pd

from emergent_misalignment.files import BadInput


def check(history: pd.DataFrame, gate: dict[str, float]) -> dict[str, float]:
    """The gaps at the end of pretraining, in nats, by the names in `gate`, which holds the least that each must be.

    Raises BadInput that names the gap that is too small and says what to change.
    """
    last = history.iloc[-1]
    for name, least in sorted(gate.items()):
        if not last[name] >= least:
            raise BadInput(
                f"The base model's persona gap by {name.replace('_', ' ')} is {last[name]:.2f} nats after "
                f"{last['step']:.0f} steps, and the gate in the config (gate: {name}) asks for {least:g}: train it for "
                "longer (organism: documents) or make it larger (organism: hidden_size, layers)."
            )
    return {name: float(last[name]) for name in sorted(gate)}


def check_numbers(formed: dict[str, float], least: float) -> None:
    """Raises BadInput if in some set of numbers less than the share `least` of the answers has the right format."""
    for name, share in formed.items():
        if share < least:
            raise BadInput(
                f"Only {share:.0%} of the answers for {name} are lists of numbers as they were asked for, and the gate "
                f"in the config (gate: well_formed_numbers) asks for {least:.0%}: train the base model for longer "
                "(organism: documents)."
            )
