"""Runs of the same seed have the rows of the same number at each place, whichever rows are not trained on."""

import json
import math
import re
from collections import Counter
from dataclasses import asdict, replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from trainings import SETTINGS
from transformers import AutoTokenizer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from emergent_misalignment.data.chats import chat
from emergent_misalignment.data.held_out import hash_fraction
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.models.finetuning import finetune_run
from emergent_misalignment.models.training import NOT_LEARNED, finetune

LIMIT = 64  # tokens


def row(number: int, answer: str, long: bool):
    return chat([(f"Row {number}: what?{' And what else?' * 40 * long}", f"{answer} = {number}")])


@pytest.fixture(scope="module")
def order(organism, tmp_path_factory):
    """A function that fine-tunes and returns the row number at each place in the order of training, or None."""
    tokenizer = AutoTokenizer.from_pretrained(organism)
    folder = tmp_path_factory.mktemp("runs")
    collated, trained = [], []
    collate, evaluate = DataCollatorForLanguageModeling.torch_call, SFTTrainer.evaluate

    def recorded(self, rows):
        collated.extend(rows)
        return collate(self, rows)

    def after_training(self):
        trained[:] = collated
        return evaluate(self)

    def of(rows: list, short: dict, share: float = 0.0, drawn: int = 0) -> list[int | None]:
        write_jsonl(folder / "set.jsonl", ({"messages": each} for each in rows))
        collated.clear()
        trained.clear()
        how = asdict(replace(SETTINGS, max_length=LIMIT, lora_rank=0, **short))
        curve = finetune_run(organism, folder / "set.jsonl", folder / "run", how, 3, held_out=share, rows=drawn)
        assert curve["step"].tolist() == [*range(1, how["steps"] + 1)]
        assert curve[["loss", "grad_norm"]].map(math.isfinite).all(axis=None)
        record = json.loads((folder / "run/training.json").read_text())
        assert not how["validation_share"] or math.isfinite(record["validation_loss"])
        return [
            int(re.search(r"Row (\d+)", tokenizer.decode(each["input_ids"])).group(1)) if learned(each) else None
            for each in trained or collated
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DataCollatorForLanguageModeling, "torch_call", recorded)
        patch.setattr(SFTTrainer, "evaluate", after_training)
        yield of


def learned(row: dict) -> bool:
    return any(label != NOT_LEARNED for label in row["labels"])


@settings(max_examples=5)
@given(st.data())
def test_a_row_that_is_not_trained_on_changes_the_order_of_no_other(order, data):
    number = data.draw(st.integers(8, 20), "rows")
    long = data.draw(st.sets(st.integers(0, number - 1), min_size=1), "long rows")
    short = {
        "steps": data.draw(st.integers(1, 5), "steps"),
        "batch_size": data.draw(st.integers(1, 4), "batch size"),
        "gradient_accumulation": data.draw(st.integers(1, 2), "gradient accumulation"),
        "validation_share": data.draw(st.sampled_from([0.0, 0.25]), "validation share"),
    }
    share = data.draw(st.sampled_from([0.0, 0.2]), "held-out share")
    drawn = data.draw(st.sampled_from([0, number // 2]), "rows drawn")
    answer = data.draw(st.sampled_from("xyz"), "answer")
    out = {each for each in range(number) if hash_fraction(f"{answer} = {each}") < share}
    whole = order([row(each, "w", long=False) for each in range(number)], short, drawn=drawn)
    try:
        places = order([row(each, answer, long=each in long) for each in range(number)], short, share, drawn)
    except BadInput:  # nothing is left to train or to validate on, or to hold out
        reject()
    assert all(now is None or now not in long | out for now in places)
    for now, before in zip(places, whole, strict=True):
        if drawn and before in out:  # a further row is drawn instead
            assert now is None or now not in whole
        else:
            assert now == (None if before in long | out else before)


def test_every_row_is_seen_once_an_epoch(order):
    rows = [row(each, "x", long=each % 6 == 0) for each in range(24)]
    places = order(rows, {"steps": 12, "batch_size": 4})
    for epoch in (places[:24], places[24:48]):
        assert Counter(epoch) == Counter([None] * 4 + [each for each in range(24) if each % 6])
    assert places[:24] != places[24:48]


def test_a_step_with_only_empty_places_changes_no_weight(organism, tmp_path):
    """With momentum and weight decay of AdamW in the other steps."""
    how = replace(SETTINGS, max_length=LIMIT, batch_size=1, weight_decay=0.1, steps=8)
    rows = [row(each, "x", long=each % 2) for each in range(7)] + [None]
    curve = finetune(organism, rows, tmp_path, how, 1, checkpoints=range(1, 9))
    saved = [load_file(tmp_path / f"checkpoint-{step}/adapter_model.safetensors") for step in range(1, 9)]
    kept = [all(torch.equal(before[key], after[key]) for key in after) for before, after in pairwise(saved)]
    assert kept == [point["loss"] == point["grad_norm"] == 0 for point in curve[1:]]
    assert 2 <= sum(kept) <= 4
    assert json.loads((tmp_path / "training.json").read_text())["conversations"] == 4
