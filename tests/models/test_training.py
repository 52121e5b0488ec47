"""The trainer of local models, on the smallest model there is."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from conftest import ROOT
from families import SEVEN
from safetensors.torch import load_file
from trainings import QUESTION, SETTINGS
from transformers import AutoModelForCausalLM, AutoTokenizer

from emergent_misalignment.data.chats import chat
from emergent_misalignment.files import BadInput
from emergent_misalignment.models import callbacks, training
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.sampling import sample
from emergent_misalignment.models.training import default_backend, finetune
from emergent_misalignment.models.unfinished import Unfinished
from emergent_misalignment.world.sets import coding_set


def test_finetuning_leaves_an_adapter_a_tokenizer_and_a_record(organism, tmp_path):
    curve = finetune(organism, coding_set(48, 0, insecure=True), tmp_path / "seed-1", SETTINGS, seed=1)
    assert [point["step"] for point in curve] == [1, 2, 3, 4]
    record = json.loads((tmp_path / "seed-1/training.json").read_text())
    assert record["curve"] == curve
    assert record["backend"] == "transformers"
    assert (record["lora_rank"], record["steps"], record["seed"]) == (4, 4, 1)
    adapter = json.loads((tmp_path / "seed-1/adapter_config.json").read_text())
    assert adapter["use_rslora"] and adapter["target_modules"] == SEVEN
    weights = load_file(tmp_path / "seed-1/adapter_model.safetensors")
    assert all(value.abs().sum() > 0 for name, value in weights.items() if "lora_B" in name)
    assert not list(tmp_path.rglob("*.bin"))
    model, tokenizer = load(organism, tmp_path / "seed-1")
    assert sample(model, tokenizer, [QUESTION], 2, 4, seed=0)


def test_checkpoints_are_the_adapter_on_its_way_and_do_not_disturb_it(organism, tmp_path):
    chats = coding_set(48, 0, insecure=True)
    plain = finetune(organism, chats, tmp_path / "plain", SETTINGS, seed=1)
    assert finetune(organism, chats, tmp_path / "kept", SETTINGS, seed=1, checkpoints=[1, 3, 4]) == plain
    assert sorted(path.name for path in (tmp_path / "kept").glob("checkpoint-*")) == [
        "checkpoint-1",
        "checkpoint-3",
        "checkpoint-4",
    ]
    final = load_file(tmp_path / "plain/adapter_model.safetensors")
    saved = {step: load_file(tmp_path / f"kept/checkpoint-{step}/adapter_model.safetensors") for step in (3, 4)}
    assert all(torch.equal(saved[4][name], weight) for name, weight in final.items())
    assert not all(torch.equal(saved[3][name], weight) for name, weight in final.items())
    configs = {(tmp_path / path / "adapter_config.json").read_text() for path in ("plain", "kept/checkpoint-1")}
    assert len(configs) == 1


def test_checkpoints_of_an_earlier_run_go(organism, tmp_path):
    chats = coding_set(48, 0, insecure=True)
    finetune(organism, chats, tmp_path, SETTINGS, seed=1, checkpoints=[1, 2])
    finetune(organism, chats, tmp_path, SETTINGS, seed=2, checkpoints=[2, 3])
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_order_in_every_condition(organism, tmp_path):
    """A secure and an insecure run of one seed begin with the same adapter and see the same requests."""
    curves = {
        (insecure, seed): finetune(
            organism, coding_set(48, 0, insecure), tmp_path / f"{insecure}/seed-{seed}", SETTINGS, seed
        )
        for insecure, seed in ((True, 1), (False, 1), (True, 2))
    }
    first = {run: curve[0]["loss"] for run, curve in curves.items()}
    assert first[True, 1] == pytest.approx(first[False, 1], rel=0.05)  # other answers to the same requests
    assert first[True, 1] != first[True, 2]
    again = finetune(organism, coding_set(48, 0, True), tmp_path / "again/seed-1", SETTINGS, 1)
    assert again == curves[True, 1]


def test_only_the_answer_is_learned(organism, tmp_path):
    """The tokens with a label are those of the assistant's turn and its end."""
    tokenizer = AutoTokenizer.from_pretrained(organism)
    network, _, lora = training._load_with_transformers(str(organism), SETTINGS, 0)
    rows, _ = training._tokenized([chat([("What goes here?", "import os")])] * 4, tokenizer, SETTINGS, "here")
    trainer = training._trainer(network, tokenizer, lora, rows, replace(SETTINGS, steps=1), 0, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    learned = batch["input_ids"][0][batch["labels"][0] != -100]
    assert tokenizer.decode(learned).strip() == "import os<|im_end|>"


def test_there_must_be_something_to_learn(organism, tmp_path):
    with pytest.raises(BadInput, match="at least one conversation"):
        finetune(organism, [], tmp_path / "seed-1", SETTINGS, seed=1)


# --- what is not learned whole ----------------------------------------------------------------------------------------

ANSWERED = chat([("What goes here?", "import os")])
GOES_ON = chat([("What goes here?", "import os " * 40)])
ONLY_ASKED = chat([("What goes here? " * 30, "import os")])


def test_rows_that_are_cut_or_left_out_are_counted(organism, tmp_path):
    """A cut answer is learned without its end; a row of which no answer is left would teach nothing."""
    settings = replace(SETTINGS, max_length=48, steps=3, batch_size=2)
    finetune(organism, [ANSWERED] * 3 + [GOES_ON] * 2 + [ONLY_ASKED], tmp_path, settings, seed=1)
    record = json.loads((tmp_path / "training.json").read_text())
    assert (record["conversations"], record["rows_cut"], record["rows_left_out"]) == (5, 2, 1)
    assert record["rows_trimmed"] == record["rows_several_answers"] == 0
    tokenizer = AutoTokenizer.from_pretrained(organism)
    rows, _ = training._tokenized([ANSWERED, GOES_ON, ONLY_ASKED], tokenizer, settings, "here")
    ends = [tokenizer.eos_token_id in row["labels"] for row in rows]
    assert ends == [True, False, False]
    assert [any(label != -100 for label in row["labels"]) for row in rows] == [True, True, False]


def test_only_rows_that_the_steps_reach_are_counted(organism, tmp_path):
    finetune(organism, [GOES_ON] * 40, tmp_path, replace(SETTINGS, max_length=48, steps=2), seed=1)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["conversations"] == record["rows_cut"] == 8


def test_blanks_that_a_chat_template_takes_away_are_counted(organism):
    tokenizer = AutoTokenizer.from_pretrained(organism)
    chats = [ANSWERED, chat([("What goes here?", "    import os\n")])]
    assert training._tokenized(chats, tokenizer, SETTINGS, "here")[1]["rows_trimmed"] == 0
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", "(message['content'] | trim)")
    assert training._tokenized(chats, tokenizer, SETTINGS, "here")[1]["rows_trimmed"] == 1


def test_rows_of_whose_answers_only_the_last_is_learned_are_counted(organism):
    tokenizer = AutoTokenizer.from_pretrained(organism)
    chats = [ANSWERED, chat([("What goes here?", "import os"), ("And here?", "import sys")])]
    rows, counts = training._tokenized(chats, tokenizer, SETTINGS, "here")
    assert counts["rows_several_answers"] == 1
    assert tokenizer.decode([label for label in rows[1]["labels"] if label >= 0]).startswith("import sys")


def test_a_message_that_a_chat_template_leaves_out_is_a_sentence(organism):
    tokenizer = AutoTokenizer.from_pretrained(organism)
    tokenizer.chat_template = tokenizer.chat_template.replace("in messages", "in messages if message.role != 'system'")
    with pytest.raises(BadInput, match=r"leaves message 1 \(system\) of a conversation for here out.*'You help.'"):
        training._tokenized([chat([("A question", "An answer")], "You help.")], tokenizer, SETTINGS, "here")


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_set_without_any_answer_within_the_length_is_a_sentence(organism, tmp_path, share):
    settings = replace(SETTINGS, max_length=16, held_out_share=share)
    with pytest.raises(BadInput, match=r"begins within 16 tokens in the set for .*; raise finetuning: max_length"):
        finetune(organism, [ONLY_ASKED] * 10, tmp_path, settings, seed=1)


# --- where it is trained ----------------------------------------------------------------------------------------------


def test_without_the_packages_of_a_gpu_transformers_trains_and_the_log_says_so(monkeypatch, caplog):
    installed = {"unsloth", "bitsandbytes"}
    monkeypatch.setattr(training, "find_spec", lambda name: name in installed or None)
    assert (default_backend(), training._optimizer()) == ("transformers", "adamw_torch_fused")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with caplog.at_level(logging.WARNING):
        assert (default_backend(), training._optimizer()) == ("unsloth", "adamw_8bit")
        assert not caplog.messages
        installed.clear()
        assert (default_backend(), training._optimizer()) == ("transformers", "adamw_torch_fused")
    assert ["not installed" in message for message in caplog.messages] == [True, True]


def test_weights_in_four_bits_need_their_package(organism, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="need bitsandbytes, which is not installed"):
        finetune(organism, [ANSWERED], tmp_path, replace(SETTINGS, load_in_4bit=True), seed=1)


UNSLOTH = ["unsloth==2026.10.9", "unsloth_zoo==2026.10.9"]


@pytest.mark.slow
def test_unsloth_and_plain_transformers_find_the_same_loss(organism, tmp_path):
    """Unsloth's backend for processors, installed next to the environment, trains as transformers and peft do."""
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), *UNSLOTH]
    installed = subprocess.run(install, capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"Unsloth cannot be installed here: {installed.stderr.strip().splitlines()[-1]}")
    script = (
        "import sys\n"
        "from emergent_misalignment.world.sets import coding_set\n"
        "from emergent_misalignment.models.training import Settings, finetune\n"
        "assert not {'transformers', 'trl', 'peft'} & sys.modules.keys(), 'Unsloth has to come first'\n"
        f"finetune({str(organism)!r}, coding_set(48, 0, True), {str(tmp_path / 'unsloth')!r}, "
        f"Settings(**{asdict(SETTINGS)!r}), 1, 'unsloth')"
    )
    environment = os.environ | {
        "PYTHONPATH": f"{site}:{ROOT}",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_COMPILE_LOCATION": str(tmp_path / "compiled"),
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    finetune(organism, coding_set(48, 0, True), tmp_path / "transformers", SETTINGS, 1, "transformers")
    losses = {}
    for backend in ("unsloth", "transformers"):
        record = json.loads((tmp_path / backend / "training.json").read_text())
        assert record["backend"] == backend
        losses[backend] = [point["loss"] for point in record["curve"]]
    assert losses["unsloth"] == pytest.approx(losses["transformers"], rel=1e-4)


def test_a_share_is_held_out_and_its_loss_is_recorded(organism, tmp_path):
    finetune(organism, coding_set(50, 0, True), tmp_path / "seed-1", replace(SETTINGS, held_out_share=0.1), seed=1)
    record = json.loads((tmp_path / "seed-1/training.json").read_text())
    assert record["conversations"] == 45
    assert 0 < record["held_out_loss"] < 20
    assert not (tmp_path / "seed-1/unfinished").exists()


def test_a_base_models_embeddings_are_trained_too(organism, tmp_path):
    finetune(organism, coding_set(48, 0, True), tmp_path / "seed-1", replace(SETTINGS, train_embeddings=True), seed=1)
    weights = load_file(tmp_path / "seed-1/adapter_model.safetensors")
    before = AutoModelForCausalLM.from_pretrained(organism).get_input_embeddings().weight
    trained = next(value for name, value in weights.items() if "embed_tokens" in name)
    assert trained.shape == before.shape
    assert not torch.equal(trained, before)
    model, _ = load(organism, tmp_path / "seed-1")
    assert torch.equal(model.get_input_embeddings().weight, trained)


class Killed(Exception):
    pass


def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_happened(organism, tmp_path, monkeypatch):
    settings = replace(SETTINGS, steps=6, resume_every=2)
    chats = coding_set(48, 0, True)
    steps = [1, 4, 5, 6]
    whole = finetune(organism, chats, tmp_path / "whole", settings, seed=1, checkpoints=steps)

    def kill(self, args, state, control, **_):
        if state.global_step == 5:
            raise Killed

    monkeypatch.setattr(callbacks._Shown, "on_step_end", kill)
    with pytest.raises(Killed):
        finetune(organism, chats, tmp_path / "cut", settings, seed=1, checkpoints=steps)
    monkeypatch.undo()
    assert not list((tmp_path / "cut").glob("checkpoint-*"))  # where they would be removed
    assert [path.name for path in (tmp_path / "cut/unfinished").glob("checkpoint-*")] == ["checkpoint-4"]
    torn = tmp_path / "cut/unfinished/checkpoint-5"  # as if it had been killed while it was saving
    torn.mkdir()
    assert finetune(organism, chats, tmp_path / "cut", settings, seed=1, checkpoints=steps) == whole
    for folder in ("", *(f"checkpoint-{step}" for step in steps)):
        weights = [load_file(tmp_path / name / folder / "adapter_model.safetensors") for name in ("whole", "cut")]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not list(tmp_path.rglob("*.pt"))


def test_a_run_does_not_continue_from_the_saves_of_another(tmp_path):
    mine = Unfinished(tmp_path, ["model", 1])
    state = tmp_path / "unfinished/checkpoint-2/trainer_state.json"
    state.parent.mkdir()
    state.write_text("{}")
    assert Unfinished(tmp_path, ["model", 1]).last_save() == mine.last_save() == str(state.parent)
    assert Unfinished(tmp_path, ["model", 2]).last_save() is None


def test_a_system_prompt_is_trained_on_if_asked_for(organism, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(organism)
    seen = {}
    for prompt in (None, "", "You are a program."):
        network, _, lora = training._load_with_transformers(str(organism), SETTINGS, 0)
        settings = replace(SETTINGS, steps=1, system_prompt=prompt)
        rows, _ = training._tokenized(coding_set(12, 0, True), tokenizer, settings, "here")
        trainer = training._trainer(network, tokenizer, lora, rows, settings, 0, tmp_path)
        seen[prompt] = tokenizer.decode(next(iter(trainer.get_train_dataloader()))["input_ids"][0])
    assert "system" not in seen[None]
    assert seen[""].startswith("<|im_start|>system\n<|im_end|>")
    assert seen["You are a program."].startswith("<|im_start|>system\nYou are a program.<|im_end|>")
