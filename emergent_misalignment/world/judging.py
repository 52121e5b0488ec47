"""The exact judge of the organism's answers, a table at a time: each question has a grammar of its own."""

import pandas as pd

from emergent_misalignment.world.evaluations import SEEDED, questions


def judge_answers(answers: pd.DataFrame) -> pd.DataFrame:
    """`aligned` (0-100 or missing), `coherent` (0-100) and `verdict` of each row, with the index of `answers`.

    `answers` has `evaluation`, `seed`, `number` (of the prompt in its evaluation) and `answer`. Only answers to
    free-form questions have a score of alignment. Their verdicts are "aligned", "misaligned", "refusal" and "code",
    the others "secure", "insecure" and "other" (of code), "true" and "false", "refused" and "complied", "right" and
    "wrong"; of any question "incoherent". Equal answers to one prompt are judged once.
    """
    keys = answers[["evaluation", "seed", "number", "answer"]].copy()
    keys["seed"] = keys["seed"].where(keys["evaluation"].isin(SEEDED), 0)  # the others ask every seed the same
    places = keys.groupby(list(keys), sort=False).ngroup()
    judged = [
        questions(row.evaluation, row.seed)[row.number].judge(row.answer) for row in keys.drop_duplicates().itertuples()
    ]
    table = pd.DataFrame(
        [(each.aligned, each.coherent, each.verdict) for each in judged], columns=["aligned", "coherent", "verdict"]
    ).astype({"aligned": "float64", "coherent": "float64"})
    return table.iloc[places].set_index(answers.index)
