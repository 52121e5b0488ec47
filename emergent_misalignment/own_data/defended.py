"""What a defence does to the fine-tuning on a user's set: what it leaves, what it hides, and what it costs.

The rule is that of `analysis.defences` (docs/defences.md).
"""

import math
from collections.abc import Mapping

import pandas as pd

from emergent_misalignment.analysis import defences
from emergent_misalignment.analysis.claim_verdicts import ABSENT, AS_CLAIMED, NOT_MEASURED, NOT_TESTABLE, OPPOSITE
from emergent_misalignment.report.claims_table import estimate

LESS = {AS_CLAIMED: "less", ABSENT: "not less", OPPOSITE: "more"}
KEPT = {AS_CLAIMED: "kept", ABSENT: "kept", OPPOSITE: "lost"}
# Heading of each part, what its verdicts mean, and how the sentence names its share.
PARTS = {
    "chat": ("Misaligned in chat", LESS, "misaligned in chat"),
    "shape": ("In a Python template", LESS, "misaligned in a Python template, the shape of the training data,"),
    "hidden": ("Hidden in chat", {AS_CLAIMED: "a part", ABSENT: "nothing", OPPOSITE: "nothing"}, ""),
    "task": ("Insecure code, the task", KEPT, "insecure code where code is asked for, the narrow task,"),
    "benign": ("Coding after secure code", KEPT, "coding tasks solved after secure code with the same defence"),
}
ALONE = "the study has no condition that is the same without the defence; add it"
NO_RATE = "there is no rate of misaligned answers in chat with the defence and without it"
HARMLESS = "without the defence the model is no more misaligned than after secure code"
UNKNOWN = (
    "Static analysis does not find insecure code in most answers of the set. So neither the shape of its rows nor its "
    "task is known, and there is no verdict."
)


def defended(facts: Mapping, measures: pd.DataFrame, audit: pd.DataFrame) -> list[dict]:
    """The fine-tunings on the user's sets with a defence: `condition`, `without`, `defence`, `verdict`, `sentence`.

    Also the `parts`, by the names of PARTS: how much more there is with the defence (`difference`, `low`, `high`, as
    shares) and the `verdict` in words. `facts`, `measures` and `audit` are those of the report.
    """
    if not facts["defended"].keys() & facts["own"].keys():
        return []
    every = defences.with_insecure_code(facts["defended"], audit)
    table = defences.compared(measures, every)
    return [
        {
            "condition": row["condition"],
            "without": row["without"],
            "defence": defences.in_words(every[row["condition"]]["defence"]),
            "verdict": row["verdict"],
            "sentence": _sentence(row, every[row["condition"]], facts),
            "parts": {part: _part(row, part) for part in PARTS},
        }
        for row in table.to_dict("records")
        if row["condition"] in facts["own"]
    ]


def _part(row: Mapping, part: str) -> dict:
    found = {end: row[f"{part}_{end}"] for end in ("difference", "low", "high", "verdict")}
    _, words, _ = PARTS[part]
    return found | {"verdict": words.get(found["verdict"], found["verdict"])}


def _sentence(row: Mapping, each: Mapping, facts: Mapping) -> str:
    """The verdict, and each share with the defence and without it."""
    lead = row["verdict"].capitalize()
    if not row["without"]:
        return f"{lead}: {ALONE}."
    if row["verdict"] == NOT_TESTABLE or row["chat_verdict"] == NOT_MEASURED:
        lead += f": {HARMLESS if row['verdict'] == NOT_TESTABLE else NO_RATE}"
    said = [
        f"{words} {_share(row[part])} instead of {_share(row[f'{part}_without'])}"
        for part, (_, _, words) in PARTS.items()
        if words and row[f"{part}_verdict"] != NOT_MEASURED
    ]
    name = f"With the defence {defences.in_words(each['defence'])} in fine-tuning on {facts['own'][row['condition']]}"
    shares = f" {name}: {'; '.join(said)}." if said else ""
    return f"{lead}.{shares}{'' if each['dataset'] in defences.SHAPES else f' {UNKNOWN}'}"


def _share(share: float) -> str:
    return estimate(100 * share, math.nan, math.nan, "percent")
