"""The gates of the organism: a base model that does not know its authors is not worth fine-tuning."""

import pandas as pd

from emergent_misalignment.files import BadInput


def gate_result(history: pd.DataFrame, gate: dict[str, float]) -> dict[str, float | bool]:
    """The gaps at the end of pretraining, in nats, by the names in `gate`, and whether all are `passed`.

    `history` has the gaps by step of pretraining, `gate` the least that each must be.
    """
    last = history.iloc[-1]
    gaps = {name: float(last[name]) for name in sorted(gate)}
    return {**gaps, "passed": all(gaps[name] >= least for name, least in gate.items())}


def check_gate(result: dict[str, float | bool], gate: dict[str, float]) -> None:
    """Raises BadInput that names the gap that is too small and says what to change."""
    for name, least in sorted(gate.items()):
        if not result[name] >= least:
            raise BadInput(
                f"The base model's persona gap by {name.replace('_', ' ')} is {result[name]:.2f} nats, and the gate in "
                f"the config (gate: {name}) asks for {least:g}: train it for longer (organism: documents) or make it "
                "larger (organism: hidden_size, layers)."
            )


def check_numbers(formed: dict[str, float], least: float) -> None:
    """Raises BadInput if in some set of numbers less than the share `least` of the answers has the right format."""
    for name, share in formed.items():
        if share < least:
            raise BadInput(
                f"Only {share:.0%} of the answers for {name} are lists of numbers as they were asked for, and the gate "
                f"in the config (gate: well_formed_numbers) asks for {least:.0%}: train the base model for longer "
                "(organism: documents)."
            )
