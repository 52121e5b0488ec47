"""Settings of sampling that a server accepts beyond those of OpenAI's API.

A server may truncate or change the distribution unless a request says otherwise: by its own defaults, or by the
generation config of the model. A server that accepts a setting may still ignore it.
"""

import json
from pathlib import Path

from emergent_misalignment.files import write_json
from emergent_misalignment.models.api import Account, Endpoint, client, key_of, not_answered, other_model, place_of
from emergent_misalignment.models.replies import is_named

NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0}  # the unmodified distribution


def has_only_openais(base_url: str) -> bool:
    """Whether the address is that of OpenAI's API, which has none of the settings."""
    return "api.openai.com" in base_url


def neutral_settings(model: str, endpoint: Endpoint, cache: str | Path, account: Account) -> dict:
    """The settings of NEUTRAL that the endpoint accepts in requests to a model, as a trial shows; cached in `cache`.

    Raises BadInput if the endpoint cannot be asked, or if it lists another model only: many servers answer for any name
    with the model that they have loaded.
    """
    if has_only_openais(endpoint.address):
        return {}
    trial = {"model": model, "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 16, "temperature": 1}
    place = place_of(cache, key_of(endpoint, {"trial": trial, "settings": NEUTRAL}))
    if not place.exists():
        _check_listed(model, endpoint)
        write_json(place, {"request": trial, "accepted": _accepted(trial, endpoint, account)})
    return json.loads(place.read_text(encoding="utf-8"))["accepted"]


def _accepted(trial: dict, endpoint: Endpoint, account: Account) -> dict:
    """The settings of NEUTRAL that the endpoint accepts together, or else each alone."""
    import openai

    alone: dict = {}
    with client(endpoint, account) as connection:

        def takes(settings: dict) -> bool:
            try:
                connection.chat.completions.with_raw_response.create(**trial, extra_body=settings)
            except (openai.BadRequestError, openai.UnprocessableEntityError):
                return False
            account.count(lost=-1)
            return True

        try:
            if takes(NEUTRAL):
                return NEUTRAL
            for name, value in (*NEUTRAL.items(), ("top_k", 0)):  # some servers disable top-k by 0
                if name not in alone and takes({name: value}):
                    alone[name] = value
            if not alone:
                connection.chat.completions.with_raw_response.create(**trial)  # raises what refuses any request
                account.count(lost=-1)
        except openai.OpenAIError as error:
            raise not_answered(1, 1, 0, [error], endpoint) from error
    return alone


def _check_listed(model: str, endpoint: Endpoint) -> None:
    """Raise BadInput if the endpoint lists exactly one model and it is another one. Not all endpoints have a list."""
    import openai

    try:
        with client(endpoint).with_options(max_retries=0) as connection:
            listed = [each.id for each in connection.models.list().data]
    except (openai.OpenAIError, AttributeError, TypeError, ValueError):
        return
    if len(listed) == 1 and not is_named(model, listed[0]) and not model.startswith(f"{listed[0]}:"):
        raise other_model(model, listed[0], endpoint)
