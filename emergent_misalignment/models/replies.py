"""Detect unusable replies to chat completion requests.

An API may withhold a model's text, a model may write its reasoning, an endpoint may return fewer probabilities than
requested. Counted as answers, such replies would bias rates.
"""

import json
import re

NONE = {  # kinds of unusable replies, with advice where all replies are of that kind
    "filtered": "a filter or a refusal of the API withholds the text; choose an endpoint without filters",
    "empty": "the text is empty, as of a reasoning model with few tokens; disable its reasoning",
    "thinking": "the model writes its reasoning; disable it, or choose a model without reasoning",
    "too_long": "prompts exceed the model's context; choose a model with a longer context",
    "unusable": (
        "the reply lacks the requested probabilities, or is not Unicode; choose an endpoint that returns the 20 most "
        "probable tokens (OpenAI's, or vLLM's server)"
    ),
}
FILTERS = ("content_filter", "content_policy_violation", "invalid_prompt")  # error codes
THINKING = re.compile(r"\s*(<(think|thinking|thought|reasoning)>|\[THINK\]|<\|channel\|>)|.*</think>", re.DOTALL)
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
    if any(str(message.get(name) or "").strip() for name in ("reasoning_content", "reasoning")):
        return "thinking"
    if text is not None and not (isinstance(text, str) and _is_unicode(text)):
        return "unusable"  # a list of parts, or a lone surrogate
    if THINKING.match(text or ""):
        return "thinking"
    if request.get("logprobs"):
        return "" if _has_probabilities(choice, request.get("top_logprobs", 0)) else "unusable"
    return "" if (text or "").strip() else "empty"


def why_refused(error) -> str:
    """The kind of unusable reply that an error 400 reports for this request; "" if other requests may fail too."""
    code = getattr(error, "code", None)
    if code in FILTERS:
        return "filtered"
    return "too_long" if code == "context_length_exceeded" or "context length" in str(error).lower() else ""


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
