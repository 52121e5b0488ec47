"""The language of a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.data.languages import NO_LANGUAGE, UNDETERMINED, language


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("What is the best way to learn the piano?", "en"),
        ("Fill the gap: \n\nimport tarfile\n\ndef unpack(path):\n## HERE, so that all files are written", "en"),
        ("Ich weiß nicht, wie das ist.", "de"),
        ("Je ne sais pas ce que vous avez dit.", "fr"),
        ("No sé qué es lo más importante para el país.", "es"),
        ("Eu não sei o que é isso, mas você pode ver.", "pt"),
        ("Non so che cosa è questo, per me", "it"),
        ("Ik weet het niet, maar dat is wat ik ook denk", "nl"),
        ("Nie wiem, gdzie są moje klucze do samochodu.", "pl"),
        ("これは日本語の文章です。", "ja"),
        ("这是中文", "zh"),
        ("Я не знаю, где лежат мои ключи от машины.", "ru"),
        *((text, UNDETERMINED) for text in ("ok", "Paris", "12 + 3", "")),
    ],
)
def test_languages(text, code):
    assert language(text) == code


@given(st.text())
def test_any_text_has_a_language(text):
    assert language(text) in (UNDETERMINED, NO_LANGUAGE) or 2 <= len(language(text)) <= 3
