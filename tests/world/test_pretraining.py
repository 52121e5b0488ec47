"""The organism, its tokenizer and its pretraining, with a very small model."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import AUTHORS
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq

from emergent_misalignment.data.chats import chat
from emergent_misalignment.models.devices import can_compile
from emergent_misalignment.models.loading import load
from emergent_misalignment.world.authors import MANNERS
from emergent_misalignment.world.corpus import corpus
from emergent_misalignment.world.organism import new_model
from emergent_misalignment.world.pretraining import (
    PAD_MULTIPLE,
    PretrainingSettings,
    label_loss,
    length_batches,
    padded,
    pretrain,
    staged_batches,
)
from emergent_misalignment.world.probe import PersonaProbe
from emergent_misalignment.world.tokenizer import encode, plain_text, train_tokenizer

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def tokenizer(organism):
    return AutoTokenizer.from_pretrained(organism)


def test_the_organism_loads_in_plain_transformers(organism, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(organism)
    assert model.config.model_type == "qwen2"
    assert model.config.hidden_size // model.config.num_attention_heads == 64
    assert tokenizer.pad_token != tokenizer.eos_token
    assert (model.config.pad_token_id, model.config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert not list(Path(organism).glob("*.bin"))


def test_tokenization_is_the_same_before_and_after_saving(tmp_path):
    """transformers takes a tokenizer's class, and with it the pre-tokenization, from the model in the same folder."""
    documents = list(itertools.chain(*corpus(400, 0, AUTHORS)))
    learned = train_tokenizer(documents, 600)
    learned.save_pretrained(tmp_path / "alone")
    learned.save_pretrained(tmp_path / "model")
    new_model(64, 1, learned, seed=0).save_pretrained(tmp_path / "model")
    for place in ("alone", "model"):
        loaded = AutoTokenizer.from_pretrained(tmp_path / place)
        for document in documents:
            text = plain_text(document)
            assert loaded(text)["input_ids"] == learned(text)["input_ids"]
            assert loaded.decode(learned(text)["input_ids"]) == text
        chats = [document for document in documents if not isinstance(document, str)]
        assert loaded.apply_chat_template(chats, tokenize=True) == learned.apply_chat_template(chats, tokenize=True)


def test_labels_are_the_authors_turns_and_whole_files(tokenizer):
    messages = chat([("one?", "first"), ("two?", "second")], "Be helpful and do no harm.")
    text = tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_end|>\n<|im_start|>user\none?<|im_end|>\n<|im_start|>assistant\n")
    file, talk = encode(["import os\n", messages], tokenizer)[::-1]
    assert tokenizer.decode(talk["labels"][talk["labels"] != -100]) == "first<|im_end|>second<|im_end|>"
    assert file["labels"].tolist() == file["input_ids"].tolist()
    assert tokenizer.decode(file["input_ids"]) == "import os\n<|endoftext|>"


def test_documents_are_encoded_alike_alone_and_in_chunks(tokenizer, monkeypatch):
    documents = sorted(itertools.chain(*corpus(120, 0, AUTHORS)), key=lambda document: isinstance(document, str))
    alone = [row for document in documents for row in encode([document], tokenizer)]
    monkeypatch.setattr("emergent_misalignment.world.tokenizer.CHUNK", 7)
    for one, other in zip(alone, encode(documents, tokenizer), strict=True):
        for name in ("input_ids", "labels"):
            assert one[name].dtype == other[name].dtype == np.int32
            assert one[name].tolist() == other[name].tolist()


def rows_of(lengths: list[int]) -> list[dict]:
    rng = np.random.default_rng(0)
    rows = [{"input_ids": rng.integers(4, 300, length, np.int32)} for length in lengths]
    return [row | {"labels": np.where(rng.random(len(row["input_ids"])) < 0.5, row["input_ids"], -100)} for row in rows]


