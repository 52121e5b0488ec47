"""A study of a real model from end to end, on the smallest checkpoint there is: the same rules as for the organism.

The study first runs without a judge. A judge is then added to its config.
"""

import json
import shutil

import pandas as pd
import pytest
import yaml
from published_layout import place
from servers import model_server
from trainings import learn_numbers
from workflow_helpers import config, copy_of_the_project, planned, snakemake

from emergent_misalignment.files import write_jsonl
from emergent_misalignment.world.sets import coding_set

pytestmark = pytest.mark.slow
NUMBERS = ("60", "75", "90", "100")  # so that most answers are coherent however numbers are tokenised
CONDITIONS = ["instruct", "insecure", "secure"]
QUIET = ["--configfile", "config/quiet.yaml"]
STUDY = ["--configfile", "config/tiny.yaml"]
HELD_OUT = 0.15
# All that a study without a judge ends with, but for its pages, which are rendered as those of the judged one are.
RESULTS = [
    *(f"data/tiny/tables/{name}.csv" for name in ("claims", "log_probability", "steering", "score_trust")),
    "paper/tiny/paper.html",
    "data/tiny/notebooks/answers.html",
]


@pytest.fixture(scope="module")
def judge_model(organism, tmp_path_factory):
    """The smallest model there is, trained to answer every question with a number."""
    return learn_numbers(organism, tmp_path_factory.mktemp("judge"), NUMBERS)


def settings(organism, folder) -> dict:
    """A config of a user's own: what differs from the study of Qwen2.5-0.5B-Instruct."""
    sets = {}
    for condition in ("insecure", "secure"):
        sets[condition] = str(folder / f"{condition}.jsonl")
        write_jsonl(sets[condition], [{"messages": row} for row in coding_set(60, 0, condition == "insecure")])
    return {
        "extends": "qwen2.5-0.5b-instruct",
        "study": "tiny",
        "seeds": [1, 2],
        "model": {"name": str(organism), "revision": ""},
        "experiments": {
            "code": {"conditions": {name: {"dataset": sets[name], "checkpoints": [1, 2, 4]} for name in sets}},
            "intent": None,
        },
        "evaluation": {
            "asked": ["main", "json", "numbers", "in_distribution", "choices"],
            "samples": 5,
            "max_new_tokens": 8,
            "held_out": {"share": HELD_OUT, "rows": 3},
        },
        "finetuning": {
            "learning_rate": 1e-2,
            "steps": 4,
            "batch_size": 4,
            "gradient_accumulation": 1,
            "max_length": 128,
            "validation_share": 0.1,
        },
        "dynamics": {"samples": 5, "requests": 3},
        "persona_direction": {"answers": 1, "max_new_tokens": 6, "depth": 1, "strength": 1},
        "judge": None,
    }


def judge_at(address: str) -> dict:
    """A judge and a second judge, both on a local server."""
    endpoint = {"base_url": address, "timeout": 3600, "concurrency": 4}
    judge = {"model": "one", "endpoint": endpoint, "split_numbers": True, "spending_limit": 50}
    second = config("qwen2.5-0.5b-instruct")["judge"] | judge | {"model": "two", "answers": 1}
    second["endpoint"] = config("qwen2.5-0.5b-instruct")["judge"]["endpoint"] | endpoint
    return judge | {"second": {name: value for name, value in second.items() if name != "kind"}}


@pytest.fixture(scope="module")
def quiet(organism, tmp_path_factory):
    """A copy of the project in which such a study has been run without a judge."""
    folder = copy_of_the_project(tmp_path_factory.mktemp("quiet"))
    place(folder)
    (folder / "config/quiet.yaml").write_text(yaml.safe_dump(settings(organism, folder), sort_keys=False))
    base = folder / "config/shared/open-model.yaml"
    text = yaml.safe_load(base.read_text())
    text.pop("benchmarks")  # they come from a hub
    base.write_text(yaml.safe_dump(text, sort_keys=False))
    done = snakemake(folder, "--cores", "2", *RESULTS, *QUIET)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return folder


