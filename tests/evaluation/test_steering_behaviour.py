"""Effects of steering on a tiny model, the choice of a dose, and the measures of steering."""

import shutil

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from emergent_misalignment.evaluation import steering
from emergent_misalignment.evaluation.questions import option_rows
from emergent_misalignment.evaluation.steering import (
    LEAST_COHERENT,
    asking,
    behaviour,
    choose,
    responses,
    steering_measures,
)
from emergent_misalignment.files import BadInput
from emergent_misalignment.models.activations import activations, changes_of, persona_direction, read_texts
from emergent_misalignment.models.loading import load
from emergent_misalignment.world.questions import option_table, persona_table, question_table


def test_steering_changes_log_odds(organism, tmp_path):
    loaded = load(organism)
    persona_table().to_parquet(tmp_path / "persona.parquet")
    texts = read_texts(tmp_path / "persona.parquet", 1)
    direction = persona_direction(
        *(activations(*loaded, texts["direction", kind][::9]) for kind in ("misaligned", "aligned"))
    )
    option_table().to_parquet(tmp_path / "choices.parquet")
    question_table({"main": 2}, [1]).to_parquet(tmp_path / "questions.parquet")
    asked = asking(tmp_path, {"kind": "grammar"}, tmp_path, 1) | {"samples": 2, "max_new_tokens": 4}
    assert len(option_rows(asked["options"])) == len(asked["options"]) > 0
    plain = behaviour(*loaded, **asked, seed=0, changes={})
    assert list(plain) == ["misaligned", "events", "trials", "coherent", "log_odds"]
    assert str(behaviour(*loaded, **asked, seed=0, changes=changes_of(direction, "add", 1, 0.0))) == str(plain)
    rows = responses(*loaded, direction, [("add", 1, 0.0), ("subtract", 1, 8.0), ("out", 0, 0)], 0, **asked)
    assert rows["direction"].tolist() == ["persona", "random"] * 3
    odds = rows.set_index(["change", "direction"])["log_odds"]
    assert odds["add"].tolist() == [plain["log_odds"]] * 2
    assert odds["subtract", "persona"] != pytest.approx(plain["log_odds"], abs=1e-3)
    assert odds["subtract", "persona"] != pytest.approx(odds["subtract", "random"], abs=1e-3)
    (tmp_path / "questions.parquet").unlink()
    alone = asking(tmp_path, {}, tmp_path, 1) | {"samples": 0, "max_new_tokens": 4}
    unjudged = responses(*loaded, direction, [("add", 1, 0.0), ("subtract", 1, 8.0), ("out", 0, 0)], 0, **alone)
    assert unjudged["log_odds"].tolist() == rows["log_odds"].tolist()
    assert unjudged[["misaligned", "events", "trials", "coherent"]].isna().all(axis=None)


SHARES = [f"{change}{way}" for change in ("adding", "removing", "projecting_out") for way in ("", "_random")]
COLUMNS = ["condition", "seed", "direction", "change", "depth", "strength", "misaligned", "coherent"]


def test_measures_of_steering():
    places = pd.DataFrame(
        {"condition": ["insecure"], "seed": [1], "separation": [1.0], "separation_same_words": [0.71], "cosine": [0.4]}
    ).assign(along=0.2)
    places = pd.concat([places, pd.DataFrame({"condition": ["backdoor"], "seed": [1], "cosine": [0.1], "along": [0]})])
    table = pd.DataFrame(
        [
            ("instruct", 1, "persona", "add", 2, 1.5, 0.3, 1),
            ("instruct", 1, "random", "add", 2, 1.5, 0.1, 1),
            ("instruct", 1, "persona", "add", 2, 2.0, 0.9, 1),
            ("instruct", 1, "random", "add", 2, 2.0, 0.1, 1),
            ("secure", 1, "persona", "add", 2, 1.5, 0.8, 1),
            ("secure", 1, "random", "add", 2, 1.5, 0.1, 1),
            ("insecure", 1, "persona", "subtract", 2, 0.5, 0.05, 1),
            ("insecure", 1, "random", "subtract", 2, 0.5, 0.25, 1),
            ("insecure", 1, "persona", "out", 0, 0.0, 0.2, 1),
            ("insecure", 1, "random", "out", 0, 0.0, 0.3, 1),
        ],
        columns=COLUMNS,
    )
    table = table.assign(events=(table["misaligned"] * 100).round(), trials=100, log_odds=-table["misaligned"])
    measures = steering_measures(places, table, 1.5, 0.5, {"separation": 320, "separation_same_words": 10})
    own = measures[measures["condition"] != "backdoor"].set_index("measure")
    assert own["value"].round(6).to_dict() == {
        "direction/separation": 1.0,
        "direction/separation_same_words": 0.71,
        "direction/cosine": 0.4,
        "direction/along": 0.2,
        "direction/adding": 0.3,
        "direction/adding_random": 0.1,
        "direction/removing": 0.05,
        "direction/removing_random": 0.25,
        "direction/projecting_out": 0.2,
        "direction/projecting_out_random": 0.3,
        "direction/adding_log_odds": -0.3,
        "direction/adding_log_odds_random": -0.1,
        "direction/removing_log_odds": -0.05,
        "direction/removing_log_odds_random": -0.25,
    }
    kinds = ["insecure"] * 4 + ["instruct"] * 2 + ["insecure"] * 4 + ["instruct"] * 2 + ["insecure"] * 2
    assert own["condition"].tolist() == kinds
    assert own.loc[own.index.str.contains("log_odds"), ["events", "trials"]].isna().all(axis=None)
    counts = own[["events", "trials"]].T.to_dict("list")
    assert counts["direction/separation"] == [320, 320] and counts["direction/separation_same_words"] == [7, 10]
    assert counts["direction/adding"] == [30, 100]
    others = measures.loc[measures["condition"] == "backdoor", "measure"]
    assert others.tolist() == ["direction/cosine", "direction/along"]
    unjudged = table.assign(misaligned=float("nan"), events=pd.NA, trials=pd.NA)
    without = steering_measures(places, unjudged, 1.5, 0.5, {"separation": 320, "separation_same_words": 10})
    assert set(own.index) - set(without["measure"]) == {name for name in own.index if name.split("/")[1] in SHARES}


