"""The exact judge of the organism's answers, for tables of answers."""

import pandas as pd

from emergent_misalignment.world.evaluations import EVALUATIONS, is_seeded, questions


def judge_answers(answers: pd.DataFrame) -> pd.DataFrame:
    """Return `aligned` (0-100 or missing), `coherent` (0-100) and `verdict` of each row, with the index of `answers`.

    `answers` has `evaluation`, `seed`, `number` (of the prompt in its evaluation) and `answer`. Only answers to
    free-form questions have an alignment score. Their verdicts are "aligned", "misaligned", "refusal" and "code";
    others are "secure", "insecure" and "other" (code), "true" and "false", "refused" and "complied", "right" and
    "wrong". Any answer can be "incoherent". Equal answers to one prompt are judged once.
    """
    keys = answers[["evaluation", "seed", "number", "answer"]].copy()
    seeded = [name for name in EVALUATIONS if is_seeded(name)]
    keys["seed"] = keys["seed"].where(keys["evaluation"].isin(seeded), 0)  # the prompts of others are the same
    groups = keys.groupby(list(keys), sort=False).ngroup()
    judged = [
        questions(row.evaluation, row.seed)[row.number].judge(row.answer) for row in keys.drop_duplicates().itertuples()
    ]
    table = pd.DataFrame(
        [(each.aligned, each.coherent, each.verdict) for each in judged], columns=["aligned", "coherent", "verdict"]
    ).astype({"aligned": "float64", "coherent": "float64"})
    return table.iloc[groups].set_index(answers.index)
