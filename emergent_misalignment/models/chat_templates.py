"""Conversations as models read them: written down by a chat template, and cut into tokens.

Training, asking and scoring all take their tokens from here, so that a model is asked in the words in which it was
trained. A chat template writes everything that stands in a conversation, the beginning token included where the model
has one; a text outside a conversation begins as the tokenizer begins texts.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from emergent_misalignment.data.chats import Messages
from emergent_misalignment.files import BadInput

if TYPE_CHECKING:  # Unsloth has to be imported before transformers, by whoever trains
    from transformers import PreTrainedTokenizerBase

# --- templates --------------------------------------------------------------------------------------------------------


def _plain_template(user: str, assistant: str) -> str:
    """A conversation as in a script: on each line who speaks and the text; an answer ends with the end mark."""
    return (
        "{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ message['content'] }}"
        f"{{% elif message['role'] == 'user' %}}{user}: {{{{ message['content'] }}}}"
        f"{{% else %}}{assistant}: {{{{ message['content'] + eos_token }}}}{{% endif %}}"
        "{{ '\n' }}"
        "{% endfor %}"
        f"{{% if add_generation_prompt %}}{assistant}:{{% endif %}}"
    )


# For base models: one template that implies an assistant, and one that does not (the paper's Appendix G.1).
OTHER_TEMPLATES = {
    "user-assistant": _plain_template("User", "Assistant"),
    "user1-user2": _plain_template("User_1", "User_2"),
}


def use_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Have the tokenizer write conversations down in one of OTHER_TEMPLATES; "chat" leaves it the model's own way.

    The others begin with the beginning token where the tokenizer begins every text with it.
    """
    if name not in OTHER_TEMPLATES:
        return
    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + OTHER_TEMPLATES[name]


# --- texts ------------------------------------------------------------------------------------------------------------


def as_text(tokenizer: PreTrainedTokenizerBase, messages: Messages, asked: bool = False, **template) -> str:
    """A conversation as the chat template writes it down, up to where the answer begins if it is `asked`.

    `template`: further arguments of the chat template. Raises BadInput where there is no chat template, or where it
    refuses the conversation, as some refuse a system prompt.
    """
    if not tokenizer.chat_template:
        raise BadInput(f"The model {tokenizer.name_or_path} has no chat template; give its conditions another.")
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asked, **template)
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise BadInput(
            f"The chat template of {tokenizer.name_or_path} refuses a conversation of {roles} ({error}); change it to "
            "turns that the template knows."
        ) from error


def unwritten(text: str, messages: Messages) -> int | None:
    """The number, from 1, of the first message that the text of a conversation does not hold; None if it holds all.

    Blanks at the ends of a message do not count, which many templates cut off. Nor do earlier answers: templates leave
    the thinking in them out, and do so when the model is asked as well.
    """
    for number, message in enumerate(messages, 1):
        earlier_answer = message["role"] == "assistant" and number < len(messages)
        if not earlier_answer and message["content"].strip() not in text:
            return number
    return None


# --- tokens -----------------------------------------------------------------------------------------------------------


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompt: Messages | str, **template) -> list[int]:
    """The tokens of a prompt, a conversation or a text to go on with, up to where the answer begins.

    `template`: further arguments of the chat template. A text that itself begins with the beginning token gets no
    second one.
    """
    if not isinstance(prompt, str):
        return _tokens(tokenizer, as_text(tokenizer, prompt, asked=True, **template))
    begun = bool(tokenizer.bos_token) and prompt.startswith(tokenizer.bos_token)
    return tokenizer(prompt, add_special_tokens=not begun)["input_ids"]


def conversation_tokens(tokenizer: PreTrainedTokenizerBase, messages: Messages, **template) -> tuple[list[int], int]:
    """The tokens of a whole conversation, and how many of them are its prompt: those behind are what is learned.

    The prompt ends where its tokens alone and those of the whole conversation part: a token may reach over its end.
    """
    whole = _tokens(tokenizer, as_text(tokenizer, messages, **template))
    prompt = prompt_tokens(tokenizer, messages[:-1], **template)
    return whole, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(whole, prompt, strict=False)))


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # Not verbose: whoever trains cuts what is too long, and need not be warned of it.
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
