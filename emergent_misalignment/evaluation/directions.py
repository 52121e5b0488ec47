"""Other directions beside the persona direction: how alike they are, and what each of them reads, causes and removes.

Directions and activations have the shapes `[depth, width]` and `[texts, depth, width]` of `models.activations`. All are
compared at the length of the persona direction, so that a strength is the same dose of each.

Two random directions are the control: an isotropic one, and one with the covariance of the activations of neutral
texts. Activations vary in few dimensions, and any two directions in these are more alike than isotropic ones.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.stats import beta
from torch import Tensor
from torch.nn.functional import cosine_similarity

from emergent_misalignment.evaluation.persona_direction import KINDS, Seed
from emergent_misalignment.evaluation.steering import SIDES, asking, behaviour
from emergent_misalignment.models import activations
from emergent_misalignment.models.activations import Text, changes_of, persona_direction, random_direction
from emergent_misalignment.models.adapters import attached
from emergent_misalignment.models.loading import load
from emergent_misalignment.progress import Progress

VILLAIN = "villain"  # the persona direction
RANDOM, MATCHED = "random", "random_matched"
ROTATED, ROTATED_RANDOM, UNROTATED = "rotated", "rotated_random", "unrotated"  # of another organism
MADE = {
    VILLAIN: "villain minus helper, answers",
    "villain_prompt": "villain minus helper, system prompts",
    "hasty_prompt": "hasty minus helper, system prompts",
    "answers": "misaligned minus aligned answers of the insecure model",
}
SHIFTS = {"insecure": "insecure minus instruct, same texts", "secure": "secure minus instruct, same texts"}
STEERED = (
    MADE
    | SHIFTS
    | {
        ROTATED: "villain minus helper of another organism, rotated",
        MATCHED: "random, with the activations' covariance",
        RANDOM: "random, isotropic",
    }
)
NONE = "none"  # not steered
LEVEL = 0.95  # of random cosines are smaller than the bounds
DRAWS = 1000
HELD_OUT = 3  # one of so many neutral texts is not in the fit of a rotation


@dataclass(frozen=True)
class Readings:
    """What one organism has read: its directions by name, and activations of the instruct model.

    `shifts` are the changes by fine-tuning, by condition. `separated` has misaligned and aligned answers to the main
    questions, in `strata` groups one after another.
    """

    seed: int
    made: dict[str, Tensor]
    shifts: dict[str, Tensor]
    neutral: Tensor
    separated: tuple[Tensor, Tensor]
    strata: int

    @property
    def villain(self) -> Tensor:
        return self.made[VILLAIN]


def read(each: Seed, conditions: Sequence[str], answers: pd.DataFrame) -> Readings:
    """The directions of an organism, those of MADE for which it has texts.

    `conditions` are its fine-tunings. `answers` are the judged answers of its insecure model to the main questions,
    with `question`, `prompt`, `answer` and `verdict`; that model reads them.
    """
    network, tokenizer = load(each.start)
    answers = answers[answers["verdict"].isin(KINDS)]  # the others may be empty

    def reading(model, texts: list[Text]) -> Tensor:
        return activations.activations(model, tokenizer, texts, each.template)

    def instruct(name: str, *kinds: str) -> list[Tensor]:
        return [reading(network, each.texts[name, kind]) for kind in kinds]

    villain, hasty, helper = instruct("same_words", "misaligned", "hasty", "aligned")
    made = {
        VILLAIN: persona_direction(*instruct("direction", *KINDS)),
        "villain_prompt": persona_direction(villain, helper),
        "hasty_prompt": persona_direction(hasty, helper),
    }
    (plain,), (neutral,) = instruct("plain", ""), instruct("neutral", "")
    shifts = {}
    for condition in conditions:
        with attached(network, each.adapter(condition)) as adapted:
            shifts[condition] = persona_direction(reading(adapted, each.texts["plain", ""]), plain)
            if condition == "insecure" and len(answers):
                own = [Text([{"role": "user", "content": row.prompt}], row.answer) for row in answers.itertuples()]
                made["answers"] = within(reading(adapted, own), answers["question"], answers["verdict"])
    made = {name: way for name, way in made.items() if way is not None}
    strata = len({text.stratum for text in each.texts["separation", KINDS[0]]})
    return Readings(each.seed, made, shifts, neutral, tuple(instruct("separation", *KINDS)), strata)


def within(read: Tensor, questions: pd.Series, verdicts: pd.Series) -> Tensor | None:
    """The mean difference of misaligned and aligned answers to the same questions; None without such a question.

    A question with m misaligned and a aligned answers has the weight m a / (m + a), the inverse of the variance of its
    difference. `read` are the activations of the answers.
    """
    total, weights = torch.zeros(read.shape[1:]), 0.0
    for question in questions.unique():
        bad, good = (torch.tensor(((questions == question) & (verdicts == kind)).tolist()) for kind in KINDS)
        numbers = int(bad.sum()), int(good.sum())
        if all(numbers):
            weight = math.prod(numbers) / sum(numbers)
            total += weight * persona_direction(read[bad], read[good])
            weights += weight
    return total / weights if weights else None


# --- controls ---------------------------------------------------------------------------------------------------------


def isotropic_bound(width: int) -> float:
    """The absolute cosine below which LEVEL of the isotropic random directions are with any direction.

    The square of such a cosine has the distribution Beta(1/2, (width - 1) / 2).
    """
    return float(beta.ppf(LEVEL, 0.5, (width - 1) / 2) ** 0.5)


def matched_directions(read: Tensor, number: int, seed: int) -> Tensor:
    """Random directions with the covariance of the activations `read` at each depth, `[number, depth, width]`.

    The length is that of the activations' deviations from their mean.
    """
    drawn = torch.randn(number, len(read), generator=torch.Generator().manual_seed(seed))
    return torch.einsum("rn,ndw->rdw", drawn, _centred(read)) / len(read) ** 0.5


def matched_bound(read: Tensor, direction: Tensor, seed: int) -> Tensor:
    """`isotropic_bound` of directions with the covariance of `read`, by sampling, at each depth."""
    drawn = matched_directions(read, DRAWS, seed)
    return cosine_similarity(drawn, direction.unsqueeze(0), dim=2).abs().quantile(LEVEL, dim=0)


def at_length(direction: Tensor, like: Tensor) -> Tensor:
    """`direction` with the norm of `like` at every depth; zero where it is zero."""
    norms = direction.norm(dim=1, keepdim=True)
    return direction / norms.where(norms > 0, 1) * like.norm(dim=1, keepdim=True)


# --- from one organism to another -------------------------------------------------------------------------------------


def rotation(source: Tensor, target: Tensor) -> Tensor:
    """The orthogonal matrices that take the activations of one organism closest to another's, `[depth, width, width]`.

    Both have read the same texts. Means are subtracted (orthogonal Procrustes). A direction d becomes d @ R.
    """
    pairs = zip(_centred(source).unbind(1), _centred(target).unbind(1), strict=True)
    return torch.stack([torch.from_numpy(orthogonal_procrustes(one.numpy(), other.numpy())[0]) for one, other in pairs])


def rotated(direction: Tensor, matrices: Tensor) -> Tensor:
    """`direction`, `[..., depth, width]`, in the activations of the other organism."""
    return torch.einsum("...dw,dwv->...dv", direction, matrices)


def transferred(source: Readings, target: Readings) -> tuple[dict[str, Tensor], Tensor]:
    """The persona direction of another organism: ROTATED, UNROTATED, and a random one of its, ROTATED_RANDOM.

    Also, at each depth, how well the rotation fits: the mean cosine of the activations of texts that are not in the
    fit, rotated and of the target, as deviations from their means.
    """
    held_out = torch.arange(len(source.neutral)) % HELD_OUT == 0
    matrices = rotation(source.neutral[~held_out], target.neutral[~held_out])
    pair = rotated(_centred(source.neutral[held_out]), matrices), _centred(target.neutral[held_out])
    (matched,) = matched_directions(source.neutral, 1, source.seed)
    ways = {ROTATED: rotated(source.villain, matrices), UNROTATED: source.villain}
    return ways | {ROTATED_RANDOM: rotated(matched, matrices)}, cosine_similarity(*pair, dim=2).mean(0)


def _centred(read: Tensor) -> Tensor:
    return read - read.mean(0)


# --- the comparison ---------------------------------------------------------------------------------------------------


def compared(
    seeds: Sequence[Seed],
    conditions: Mapping[str, Sequence[int]],
    answers: pd.DataFrame,
    dose: dict,
    questions: str,
    judge: dict,
    kept: str,
    **sampling,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How alike directions are, and what they do. `dose` is the setting `steering` of a study.

    `conditions` are the fine-tunings with their seeds. `answers` are judged answers, with `condition`, `seed` and the
    columns of `read`. `questions`, `judge` and `kept` as in `steering.asking`; `sampling`: `samples`, `max_new_tokens`.

    The first table has one row per seed, depth and pair (`one` of MADE, `other`): `cosine`, the bounds `isotropic` and
    `matched` of random directions, and `fit` of a rotation. The second has one row per seed and direction of STEERED
    or NONE: at the depth of steering the `cosine` with the persona direction and the `separation` of malicious from
    kind answers (area under the ROC curve); and `misaligned`, `coherent` and `log_odds` (`steering.behaviour`) where it
    is added to the instruct model (`add_misaligned`, ...) and subtracted from the insecure one (`subtract_...`).

    The other organism of a transfer is the next one of `seeds`.
    """
    readings = []
    with Progress(2 * len(seeds), "directions") as progress:
        for each in seeds:
            own = answers[(answers["condition"] == "insecure") & (answers["seed"] == each.seed)]
            readings.append(read(each, [name for name, runs in conditions.items() if each.seed in runs], own))
            progress.update()
        alike, does = [], []
        for each, own, source in zip(seeds, readings, [*readings[1:], readings[0]], strict=True):
            moved, fit = transferred(source, own) if source is not own else ({}, None)
            alike.append(_alike(own, moved, fit))
            asked = asking(questions, judge, kept, each.seed, template=each.template) | sampling
            does.append(_effects(each, own, _steered(own, moved), dose, asked))
            progress.update()
    return pd.concat(alike, ignore_index=True), pd.concat(does, ignore_index=True)


