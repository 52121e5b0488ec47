"""What a changed setting, module or data set of a finished study repeats, and what it leaves alone."""

import shutil

import pandas as pd
import pytest
from workflow_helpers import SMOKE, changed, planned, snakemake, study

pytestmark = pytest.mark.slow
STUDY = study("smoke")
TUNED = {f"finetune:{batch}" for batch in STUDY.batches.tuning}
ASKED = {f"ask:{batch}" for batch in STUDY.batches.asking}
JUDGED = {"judge:answers"}
FOLLOWED = {f"ask:{batch}" for batch in STUDY.batches.following}
FOLLOWED |= {"judge:following", "follow", "dynamics", "diversity"}
BELIEFS = {f"beliefs:{batch}" for batch in STUDY.batches.believing}
EXPERIMENTS = {"intent", "evil_numbers", "formats", "base_models", "backdoor", "in_context", "other_harms"}
REPORT = {"pages", "index", "paper", "run_details"}
# What stands on the answers of the models, however they came about.
RESULTS = {
    "measure",
    "main_result",
    "answers",
    "diversity",
    "scale",
    "worlds",
    "persona_direction",
    "directions",
    "claims",
}
RESULTS |= EXPERIMENTS | REPORT | {"score_trust", "authors", "defences"}
UNTUNED = {"ask:untuned", "beliefs:untuned"}
PRETRAINED = {f"pretrain:{name}:{seed}" for name in STUDY.organisms for seed in STUDY.seeds_of(name)}
INSTRUCT = {job.replace("pretrain", "instruct") for job in PRETRAINED}
NUMBERS = {f"numbers:{seed}" for seed in STUDY.seeds} | {"audit", "dynamics", "persona_gate", "score_rows"}
FROM_INSTRUCT = INSTRUCT | NUMBERS | TUNED | ASKED | JUDGED | FOLLOWED | BELIEFS | RESULTS


def of_other_organisms(name: str, experiment: str) -> set[str]:
    """What another kind of organism takes, while the main ones stay as they are."""
    own = {job for job in PRETRAINED | INSTRUCT if f":{name}:" in job}
    return own | {"gate", "persona_gate", f"finetune:{experiment}", f"ask:{experiment}"} | JUDGED | RESULTS


def test_a_second_run_has_nothing_to_do(smoke):
    again = snakemake(smoke, "--cores", "2", *SMOKE)
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.parametrize(
    ("over", "jobs"),
    [
        ({"evaluation": {"samples_of": {"main": 11}}}, {"world", "score_rows"} | ASKED | JUDGED | FOLLOWED | RESULTS),
        ({"finetuning": {"learning_rate": 0.002}}, TUNED | (ASKED | BELIEFS) - UNTUNED | JUDGED | FOLLOWED | RESULTS),
        (
            {"datasets": {"number_rows": 41}},
            NUMBERS | {"finetune:intent", "ask:intent", "beliefs:intent"} | JUDGED | RESULTS,
        ),
        ({"instruct": {"steps": 9}}, FROM_INSTRUCT),
        ({"gate": {"earlier_code": -99}}, {"gate", "persona_gate"} | REPORT),
        ({"ladder": {"width-128": {"layers": 2}}}, of_other_organisms("width-128", "ladder")),
        ({"dynamics": {"samples": 6}}, FOLLOWED | {"claims"} | REPORT),
        ({"steering": {"samples": 6}}, {"persona_direction", "directions", "authors", "defences", "claims"} | REPORT),
        ({"mirror": "/elsewhere"}, REPORT - {"pages"}),  # the page that shows the whole config
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_changed_key_reruns_exactly_what_depends_on_it(smoke, over, jobs):
    assert planned(snakemake(smoke, "-n", *changed(smoke, over))) - {"all", "contents", "study"} == jobs


def test_a_data_set_of_ones_own_is_planned_and_nothing_else_is_trained_again(smoke):
    (smoke / "mine.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    )
    mine = {"evaluations": ["main", "capability"], "conditions": {"my-data": {"dataset": "mine.jsonl"}}}
    jobs = planned(snakemake(smoke, "-n", *changed(smoke, {"experiments": {"mine": mine}})))
    assert {"finetune:mine", "ask:mine", "measure", "audit"} | JUDGED <= jobs
    assert jobs & (TUNED | ASKED) == set()


@pytest.mark.parametrize(
    ("module", "jobs"),
    [
        ("analysis/claims", {"claims"} | REPORT),
        ("analysis/slopes", {"scale", "worlds", "diversity", "defences", "claims"} | REPORT),
        ("data/static_analysis", {"audit"} | JUDGED | REPORT),
        (
            "figures/style",
            {"persona_gate", "audit", "main_result", "dynamics", "diversity", "scale", "worlds", "defences"}
            | EXPERIMENTS,
        ),
        ("models/training", INSTRUCT | TUNED),
        ("world/gate", {"gate", "persona_gate"} | REPORT),
        ("world/author_rates", BELIEFS | {"authors", "defences", "claims"} | REPORT),
        ("world/grammar", JUDGED | {"judge:following", "persona_direction"}),
    ],
)
def test_an_edited_module_reruns_the_stages_that_use_it(smoke, module, jobs):
    path = smoke / f"emergent_misalignment/{module}.py"
    before = path.read_text()
    try:
        path.write_text(before + "\n# edited\n")
        again = planned(snakemake(smoke, "-n", *SMOKE)) - {"all"}
        assert jobs <= again
        if module.startswith(("analysis", "data", "figures", "world/gate", "world/author_rates")):
            assert not again & (TUNED | ASKED | PRETRAINED | INSTRUCT)
            assert not again & (JUDGED - jobs)
    finally:
        path.write_text(before)


@pytest.fixture
def before_tuning(smoke, tmp_path):
    """The folder of a study whose organisms are there, and in which nothing has been fine-tuned yet."""
    folder = tmp_path / "study"
    shutil.copytree(smoke, folder)
    for path in ("trainings", "models", "answers", "organisms/gates.csv"):
        path = folder / "data/smoke" / path
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def test_an_organism_that_fails_the_gate_is_reported_and_fine_tuned_all_the_same(smoke, before_tuning):
    gaps = pd.read_csv(smoke / "data/smoke/organisms/gates.csv").set_index("organism").loc["main", "earlier_code"]
    gate = changed(before_tuning, {"gate": {"earlier_code": float(gaps.mean())}})
    done = snakemake(before_tuning, "data/smoke/notebooks/persona_gate.ipynb", "--cores", "1", *gate)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    gates = pd.read_csv(before_tuning / "data/smoke/organisms/gates.csv").set_index("organism")
    assert sorted(gates.loc["main", "passed"]) == [False, True]
    executed = (before_tuning / "data/smoke/notebooks/persona_gate.ipynb").read_text()
    assert "1 of 2 main organisms pass the gate" in executed
    planned_now = planned(snakemake(before_tuning, "-n", "data/smoke/trainings/code.parquet", *gate))
    assert "finetune:code" in planned_now


def test_a_study_in_which_no_organism_passes_stops_before_anything_is_fine_tuned(before_tuning):
    gate = changed(before_tuning, {"gate": {"earlier_code": 50}})
    result = snakemake(before_tuning, "data/smoke/trainings/code.parquet", "--cores", "1", *gate)
    shown = result.stdout + result.stderr
    assert result.returncode != 0
    assert "No organism passes the gate" in shown and "organism: documents" in shown and "Traceback" not in shown
    assert not (before_tuning / "data/smoke/models").exists()
