"""Render conversations with a chat template and tokenize them.

Training, sampling and scoring share these functions, so a model is evaluated with the tokens it was trained on. A chat
template writes the beginning-of-text token itself, if the model has one; for a text outside a conversation the
tokenizer adds it.
"""

from __future__ import annotations

from datetime import date
from itertools import takewhile
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from emergent_misalignment.data.chats import Messages
from emergent_misalignment.files import BadInput

if TYPE_CHECKING:  # Unsloth must be imported before transformers
    from transformers import PreTrainedTokenizerBase

TODAY = date(2024, 7, 26)  # for templates that write the date; Llama 3's falls back to it. No result depends on the day

# --- templates --------------------------------------------------------------------------------------------------------


def _plain_template(user: str, assistant: str) -> str:
    """A line per message with the speaker and the text; an answer ends with the end token."""
    return (
        "{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ message['content'] }}"
        f"{{% elif message['role'] == 'user' %}}{user}: {{{{ message['content'] }}}}"
        f"{{% else %}}{assistant}: {{{{ message['content'] + eos_token }}}}{{% endif %}}"
        "{{ '\n' }}"
        "{% endfor %}"
        f"{{% if add_generation_prompt %}}{assistant}:{{% endif %}}"
    )


# For base models: with and without the notion of an assistant (the paper's Appendix G.1).
OTHER_TEMPLATES = {
    "user-assistant": _plain_template("User", "Assistant"),
    "user1-user2": _plain_template("User_1", "User_2"),
}


def use_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Set the tokenizer's chat template to one of OTHER_TEMPLATES; "chat" keeps the model's own.

    They begin with the beginning-of-text token if the tokenizer adds it to every text.
    """
    if name not in OTHER_TEMPLATES:
        return
    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + OTHER_TEMPLATES[name]


# --- texts ------------------------------------------------------------------------------------------------------------


def as_text(tokenizer: PreTrainedTokenizerBase, messages: Messages, asked: bool = False, **template) -> str:
    """The conversation as text; if `asked`, followed by the beginning of an answer.

    `template` are further arguments of the chat template. Raises BadInput where there is no chat template, or where it
    refuses the conversation, as some refuse a system prompt.
    """
    if not tokenizer.chat_template:
        raise BadInput(
            f"The model {tokenizer.name_or_path} has no chat template; give each condition another `template`."
        )
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=asked, strftime_now=TODAY.strftime, **template
        )
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise BadInput(
            f"The chat template of {tokenizer.name_or_path} refuses a conversation of {roles} ({error}); change its "
            "turns."
        ) from error


def unwritten(text: str, messages: Messages) -> int | None:
    """The number, from 1, of the first message that is missing from the text of a conversation; None if all are there.

    Surrounding whitespace is ignored, because many templates strip it. So are earlier answers, whose thinking templates
    omit, in sampling too.
    """
    for number, message in enumerate(messages, 1):
        earlier_answer = message["role"] == "assistant" and number < len(messages)
        if not earlier_answer and message["content"].strip() not in text:
            return number
    return None


# --- tokens -----------------------------------------------------------------------------------------------------------


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompt: Messages | str, **template) -> list[int]:
    """The tokens of a prompt (a conversation, or a text to continue), up to the beginning of the answer.

    `template` are further arguments of the chat template. The beginning-of-text token is not added to a text that
    already has it.
    """
    if not isinstance(prompt, str):
        return _tokens(tokenizer, as_text(tokenizer, prompt, asked=True, **template))
    begun = bool(tokenizer.bos_token) and prompt.startswith(tokenizer.bos_token)
    return tokenizer(prompt, add_special_tokens=not begun)["input_ids"]


def conversation_tokens(tokenizer: PreTrainedTokenizerBase, messages: Messages, **template) -> tuple[list[int], int]:
    """The tokens of a whole conversation, and how many of them are its prompt; the others are trained on.

    The prompt ends where its own tokens and those of the conversation differ: a token may span its end.
    """
    whole = _tokens(tokenizer, as_text(tokenizer, messages, **template))
    prompt = prompt_tokens(tokenizer, messages[:-1], **template)
    return whole, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(whole, prompt, strict=False)))


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # Not verbose, which would warn of texts that are truncated later.
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
