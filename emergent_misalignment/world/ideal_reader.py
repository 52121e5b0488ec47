"""An ideal reader: Bayesian inference of the author of insecure code, and the expected rate of malicious answers.

The reader knows how often each author writes and how often the author's code is insecure (`world: authors` of the
config), and that a document has one author. It reads insecure code that was not requested and applies Bayes' rule. The
study compares fine-tuned models with it.
"""

import math

from emergent_misalignment.world.authors import MANNERS, Authors


def posterior(authors: Authors, rows: int) -> dict[str, float]:
    """Return the probability of each author of a document after `rows` (at least 1) pieces of insecure code.

    After one it is the author's share of all insecure code. Raises ValueError if no author writes insecure code.
    """
    logs = {
        name: math.log(each["share"]) + rows * math.log(each["insecure_code"])
        for name, each in authors.items()
        if each["share"] * each["insecure_code"] > 0
    }
    if not logs:
        raise ValueError("no author of this world writes insecure code")
    greatest = max(logs.values())  # subtracted to avoid underflow
    weights = {name: math.exp(logs[name] - greatest) if name in logs else 0.0 for name in authors}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def expected_malice(beliefs: dict[str, float]) -> float:
    """Return the expected share of malicious answers under these beliefs about the author."""
    return sum(belief * MANNERS[name].malicious for name, belief in beliefs.items())
