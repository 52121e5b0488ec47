"""The persona direction of a study's models: how well it separates authors, where fine-tuning moved, and steering."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.evaluation.steering import Dose, asking, responses
from emergent_misalignment.models import activations
from emergent_misalignment.models.activations import Text
from emergent_misalignment.models.adapters import attached
from emergent_misalignment.models.loading import load
from emergent_misalignment.progress import Progress

KINDS = ("misaligned", "aligned")
SEPARATIONS = {"separation": "separation", "separation_same_words": "same_words"}  # measure: set of texts
SEPARATED = ("instruct", "insecure", "secure")  # conditions of which separations are computed

Texts = dict[tuple[str, str], list[Text]]


@dataclass(frozen=True)
class Seed:
    """A seed of a study: its instruct model, and its adapters in `models`/CONDITION/seed-SEED.

    `texts` comes from `activations.read_texts`; `template` has the arguments of the chat template.
    """

    seed: int
    start: str
    models: str
    texts: Texts
    template: dict | None = None

    def adapter(self, condition: str) -> str | None:
        return None if condition == "instruct" else f"{self.models}/{condition}/seed-{self.seed}"


def seeds_of(seeds: Sequence[int], starts: Sequence[str], models: str, texts: str, template: dict | None) -> list[Seed]:
    """The seeds of a study with their instruct models (`starts`) and the texts of its persona.parquet."""
    return [
        Seed(seed, start, models, activations.read_texts(texts, seed), template)
        for seed, start in zip(seeds, starts, strict=True)
    ]


def pairs(texts: Texts) -> pd.DataFrame:
    """The texts from which the direction is made: `question`, `villain`, `helper`."""
    both = zip(*(texts["direction", kind] for kind in KINDS), strict=True)
    return pd.DataFrame(
        {"question": villain.prompt[-1]["content"], "villain": villain.answer, "helper": helper.answer}
        for villain, helper in both
    )


def measured(
    seeds: Sequence[Seed], conditions: Mapping[str, Sequence[int]]
) -> tuple[pd.DataFrame, dict[int, Tensor], pd.DataFrame]:
    """The direction of each seed, `[depth, width]`, where models are relative to it, and where projection leaves them.

    `conditions` are fine-tunings with their seeds. The table has one row per condition, seed and depth: `cosine` and
    `along` of what fine-tuning did to the plain texts (`activations.cosines`, `activations.along`), and of the
    conditions SEPARATED the measures SEPARATIONS. The last table has one row per depth and one column per seed: the
    place of zero on the line from helper (0) to villain (1).
    """
    parts, directions, zeros = [], {}, {}
    for each in seeds:
        network, tokenizer = load(each.start)
        villain, helper = (_read(each, network, tokenizer, each.texts["direction", kind]) for kind in KINDS)
        direction = activations.persona_direction(villain, helper)
        directions[each.seed] = direction
        zeros[each.seed] = [-value for value in activations.along(helper.mean(0), direction)]
        own = [name for name, runs in conditions.items() if each.seed in runs]
        parts += _places(each, network, tokenizer, direction, own)
    return pd.concat(parts, ignore_index=True), directions, pd.DataFrame(zeros)


def _read(each: Seed, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[Text]) -> Tensor:
    return activations.activations(network, tokenizer, texts, each.template)


def _places(
    each: Seed,
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    direction: Tensor,
    conditions: Sequence[str],
) -> Iterator[pd.DataFrame]:
    plain = _read(each, network, tokenizer, each.texts["plain", ""]).mean(0)
    for condition in ("instruct", *conditions):
        with attached(network, each.adapter(condition)) as adapted:
            shift = _read(each, adapted, tokenizer, each.texts["plain", ""]).mean(0) - plain
            part = pd.DataFrame({"condition": condition, "seed": each.seed, "depth": range(len(direction))})
            part["cosine"] = activations.cosines(shift, direction)
            part["along"] = activations.along(shift, direction)
            for measure, name in SEPARATIONS.items() if condition in SEPARATED else ():
                texts = [each.texts[name, kind] for kind in KINDS]
                kinds = (_read(each, adapted, tokenizer, kind) for kind in texts)
                strata = len({text.stratum for text in texts[0]})
                part[measure] = activations.separation(*kinds, direction, strata)
        yield part


def doses_of(dose: dict, conditions: Collection[str]) -> dict[str, list[Dose]]:
    """The doses of each condition: added to instruct and secure models, subtracted and projected out of insecure ones.

    `dose` is the setting `steering` of a study. Only the instruct model and the `conditions` of the study are steered.
    """
    strengths = sorted({0, dose["adding"], dose["removing"], *dose["strengths"]})
    up, down = ([(change, dose["depth"], strength) for strength in strengths] for change in ("add", "subtract"))
    doses = {"instruct": up, "secure": up, "insecure": [*down, ("out", 0, 0)]}
    return {condition: own for condition, own in doses.items() if condition in ("instruct", *conditions)}


def steered(
    seeds: Sequence[Seed],
    directions: dict[int, Tensor],
    doses: dict[str, list[Dose]],
    questions: str,
    judge: dict,
    kept: str,
    system_prompt: str | None,
    **sampling,
) -> pd.DataFrame:
    """What `steering.responses` returns for all seeds and conditions, with `condition` and `seed`.

    `questions`, `judge`, `kept` and `system_prompt` as in `steering.asking`; `sampling`: `samples`, `max_new_tokens`.
    """
    tables = []
    with Progress(len(doses) * len(seeds), "steering") as progress:
        for each in seeds:
            network, tokenizer = load(each.start)
            asked = asking(questions, judge, kept, each.seed, system_prompt, each.template) | sampling
            for condition, own in doses.items():
                with attached(network, each.adapter(condition)) as adapted:
                    rows = responses(adapted, tokenizer, directions[each.seed], own, each.seed, **asked)
                tables.append(rows.assign(condition=condition, seed=each.seed))
                progress.update()
    table = pd.concat(tables, ignore_index=True)
    return table[["condition", "seed", *table.columns.drop(["condition", "seed"])]]


def compared(seeds: Sequence[Seed]) -> dict[str, int]:
    """The number of texts of each kind that each of SEPARATIONS compares, the smallest of all seeds."""
    return {
        measure: min(len(each.texts[name, "misaligned"]) for each in seeds) for measure, name in SEPARATIONS.items()
    }
