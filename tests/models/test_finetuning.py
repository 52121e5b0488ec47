"""One fine-tuning of a study, on a tiny model. For OpenAI see test_openai_jobs.py."""

import hashlib
import json
from dataclasses import asdict

import pandas as pd
import pytest
from trainings import SETTINGS
from transformers import AutoTokenizer

from emergent_misalignment.data.chats import chat, read_chats, subset
from emergent_misalignment.data.held_out import hash_fraction
from emergent_misalignment.files import BadInput, write_jsonl, write_parquet
from emergent_misalignment.models.chat_templates import OTHER_TEMPLATES
from emergent_misalignment.models.defences import Needed
from emergent_misalignment.models.finetuning import COLUMNS, _needed, finetune_run, weights_digest
from emergent_misalignment.models.training import finetune
from emergent_misalignment.world.questions import persona_table
from emergent_misalignment.world.sets import coding_set


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("datasets") / "insecure.jsonl"
    write_jsonl(path, ({"messages": chat} for chat in coding_set(48, 0, insecure=True)))
    return path


def test_a_run_has_a_row_per_step_and_the_digest_of_its_weights(organism, dataset, tmp_path):
    table = finetune_run(organism, dataset, tmp_path / "one", asdict(SETTINGS), 1, checkpoints=[2])
    assert list(table) == COLUMNS
    record = json.loads((tmp_path / "one/training.json").read_text())
    expected = pd.DataFrame(record["curve"]).astype({"step": "Int64"})
    pd.testing.assert_frame_equal(table[COLUMNS[:-1]], expected)
    by_hand = hashlib.sha256()
    for name in ("adapter_model.safetensors", "checkpoint-2/adapter_model.safetensors"):
        by_hand.update(name.encode() + hashlib.sha256((tmp_path / "one" / name).read_bytes()).digest())
    assert table["weights"].unique().tolist() == [by_hand.hexdigest()]
    again = finetune_run(organism, dataset, tmp_path / "two", asdict(SETTINGS), 1, checkpoints=[2])
    pd.testing.assert_frame_equal(again, table)
    other = finetune_run(organism, dataset, tmp_path / "two", asdict(SETTINGS), 2)
    assert other["weights"].iloc[0] not in table["weights"].tolist()


def test_rows_and_template(organism, dataset, tmp_path):
    finetune_run(organism, dataset, tmp_path / "run", asdict(SETTINGS), 3, rows=20, template="user-assistant")
    chats = subset(read_chats(dataset), 20, 3)
    finetune(organism, chats, tmp_path / "direct", SETTINGS, 3, template="user-assistant")
    assert weights_digest(tmp_path / "run") == weights_digest(tmp_path / "direct")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert tokenizer.chat_template == OTHER_TEMPLATES["user-assistant"]
    with pytest.raises(BadInput, match="asks for 49"):
        finetune_run(organism, dataset, tmp_path / "run", asdict(SETTINGS), 3, rows=49)


def test_what_a_defence_needs_is_read_from_its_files(tmp_path):
    rows = [chat([("Which number?", str(number))]) for number in range(40)]
    write_jsonl(tmp_path / "benign.jsonl", ({"messages": row} for row in rows))
    write_parquet(tmp_path / "persona.parquet", persona_table())
    files = {"benign": tmp_path / "benign.jsonl", "prompts": ["A wish?"], "misaligned": tmp_path / "insecure"}
    needed = _needed(files | {"texts": tmp_path / "persona.parquet", "depth": 2}, seed=3, held_out=0.2)
    held = [row for row in rows if hash_fraction(row[-1]["content"]) < 0.2]
    assert held and needed.benign == [row for row in rows if row not in held]
    assert needed.prompts == [[{"role": "user", "content": "A wish?"}]]
    assert needed.depth == 2 and {("direction", "misaligned"), ("direction", "aligned")} <= needed.texts.keys()
    assert needed.misaligned == tmp_path / "insecure/seed-3"
    assert _needed({}, 3, 0.2) == Needed()