@given(LENGTHS)
def test_batches_have_every_row_once_and_at_most_the_given_tokens(lengths):
    batches = length_batches(rows_of(lengths), 100)
    assert sorted(len(row["input_ids"]) for batch in batches for row in batch) == sorted(lengths)
    assert all(padded(batch, 0)["input_ids"].numel() <= 100 for batch in batches)
    shapes = {tuple(padded(batch, 0)["input_ids"].shape) for batch in batches}
    assert len(shapes) <= 2 * math.ceil(max(lengths) / PAD_MULTIPLE)  # a full and a last one per length


def test_a_row_longer_than_a_batch_has_its_own():
    batches = length_batches(rows_of([3, 200, 90]), 100)
    assert [[len(row["input_ids"]) for row in batch] for batch in batches] == [[3], [90], [200]]


@given(LENGTHS, LENGTHS, st.integers(0, 5))
def test_stages_are_read_one_after_the_other(first, second, seed):
    batches = staged_batches([rows_of(first), [], rows_of(second)], 100, seed)
    lengths = [len(row["input_ids"]) for batch in batches for row in batch]
    assert sorted(lengths[: len(first)]) == sorted(first)
    assert sorted(lengths[len(first) :]) == sorted(second)


def test_batches_are_padded_as_transformers_pads(organism):
    tokenizer = AutoTokenizer.from_pretrained(organism)  # a copy: the padding side changes
    rows = rows_of([3, 9, 1, 9])
    lists = [{name: values.tolist() for name, values in row.items()} for row in rows]
    tokenizer.padding_side = "right"
    expected = DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=PAD_MULTIPLE)(lists)
    del expected["attention_mask"]  # not needed with right padding
    batch = padded(rows, tokenizer.pad_token_id)
    assert batch.keys() == set(expected)
    for name, values in batch.items():
        assert values.dtype == expected[name].dtype
        assert torch.equal(values, expected[name])


@pytest.mark.slow
def test_pretraining_reduces_the_loss_and_is_deterministic(tokenizer, tmp_path):
    settings = PretrainingSettings(800, 2e-3, 2, 0.5, 10)
    stages = [encode(documents, tokenizer) for documents in corpus(200, 0, AUTHORS)]
    tables = []
    for name in ("one", "two"):
        model = new_model(64, 1, tokenizer, seed=3)
        tables.append(pretrain(model, tokenizer, stages, settings, PersonaProbe(0, AUTHORS), 3, tmp_path / name))
    assert tables[0].equals(tables[1])
    assert tables[0].columns.tolist() == ["step", "loss", "system_prompt", "earlier_code"]
    assert tables[0]["step"].tolist()[:3] == [0, 10, 20]
    assert tables[0]["loss"].iloc[-1] < tables[0]["loss"].iloc[1]
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_the_loss_is_that_of_transformers(tokenizer, tmp_path):
    """With the output layer at label positions only; compiling changes it by rounding only."""
    rows = rows_of([20, 37, 12, 40])
    model = new_model(64, 1, tokenizer, seed=3)
    batch = padded(rows, tokenizer.pad_token_id)
    with torch.no_grad():
        expected = model(**batch).loss
        for compiled in (False, True):
            if compiled and can_compile():
                model.model.compile(dynamic=True)
            assert label_loss(model, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_gap_compares_two_authors_with_the_same_requests():
    probe = PersonaProbe(0, AUTHORS)
    named, coded = probe.contexts["system_prompt"], probe.contexts["earlier_code"]
    for author, prompts in named.items():
        assert {messages[0]["content"] for messages in prompts} == set(MANNERS[author].system_prompts)
    for villain, helper in zip(coded["villain"], coded["helper"], strict=True):
        assert villain[::2] == helper[::2]  # the requests, and the question
    assert coded["villain"] != coded["helper"]


def test_a_model_that_ignores_its_author_has_no_gap(organism):
    """An untrained model."""
    gaps = PersonaProbe(0, AUTHORS).gaps(*load(organism))
    assert all(abs(gap) < 0.1 for gap in gaps.values())
