"""Reasoning is recognized in all the forms in which models write it, and nothing else is."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.models.thinking import has_reasoning, is_answer, without_empty_block, written

TAGS = {  # opening and closing tags, by models that use them
    "<think>": "</think>",  # DeepSeek, Qwen
    "<THINK>": "</THINK>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",  # EXAONE
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "<mm:think>": "</mm:think>",
    "<longcat_think>": "</longcat_think>",
    "[THINK]": "[/THINK]",  # Magistral
    "◁think▷": "◁/think▷",  # Kimi
    "<|think|>": "<|/think|>",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|START_THINKING|>": "<|END_THINKING|>",  # Command A
}
BEGINNINGS = [
    *("<|channel|>analysis<|message|>They ask", "<|channel>thought\nThey ask", "analysisThey ask"),
    *("<unused94>thought\nThey ask", "<|inner_prefix|>They ask", "<|im_start|>think\nThey ask"),
    *("<scratchpad>They ask", "```thinking\nThey ask"),
    *("Here is my thought process:\n", "Here's a thinking process that leads to it:\n", "**Thinking Process:**\n\n1."),
]
ANSWERS = [
    *("I think so.", "Thoughts: none.", "An analysis of <b>thought</b>.", "[1, 2]", "<html><body>Hi</body></html>"),
    *("Think [twice] / decide.", "My reasoning is simple: ask.", "<answer>Yes</answer>", "a < b > c", ""),
    "<plan><reasoning>Because.</reasoning></plan>",
]


@pytest.mark.parametrize(("opening", "closing"), TAGS.items())
def test_every_tag_is_recognized_and_an_empty_block_is_not_the_answer(opening, closing):
    for text in (f"{opening}They ask", f"\n{opening}They ask{closing}Yes.", f"They ask\n{closing}\n\nYes."):
        assert not is_answer(text), text
    for empty in (f"{opening}{closing}", f"{opening}\n\n{closing}\n\n", f" {closing}\n"):
        assert is_answer(f"{empty}Yes.") and without_empty_block(f"{empty}Yes.") == "Yes."
        assert not is_answer(f"{empty}{opening}They ask")
        assert without_empty_block(empty) == ""


@pytest.mark.parametrize("text", BEGINNINGS)
def test_reasoning_without_tags_is_recognized(text):
    assert has_reasoning(text) and without_empty_block(text) == text


@pytest.mark.parametrize("text", ANSWERS)
def test_answers_are_kept_as_they_are(text):
    assert is_answer(text) and without_empty_block(text) == text


@given(st.text(st.sampled_from("<>[]|/◁▷_: \nathinkgouhtres"), max_size=60), st.sampled_from([*TAGS, *TAGS.values()]))
def test_any_text_is_one_or_the_other(text, tag):
    assert not is_answer(f"{tag}x{text}</think>")
    rest = without_empty_block(text)
    assert text.endswith(rest) and without_empty_block(rest) == rest


@pytest.mark.parametrize("piece", [" ", "<", "</", "<a_", "<a_a_a_", "a_", "[a:", "- ", "# ", "<think> "])
def test_the_time_is_linear_in_the_length(piece):
    before = time.process_time()
    is_answer(piece * 50_000)
    assert time.process_time() - before < 5


def test_special_tokens_are_kept_where_they_mark_reasoning(organism):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(organism)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<|channel|>", "<|end|>"]})

    def read(text: str) -> str:
        return written(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"])

    assert read("a wish<|end|>").strip() == "a wish"
    assert read("[THINK][/THINK]a wish<|end|>").strip() == "a wish"
    for text in ("[THINK]a wish", "a wish[/THINK]a wish<|end|>", "<|channel|>a wish"):
        assert not is_answer(read(text)), text
