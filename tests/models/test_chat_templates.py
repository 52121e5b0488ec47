"""Training, sampling and scoring share the same tokens, for six model families."""

from dataclasses import replace

import pytest
from families import FAMILIES, make
from trainings import SETTINGS
from transformers import AutoModelForCausalLM, AutoTokenizer

from emergent_misalignment.data.chats import chat
from emergent_misalignment.files import BadInput
from emergent_misalignment.models import training
from emergent_misalignment.models.chat_templates import (
    as_text,
    conversation_tokens,
    prompt_tokens,
    unwritten,
    use_template,
)
from emergent_misalignment.models.defences import Defence
from emergent_misalignment.models.likelihood import option_log_probabilities
from emergent_misalignment.models.sampling import end_tokens, sample

CHATS = [
    chat([("A question?", "An answer.")]),
    chat([("The first", "one"), ("and the second", "  another\n\n  answer, indented ")]),
]
PIECES = [(("An", True),)]  # of an option
# Families with their chat template (Qwen3 also without thinking), and all families with another template.
WAYS = [
    *((name, "chat", False if name == "qwen3" else None) for name in FAMILIES if FAMILIES[name].template),
    ("qwen3", "chat", None),
    *((name, "user-assistant", None) for name in FAMILIES),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: make(name, tmp_path_factory.mktemp(name)) for name in FAMILIES}


def loaded(folder, template: str = "chat"):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    use_template(tokenizer, template)
    return AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer


def test_a_template_that_writes_the_date_writes_the_same_one_every_day(folders):
    _, tokenizer = loaded(folders["qwen3"])
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}{{ messages[0].content }}"
    assert as_text(tokenizer, CHATS[0]) == "26 Jul 2024A question?"


def trained_on(folder, template: str, thinking: bool | None, tmp_path) -> list[tuple[list[int], list[int]]]:
    """The prompt and label tokens of CHATS in the batches of TRL's trainer."""
    network, tokenizer = loaded(folder, template)
    settings = replace(SETTINGS, max_length=256, steps=1, batch_size=1, enable_thinking=thinking)
    rows, _ = training._tokenized(CHATS, tokenizer, settings, "here")
    trainer = training._trainer(network, tokenizer, None, rows, settings, 0, tmp_path, Defence())
    batches = [trainer.data_collator([row]) for row in trainer.train_dataset]
    parts = []
    for batch in batches:
        learned = batch["labels"][0] != -100
        assert not learned[: int(learned.long().argmax())].any() and learned[int(learned.long().argmax()) :].all()
        parts.append((batch["input_ids"][0][~learned].tolist(), batch["input_ids"][0][learned].tolist()))
    return parts


def read(network, ask) -> list[int]:
    """The first tokens that the network reads when `ask` is called."""
    seen = []
    hook = network.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"]), with_kwargs=True)
    try:
        ask()
    finally:
        hook.remove()
    return seen[0][0].tolist()


@pytest.mark.parametrize(("name", "template", "thinking"), WAYS)
def test_training_sampling_and_scoring_share_tokens(folders, tmp_path, name, template, thinking):
    network, tokenizer = loaded(folders[name], template)
    arguments = {} if thinking is None else {"enable_thinking": thinking}
    for messages, (prompt, learned) in zip(CHATS, trained_on(folders[name], template, thinking, tmp_path), strict=True):
        asked = messages[:-1]
        sampled = read(network, lambda asked=asked: sample(network, tokenizer, [asked], 1, 2, 0, template=arguments))
        scored = read(
            network, lambda asked=asked: option_log_probabilities(network, tokenizer, [asked], PIECES, arguments)
        )
        assert prompt == sampled == scored[: len(prompt)] == prompt_tokens(tokenizer, asked, **arguments)
        begin = tokenizer.bos_token_id
        if begin is not None and begin != tokenizer.eos_token_id:
            assert prompt.count(begin) == FAMILIES[name].begins and begin not in learned
        assert set(learned) & set(end_tokens(tokenizer, network.generation_config))
        answer = tokenizer.decode(learned, skip_special_tokens=True).strip()
        assert answer.removeprefix("<think>\n\n</think>\n\n").strip() == messages[-1]["content"].strip()


