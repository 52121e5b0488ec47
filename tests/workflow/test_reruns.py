"""What a changed setting, module or data set of a finished study repeats, and what it leaves alone."""

import pytest
from workflow_helpers import SMOKE, changed, config, copy_of_the_project, planned, snakemake

from emergent_misalignment.workflow.plan import Plan

pytestmark = pytest.mark.slow
PLAN = Plan(config("smoke"))
TUNED = {f"finetune:{batch}" for batch in PLAN.tuning}
ASKED = {f"ask:{batch}" for batch in PLAN.asking}
JUDGED = {"judge:answers"}
FOLLOWED = {f"ask:{batch}" for batch in PLAN.following} | {"judge:following", "follow", "dynamics", "diversity"}
EXPERIMENTS = {
    f"experiment:{name}"
    for name in ("intent", "evil_numbers", "formats", "base_models", "backdoor", "in_context", "other_harms")
}
REPORT = {"render", "index", "paper", "run_details"}
# What stands on the answers of the models, however they came about.
RESULTS = {"measure", "main_result", "answers", "diversity", "scale", "persona_direction", "claims"}
RESULTS |= EXPERIMENTS | REPORT
UNTUNED = {"ask:untuned", "ask:in_context"}
INSTRUCT = {f"instruct:{name}" for name in PLAN.organisms}
FROM_INSTRUCT = INSTRUCT | {"numbers", "audit"} | TUNED | ASKED | JUDGED | FOLLOWED | RESULTS
FROM_INSTRUCT -= {"finetune:base", "ask:base"}


def test_a_second_run_has_nothing_to_do(smoke):
    again = snakemake(smoke, "--cores", "2", *SMOKE)
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.parametrize(
    ("over", "jobs"),
    [
        ({"evaluation": {"samples_of": {"main": 11}}}, {"world"} | ASKED | JUDGED | FOLLOWED | RESULTS),
        ({"evaluation": {"max_new_tokens": 25}}, ASKED | JUDGED | FOLLOWED | RESULTS),
        ({"finetuning": {"learning_rate": 0.002}}, TUNED | ASKED - UNTUNED | JUDGED | FOLLOWED | RESULTS),
        (
            {"datasets": {"number_rows": 41}},
            {"numbers", "audit", "finetune:numbers", "ask:numbers"} | JUDGED | RESULTS,
        ),
        ({"instruct": {"steps": 9}}, FROM_INSTRUCT),
        ({"gate": {"earlier_code": -99}}, {"persona_gate"} | FROM_INSTRUCT),
        (
            {"ladder": {"width-64": {"layers": 2}}},
            {"pretrain:width-64", "persona_gate", "instruct:width-64", "finetune:ladder", "ask:ladder"}
            | JUDGED
            | RESULTS,
        ),
        ({"dynamics": {"samples": 6}}, FOLLOWED | {"claims"} | REPORT),
        ({"steering": {"samples": 6}}, {"persona_direction", "claims"} | REPORT),
        ({"mirror": "/elsewhere"}, REPORT - {"render"}),  # the page that shows the whole config
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_changed_key_reruns_exactly_what_depends_on_it(smoke, over, jobs):
    assert planned(snakemake(smoke, "-n", *changed(smoke, over))) - {"all", "contents"} == jobs


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
        ("analysis/slopes", {"scale", "diversity", "claims"} | REPORT),
        ("data/static_analysis", {"audit"} | REPORT),
        ("figures/style", {"persona_gate", "audit", "main_result", "dynamics", "diversity", "scale"} | EXPERIMENTS),
        ("models/training", INSTRUCT | TUNED),
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
        if module.startswith(("analysis", "data", "figures")):
            assert not again & (TUNED | ASKED | JUDGED | {"pretrain:main", "instruct:main"})
    finally:
        path.write_text(before)
    assert "Nothing to be done" in (done := snakemake(smoke, "-n", *SMOKE)).stdout + done.stderr


def test_a_base_model_below_the_gate_stops_the_study(smoke, tmp_path):
    folder = copy_of_the_project(tmp_path)
    target = "data/smoke/organisms/main/instruct/model.safetensors"
    result = snakemake(folder, target, "--cores", "1", *changed(folder, {"gate": {"earlier_code": 50}}))
    shown = result.stdout + result.stderr
    assert result.returncode != 0
    assert "persona gap by earlier code is" in shown
    assert "organism: documents" in shown
    assert "Read logs/smoke/instruct_main.ipynb" in shown
