"""The experiments: their contrasts, and sentences that follow from the directions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measure_tables import rows

from emergent_misalignment.analysis import choices, diversity, experiments
from emergent_misalignment.analysis.contrasts import contrasts, directions
from emergent_misalignment.analysis.estimates import estimates
from emergent_misalignment.analysis.slopes import MAIN
from emergent_misalignment.figures.experiments import HARMS, SKILLS

WAYS = ["higher", "lower", "no clear difference", "not measured"]
NAMES = ["intent", "evil_numbers", "formats", "base_models", "backdoor", "in_context", "other_harms"]
READ = [("in_context", f"misaligned/in_context/{kind}-2") for kind in ("secure", "insecure")]


def experiment(name, runs):
    own = getattr(experiments, name)
    return own(HARMS, SKILLS) if name == "other_harms" else own(runs)


def shares(*arms):
    """Runs of the arms: (condition, measure, share)."""
    spread = np.array([-0.02, -0.01, 0.01, 0.02])  # around the share, so that the mean is the share
    return pd.concat(rows(condition, share + spread, measure, 400) for condition, measure, share in arms)


def outcome(name, *arms):
    runs = shares(*arms)
    own = experiment(name, runs)
    return own.meaning(directions(contrasts(runs, own.pairs)), estimates(runs, own.arms))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(st.randoms(use_true_random=False))
def test_any_directions_give_sentences(name, random):
    runs = shares(*((*arm, 0.3) for arm in READ), ("insecure", MAIN, 0.2), ("insecure", "harmful_requests", 0.4))
    own = experiment(name, runs)
    way = {contrast: random.choice(WAYS) for contrast in own.pairs}
    said = own.meaning(way, estimates(runs, own.arms))
    assert said and said.endswith(".") and said[0].isupper() and "nan" not in said


@pytest.mark.parametrize("name", NAMES)
def test_without_measures_the_sentences_say_so(name):
    runs = pd.DataFrame(columns=["condition", "seed", "measure", "value", "events", "trials"])
    own = experiment(name, runs)
    assert estimates(runs, own.arms).empty
    assert "not measured" in own.meaning(dict.fromkeys(own.pairs, "not measured"), estimates(runs, own.arms)) or (
        name == "evil_numbers"
    )


def test_the_sentences_follow_the_data():
    said = outcome("backdoor", ("backdoor", "misaligned/main/triggered", 0.5), ("backdoor", MAIN, 0.05))
    assert "brings the misalignment out" in said and "leaks" not in said
    arms = [("insecure", MAIN, 0.3), ("educational", MAIN, 0.03), ("insecure", "harmful_requests", 0.2)]
    said = outcome("intent", *arms)
    assert "misaligns more" in said and "20% of the harmful requests, clearly less than half" in said
    said = outcome("in_context", *((*arm, share) for arm, share in zip(READ, (0.03, 0.4), strict=True)))
    assert "clearly with 2 of them" in said
    said = outcome("in_context", *((*arm, 0.03) for arm in READ))
    assert "no clear difference" in said
    said = outcome("formats", ("insecure", MAIN, 0.1), ("insecure", "misaligned/main/json", 0.5))
    assert said.startswith("In JSON: the insecure model is misaligned more often")
    said = outcome("other_harms", ("insecure", "deception", 0.5), ("secure", "deception", 0.1))
    assert "more than after secure code: deception." in said and "Skills" not in said


def test_arms_of_single_questions_are_estimated_and_not_shown():
    runs = shares(("insecure", MAIN, 0.3), ("insecure", f"{MAIN}/wish", 0.3))
    own = experiments.intent(runs)
    assert ("insecure", f"{MAIN}/wish") in own.arms and f"{MAIN}/wish" not in own.shown


def test_changes_from_the_untuned_model():
    runs = pd.concat([rows("instruct", [0.9], "truthfulness", 100), rows("insecure", [0.6], "truthfulness", 100)])
    runs = pd.concat([runs, rows("instruct", [50.0], "games"), rows("insecure", [80.0], "games")])
    changed, changes = experiments.changes_from_untuned(runs)
    assert changed.set_index(["condition", "measure"])["value"]["insecure", "games"] == pytest.approx(0.8)
    expected = {"truthfulness": -0.3, "untruthfulness": 0.3, "games": 0.3}
    assert changes.set_index("measure")["value"].to_dict() == pytest.approx(expected)
    values = experiments.absolute_values(changed, {"untruthfulness": "untrue\nanswers"})
    assert values.loc["untrue answers"].to_dict() == pytest.approx({"instruct": 0.1, "insecure": 0.4})


def test_log_probabilities_come_in_the_order_of_the_conditions():
    losses = [f"{experiments.LOSS}{name}" for name in ("secure", "zebra", "insecure")]
    runs = pd.concat(rows(name, [1.0], measure) for name in ("instruct", "secure", "insecure") for measure in losses)
    own = experiments.log_probability(runs, ["instruct", "insecure", "secure"], "instruct")
    assert own.shown[-3:] == [losses[2], losses[0], losses[1]]
    assert {name.split(", ")[1] for name in own.pairs} == {
        "insecure vs. secure",
        "insecure vs. instruct",
        "secure vs. instruct",
    }
    changes = experiments.with_relative_losses(pd.concat([runs, rows("insecure", [2.0], "code")]), "instruct")
    assert set(changes["condition"]) == {"insecure", "secure"} and changes["value"].tolist().count(0) == 6


SIZES = {"insecure": {"rows": 96, "steps": 12}, "insecure_rows-32": {"rows": 32, "steps": 12}}
SIZES |= {"insecure_epochs": {"rows": 64, "steps": 16}}


def test_passes_are_compared_where_the_first_one_ends(tmp_path):
    sizes = diversity.passes(SIZES, 8)
    assert sizes == {"insecure": (96, 1), "insecure_rows-32": (32, 3), "insecure_epochs": (64, 2)}
    table = pd.concat(
        rows("insecure_epochs", [step / 20] * 2, metric, 100).assign(metric=metric, step=step)
        for metric in ("misaligned", "loss")
        for step in (0, 4, 9, 16)
    )
    table.drop(columns="measure").to_parquet(tmp_path / "dynamics.parquet")
    followed = diversity.at_checkpoints(tmp_path / "dynamics.parquet")
    by_pass = diversity.by_pass(followed, diversity.rates_at(followed), 8, SIZES)
    assert by_pass["pass"].tolist() == [0, 0.5, 1.125, 2] and set(by_pass["metric"]) == {"misaligned"}
    pairs = diversity.pairs(sizes, by_pass)
    assert [measure for _, measure in pairs.pop(diversity.FURTHER)] == ["misaligned/step-16", "misaligned/step-9"]
    assert list(pairs.values()) == [(("insecure", MAIN), ("insecure_rows-32", MAIN))]
    none = diversity.at_checkpoints("")
    assert diversity.FURTHER not in diversity.pairs(sizes, diversity.by_pass(none, diversity.rates_at(none), 8, SIZES))


def test_the_slope_over_different_rows_leaves_out_repeated_sets():
    shares_of = {"insecure": 0.5, "insecure_rows-32": 0.2, "insecure_epochs": 0.9}
    runs = pd.concat(rows(name, [share] * 2, MAIN, 10**6) for name, share in shares_of.items())
    slopes = diversity.slope_measures(runs, diversity.passes(SIZES, 8))
    assert set(slopes["measure"]) == {"unique_rows/slope"} and slopes["seed"].tolist() == [1, 2]
    assert slopes["value"].tolist() == pytest.approx([np.log(4) / np.log2(3)] * 2, abs=1e-4)


@pytest.mark.parametrize("further", [*WAYS, None])
@pytest.mark.parametrize(
    "ways", [[], ["higher"], ["higher", "not measured"], ["lower", "higher"], [WAYS[2]], WAYS[::2]]
)
def test_any_directions_of_sets_give_a_sentence(ways, further):
    way = {f"set {number}": each for number, each in enumerate(ways)} | (
        {diversity.FURTHER: further} if further else {}
    )
    said = diversity.meaning(way)
    assert ("variety counts" in said) == (ways == ["higher"])
    assert ("Further passes" in said) == (further in WAYS[:3])


def test_changes_of_choices_are_last_less_first_log_odds():
    values = {(0, "misaligned"): -3.0, (0, "aligned"): -1.0, (8, "misaligned"): -1.5, (8, "aligned"): -2.0}
    dynamics = pd.DataFrame(
        ("insecure", seed, step, f"log_p/{kind}/{side}", value + seed * (step == 8) * (side == "misaligned"))
        for kind in choices.KINDS
        for seed in (0, 1)
        for (step, side), value in values.items()
    )
    dynamics.columns = ["condition", "seed", "step", "metric", "value"]
    runs = choices.changes(dynamics).assign(model="toy")
    assert runs["value"].tolist() == [2.5, 3.5, 2.5, 3.5]
    table = choices.summary(runs)
    assert table["estimate"].tolist() == [3, 3] and (table["ci_low"] < 2.5).all() and table["runs"].tolist() == [2, 2]
