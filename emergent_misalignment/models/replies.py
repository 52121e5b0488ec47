"""Replies to chat completion requests that are no answers.

An API may withhold what a model wrote, a model may think aloud first, an endpoint may give fewer probabilities than it
was asked for. Taken for answers, such replies would become rates.
"""

import json
import re

NONE = {  # what comes instead of an answer, and what a person can do where it is all that comes
    "filtered": "a filter or a refusal of the API's withholds the text; choose an endpoint without",
    "empty": "there is no text, as from a model that thinks first and has few tokens; switch its thinking off",
    "thinking": "the model thinks aloud; switch its thinking off, or choose one that answers at once",
    "too_long": "prompts are longer than the model's context; choose one with a longer context",
    "unusable": (
        "it comes without the most probable tokens that were asked for, or is not Unicode; choose an endpoint that "
        "gives the 20 most probable ones (OpenAI's, or vLLM's server)"
    ),
}
FILTERS = ("content_filter", "content_policy_violation", "invalid_prompt")  # codes of an error about a prompt
THINKING = re.compile(r"\s*(<(think|thinking|thought|reasoning)>|\[THINK\]|<\|channel\|>)|.*</think>", re.DOTALL)
ROUNDING = 1e-3  # nats by which a log-probability may be above 0


def why_none(request: dict, response: dict) -> str:
    """The kind of NONE that a response with a choice is; "" for an answer.

    An answer that was cut at `max_tokens` is one. Where probabilities are asked for, they are the answer, and its text
    may be empty: a number may end there.
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
        return "unusable"  # a list of parts, or half a character
    if THINKING.match(text or ""):
        return "thinking"
    if request.get("logprobs"):
        return "" if _has_probabilities(choice, request.get("top_logprobs", 0)) else "unusable"
    return "" if (text or "").strip() else "empty"


def why_refused(error) -> str:
    """The kind of NONE that an endpoint's error 400 says of this one request; "" if all requests may be at fault."""
    code = getattr(error, "code", None)
    if code in FILTERS:
        return "filtered"
    return "too_long" if code == "context_length_exceeded" or "context length" in str(error).lower() else ""


def readable(response: dict) -> dict:
    """The response with a question mark for each half of a character, as some endpoints put them among the tokens."""
    return json.loads(json.dumps(response, ensure_ascii=False).encode("utf-8", "replace"))


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _has_probabilities(choice: dict, number: int) -> bool:
    """Whether so many alternatives to the first token came, each with its probability."""
    try:
        entries = choice["logprobs"]["content"][0]["top_logprobs"]
        return len(entries) >= number and all(
            isinstance(entry["token"], str) and entry["logprob"] <= ROUNDING for entry in entries
        )
    except (LookupError, TypeError):
        return False