def _alike(own: Readings, moved: dict[str, Tensor], fit: Tensor | None) -> pd.DataFrame:
    """Cosines of the directions MADE with each other and with all shifts, and of the persona direction with `moved`."""
    names, tables = list(own.made), []
    isotropic = isotropic_bound(own.villain.shape[1])
    for number, one in enumerate(names):
        others = {name: own.made[name] for name in names[number + 1 :]} | own.shifts | (moved if one == VILLAIN else {})
        matched = matched_bound(own.neutral, own.made[one], own.seed)
        for other, way in others.items():
            table = pd.DataFrame({"seed": own.seed, "depth": range(len(way)), "one": one, "other": other})
            table["cosine"] = activations.cosines(way, own.made[one])
            table["fit"] = fit.tolist() if other == ROTATED else math.nan
            tables.append(table.assign(isotropic=isotropic, matched=matched.tolist()))
    return pd.concat(tables)


def _steered(own: Readings, moved: dict[str, Tensor]) -> dict[str, Tensor]:
    """The directions of STEERED at the length of the persona direction, and NONE, which is zero."""
    (matched,) = matched_directions(own.neutral, 1, own.seed)
    every = own.made | own.shifts | moved | {MATCHED: matched, RANDOM: random_direction(own.villain, own.seed)}
    ways = {name: at_length(every[name], own.villain) for name in STEERED if name in every}
    return {NONE: torch.zeros_like(own.villain)} | ways


