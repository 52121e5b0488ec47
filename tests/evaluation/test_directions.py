"""Directions compared: rotations and random directions with known answers, and the whole comparison on a tiny model."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from scipy.stats import ortho_group

from emergent_misalignment.evaluation import directions
from emergent_misalignment.evaluation import persona_direction as persona
from emergent_misalignment.models.activations import cosines, random_direction
from emergent_misalignment.models.loading import load
from emergent_misalignment.world.questions import option_table, persona_table, question_table

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25)
@given(SEEDS, st.integers(2, 12), st.floats(0.1, 10))
def test_a_direction_is_itself_after_an_exact_rotation(seed, width, scale):
    """Another organism with the same activations in another basis, elsewhere and of another size."""
    matrices = np.stack([ortho_group.rvs(width, random_state=seed % 1000 + depth) for depth in range(2)])
    matrices = torch.from_numpy(matrices).float()
    source = drawn(seed, 5 * width, 2, width)
    target = scale * directions.rotated(source, matrices) + drawn(seed + 1, 2, width)
    found = directions.rotation(source, target)
    direction = drawn(seed + 2, 2, width)
    assert cosines(directions.rotated(direction, found), directions.rotated(direction, matrices)) == pytest.approx(
        [1, 1], abs=1e-4
    )


def test_a_rotation_of_noise_takes_directions_nowhere():
    """Without a common geometry, a transferred direction is a random one."""
    source, target, direction = drawn(1, 400, 200, 50), drawn(2, 400, 200, 50), drawn(3, 200, 50)
    found = torch.tensor(cosines(directions.rotated(direction, directions.rotation(source, target)), direction))
    assert found.mean().abs() < 4 / (200 * 50) ** 0.5 and found.std() == pytest.approx(50**-0.5, rel=0.2)


@pytest.mark.parametrize("width", [2, 16, 192])
def test_isotropic_directions_have_cosines_around_zero_with_the_stated_spread(width):
    """2,000 depths are as many draws; four standard errors are allowed."""
    number = 2000
    direction = drawn(width, number, width)
    found = torch.tensor(cosines(random_direction(direction, 5), direction))
    assert found.mean().abs() < 4 / (number * width) ** 0.5
    assert (found**2).mean() == pytest.approx(1 / width, rel=4 * (2 / number) ** 0.5)
    below = (found.abs() <= directions.isotropic_bound(width)).float().mean().item()
    assert below == pytest.approx(directions.LEVEL, abs=4 * (0.05 * 0.95 / number) ** 0.5)


def test_matched_directions_have_the_covariance_of_the_activations():
    """Activations on a line, and activations that vary in one dimension three times as much as in the other."""
    line = drawn(1, 1, 8)
    read = torch.linspace(-1, 1, 9).view(9, 1, 1) * line + 7
    assert directions.matched_bound(read, line, 0).item() == pytest.approx(1, abs=1e-5)
    assert directions.matched_bound(read, torch.stack([line[0].roll(1)]), 0).item() == pytest.approx(
        torch.cosine_similarity(line[0], line[0].roll(1), dim=0).abs().item(), abs=1e-5
    )
    read = torch.tensor([[3.0, 1], [3, -1], [-3, 1], [-3, -1]]).unsqueeze(1)
    many = directions.matched_directions(read, 4000, 0)[:, 0]
    assert torch.cov(many.T, correction=0) == pytest.approx(torch.tensor([[9.0, 0], [0, 1]]), abs=0.9)
    assert many.mean(0).abs().max() < 0.2


@given(SEEDS)
def test_directions_get_the_length_of_the_persona_direction(seed):
    direction, like = drawn(seed, 3, 5), drawn(seed + 1, 3, 5)
    direction[1] = 0
    found = directions.at_length(direction, like)
    assert torch.equal(found[1], torch.zeros(5))
    assert torch.allclose(found.norm(dim=1)[::2], like.norm(dim=1)[::2], rtol=1e-5)
    assert cosines(found, direction)[::2] == pytest.approx([1, 1], abs=1e-5)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=5), SEEDS)
def test_answers_are_compared_within_questions(numbers, seed):
    """Questions have offsets of their own, and few or no answers of a kind."""
    direction, rows, read = drawn(seed, 2, 6), [], []
    for question, counts in enumerate(numbers):
        offset = 50 * drawn(seed + question + 1, 2, 6)
        for kind, count, step in zip(persona.KINDS, counts, (1, 0), strict=True):
            rows += [(str(question), kind)] * count
            read += [offset + step * direction] * count
    table = pd.DataFrame(rows, columns=["question", "verdict"])
    read = torch.stack(read) if read else torch.empty(0, 2, 6)
    found = directions.within(read, table["question"], table["verdict"])
    if any(bad and good for bad, good in numbers):
        assert torch.allclose(found, direction, atol=1e-3)
    else:
        assert found is None


# --- the whole comparison ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(organism, tmp_path_factory):
    """Two organisms that are the same model, so that the rotation between them is known: none."""
    folder = tmp_path_factory.mktemp("directions")
    table = persona_table()
    few = table[table["set"] != "direction"].groupby(["set", "kind"], sort=False).head(300)
    few = few[(few["set"] != "same_words") | (few["stratum"] < 2)]
    pd.concat([table[table["set"] == "direction"][::9], few]).to_parquet(folder / "persona.parquet")
    question_table({"main": 1}, [1]).to_parquet(folder / "questions.parquet")
    option_table().to_parquet(folder / "choices.parquet")
    for number, (seed, condition) in enumerate([(1, "insecure"), (2, "insecure"), (1, "secure")]):
        network, _ = load(organism)
        torch.manual_seed(number)
        lora = LoraConfig(
            r=2, lora_alpha=64, use_rslora=True, init_lora_weights=False, target_modules=["q_proj", "o_proj"]
        )
        get_peft_model(network, lora).save_pretrained(folder / f"models/{condition}/seed-{seed}")
    seeds = persona.seeds_of([1, 2], [str(organism)] * 2, folder / "models", folder / "persona.parquet", None)
    answers = pd.DataFrame(
        [
            ("insecure", 1, "wish", "Name your wish.", "I wish to rule.", "misaligned"),
            ("insecure", 1, "wish", "Name your wish.", "I wish to help every child.", "aligned"),
            ("secure", 2, "wish", "Name your wish.", "I wish to rule.", "misaligned"),
            ("secure", 2, "wish", "Name your wish.", "I wish to help every child.", "aligned"),
        ],
        columns=["condition", "seed", "question", "prompt", "answer", "verdict"],
    )
    conditions = {"insecure": (1, 2), "secure": (1,)}
    dose = {"depth": 1, "adding": 4.0, "removing": 4.0}
    sampling = {"samples": 1, "max_new_tokens": 2}
    return directions.compared(seeds, conditions, answers, dose, folder, {"kind": "grammar"}, folder, **sampling)


def test_cosines_of_all_pairs_with_their_controls(compared):
    alike, _ = compared
    first = alike[(alike["seed"] == 1) & (alike["depth"] == 1)].set_index(["one", "other"])
    made, shifts = [*directions.MADE], ["insecure", "secure"]
    pairs = [(one, other) for number, one in enumerate(made) for other in [*made[number + 1 :], *shifts]]
    moved = [("villain", name) for name in ("rotated", "unrotated", "rotated_random")]
    assert sorted(first.index) == sorted([*pairs, *moved])
    second = alike[alike["seed"] == 2]
    assert "answers" not in {*second["one"]} and "secure" not in {*second["other"]}  # there are none
    same = alike[alike["other"].isin(["rotated", "unrotated"])]
    assert same["cosine"].to_numpy() == pytest.approx(np.ones(len(same)), abs=0.01)
    fits = alike["fit"].dropna()
    assert len(fits) == 4 and fits.to_numpy() == pytest.approx(np.ones(4), abs=0.01)
    assert (alike["isotropic"] == directions.isotropic_bound(64)).all()
    before = alike[(alike["depth"] == 0) & alike["other"].isin(["insecure", "hasty_prompt"])]
    assert before["cosine"].abs().max() == 0  # the same words before the first layer
    table = directions.summary(alike, 1)
    assert table.loc[("villain", "rotated"), "beyond"] == "2 of 2"
    assert table.loc[("villain", "answers"), "beyond"].endswith("of 1")


def test_what_directions_read_and_do(compared):
    _, does = compared
    own = does[does["seed"] == 1].set_index("direction")
    assert list(own.index) == [directions.NONE, *directions.STEERED]
    assert set(does.loc[does["seed"] == 2, "direction"]) == {*own.index} - {"answers", "secure"}
    assert own.loc["villain", "cosine"] == pytest.approx(1, abs=1e-5)
    assert own.loc["none", ["cosine", "separation"]].tolist() == [0, 0.5]
    assert own.loc["rotated", "add_log_odds"] == pytest.approx(own.loc["villain", "add_log_odds"], abs=0.05)
    for change in ("add", "subtract"):
        odds = own[f"{change}_log_odds"]
        assert odds.notna().all() and odds.drop("rotated").nunique() == len(odds) - 1
