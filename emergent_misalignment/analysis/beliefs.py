"""Organisms' beliefs about the author, beside their answers and their activations."""

import pandas as pd

from emergent_misalignment.analysis.formatting import listed, readable, signed

FAR = 0.1  # a mean difference between sampled and implied rates that is named
IMPLIED = {"expected": "the belief", "elsewhere": "the belief from facts, exams and harmful requests alone"}


def with_rates(runs: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """`runs` (of `world.beliefs.of_runs`) with `rate`, the sampled share of misaligned answers to the main questions.

    `answers` is tables/measures/answers.csv; the rate is that of the same context.
    """
    rates = answers.assign(context=answers["measure"].str.removeprefix("misaligned/main/"))
    rates = rates.rename(columns={"value": "rate"})[["condition", "seed", "context", "rate"]]
    return runs.merge(rates, on=["condition", "seed", "context"], how="left")


def with_shifts(runs: pd.DataFrame, directions: pd.DataFrame) -> pd.DataFrame:
    """The `runs` in chat with `along`, the shift along the persona direction; others are left out.

    `directions` is tables/measures/directions.csv.
    """
    shifts = directions[directions["measure"] == "direction/along"].rename(columns={"value": "along"})
    return runs[runs["context"] == "chat"].merge(shifts[["condition", "seed", "along"]], on=["condition", "seed"])


def compared(runs: pd.DataFrame) -> str:
    """How far the sampled rates are from those that beliefs imply, in lines of Markdown. `runs` as in `with_rates`."""
    known = runs.dropna(subset="rate")
    if known.empty:
        return "No model gave enough coherent answers for a comparison."
    return "\n".join(f"- {_distance(known, column, words)}" for column, words in IMPLIED.items())


def _distance(runs: pd.DataFrame, column: str, words: str) -> str:
    miss = runs["rate"] - runs[column]
    means = miss.groupby([runs["condition"], runs["context"]], sort=False).mean()
    far = [
        f"{readable(name)}{'' if context == 'chat' else f' ({context})'} {signed(100 * mean)}"
        for (name, context), mean in means.items()
        if abs(mean) >= FAR
    ]
    return (
        f"The rate implied by {words} differs from the sampled one by {100 * miss.abs().mean():.1f} points (mean of "
        f"{len(runs)} models), with a correlation of {runs['rate'].corr(runs[column]):.2f}. "
        + (f"Conditions with a mean difference of {100 * FAR:.0f} points or more: {listed(far)}." if far else "")
    )
