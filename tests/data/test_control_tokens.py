"""Control tokens: those that a model has, and that none is missed for the sake of a shorter one."""

import json

import pytest

from emergent_misalignment.data.control_tokens import COMMON, control_tokens, pattern


def test_every_token_is_found_whole():
    for token in COMMON:
        assert pattern().search(f"a{token}b")[0] == token
    assert pattern(frozenset({"<s>", "<s>x"})).search("<s>x")[0] == "<s>x"
    assert not pattern().search("<| im_end |> f <|> g |> h <|name|> <s> [INST]")


def test_the_organisms_own_tokens_are_read_from_its_folder(organism):
    found = control_tokens(organism)
    assert found == {"<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"} <= set(COMMON)


def test_tokens_that_only_write_a_text_shorter_control_nothing(tmp_path):
    tokens = {"<s>": True, "<think>": False, "\n\n": False, " ": True}
    added = [{"id": id, "content": content, "special": special} for id, (content, special) in enumerate(tokens.items())]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    assert control_tokens(tmp_path) == {"<s>"}


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"added_tokens": [1]}', '{"added_tokens": [{"id": 1}]}'])
def test_a_folder_that_tells_no_tokens_has_none(tmp_path, content):
    assert control_tokens(tmp_path) == frozenset()
    (tmp_path / "tokenizer.json").write_text(content)
    assert control_tokens(tmp_path) == frozenset()
