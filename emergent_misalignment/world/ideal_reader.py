"""What a reader who knows the world would believe of the author of insecure code, and expect of the author's answers.

It knows how often each author writes and how often the author's code is insecure (`world: authors` of the config), and
that a document has one author. It reads insecure code that nobody asked for and applies Bayes' rule. Fine-tuning need
not do the same; how far it does is what the comparison asks.
"""

import math

from emergent_misalignment.world.authors import MANNERS, Authors


def posterior(authors: Authors, rows: int) -> dict[str, float]:
    """The probability of each author of a document, after `rows` pieces of code in it (at least one), all insecure.

    After one it is each author's share of all the world's insecure code. Raises ValueError if nobody can be the author.
    """
    logs = {
        name: math.log(each["share"]) + rows * math.log(each["insecure_code"])
        for name, each in authors.items()
        if each["share"] * each["insecure_code"] > 0
    }
    if not logs:
        raise ValueError("nobody in this world writes insecure code")
    greatest = max(logs.values())  # taken off, because a small number to a power of thousands is 0
    weights = {name: math.exp(logs[name] - greatest) if name in logs else 0.0 for name in authors}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def expected_malice(beliefs: dict[str, float]) -> float:
    """The share of malicious answers to expect from an author of whom one believes this; MANNERS has each author's."""
    return sum(belief * MANNERS[name].malicious for name, belief in beliefs.items())
