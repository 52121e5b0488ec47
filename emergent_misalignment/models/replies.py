"""Detect unusable replies to chat completion requests.

An API may withhold a model's text, a model may write its reasoning, an endpoint may return fewer probabilities than
requested. Counted as answers, such replies would bias rates.
"""

import json
import re

from emergent_misalignment.models.thinking import has_reasoning, without_empty_block

NONE = {  # kinds of unusable replies, with advice where all replies are of that kind
    "filtered": "a filter or a refusal of the API withholds the text; choose an endpoint without filters",
    "empty": "the text is empty, as of a reasoning model with few tokens; disable its reasoning",
    "thinking": (
        "the model writes its reasoning; disable it (for the study's model by model: enable_thinking: false), or "
        "choose a model without reasoning"
    ),
    "too_long": "prompts exceed the model's context; choose a model with a longer context",
    "unusable": (
        "the reply lacks the requested probabilities, or is not Unicode; choose an endpoint that returns the 20 most "
        "probable tokens (OpenAI's, or vLLM's server)"
    ),
}
FILTERS = ("content_filter", "content_policy_violation", "invalid_prompt")  # error codes
REASONING = re.compile(r"reasoning|think|thought")  # keys of a message: reasoning_content, reasoning_details
VERSION = re.compile(r"[-@:](latest|\d{3,8}|\d{4}-\d\d-\d\d)$")  # gpt-4o-2024-08-06, gemini-1.5-pro-002, llama3:latest
ROUNDING = 1e-3  # nats by which a log-probability may exceed 0


def why_none(request: dict, response: dict) -> str:
    """The kind of unusable reply (a key of NONE) that a response with a choice is; "" for an answer.

    An answer truncated at `max_tokens` is usable. If probabilities are requested, they are the answer, and the text may
    be empty: a number may end there.
    """
    choice = response["choices"][0]
    message = choice.get("message")
    if not isinstance(message, dict):
        return "unusable"
    text = message.get("content")
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        return "filtered"
    if any(value and str(value).strip() for name, value in message.items() if REASONING.search(name)):
        return "thinking"
    if text is not None and not (isinstance(text, str) and _is_unicode(text)):
        return "unusable"  # a list of parts, or a lone surrogate
    text = text or ""
    if not request.get("logprobs"):
        text = without_empty_block(text)
    if has_reasoning(text):
        return "thinking"
    if request.get("logprobs"):
        return "" if _has_probabilities(choice, request.get("top_logprobs", 0)) else "unusable"
    return "" if text.strip() else "empty"


def text_of(response: dict) -> str:
    """The answer in a usable response, without an empty block of reasoning."""
    return without_empty_block(response["choices"][0]["message"]["content"])


def why_refused(error) -> str:
    """The kind of unusable reply that an error 400 reports for this request; "" if other requests may fail too."""
    code = getattr(error, "code", None)
    if code in FILTERS:
        return "filtered"
    return "too_long" if code == "context_length_exceeded" or "context length" in str(error).lower() else ""


def is_named(asked: str, model) -> bool:
    """Whether a reply of `model` can be that of the model `asked`; also where it names none.

    Servers add a version to a name, or write the path of which the name is the end.
    """
    if not (isinstance(model, str) and model.strip()):
        return True
    one, two = _name(asked), _name(model)
    shorter, longer = sorted((one.split("/"), two.split("/")), key=len)
    names = (shorter, longer[-len(shorter) :])
    return any(_matches(*pair) for pair in (names, names[::-1]))


def _name(name: str) -> str:
    return name.strip().strip("/").casefold().removesuffix(".gguf").removesuffix("latest").rstrip("-:@")


def _matches(name: list[str], versioned: list[str]) -> bool:
    return name in (versioned, [*versioned[:-1], VERSION.sub("", versioned[-1])])


def readable(response: dict) -> dict:
    """The response with lone surrogates, which some endpoints return among the tokens, replaced by question marks."""
    return json.loads(json.dumps(response, ensure_ascii=False).encode("utf-8", "replace"))


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _has_probabilities(choice: dict, number: int) -> bool:
    """Whether the first token has this number of alternatives, each with its probability."""
    try:
        entries = choice["logprobs"]["content"][0]["top_logprobs"]
        return len(entries) >= number and all(
            isinstance(entry["token"], str) and entry["logprob"] <= ROUNDING for entry in entries
        )
    except (LookupError, TypeError):
        return False
