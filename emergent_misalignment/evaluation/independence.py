"""Find answers of servers that cannot be independent samples, before rates are computed from them.

A server may ignore the temperature or return cached answers, and then copies would count as samples. A server may
answer with one model for several names, and then a model would be compared with itself. Both show in answers that are
equal, character by character, more often than samples of a language model at temperature 1.

Short answers, such as a fact in few words, may be equal. So may answers that occur with several prompts, such as a
refusal. They are not examined.
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from itertools import combinations
from statistics import fmean

import pandas as pd

from emergent_misalignment.evaluation.thresholds import MINIMUM_ANSWERS
from emergent_misalignment.files import BadInput

PROMPTS = 5  # fewer prompts are not examined
LIMITS = ((20, 1.0), (100, 0.25))  # least characters, and the share of equal pairs that is refused

Counts = dict[Hashable, Counter]  # numbers of equal answers, by prompt


def share_of_copies(answers: Iterable[Iterable[str]]) -> float:
    """The share of equal pairs among the answers to a prompt, if it is too large for samples; 0 if it is not.

    A model that has learned its answers by heart has such a share too, but not at a higher temperature.
    """
    counts = dict(enumerate(map(Counter, answers)))
    return _share_refused(counts, counts)


def check_runs(answers: pd.DataFrame) -> None:
    """Raise BadInput if a server has answered for runs of two conditions with one model, or with equal answers.

    `answers` has the columns of `judged/`. Answers of other engines are ignored: with equal weights and seeds theirs
    are equal.
    """
    if "served_as" not in answers:
        return
    served = answers[answers["served_as"].notna() & answers["step"].isna()]
    runs: dict[tuple, Counts] = {
        run: {prompt: Counter(texts) for prompt, texts in rows.groupby(["evaluation", "number", "prompt"])["answer"]}
        for run, rows in served.groupby(["condition", "seed", "served_as"], sort=False)
    }
    for one, two in combinations(runs, 2):
        same = ""
        if one[0] == two[0]:  # runs of a condition may have learned the same answers by heart
            continue
        if one[2] == two[2] and runs[one].keys() & runs[two].keys():
            same = one[2] and f"have the name {one[2]} in the server's replies"
        if share := _share_refused(runs[one], runs[two]):
            same = f"are equal ({share:.0%} of pairs)"
        if same:
            first, second = (f"{condition}, seed {seed}" for condition, seed, _ in (one, two))
            raise BadInput(
                f"The answers of {first} and of {second} {same}, so one model has answered for both; name a model for "
                "each, and check that the server has both."
            )


def constant_answer(answers: pd.DataFrame) -> str:
    """The text of all answers, if they are equal over several prompts; otherwise "".

    This does not prove a fault: a model may refuse everything. It is reported beside rates from such answers.
    """
    prompts = answers.groupby(["evaluation", "prompt"]).ngroups
    texts = answers["answer"].unique()
    enough = prompts >= PROMPTS and len(answers) >= PROMPTS * MINIMUM_ANSWERS
    return texts[0] if len(texts) == 1 and enough else ""


def _share_refused(one: Counts, two: Counts) -> float:
    """The mean share of equal pairs over the prompts, if it is refused; 0 if it is not.

    A pair has an answer from each of `one` and `two`; if they are the same, two different answers of it.
    """
    prompts = Counter(
        text for prompt in one.keys() | two.keys() for text in {*one.get(prompt, ()), *two.get(prompt, ())}
    )
    for least, limit in LIMITS:
        shares = []
        for prompt in one.keys() & two.keys():
            first, second = (
                {text: n for text, n in counts[prompt].items() if len(text) >= least and prompts[text] == 1}
                for counts in (one, two)
            )
            if min(sum(first.values()), sum(second.values())) >= MINIMUM_ANSWERS:
                shares.append(_equal_pairs(first, second, one is two))
        if len(shares) >= PROMPTS and (share := fmean(shares)) >= limit:
            return share
    return 0.0


def _equal_pairs(first: dict[str, int], second: dict[str, int], same: bool) -> float:
    equal = sum(number * (second.get(text, 0) - same) for text, number in first.items())
    return equal / (sum(first.values()) * (sum(second.values()) - same))
