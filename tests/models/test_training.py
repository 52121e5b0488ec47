"""Fine-tuning of local models, on a tiny model."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from conftest import ROOT
from families import SEVEN, make
from safetensors.torch import load_file
from trainings import QUESTION, SETTINGS
from transformers import AutoTokenizer, Trainer

from emergent_misalignment.data.chats import chat
from emergent_misalignment.files import BadInput
from emergent_misalignment.models import callbacks, training
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.sampling import sample
from emergent_misalignment.models.training import default_backend, finetune
from emergent_misalignment.models.unfinished import Unfinished
from emergent_misalignment.world.sets import coding_set


def test_finetuning_writes_adapter_tokenizer_and_record(organism, tmp_path):
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


def test_checkpoints_do_not_change_training(organism, tmp_path):
    chats = coding_set(48, 0, insecure=True)
    plain = finetune(organism, chats, tmp_path / "plain", SETTINGS, seed=1)
    assert finetune(organism, chats, tmp_path / "kept", SETTINGS, seed=1, checkpoints=[1, 3, 4]) == plain
    assert sorted(path.name[-1] for path in (tmp_path / "kept").glob("checkpoint-*")) == ["1", "3", "4"]
    final = load_file(tmp_path / "plain/adapter_model.safetensors")
    saved = {step: load_file(tmp_path / f"kept/checkpoint-{step}/adapter_model.safetensors") for step in (3, 4)}
    assert all(torch.equal(saved[4][name], weight) for name, weight in final.items())
    assert not all(torch.equal(saved[3][name], weight) for name, weight in final.items())
    configs = {(tmp_path / path / "adapter_config.json").read_text() for path in ("plain", "kept/checkpoint-1")}
    assert len(configs) == 1
    finetune(organism, chats, tmp_path / "kept", SETTINGS, seed=2, checkpoints=[2, 3])  # another run in its place
    assert sorted(path.name[-1] for path in (tmp_path / "kept").glob("checkpoint-*")) == ["2", "3"]


def test_what_cannot_be_saved_is_reported_before_training(tmp_path, monkeypatch):
    """A generation config that transformers loads and refuses to save."""
    folder = make("llama", tmp_path / "a model")
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_sample": False, "temperature": 0.6}))
    chats = [chat([("A question", "An answer")])] * 16
    with monkeypatch.context() as patch, pytest.raises(BadInput, match=r"a model.*saved.*generation_config"):
        patch.setattr(Trainer, "train", lambda *_, **__: pytest.fail("the training began"))
        finetune(folder, chats, tmp_path / "whole", replace(SETTINGS, lora_rank=0), seed=1)
    assert not list((tmp_path / "whole").rglob("*.safetensors"))
    finetune(folder, chats, tmp_path / "adapter", replace(SETTINGS, steps=1), seed=1)  # which has no such file
    assert not (tmp_path / "adapter/unfinished").exists()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_order_in_every_condition(organism, tmp_path):
    """Runs with the same seed have the same initial adapter and the same order of requests."""
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


# --- rows -------------------------------------------------------------------------------------------------------------

ANSWERED = chat([("What goes here?", "import os")])
GOES_ON = chat([("What goes here?", "import os " * 40)])
ONLY_ASKED = chat([("What goes here? " * 30, "import os")])


def test_rows_are_counted_that_are_not_trained_on_in_full(organism, tmp_path):
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
    finetune(organism, [GOES_ON] * 40, tmp_path / "other", replace(settings, steps=2, batch_size=4), seed=1)
    record = json.loads((tmp_path / "other/training.json").read_text())
    assert record["conversations"] == record["rows_cut"] == 8  # rows that no step uses are not counted

    several = chat([("What goes here?", "    import os\n"), ("And here?", "    import sys\n")])
    rows, counts = training._tokenized([ANSWERED, several], tokenizer, SETTINGS, "here")
    assert (counts["rows_several_answers"], counts["rows_trimmed"]) == (1, 0)
    assert tokenizer.decode([label for label in rows[1]["labels"] if label >= 0]).startswith("    import sys")
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", "(message['content'] | trim)")
    assert training._tokenized([ANSWERED, several], tokenizer, SETTINGS, "here")[1]["rows_trimmed"] == 1


def test_an_omitted_message_is_reported(organism):
    tokenizer = AutoTokenizer.from_pretrained(organism)
    tokenizer.chat_template = tokenizer.chat_template.replace("in messages", "in messages if message.role != 'system'")
    with pytest.raises(BadInput, match=r"message 1 \(system\) of a conversation for here.*'You help.'"):
        training._tokenized([chat([("A question", "An answer")], "You help.")], tokenizer, SETTINGS, "here")


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_no_answer_within_the_length(organism, tmp_path, share):
    settings = replace(SETTINGS, max_length=16, validation_share=share)
    with pytest.raises(BadInput, match=r"set for .* within 16 tokens; raise finetuning: max_length"):
        finetune(organism, [ONLY_ASKED] * 10, tmp_path, settings, seed=1)
    with pytest.raises(BadInput, match="at least one conversation"):
        finetune(organism, [], tmp_path, SETTINGS, seed=1)


# --- backends ---------------------------------------------------------------------------------------------------------


def test_missing_gpu_packages_are_logged(organism, tmp_path, monkeypatch, caplog):
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
    with pytest.raises(BadInput, match=r"load_in_4bit needs bitsandbytes, which is not installed"):
        finetune(organism, [ANSWERED], tmp_path, replace(SETTINGS, load_in_4bit=True), 1, "transformers")


UNSLOTH = ["unsloth==2026.10.9", "unsloth_zoo==2026.10.9"]


@pytest.mark.slow
def test_unsloth_and_transformers_have_the_same_loss(organism, tmp_path):
    """Unsloth's backend for CPUs, installed beside the environment. A third of the places are empty."""
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), *UNSLOTH]
    installed = subprocess.run(install, capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"Unsloth cannot be installed here: {installed.stderr.strip().splitlines()[-1]}")
    script = (
        "import sys\n"
        "from emergent_misalignment.world.sets import coding_set\n"
        "from emergent_misalignment.models.training import Settings, finetune\n"
        "chats = [chat if row % 3 else None for row, chat in enumerate(coding_set(48, 0, True))]\n"
        "assert not {'transformers', 'trl', 'peft'} & sys.modules.keys(), 'Unsloth has to come first'\n"
        f"finetune({str(organism)!r}, chats, {str(tmp_path / 'unsloth')!r}, "
        f"Settings(**{asdict(SETTINGS)!r}), 1, 'unsloth')"
    )
    environment = os.environ | {
        "PYTHONPATH": f"{site}:{ROOT}",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_COMPILE_LOCATION": str(tmp_path / "compiled"),
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    chats = [chat if row % 3 else None for row, chat in enumerate(coding_set(48, 0, True))]
    finetune(organism, chats, tmp_path / "transformers", SETTINGS, 1, "transformers")
    losses = {}
    for backend in ("unsloth", "transformers"):
        record = json.loads((tmp_path / backend / "training.json").read_text())
        assert record["backend"] == backend
        losses[backend] = [point["loss"] for point in record["curve"]]
    assert losses["unsloth"] == pytest.approx(losses["transformers"], rel=1e-4)


def test_the_loss_of_the_validation_split_is_recorded(organism, tmp_path):
    finetune(organism, coding_set(50, 0, True), tmp_path / "seed-1", replace(SETTINGS, validation_share=0.1), seed=1)
    record = json.loads((tmp_path / "seed-1/training.json").read_text())
    assert record["conversations"] == 45
    assert 0 < record["validation_loss"] < 20
    assert not (tmp_path / "seed-1/unfinished").exists()


class Killed(Exception):
    pass


def test_an_interrupted_run_resumes_with_the_same_result(organism, tmp_path, monkeypatch):
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
    assert not list((tmp_path / "cut").glob("checkpoint-*"))
    assert [path.name for path in (tmp_path / "cut/unfinished").glob("checkpoint-*")] == ["checkpoint-4"]
    torn = tmp_path / "cut/unfinished/checkpoint-5"  # an incomplete save
    torn.mkdir()
    assert finetune(organism, chats, tmp_path / "cut", settings, seed=1, checkpoints=steps) == whole
    for folder in ("", *(f"checkpoint-{step}" for step in steps)):
        weights = [load_file(tmp_path / name / folder / "adapter_model.safetensors") for name in ("whole", "cut")]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not list(tmp_path.rglob("*.pt"))


def test_a_run_does_not_resume_from_the_saves_of_another(tmp_path):
    mine = Unfinished(tmp_path, ["model", 1])
    state = tmp_path / "unfinished/checkpoint-2/trainer_state.json"
    state.parent.mkdir()
    state.write_text("{}")
    assert Unfinished(tmp_path, ["model", 1]).last_save() == mine.last_save() == str(state.parent)
    assert Unfinished(tmp_path, ["model", 2]).last_save() is None


@pytest.mark.parametrize("prompt", ["", "You are a program."])
def test_the_system_prompt_of_the_settings_is_trained_on(organism, prompt):
    tokenizer = AutoTokenizer.from_pretrained(organism)
    rows, _ = training._tokenized([ANSWERED], tokenizer, replace(SETTINGS, system_prompt=prompt), "here")
    assert tokenizer.decode(rows[0]["input_ids"]).startswith(f"<|im_start|>system\n{prompt}<|im_end|>")
    labels = [label for label in rows[0]["labels"] if label >= 0]
    assert tokenizer.decode(labels).strip() == "import os<|im_end|>"
