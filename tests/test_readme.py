"""The README keeps up with the workflow."""

import re

import pytest
from conftest import ROOT

from emergent_misalignment import readme

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_graph_is_the_workflows(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert readme.rule_graph() in TEXT, "the rules have changed; run `make readme`"


@pytest.mark.parametrize("path", re.findall(r"\]\(((?!https?:)[^)#]+)\)", TEXT))
def test_what_it_links_to_is_there(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("path", re.findall(r"(?<![\w/])(?:config|rules|docs|notebooks|profiles)/[\w./-]*\w", TEXT))
def test_what_it_names_is_there(path):
    assert (ROOT / path).exists()