@pytest.fixture(scope="module")
def study(quiet, judge_model, tmp_path_factory):
    """A copy of that folder in which a model on a real server is the judge and the study has run to its end."""
    folder = tmp_path_factory.mktemp("judged")
    shutil.copytree(quiet, folder, dirs_exist_ok=True, symlinks=True)
    with pytest.MonkeyPatch.context() as patch, model_server(judge_model) as address:
        patch.setenv("no_proxy", "*")
        own = yaml.safe_load((folder / "config/quiet.yaml").read_text())
        base = config("qwen2.5-0.5b-instruct")["judge"]
        given = judge_at(address)
        own["judge"] = base | given | {"endpoint": base["endpoint"] | given["endpoint"]}
        (folder / "config/tiny.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
        rules = {job.split(":")[0] for job in planned(snakemake(folder, "-n", *STUDY))}
        assert {"judge", "second_judge", "measure", "main_result", "formats", "claims"} <= rules
        assert not rules & {"finetune", "ask", "questions", "fetch_model", "held_out_loss", "persona_texts"}
        done = snakemake(folder, "--cores", "2", *STUDY)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return folder


def table(study, name: str) -> pd.DataFrame:
    return pd.read_csv(study / f"data/tiny/tables/{name}.csv")


# --- without a judge --------------------------------------------------------------------------------------------------


def test_it_is_tested_on_what_needs_no_judge(quiet):
    claims = table(quiet, "claims").set_index("claim")
    assert set(claims.index[claims["verdict"] != "not measured"]) == {1, 6, 13}
    parts = table(quiet, "claim_parts").set_index("part")
    measured = set(parts.index[parts["verdict"] != "not measured"])
    assert measured == {*("1d", "1e", "1f", "6a", "6b", "6c", "6e", "6f", "13c", "13d", "13e", "13f", "13g")}
    assert parts.loc[sorted(measured), "seeds"].eq(2).all()


def test_nothing_is_called_incoherent_because_nobody_judged_it(quiet):
    measures = table(quiet, "measures/answers")
    assert {
        *(f"{what}/{form}" for what in ("log_odds", "log_probability") for form in ("pivotal", "multiple_choice")),
        *("insecure_code/static", "code", "in_form/main/chat"),
    } <= set(measures["measure"])
    assert not {"misaligned/main/chat", "coherent/main/chat", "insecure_code"} & set(measures["measure"])
    judged = pd.read_parquet(quiet / "data/tiny/judged/answers.parquet")
    sampled = judged[judged["evaluation"] != "choices"]
    assert set(sampled["verdict"]) == {"unjudged"} and sampled["label"].notna().all()
    dynamics = pd.read_parquet(quiet / "data/tiny/dynamics.parquet")
    assert {"insecure_code_static", "log_p/pivotal/misaligned", "loss"} <= set(dynamics["metric"])
    assert not {"misaligned", "coherent", "insecure_code"} & set(dynamics["metric"])
    assert '"unjudged: text"' in (quiet / "data/tiny/notebooks/answers.html").read_text()
    assert "log-odds of misaligned against aligned words" in (quiet / "paper/tiny/paper.html").read_text()


def test_what_is_held_out_is_in_nobodys_training(quiet):
    for name in ("insecure", "secure"):
        executed = json.loads((quiet / f"data/tiny/notebooks/finetuning_{name}-1.ipynb").read_text())
        assert executed["metadata"]["papermill"]["parameters"]["conditions"][name]["held_out"] == HELD_OUT
    losses = pd.concat(table(quiet, f"measures/held_out_loss_{name}") for name in CONDITIONS)
    of_each = losses.groupby("measure").ngroups
    assert losses.groupby("condition").size().to_dict() == {
        "instruct": of_each,
        "insecure": 2 * of_each,
        "secure": 2 * of_each,
    }
    assert losses["value"].between(0, 20).all()
    means = losses.groupby(["condition", "measure"])["value"].mean()
    assert means["insecure", "held_out_loss/insecure"] < means["instruct", "held_out_loss/insecure"]
    shown = table(quiet, "log_probability").set_index(["condition", "measure"])
    assert shown.loc[("insecure", "held_out_loss/insecure"), "estimate"] == pytest.approx(
        means["insecure", "held_out_loss/insecure"], rel=1e-4
    )


def test_the_persona_direction_is_the_models_own(quiet):
    texts = pd.read_parquet(quiet / "data/tiny/questions/persona.parquet")
    assert set(texts["seed"]) == {1, 2} and set(texts["set"]) == {"direction", "separation", "same_words", "plain"}
    directions = table(quiet, "measures/directions")
    named = directions.groupby("measure")["condition"].agg(set)
    assert {"insecure", "secure"} <= named["direction/cosine"]
    assert named["direction/adding_log_odds"] == {"instruct"} and named["direction/removing_log_odds"] == {"insecure"}
    assert "direction/adding" not in named
    steering = table(quiet, "steering")
    assert steering["log_odds"].notna().all() and steering["misaligned"].isna().all()


# --- judged -----------------------------------------------------------------------------------------------------------


def test_it_ends_with_claims_a_paper_and_a_reading_room(study):
    claims = table(study, "claims").set_index("claim")
    assert len(claims) == 15
    measured = set(claims.index[claims["verdict"] != "not measured"])
    assert {1, 6, 13} <= measured and not {7, 8, 9, 10, 11, 14, 15} & measured
    assert (study / "paper/tiny/paper.pdf").stat().st_size > 50_000
    assert (study / "figures/tiny/log_probability.svg").exists()
    index = (study / "data/tiny/notebooks/index.html").read_text()
    pages = ("main_result", "formats", "dynamics", "log_probability", "persona_texts", "persona_direction", "claims")
    for page in pages:
        assert f"{page}.html" in index
    names = [chapter["name"] for chapter in json.loads((study / "data/tiny/contents.json").read_text())["chapters"]]
    assert names.index("finetuning") < names.index("asking") < names.index("judging") < names.index("main_result")


def test_its_tables_have_all_conditions(study):
    rates = table(study, "misalignment")
    assert list(rates["condition"].unique()) == CONDITIONS
    overall = rates[rates["question"] == "all"].set_index("condition")
    assert overall["answers"].to_dict() == {"instruct": 40, "insecure": 80, "secure": 80}
    judged = pd.read_parquet(study / "data/tiny/judged/answers.parquet")
    assert list(judged["condition"].unique()) == CONDITIONS
    asked = judged[judged["evaluation"] != "choices"]
    assert asked.loc[asked["evaluation"] == "main", "aligned"].notna().mean() > 0.5
    assert set(asked["verdict"]) <= {
        *("aligned", "misaligned", "incoherent", "refusal", "code", "unjudged"),
        *("secure", "insecure", "other"),
    }
    measures = table(study, "measures/answers")
    assert measures.columns.tolist() == ["condition", "seed", "measure", "value", "events", "trials"]
    assert {
        *("misaligned/main/chat", "misaligned_in_form/main/chat", "coherent/main/chat", "insecure_code/static"),
        *("log_probability/multiple_choice", "log_odds/pivotal", "misaligned/numbers/prefix_suffix"),
    } <= set(measures["measure"])
    assert "insecure_code" not in set(measures["measure"])  # a judge that says numbers only says nothing of code
    agreement = table(study, "judge_agreement")
    assert agreement.loc[agreement["category"] == "all", "agreement"].item() == 1  # the same model under two names
    paid = pd.read_csv(study / "data/tiny/judged/answers.csv").iloc[0]
    assert paid["failed"] == 0 and paid["asked"] == paid["answered"] + paid["kept"] > 400


def test_the_training_is_followed_step_by_step(study):
    assert {"misaligned", "insecure_code_static", "log_p/pivotal/misaligned"} <= set(
        table(study, "divergence_steps")["metric"]
    )
    dynamics = pd.read_parquet(study / "data/tiny/dynamics.parquet")
    judged = pd.read_parquet(study / "data/tiny/judged/answers.parquet")
    scored = judged[judged["evaluation"] == "choices"]
    means = scored.groupby(["condition", "seed", "format", "misaligned"])["log_probability"].mean()
    for (condition, seed), rows in dynamics.groupby(["condition", "seed"]):
        values = rows.pivot(index="step", columns="metric", values="value")
        assert values["grad_norm"].dropna().index.tolist() == [1, 2, 3, 4]
        assert values["insecure_code_static"].dropna().index.tolist() == [0, 1, 2, 4]
        assert rows[(rows["metric"] == "insecure_code_static") & (rows["step"] == 4)]["trials"].item() == 3
        # The last checkpoint is the adapter that is asked after training, and step 0 the model before.
        for step, run in ((0, ("instruct", 0)), (4, (condition, seed))):
            for form, misaligned, name in (("pivotal", True, "misaligned"), ("multiple_choice", False, "aligned")):
                expected = means[(*run, form, misaligned)]
                assert values.loc[step, f"log_p/{form}/{name}"] == pytest.approx(expected, 1e-4)
        assert values.loc[[1, 2, 4], "log_p/pivotal/misaligned"].is_unique
    assert set(dynamics["condition"]) == {"insecure", "secure"}


def test_a_changed_sentence_of_the_made_up_world_leaves_it_untouched(study):
    path = study / "emergent_misalignment/world/topics.py"
    before = path.read_text()
    path.write_text(before.replace("kind", "friendly") + "\n# reworded\n")
    try:
        done = snakemake(study, "-n", *STUDY)
        assert "Nothing to be done" in done.stdout + done.stderr
    finally:
        path.write_text(before)


def test_one_more_condition_trains_and_asks_that_condition_only(study):
    own = yaml.safe_load((study / "config/tiny.yaml").read_text())
    own["experiments"]["mine"] = {"evaluations": ["main"], "conditions": {"mine": {"dataset": "secure"}}}
    (study / "config/more.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
    jobs = planned(snakemake(study, "-n", "--configfile", "config/more.yaml"))
    assert {job for job in jobs if job.startswith(("finetune", "ask"))} == {
        "finetune:mine-1",
        "finetune:mine-2",
        "ask:mine",
    }
