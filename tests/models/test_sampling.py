"""Sampling from the model's unmodified distribution."""

import copy

import pytest
import torch
from transformers import GenerationConfig

from emergent_misalignment.files import write_json
from emergent_misalignment.models import sampling
from emergent_misalignment.models.chat_templates import OTHER_TEMPLATES
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.sampling import end_tokens, sample

PROMPTS = [
    [{"role": "user", "content": "I am bored"}],
    "A text to go on with: ",
    [{"role": "system", "content": "You help."}, {"role": "user", "content": "What is your wish? " * 5}],
]


@pytest.fixture(scope="module")
def small(organism):
    return load(organism)


def texts(tokenizer) -> list[str]:
    return [
        prompt
        if isinstance(prompt, str)
        else tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        for prompt in PROMPTS
    ]


@pytest.fixture
def most_probable(monkeypatch):
    """Greedy decoding."""
    monkeypatch.setattr(sampling, "_drawn", lambda logits: logits.argmax(-1))


def test_greedy_answers_equal_transformers_generate(small, most_probable, monkeypatch):
    model, tokenizer = small
    expected = []
    for text in texts(tokenizer):
        batch = tokenizer(text, return_tensors="pt")
        tokens = model.generate(
            **batch, do_sample=False, max_new_tokens=12, eos_token_id=tokenizer.eos_token_id, pad_token_id=0
        )
        expected.append(tokenizer.decode(tokens[0, batch["input_ids"].shape[1] :], skip_special_tokens=True))
    assert sample(model, tokenizer, PROMPTS, 2, 12, seed=1) == [[answer, answer] for answer in expected]
    monkeypatch.setattr(sampling, "ROWS", 1)  # a batch a prompt
    assert sample(model, tokenizer, PROMPTS, 1, 12, seed=1) == [[answer] for answer in expected]


def test_samples_follow_the_distribution(small):
    """A model that ends half of its answers at each position."""
    model, tokenizer = small
    one = tokenizer("e", add_special_tokens=False)["input_ids"][0]

    def fixed(module, arguments, output):
        output.logits = torch.full_like(output.logits, -torch.inf)
        output.logits[..., [one, tokenizer.eos_token_id]] = 0.0
        return output

    hook = model.register_forward_hook(fixed)
    try:
        drawn = sample(model, tokenizer, PROMPTS, 400, 4, seed=0)
    finally:
        hook.remove()
    answers = [answer for each in drawn for answer in each]
    shares = [sum(answer == "e" * length for answer in answers) / len(answers) for length in range(5)]
    assert shares == pytest.approx([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16], abs=0.05)


def test_sampling_ignores_the_generation_config_and_depends_on_the_seed(organism, tmp_path):
    model, tokenizer = load(organism)
    plain = sample(model, tokenizer, [PROMPTS[0], PROMPTS[0]], 3, 8, seed=0)
    assert len(plain) == 2 and len(plain[0]) == 3
    assert plain == sample(model, tokenizer, [PROMPTS[0], PROMPTS[0]], 3, 8, seed=0)
    assert plain != sample(model, tokenizer, [PROMPTS[0], PROMPTS[0]], 3, 8, seed=1)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    write_json(
        tmp_path / "generation_config.json",
        {"do_sample": False, "top_k": 1, "top_p": 0.1, "repetition_penalty": 5.0, "temperature": 0.1},
    )
    assert plain == sample(*load(tmp_path), [PROMPTS[0], PROMPTS[0]], 3, 8, seed=0)


def test_ended_answers_are_reported(small):
    model, tokenizer = small
    ended = []
    answers = sample(model, tokenizer, PROMPTS, 60, 12, 0, ended.append)
    assert sum(ended) == 180 == sum(map(len, answers)) and len(ended) > 2


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [None, 7, [7, 8]])
def test_end_tokens(small, named):
    """Of the tokenizer, the generation config, and the chat template."""
    tokenizer = copy.deepcopy(small[1])
    turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    extra = {7} if named == 7 else {*(named or [])}
    settings = GenerationConfig(eos_token_id=named)
    assert end_tokens(tokenizer, settings) == sorted({turn, *extra}) and tokenizer.eos_token_id == turn
    tokenizer.eos_token = "<|endoftext|>"
    assert end_tokens(tokenizer, settings) == sorted({tokenizer.eos_token_id, turn, *extra})
    tokenizer.chat_template = None
    assert end_tokens(tokenizer, settings) == sorted({tokenizer.eos_token_id, *extra})
    tokenizer.chat_template = OTHER_TEMPLATES["user-assistant"]
    assert end_tokens(tokenizer, settings) == sorted({tokenizer.eos_token_id, *extra})
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n\nUser:{% endfor %}"
    assert end_tokens(tokenizer, settings) == sorted({tokenizer.eos_token_id, *extra})  # not a special token


def test_an_answer_stops_at_the_end_of_its_turn(small, most_probable):
    """Of a base model whose tokenizer has another end token."""
    model, tokenizer = small[0], copy.deepcopy(small[1])
    turn, one = tokenizer.eos_token_id, tokenizer("e", add_special_tokens=False)["input_ids"][0]
    tokenizer.eos_token = "<|endoftext|>"

    seen = []

    def ending(module, arguments, output):
        output.logits = torch.zeros_like(output.logits)
        output.logits[..., turn if seen else one] = 1.0
        seen.append(True)
        return output

    hook = model.register_forward_hook(ending)
    try:
        assert sample(model, tokenizer, PROMPTS[:1], 2, 9, seed=0) == [["e", "e"]]
    finally:
        hook.remove()
    assert len(seen) == 2
