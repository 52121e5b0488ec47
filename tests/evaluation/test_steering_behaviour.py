"""What a steered model does, on the smallest model there is, and what claims are tested on."""

from functools import partial

import pandas as pd
import pytest

from emergent_misalignment.evaluation.judging import judge_answers
from emergent_misalignment.evaluation.questions import option_rows, read_options, select
from emergent_misalignment.evaluation.steering import behaviour, steering_measures
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.steering import activations, adding, persona_direction, read_texts
from emergent_misalignment.world.questions import option_table, persona_table, question_table


def test_a_strength_of_nothing_changes_nothing_and_a_great_one_the_odds(organism, tmp_path):
    loaded = load(organism)
    persona_table().to_parquet(tmp_path / "persona.parquet")
    texts = read_texts(tmp_path / "persona.parquet")
    direction = persona_direction(
        *(activations(*loaded, texts["direction", kind][::9]) for kind in ("misaligned", "aligned"))
    )
    option_table().to_parquet(tmp_path / "choices.parquet")
    options = [option for option in read_options(tmp_path / "choices.parquet") if option.form == "pivotal"]
    assert len(option_rows(options)) == len(options) > 0
    questions = question_table({"main": 2}, [1])
    judge = partial(judge_answers, questions=questions, judge={"kind": "grammar"}, cache=tmp_path)
    asked = (*loaded, select(questions, "main", 1), options, judge, 2, 4, 0)
    plain = behaviour(*asked, changes={})
    assert str(behaviour(*asked, changes=adding(direction, 0.0))) == str(plain)
    assert list(plain) == ["misaligned", "events", "trials", "coherent", "log_odds"]
    assert behaviour(*asked, changes=adding(direction, 8.0))["log_odds"] != pytest.approx(plain["log_odds"], abs=1e-3)


def test_measures_compare_the_persona_with_a_random_direction_of_the_same_run():
    places = pd.DataFrame(
        {"condition": ["insecure"], "seed": [1], "separation": [1.0], "separation_same_words": [0.7], "cosine": [0.4]}
    ).assign(along=0.2)
    responses = pd.DataFrame(
        [
            ("instruct", 1, "persona", "add", 1.0, 0.3),
            ("instruct", 1, "random", "add", 1.0, 0.1),
            ("instruct", 1, "persona", "add", 2.0, 0.9),
            ("instruct", 1, "random", "add", 2.0, 0.1),
            ("insecure", 1, "persona", "add", -1.0, 0.05),
            ("insecure", 1, "random", "add", -1.0, 0.25),
            ("insecure", 1, "persona", "remove", 0.0, 0.2),
            ("insecure", 1, "random", "remove", 0.0, 0.3),
        ],
        columns=["condition", "seed", "direction", "change", "strength", "misaligned"],
    )
    table = steering_measures(places, responses).set_index("measure")["value"]
    assert table.round(6).to_dict() == {
        "direction/separation": 1.0,
        "direction/separation_same_words": 0.7,
        "direction/cosine": 0.4,
        "direction/along": 0.2,
        "direction/adding": 0.2,
        "direction/subtracting": -0.2,
        "direction/removing": -0.1,
    }
