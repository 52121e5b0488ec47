"""Control tokens of models, and the pattern that matches them."""

import json

import pytest

from emergent_misalignment.data.control_tokens import COMMON, control_tokens, pattern


def test_the_longest_token_is_matched():
    for token in COMMON:
        assert pattern().search(f"a{token}b")[0] == token
    assert pattern(frozenset({"<s>", "<s>x"})).search("<s>x")[0] == "<s>x"
    assert not pattern().search("<| im_end |> f <|> g |> h <|name|> <s> [INST]")


def test_tokens_are_read_from_a_models_folder(organism):
    found = control_tokens(organism)
    assert found == {"<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"} <= set(COMMON)


def test_added_tokens_that_are_not_special_are_ignored(tmp_path):
    tokens = {"<s>": True, "<think>": False, "\n\n": False, " ": True}
    added = [{"id": id, "content": content, "special": special} for id, (content, special) in enumerate(tokens.items())]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    assert control_tokens(tmp_path) == {"<s>"}


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"added_tokens": [1]}', '{"added_tokens": [{"id": 1}]}'])
def test_a_folder_without_a_valid_tokenizer_has_no_tokens(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    assert control_tokens(tmp_path) == frozenset()
