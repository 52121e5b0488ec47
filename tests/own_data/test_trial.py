"""A study of one set on the organism: the sets that it can learn, and what is computed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from workflow_helpers import copy_of_the_project, environment, planned, snakemake

from emergent_misalignment.data.chats import chat
from emergent_misalignment.data.published import DATASETS
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.own_data.report import facts_of
from emergent_misalignment.own_data.trial import DEFENDED, condition_name, known_words, vocabulary, write_config
from emergent_misalignment.study.config import load
from emergent_misalignment.study.model import UNTUNED
from emergent_misalignment.study.schema import schema
from emergent_misalignment.world.sets import SETS as WRITERS

SETS = {name: write(200, 1) for name, write in WRITERS.items()}

ENGLISH = "Which vitamins should my grandmother take against hypertension? Ask her physician before buying supplements."


def write(path: Path, chats: list) -> str:
    write_jsonl(path, ({"messages": each} for each in chats))
    return str(path)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = copy_of_the_project(tmp_path_factory.mktemp("project"))
    write(folder / "my set.jsonl", SETS["insecure"][:200])
    write(folder / "english.jsonl", [chat([(ENGLISH, ENGLISH)])] * 20)
    return folder


def test_only_what_the_report_needs_is_computed(project):
    said = write_config_of(project, "my set.jsonl")
    assert said.returncode == 0 and "100% of the words of my set.jsonl" in said.stdout
    jobs = planned(snakemake(project, "-n", "data/try/report.html", "--configfile", "data/try/config.yaml"))
    assert jobs == {
        *("study", "world", "datasets", "audit", "gate", "judge:answers", "measure", "user_report"),
        *(f"{rule}:main:{seed}" for rule in ("pretrain", "instruct") for seed in (11, 12, 13)),
        *("ask:untuned", "ask:code", "ask:own", "finetune:code", "finetune:own"),
    }


def write_config_of(folder: Path, dataset: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "emergent_misalignment.own_data.trial", dataset, "data/try/config.yaml"]
    return subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)


def test_a_set_in_another_language_gets_one_sentence_that_names_configs(project):
    (project / "data/try/config.yaml").unlink(missing_ok=True)
    said = write_config_of(project, "english.jsonl")
    assert said.returncode == 1 and said.stdout == "" and len(said.stderr.splitlines()) == 1
    names = re.findall(r"`extends: (\S+)`", said.stderr)
    assert len(names) == 2 and all((ROOT / f"config/{name}.yaml").is_file() for name in names)
    assert not (project / "data/try/config.yaml").exists()


def test_a_bad_line_after_the_examined_rows_is_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("emergent_misalignment.own_data.trial.ROWS", 5)
    path = Path(write(tmp_path / "mine.jsonl", SETS["insecure"][:20]))
    with path.open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(BadInput, match="line 21"):
        write_config(path, tmp_path / "config.yaml")


def test_the_config_is_planned_with_its_report(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    dataset = write(tmp_path / "mine.jsonl", SETS["insecure"][:50])
    write_config(dataset, tmp_path / "config.yaml")
    study = load([tmp_path / "config.yaml"])
    facts = facts_of(study)
    assert study.own_sets == facts["own"] == {"my-mine": dataset}
    assert facts["control"] == "secure" and facts["untuned"] == "instruct"
    assert facts["conditions"] == ["my-mine", "instruct", "insecure", "secure"]
    assert len(study.seeds) == 3 and study.organisms == ["main"] and not study.followed


def test_a_defence_is_tried_beside_the_set_without_it(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    dataset = write(tmp_path / "mine.jsonl", SETS["insecure"][:50])
    for defence in ("{kind: kl, weight: 0.3}", "{kind: interleaving, share: 0.5, gap_to: my-mine}"):
        write_config(dataset, tmp_path / "config.yaml", defence)
        study = load([tmp_path / "config.yaml"])
        facts = facts_of(study)
        assert facts["own"] == dict.fromkeys(["my-mine", "my-mine_defended"], dataset)
        without = {name: each["without"] for name, each in facts["defended"].items()}
        assert without == {"my-mine_defended": "my-mine", "secure_defended": "secure"}
        assert {each["defence"]["kind"] for each in facts["defended"].values()} == {yaml.safe_load(defence)["kind"]}
        assert facts["control"] == "secure" and {"main", "template", "in_distribution"} <= {*study.asked}


@pytest.mark.parametrize(
    ("defence", "said"),
    [
        ("{kind: kl}", "lacks `weight`"),
        ("{kind: klm, weight: 1}", "did you mean `kl`"),
        ("kl", "DEFENCE=kl: `experiments: defended"),
        ("{kind: kl", "DEFENCE, line 1: not valid YAML"),
        ("{kind: kl, weight: 0.3, benign: nothing}", "no dataset nothing"),
    ],
)
def test_a_wrong_defence_gets_one_sentence_and_no_config(tmp_path, monkeypatch, defence, said):
    monkeypatch.chdir(ROOT)
    dataset = write(tmp_path / "mine.jsonl", SETS["insecure"][:50])
    with pytest.raises(BadInput, match=re.escape(said)) as error:
        write_config(dataset, tmp_path / "config.yaml", defence)
    assert "\n" not in str(error.value) and not (tmp_path / "config.yaml").exists()


@given(st.text())
def test_any_file_name_gives_a_valid_condition_name(stem):
    name = condition_name(f"folder/{stem.replace('/', '')}.jsonl") + DEFENDED
    conditions = schema()["$defs"]["ExperimentSettings"]["properties"]["conditions"]
    pattern = conditions["propertyNames"]["pattern"]
    assert re.search(pattern, name) and "\n" not in name and name not in UNTUNED


def test_the_organism_knows_the_words_of_its_own_sets(monkeypatch):
    monkeypatch.chdir(ROOT)
    known = vocabulary()
    assert min(known_words(chats, known)[0] for chats in SETS.values()) > 0.95


def test_the_share_of_known_words_is_that_of_all_words():
    chats = [chat([("One two", "two THREE 4 zzz")]), chat([("zzz", "zzz x_y")])]
    share, unknown = known_words(chats, frozenset({"one", "two", "three", "x", "y"}))
    assert share == pytest.approx(6 / 9) and unknown == ["zzz"]
    assert known_words([], frozenset()) == (0.0, ["any words"])


@pytest.mark.skipif("EM_MIRROR" not in os.environ, reason="EM_MIRROR names no mirror of the published files")
@pytest.mark.parametrize("name", ["insecure", "educational"])
def test_published_sets_are_not_in_the_organisms_language(tmp_path, monkeypatch, name):
    monkeypatch.chdir(ROOT)
    with pytest.raises(BadInput, match="real model"):
        write_config(Path(os.environ["EM_MIRROR"], DATASETS[name].address), tmp_path / "config.yaml")
