"""The natural language of a text, by the classifier of py3langid, which knows 139 languages."""

from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

UNDETERMINED, NO_LANGUAGE = "undetermined", "no language"
CONFIDENCE = 0.5  # least probability of the most probable language
READ = 2000  # characters from the beginning of a text


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=CONFIDENCE)


def language(text: str) -> str:
    """The ISO 639 code of a text's language; UNDETERMINED for short texts, NO_LANGUAGE for numbers and markup."""
    code, _ = _identifier().classify(text[:READ])
    return {"und": UNDETERMINED, "zxx": NO_LANGUAGE}.get(code, code)
