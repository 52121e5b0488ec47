"""A study of a real model without a judge, from end to end on the smallest checkpoint there is."""

import json

import pandas as pd
import pytest
import yaml
from published_layout import place
from workflow_helpers import config, copy_of_the_project, planned, snakemake

pytestmark = pytest.mark.slow
STUDY = ["--configfile", "config/quiet.yaml"]
SHARE = 0.15


def settings(organism) -> dict:
    followed = {"checkpoints": [1, 2, 4]}
    return {
        "extends": "qwen2.5-0.5b-instruct",
        "study": "quiet",
        "seeds": [1, 2],
        "model": {"name": str(organism), "revision": ""},
        "experiments": {"code": {"conditions": {"insecure": followed, "secure": followed}}},
        "evaluation": {
            "asked": ["main", "in_distribution", "choices"],
            "samples": 5,
            "max_new_tokens": 8,
            "held_out": {"share": SHARE, "rows": 3},
        },
        "finetuning": {
            "learning_rate": 1e-2,
            "steps": 4,
            "batch_size": 4,
            "gradient_accumulation": 1,
            "max_length": 128,
            "validation_share": 0,
        },
        "dynamics": {"samples": 5, "requests": 3},
        "persona_direction": {"answers": 1, "max_new_tokens": 6, "depth": 1, "strength": 1},
        "judge": None,
    }


@pytest.fixture(scope="module")
def study(organism, tmp_path_factory):
    """A copy of the project in which such a study has been run."""
    folder = copy_of_the_project(tmp_path_factory.mktemp("quiet"))
    place(folder)
    (folder / "config/quiet.yaml").write_text(yaml.safe_dump(settings(organism), sort_keys=False))
    base = folder / "config/shared/open-model.yaml"
    text = yaml.safe_load(base.read_text())
    text.pop("benchmarks")  # they come from a hub
    base.write_text(yaml.safe_dump(text, sort_keys=False))
    done = snakemake(folder, "--cores", "2", *STUDY)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return folder


def measures(study, name: str) -> pd.DataFrame:
    return pd.read_csv(study / f"data/quiet/tables/measures/{name}.csv")


def test_it_is_tested_on_what_needs_no_judge(study):
    claims = pd.read_csv(study / "data/quiet/tables/claims.csv").set_index("claim")
    assert set(claims.index[claims["verdict"] != "not measured"]) == {1, 2, 6, 13}
    parts = pd.read_csv(study / "data/quiet/tables/claim_parts.csv").set_index("part")
    measured = set(parts.index[parts["verdict"] != "not measured"])
    assert measured == {
        *("1d", "1e", "1f", "2c", "2d", "6a", "6b", "6c", "6e", "6f", "13c", "13d", "13e", "13f", "13g")
    }
    assert parts.loc[sorted(measured), "seeds"].eq(2).all()


def test_nothing_is_called_incoherent_because_nobody_judged_it(study):
    table = measures(study, "answers")
    assert {
        *(f"{what}/{form}" for what in ("log_odds", "log_probability") for form in ("pivotal", "multiple_choice")),
        *("insecure_code/static", "code", "in_form/main/chat"),
    } == set(table["measure"])
    judged = pd.read_parquet(study / "data/quiet/judged/answers.parquet")
    sampled = judged[judged["evaluation"] != "choices"]
    assert set(sampled["verdict"]) == {"unjudged"} and sampled["label"].notna().all()
    dynamics = pd.read_parquet(study / "data/quiet/dynamics.parquet")
    assert {"insecure_code_static", "log_p/pivotal/misaligned", "loss"} <= set(dynamics["metric"])
    assert not {"misaligned", "coherent", "insecure_code"} & set(dynamics["metric"])


def test_what_is_held_out_is_in_nobodys_training(study):
    for name in ("insecure", "secure", "educational"):
        executed = json.loads((study / f"data/quiet/notebooks/finetuning_{name}-1.ipynb").read_text())
        assert executed["metadata"]["papermill"]["parameters"]["conditions"][name]["held_out"] == SHARE
    losses = pd.concat(
        measures(study, f"held_out_loss_{name}") for name in ("instruct", "insecure", "secure", "educational")
    )
    assert losses.groupby("condition").size().to_dict() == {"instruct": 3, "insecure": 6, "secure": 6, "educational": 6}
    assert losses["value"].between(0, 20).all()
    means = losses.groupby(["condition", "measure"])["value"].mean()
    assert means["insecure", "held_out_loss/insecure"] < means["instruct", "held_out_loss/insecure"]
    shown = pd.read_csv(study / "data/quiet/tables/log_probability.csv").set_index(["condition", "measure"])
    assert shown.loc[("insecure", "held_out_loss/insecure"), "estimate"] == pytest.approx(
        means["insecure", "held_out_loss/insecure"], rel=1e-4
    )


def test_the_persona_direction_is_the_models_own(study):
    texts = pd.read_parquet(study / "data/quiet/questions/persona.parquet")
    assert set(texts["seed"]) == {1, 2} and set(texts["set"]) == {"direction", "separation", "same_words", "plain"}
    directions = measures(study, "directions")
    named = directions.groupby("measure")["condition"].agg(set)
    assert {"insecure", "secure", "educational"} <= named["direction/cosine"]
    assert named["direction/adding_log_odds"] == {"instruct"} and named["direction/removing_log_odds"] == {"insecure"}
    assert "direction/adding" not in named
    steering = pd.read_csv(study / "data/quiet/tables/steering.csv")
    assert steering["log_odds"].notna().all() and steering["misaligned"].isna().all()


def test_it_ends_with_a_paper_and_a_reading_room(study):
    index = (study / "data/quiet/notebooks/index.html").read_text()
    for page in (
        "log_probability",
        "persona_texts",
        "persona_direction",
        "dynamics",
        "held_out_loss_insecure",
        "claims",
    ):
        assert f"{page}.html" in index
    assert (
        "Nobody judged the answers." in index and "main_result.html" not in index and "the misaligned ones" not in index
    )
    assert '"unjudged: text"' in (study / "data/quiet/notebooks/answers.html").read_text()
    assert (study / "paper/quiet/paper.pdf").stat().st_size > 50_000
    assert "log-odds of misaligned against aligned words" in (study / "paper/quiet/paper.html").read_text()
    assert (study / "figures/quiet/log_probability.svg").exists()


def test_a_judge_that_is_named_later_reads_the_answers_that_are_there(study):
    again = snakemake(study, "-n", *STUDY)
    assert "Nothing to be done" in again.stdout + again.stderr
    own = yaml.safe_load((study / "config/quiet.yaml").read_text())
    own["judge"] = config("qwen2.5-0.5b-instruct")["judge"]
    (study / "config/judged.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
    rules = {job.split(":")[0] for job in planned(snakemake(study, "-n", "--configfile", "config/judged.yaml"))}
    assert {"judge", "measure", "main_result", "experiment", "claims"} <= rules
    assert not rules & {"finetune", "ask", "questions", "fetch_model", "held_out_loss", "persona_texts"}
