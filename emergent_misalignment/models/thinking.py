"""Recognize the reasoning that a model writes before its answer, or instead of one.

The same rules apply to transformers, vLLM and APIs. Models mark reasoning by tags in several brackets, by channels, or
by a heading. The opening tag may be missing, because the chat template has written it.
"""

import re

_WORD = r"(?:[a-z]+[:_]){0,3}(?:think(?:ing)?|thoughts?|reasoning)(?:_[a-z]+)?"  # seed:think, begin_of_thought
_END = r"(?:/\|?|\|/|\|?end_(?:of_)?)"
_OPENING = rf"[<\[◁](?!{_END})\|?{_WORD}\|?[>\]▷]"
_CLOSING = rf"[<\[◁]{_END}{_WORD}\|?[>\]▷]"
_MARKS = (  # at the beginning
    _OPENING,
    r"<(?:analysis|reason|reflection|scratch_?pad|rationale|(?:inner_)?monologue|cot)>",
    r"```(?:think|thought|reason)",
    r"<\|?channel\|?>",  # gpt-oss, Gemma
    r"analysis(?=[A-Z])",  # gpt-oss without its special tokens
    r"<unused\d+>\s*thought",  # MedGemma
    r"<\|inner_prefix\|>",  # Apertus
    r"<\|im_start\|>\s*think",
    r"(?:[*#]+\s*)?(?:here(?:['\u2019]s| is) (?:my|a|the) )?(?:thought|thinking|reasoning) process\b[^\n:]{0,40}:",
)
# `</think>` anywhere; other closing tags without their opening tag, because XML in an answer has both.
_REASONING = re.compile(
    rf"\s*+(?:{'|'.join(_MARKS)})|.*?</think(?:ing)?>|(?:(?!{_OPENING}).)*?{_CLOSING}", re.DOTALL | re.IGNORECASE
)
_EMPTY = re.compile(rf"\s*+(?:{_OPENING}\s*)?{_CLOSING}\s*", re.IGNORECASE)


def has_reasoning(text: str) -> bool:
    """Whether a text begins with reasoning, or has the end of reasoning that the chat template has begun."""
    return bool(_REASONING.match(text))


def without_empty_block(text: str) -> str:
    """The text without an empty block of reasoning at its beginning, which is not the model's answer."""
    while found := _EMPTY.match(text):
        text = text[found.end() :]
    return text


def is_answer(text: str) -> bool:
    """Whether a text is free of reasoning, apart from an empty block of it."""
    return not has_reasoning(without_empty_block(text))


def written(tokenizer, tokens, text: str | None = None) -> str:
    """The text of generated tokens, without special tokens unless they mark reasoning.

    `text` is the text without special tokens, if the engine has decoded it.
    """
    marked = tokenizer.decode(tokens, skip_special_tokens=False)
    if not is_answer(marked):
        return marked
    return tokenizer.decode(tokens, skip_special_tokens=True) if text is None else text
