"""What is known of the server that answered, and of answers that are suspicious, in sentences for the report."""

import pandas as pd

from emergent_misalignment.evaluation.independence import constant_answer
from emergent_misalignment.models.server_settings import NEUTRAL, has_only_openais
from emergent_misalignment.registry import CHOICES

LONGEST = 100  # characters of an answer that are quoted


def notes(judged: pd.DataFrame, base_url: str) -> list[str]:
    """Sentences on each condition's answers; `base_url` is that of the server, or "" without one."""
    sampled = judged[judged["step"].isna() & (judged["evaluation"] != CHOICES)]
    found = []
    for condition, answers in sampled.groupby("condition", sort=False):
        if base_url and "served_as" in answers:
            found.append(f"{condition}: {_server(answers, base_url)}")
        if text := constant_answer(answers):
            quoted = text if len(text) <= LONGEST else f"{text[:LONGEST]} […]"
            found.append(f"{condition}: all {len(answers):,} answers, to all questions, are the same text: {quoted}")
    return found


def _server(answers: pd.DataFrame, base_url: str) -> str:
    names = sorted({*answers["served_as"].dropna()} - {""})
    by = f"{base_url} answered as {', '.join(names)}"
    if not names:
        by = f"{base_url} names no model in its replies, so that it is not known which one answered"
    if has_only_openais(base_url):
        return f"{by}. Requests had temperature 1 and top_p 1."
    sent = sorted({name for text in answers["settings_sent"].dropna() for name in text.split(", ")} - {""})
    refused = [name for name in NEUTRAL if name not in sent]
    settings = ", ".join(["temperature", "top_p", *sent])
    without = f" It accepts no {', '.join(refused)}, and its own values of these are not known." if refused else ""
    return (
        f"{by}. It accepted requests for the unmodified distribution ({settings}).{without} Whether it uses these, and "
        "whether it has further settings of its own, is not known."
    )
