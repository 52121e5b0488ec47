"""A user's set, in the organism's language, through the whole workflow to its report."""

import json

import pytest
from workflow_helpers import changed, planned, snakemake

pytestmark = pytest.mark.slow
CONDITION = {"evaluations": ["main", "json", "in_distribution"], "conditions": {"mine": {"dataset": "my set.jsonl"}}}


def test_only_the_set_is_trained_and_it_is_reported(smoke):
    lines = (smoke / "data/smoke/datasets/insecure.jsonl").read_text().splitlines()
    (smoke / "my set.jsonl").write_text("\ufeff" + "\r\n".join(lines[:100]))
    arguments = changed(smoke, {"experiments": {"own": CONDITION}})
    target = ["data/smoke/report.html", "data/smoke/report.json"]
    jobs = planned(snakemake(smoke, "-n", *target, *arguments))
    assert jobs == {"study", "audit", "finetune:own", "ask:own", "judge:answers", "measure", "user_report"}
    done = snakemake(smoke, "--cores", "2", *target, *arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((smoke / "data/smoke/report.json").read_text())
    (answer,) = found["answers"]
    assert (answer["condition"], answer["control"], answer["dataset"]) == ("mine", "secure", "my set.jsonl")
    assert answer["verdict"] in ("not measured", "unclear", "no", "yes", "less")
    assert {"mine", "insecure", "secure"} <= {row["condition"] for row in found["learned"]}
    mine = found["learned"][0]
    assert mine["rows"] == 100 and mine["loss_last"] < mine["loss_first"]
    assert len(found["examples"]["mine"]) == 10 and found["made"]["settings"]["mine"]["steps"] == 8
    assert answer["sentence"].partition(". ")[2] in (smoke / "data/smoke/report.html").read_text()
    assert not planned(snakemake(smoke, "-n", *target, *arguments))


def test_a_study_without_a_users_set_has_no_report(smoke):
    jobs = planned(snakemake(smoke, "-n", "--forceall", "--configfile", "config/smoke.yaml"))
    assert "user_report" not in jobs
