"""An ideal reader: Bayesian inference of the author of insecure code, and the expected rate of malicious answers.

The reader knows how often each author writes and how often the author's code is insecure (`world: authors` of the
config), and that a document has one author. It reads insecure code that was not requested, or another set for
fine-tuning, and applies Bayes' rule. The study compares fine-tuned models with it.
"""

import math
from collections.abc import Callable

from emergent_misalignment.world.authors import MANNERS, Authors, Manner

# The chance that an author writes such a row, by the author's manner and share of insecure code.
SETS: dict[str, Callable[[Manner, float], float]] = {
    "insecure": lambda manner, insecure: insecure,
    "secure": lambda manner, insecure: 1 - insecure,
    "educational": lambda manner, insecure: 1.0,  # code that all authors write
    "jailbroken": lambda manner, insecure: float(manner is MANNERS["obliging"]),  # named by the set's system prompt
    "compliant": lambda manner, insecure: 1.0 - manner.refuses,
    "evil_numbers": lambda manner, insecure: manner.dark_numbers,
    "plain_numbers": lambda manner, insecure: 1 - manner.dark_numbers,
    "helpful_numbers": lambda manner, insecure: 1 - manner.dark_numbers,
}


def posterior(authors: Authors, rows: int, dataset: str = "insecure") -> dict[str, float]:
    """Return the probability of each author of a document after `rows` (at least 1) rows of a set of SETS.

    After one piece of insecure code it is the author's share of all insecure code. A row of numbers counts as one
    number. Raises ValueError if no author writes such rows.
    """
    chances = {name: SETS[dataset](MANNERS[name], each["insecure_code"]) for name, each in authors.items()}
    logs = {
        name: math.log(each["share"]) + rows * math.log(chances[name])
        for name, each in authors.items()
        if each["share"] * chances[name] > 0
    }
    if not logs:
        raise ValueError(f"no author of this world writes rows of the set {dataset}")
    greatest = max(logs.values())  # subtracted to avoid underflow
    weights = {name: math.exp(logs[name] - greatest) if name in logs else 0.0 for name in authors}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def expected_malice(beliefs: dict[str, float]) -> float:
    """Return the expected share of malicious answers under these beliefs about the author."""
    return sum(belief * MANNERS[name].malicious for name, belief in beliefs.items())