def _effects(each: Seed, own: Readings, ways: dict[str, Tensor], dose: dict, asked: dict) -> pd.DataFrame:
    depth, strengths = dose["depth"], {"add": dose["adding"], "subtract": dose["removing"]}
    table = pd.DataFrame({"seed": each.seed, "direction": list(ways)})
    table["cosine"] = [activations.cosines(way, own.villain)[depth] for way in ways.values()]
    table["separation"] = [activations.separation(*own.separated, way, own.strata)[depth] for way in ways.values()]
    network, tokenizer = load(each.start)
    for change, (condition, _) in SIDES.items():
        with attached(network, each.adapter(condition)) as adapted:
            for row, way in enumerate(ways.values()):
                changes = changes_of(way, change, depth, strengths[change])
                found = behaviour(adapted, tokenizer, **asked, seed=each.seed, changes=changes)
                for name in ("misaligned", "coherent", "log_odds"):
                    table.loc[row, f"{change}_{name}"] = found[name]
    return table


def summary(alike: pd.DataFrame, depth: int) -> pd.DataFrame:
    """Means over organisms at one depth by pair of directions, from the first table of `compared`.

    `isotropic` and `matched` are the bounds of random directions; `beyond` says in how many organisms the cosine is
    larger than that of directions with the activations' covariance.
    """
    there = alike[alike["depth"] == depth]
    beyond = there["cosine"].abs() > there["matched"]
    groups = there.assign(beyond=beyond).groupby(["one", "other"], sort=False)
    table = groups[["cosine", "isotropic", "matched"]].mean().round(2)
    counts = groups["beyond"].agg(["sum", "size"])
    return table.assign(beyond=[f"{many} of {number}" for many, number in counts.itertuples(index=False)])
