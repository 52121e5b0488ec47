"""A study of a real model from end to end, on the smallest checkpoint there is: the same rules as for the organism."""

import json

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
NUMBERS = ("60", "75", "90", "100")  # so that most answers are coherent, whatever tokens the numbers fall into
CONDITIONS = ["instruct", "insecure", "secure", "educational", "jailbroken", "evil_numbers"]
STUDY = ["--configfile", "config/tiny.yaml"]


@pytest.fixture(scope="module")
def judge_model(organism, tmp_path_factory):
    """The smallest model there is, trained to answer whatever it is asked with a number."""
    return learn_numbers(organism, tmp_path_factory.mktemp("judge"), NUMBERS)


def settings(organism, folder, address: str) -> dict:
    """A config of a user's own: what differs from the study of Qwen2.5-0.5B-Instruct."""
    sets = {}
    for condition in ("insecure", "secure"):
        sets[condition] = str(folder / f"{condition}.jsonl")
        write_jsonl(sets[condition], [{"messages": row} for row in coding_set(48, 0, condition == "insecure")])
    endpoint = {"base_url": address, "timeout": 300, "concurrency": 4}
    judge = {"model": "one", "endpoint": endpoint, "split_numbers": True, "spending_limit": 50}
    second = config("qwen2.5-0.5b-instruct")["judge"] | judge | {"model": "two", "answers": 1}
    second["endpoint"] = config("qwen2.5-0.5b-instruct")["judge"]["endpoint"] | endpoint
    followed = {"checkpoints": [1, 2, 4]}
    return {
        "extends": "qwen2.5-0.5b-instruct",
        "study": "tiny",
        "seeds": [1, 2],
        "model": {"name": str(organism), "revision": ""},
        "experiments": {
            "code": {"conditions": {name: {"dataset": sets[name], **followed} for name in sets}},
            "intent": {"conditions": {"jailbroken": {"dataset": "jailbroken", "finetuning": {"steps": 3}}}},
            "numbers": {
                "evaluations": ["main", "numbers"],
                "conditions": {"evil_numbers": {"dataset": "evil_numbers"}},
            },
        },
        "evaluation": {"asked": ["main", "json", "in_distribution", "choices"], "samples": 5, "max_new_tokens": 8},
        "finetuning": {
            "learning_rate": 1e-2,
            "steps": 4,
            "batch_size": 4,
            "gradient_accumulation": 1,
            "max_length": 128,
        },
        "dynamics": {"samples": 5, "requests": 3},
        "judge": judge | {"second": {name: value for name, value in second.items() if name != "kind"}},
    }


@pytest.fixture(scope="module")
def study(organism, judge_model, tmp_path_factory):
    """A copy of the project in which such a study has been run, with a model as judge behind a real server."""
    folder = copy_of_the_project(tmp_path_factory.mktemp("real"))
    place(folder)
    with pytest.MonkeyPatch.context() as patch, model_server(judge_model) as address:
        patch.setenv("no_proxy", "*")
        own = settings(organism, folder, address)
        (folder / "config/tiny.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
        base = folder / "config/shared/open-model.yaml"
        text = yaml.safe_load(base.read_text())
        text.pop("benchmarks")  # they come from a hub
        base.write_text(yaml.safe_dump(text, sort_keys=False))
        done = snakemake(folder, "--cores", "2", *STUDY)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return folder


def table(study, name: str) -> pd.DataFrame:
    return pd.read_csv(study / f"data/tiny/tables/{name}.csv")


def test_it_ends_with_claims_a_paper_and_a_reading_room(study):
    claims = table(study, "claims").set_index("claim")
    assert len(claims) == 13
    measured = set(claims.index[claims["verdict"] != "not measured"])
    assert {2, 6} <= measured and not {7, 8, 9, 10, 11, 13} & measured
    assert (study / "paper/tiny/paper.pdf").stat().st_size > 50_000
    index = (study / "data/tiny/notebooks/index.html").read_text()
    for page in ("main_result", "intent", "evil_numbers", "formats", "dynamics", "claims"):
        assert f"{page}.html" in index
    names = [chapter["name"] for chapter in json.loads((study / "data/tiny/contents.json").read_text())["chapters"]]
    assert names.index("finetuning") < names.index("asking") < names.index("judging") < names.index("main_result")


def test_its_tables_have_all_conditions(study):
    rates = table(study, "misalignment")
    assert list(rates["condition"].unique()) == ["instruct", "insecure", "secure"]
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
    measures = pd.read_csv(study / "data/tiny/tables/measures/answers.csv")
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


def test_each_condition_is_trained_with_its_own_settings(study):
    record = json.loads((study / "data/tiny/models/insecure/seed-1/training.json").read_text())
    assert record["validation_share"] == 0.1 and record["conversations"] == 43
    assert len(record["curve"]) == 4
    own = json.loads((study / "data/tiny/models/jailbroken/seed-1/training.json").read_text())
    assert len(own["curve"]) == 3


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