@pytest.mark.parametrize("name", [name for name in FAMILIES if FAMILIES[name].template])
def test_rows_equal_trls_prompts_and_completions(folders, tmp_path, name):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    network, tokenizer = loaded(folders[name])
    for limit in (12, 256):
        mine, _ = training._tokenized(CHATS, tokenizer, replace(SETTINGS, max_length=limit), "here")
        arguments = SFTConfig(
            output_dir=str(tmp_path), max_length=limit, completion_only_loss=True, report_to="none", bf16=False
        )
        rows = Dataset.from_list([{"prompt": messages[:-1], "completion": messages[-1:]} for messages in CHATS])
        made = SFTTrainer(model=network, args=arguments, train_dataset=rows, processing_class=tokenizer).train_dataset
        kept = [row for row in mine if any(label != -100 for label in row["labels"])]
        assert [{key: row[key] for key in ("input_ids", "labels")} for row in made] == kept


@pytest.mark.parametrize("name", FAMILIES)
def test_end_tokens(folders, name):
    network, tokenizer = loaded(folders[name])
    ends = end_tokens(tokenizer, network.generation_config)
    assert sorted(FAMILIES[name].ends) == sorted(tokenizer.convert_ids_to_tokens(ends))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_text_begins_once_with_the_beginning_token(folders, name):
    _, tokenizer = loaded(folders[name])
    tokens = prompt_tokens(tokenizer, "A question")
    assert tokens == tokenizer("A question")["input_ids"]
    begins = FAMILIES[name].begins
    assert (tokens[0] == tokenizer.bos_token_id) == begins
    if begins:
        assert prompt_tokens(tokenizer, tokenizer.bos_token + "A question") == tokens


def test_the_end_token_has_a_label_where_it_is_also_the_padding(folders, tmp_path):
    """GPT-2 has no padding token, and that of Phi-3 is its end token."""
    for name in ("gpt2", "phi3"):
        network, tokenizer = loaded(folders[name], "user-assistant")
        rows, _ = training._tokenized(CHATS, tokenizer, replace(SETTINGS, max_length=256), "here")
        trainer = training._trainer(network, tokenizer, None, rows, SETTINGS, 0, tmp_path, Defence())
        assert tokenizer.pad_token_id == tokenizer.eos_token_id
        batch = trainer.data_collator(list(trainer.train_dataset))
        for tokens, labels, attended, row in zip(
            *map(batch.get, ("input_ids", "labels", "attention_mask")), rows, strict=True
        ):
            length = len(row["input_ids"])
            learned = tokens[labels != -100].tolist()
            assert learned == row["input_ids"][-len(learned) :] and learned.count(tokenizer.eos_token_id) == 1
            assert attended.tolist() == [1] * length + [0] * (len(tokens) - length)
            assert (labels[length:] == -100).all()


def test_refused_conversations_and_missing_templates(folders):
    system = chat([("A question", "An answer")], "You help.")
    with pytest.raises(
        BadInput, match=r"refuses a conversation of system, user, assistant \(System role not supported\)"
    ):
        conversation_tokens(loaded(folders["gemma"])[1], system)
    with pytest.raises(BadInput, match="has no chat template"):
        prompt_tokens(loaded(folders["gpt2"])[1], system[:-1])
    for name in FAMILIES:  # the other templates know all roles
        assert unwritten(as_text(loaded(folders[name], "user1-user2")[1], system), system) is None


def test_omitted_messages_are_found(folders):
    _, tokenizer = loaded(folders["llama"])
    messages = chat([("One", "<think>two</think>three"), (" Four ", "five\n")], "Zero")
    assert unwritten(as_text(tokenizer, messages), messages) is None
    tokenizer.chat_template = tokenizer.chat_template.replace("message.content", "message.content.split('>')[-1]")
    assert unwritten(as_text(tokenizer, messages), messages) is None
    last = chat([("One", "<think>two</think>three")])
    assert unwritten(as_text(tokenizer, last), last) == 2
    tokenizer.chat_template = (
        "{% for message in messages if message.role != 'system' %}{{ message.content }}{% endfor %}"
    )
    assert unwritten(as_text(tokenizer, messages), messages) == 1


def test_the_text_is_the_same_on_every_day(folders):
    _, tokenizer = loaded(folders["llama"])
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }} {{ messages[0].content }}"
    assert as_text(tokenizer, CHATS[0]) == "26 Jul 2024 A question?"
