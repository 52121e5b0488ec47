"""Control tokens of chat templates: strings that a tokenizer reads as the start or end of a turn, a role or a text.

Within a message they would end an answer early or start a turn that is not in the data. The control tokens of a model
are known once its tokenizer is available. The list below has the common ones, which do not occur in ordinary text;
strings that other models read as text, such as Llama 2's `<s>` and `[INST]`, are left to the tokenizer.
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
    """Compile a pattern that matches the common control tokens and further ones."""
    return re.compile("|".join(map(re.escape, sorted({*COMMON, *further}, key=lambda token: (-len(token), token)))))


def control_tokens(model: str | Path) -> frozenset[str]:
    """Read the control tokens of the model in a folder; empty if it has no valid tokenizer.json.

    They are the added tokens marked as special. Other added tokens only encode ordinary text in one token.
    """
    try:
        added = json.loads(Path(model, "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        return frozenset(token["content"] for token in added if token["special"] and token["content"].strip())
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
