"""Texts that a tokenizer reads as control tokens: where a turn begins and ends, who speaks, where a text ends.

In the text of a conversation they would end an answer in its midst, or begin a turn that nobody wrote. Which of them a
model has is known once its tokenizer is there. Those below are common, and nobody writes them by chance; marks that are
ordinary text to other models, such as Llama 2's `<s>` and `[INST]`, are left to the tokenizer.
"""

import json
import re
from functools import cache
from pathlib import Path

_NAMES = (
    *("im_start", "im_end", "im_sep", "endoftext", "endofprompt", "pad", "fim_prefix", "fim_middle", "fim_suffix"),
    *("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id", "eom_id", "python_tag"),
    *("system", "user", "assistant", "end", "start", "message", "channel", "return", "call", "constrain"),
    *("start_of_role", "end_of_role", "START_OF_TURN_TOKEN", "END_OF_TURN_TOKEN"),
)
COMMON = (
    *(f"<|{name}|>" for name in _NAMES),
    *("<start_of_turn>", "<end_of_turn>", "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"),
)


@cache
def pattern(further: frozenset[str] = frozenset()) -> re.Pattern:
    """Matches the common control tokens and further ones."""
    return re.compile("|".join(map(re.escape, sorted({*COMMON, *further}, key=lambda token: (-len(token), token)))))


def control_tokens(model: str | Path) -> frozenset[str]:
    """The control tokens of the model in a folder; none where it has no tokenizer.json that tells them.

    Only tokens that are marked as special control something; others that were added only write a text in one token.
    """
    try:
        added = json.loads(Path(model, "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        return frozenset(token["content"] for token in added if token["special"] and token["content"].strip())
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
