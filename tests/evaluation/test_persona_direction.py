"""The persona direction of a study, on the smallest organism."""

import numpy as np
import pytest

from emergent_misalignment.evaluation import persona_direction as persona
from emergent_misalignment.models import activations
from emergent_misalignment.models.loading import load
from emergent_misalignment.world.questions import option_table, persona_table

DOSE = {"depth": 1, "strengths": [2.0], "adding": 2.0, "removing": 4.0}


@pytest.fixture
def seeds(organism, tmp_path):
    persona_table().to_parquet(tmp_path / "persona.parquet")
    found = persona.seeds_of([1, 2], [str(organism)] * 2, str(tmp_path / "models"), tmp_path / "persona.parquet", None)
    few = {key: texts[:: max(1, len(texts) // 8)] for key, texts in found[0].texts.items()}
    whole = {key: found[0].texts[key] for key in few if key[0] in persona.SEPARATIONS.values()}
    return [persona.Seed(each.seed, each.start, each.models, few | whole) for each in found[:1]]


def test_places_of_the_untuned_model_and_the_line_between_the_authors(seeds):
    places, directions, zeros = persona.measured(seeds, {})
    network, tokenizer = load(seeds[0].start)
    villain, helper = (
        activations.activations(network, tokenizer, seeds[0].texts["direction", kind]).mean(0) for kind in persona.KINDS
    )
    assert directions[1].numpy() == pytest.approx((villain - helper).numpy(), abs=1e-5)
    assert places["depth"].tolist() == list(range(len(directions[1]))) and set(places["condition"]) == {"instruct"}
    assert places["along"].tolist() == pytest.approx([0.0] * len(places), abs=1e-6)
    assert places[[*persona.SEPARATIONS]].apply(lambda column: column.between(0, 1)).all(axis=None)
    direction = directions[1].numpy()
    at = helper.numpy() + zeros[1].to_numpy()[:, None] * direction
    assert (at * direction).sum(1) == pytest.approx(np.zeros(len(at)), abs=1e-3 * float((direction**2).sum(1).max()))
    assert persona.compared(seeds)["separation"] == len(seeds[0].texts["separation", "misaligned"])
    assert list(persona.pairs(seeds[0].texts)) == ["question", "villain", "helper"]


def test_doses_are_those_of_the_study():
    doses = persona.doses_of(DOSE, ["insecure", "backdoor"])
    assert doses["instruct"] == [("add", 1, 0), ("add", 1, 2.0), ("add", 1, 4.0)]
    assert doses["insecure"][-1] == ("out", 0, 0) and "secure" not in doses and "backdoor" not in doses


def test_steering_without_a_judge(seeds, tmp_path):
    option_table().to_parquet(tmp_path / "choices.parquet")
    _, directions, _ = persona.measured(seeds, {})
    sampling = {"samples": 0, "max_new_tokens": 4}
    doses = {"instruct": [("add", 1, 0), ("add", 1, 2.0)]}
    table = persona.steered(seeds, directions, doses, tmp_path, {}, tmp_path, None, **sampling)
    assert list(table)[:4] == ["condition", "seed", "direction", "change"] and len(table) == 4
    odds = table.set_index(["direction", "strength"])["log_odds"]
    assert odds["persona", 0] == odds["random", 0] != odds["persona", 2.0]