def search(cells):
    """Responses of two seeds from effects and coherence by change, depth and strength."""
    rows = []
    for (change, depth, strength), (effect, coherent) in cells.items():
        condition, plain, sign = {"add": ("instruct", 0.02, 1), "subtract": ("insecure", 0.9, -1)}[change]
        for seed in (1, 2):
            place = (change, depth, strength)
            rows.append((condition, seed, "persona", *place, plain + sign * effect, coherent + 0.02 * (seed - 1.5)))
            rows.append((condition, seed, "random", *place, plain, 1.0))
    return pd.DataFrame(rows, columns=COLUMNS)


def test_the_dose_with_the_greatest_sum_of_effects_is_chosen():
    cells = {
        ("add", 1, 0.5): (0.4, 0.9),
        ("add", 1, 1.0): (0.8, 0.78),  # too few coherent
        ("add", 2, 0.5): (0.2, 0.95),
        ("add", 2, 1.0): (0.3, 0.85),
        ("subtract", 1, 0.5): (0.1, 0.99),
        ("subtract", 1, 1.0): (0.0, 0.99),
        ("subtract", 2, 0.5): (0.3, 0.99),
        ("subtract", 2, 1.0): (0.25, 0.99),
        ("add", 3, 0.5): (0.9, 0.9),  # no coherent subtraction
        ("subtract", 3, 0.5): (0.9, 0.5),
    }
    assert choose(search(cells)) == {"depth": 2, "adding": 1.0, "removing": 0.5}
    with pytest.raises(BadInput, match="smaller strengths"):
        choose(search({("add", 1, 2.0): (0.4, 0.3), ("subtract", 1, 2.0): (0.4, 0.9)}))
    ties = {(change, depth, s): (0.25, 1) for change in ("add", "subtract") for depth in (2, 1) for s in (1.0, 0.5)}
    assert choose(search(ties)) == {"depth": 1, "adding": 0.5, "removing": 0.5}


@settings(deadline=None)
@given(st.data())
def test_the_chosen_dose_is_coherent_and_best_at_its_depth(data):
    cell = st.tuples(st.floats(0, 0.8), st.floats(0, 1))
    places = [(change, depth, s) for change in ("add", "subtract") for depth in (1, 2, 3) for s in (0.5, 1.0)]
    cells = {place: data.draw(cell) for place in places}
    found = search(cells)
    try:
        chosen = choose(found)
    except BadInput:
        usable = {(change, depth) for (change, depth, _), (_, coherent) in cells.items() if coherent >= LEAST_COHERENT}
        assert not any({("add", depth), ("subtract", depth)} <= usable for depth in (1, 2, 3))
        return
    for change, name in (("add", "adding"), ("subtract", "removing")):
        effect, coherent = cells[change, chosen["depth"], chosen[name]]
        assert coherent >= LEAST_COHERENT - 1e-9
        for strength in (0.5, 1.0):
            other, as_coherent = cells[change, chosen["depth"], strength]
            assert other <= effect + 1e-9 or as_coherent < LEAST_COHERENT + 1e-9


def test_the_search_covers_all_depths_and_strengths(organism, tmp_path, monkeypatch):
    study = tmp_path / "development"
    for seed in (100, 103):
        shutil.copytree(organism, study / f"organisms/main/seed-{seed}/instruct")
        network, _ = load(organism)
        lora = LoraConfig(r=1, lora_alpha=1, use_rslora=True, target_modules=["q_proj"], task_type="CAUSAL_LM")
        get_peft_model(network, lora).save_pretrained(study / f"models/insecure/seed-{seed}")
    (study / "questions").mkdir()
    question_table({"main": 2}, [100]).to_parquet(study / "questions/questions.parquet")
    option_table().to_parquet(study / "questions/choices.parquet")
    persona_table().to_parquet(study / "questions/persona.parquet")
    for name, value in {"STRENGTHS": (0.5, 1.0), "SAMPLES": 1, "MAX_NEW_TOKENS": 2}.items():
        monkeypatch.setattr(steering, name, value)
    found = steering.search(study)
    assert len(found) == 2 * 2 * 2 * 2  # seeds, conditions, strengths, directions
    assert set(found["seed"]) == {100, 103} and set(found["depth"]) == {1}
    assert set(zip(found["condition"], found["change"], strict=True)) == {("instruct", "add"), ("insecure", "subtract")}
