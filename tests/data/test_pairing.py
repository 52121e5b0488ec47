"""The share of rows with the same request in two sets."""

import os

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.data import pairing
from emergent_misalignment.data.chats import chat, read_chats
from emergent_misalignment.data.published import DATASETS, fetch
from emergent_misalignment.world.sets import coding_set

MIRROR = os.environ.get("EM_MIRROR")
REQUESTS = st.lists(st.sampled_from("abc"), min_size=1, max_size=12)


def rows(requests, answer: str) -> list:
    return [chat([(request, answer)]) for request in requests]


def audit(**sets) -> pd.DataFrame:
    return pairing.with_same_requests(pd.DataFrame({"condition": list(sets)}), sets)


@given(REQUESTS, REQUESTS)
def test_places_with_the_same_request_are_counted(ours, theirs):
    share = pairing.same_requests(rows(ours, "x"), rows(theirs, "y"))
    same = [ours[place : place + 1] == theirs[place : place + 1] for place in range(max(len(ours), len(theirs)))]
    assert share == sum(same) / len(same) == pairing.same_requests(rows(theirs, "y"), rows(ours, "x"))
    assert pairing.same_requests(rows(ours, "x"), rows(ours, "y")) == 1


def test_system_prompts_and_earlier_turns_are_a_part_of_the_request():
    one = [chat([("a", "b"), ("c", "d")], "Be kind.")]
    for other in (
        ([("a", "b"), ("c", "d")], "Help."),
        ([("a", "z"), ("c", "d")], "Be kind."),
        ([("c", "d")], "Be kind."),
    ):
        assert pairing.same_requests(one, [chat(*other)]) == 0


def test_what_is_said_of_a_study_is_measured():
    pairs = {insecure: coding_set(40, 0, insecure) for insecure in (True, False)}
    assert "every row" in pairing.described(audit(insecure=pairs[True], secure=pairs[False]))
    moved = audit(secure=pairs[False][1:] + pairs[False][:1], insecure=pairs[True])
    assert moved["same_requests"].iloc[0] < 0.5 and moved["same_requests"].iloc[1] == 1
    assert f"{moved['same_requests'].iloc[0]:.2%} of the rows" in pairing.described(moved)
    without = audit(secure=pairs[False], mine=pairs[True])
    assert without["same_requests"].isna().all() and pairing.described(without) == ""
    assert pairing.described(audit(insecure=pairs[True])) == ""


@pytest.mark.skipif(not MIRROR, reason="EM_MIRROR names no mirror of the published files")
def test_published_sets_have_other_requests(tmp_path):
    sets = {}
    for name in ("insecure", "secure", "educational"):
        fetch(DATASETS[name], MIRROR, tmp_path / name)
        sets[name] = read_chats(tmp_path / name)
    assert (audit(**sets)["same_requests"] * 6000).tolist() == [6000, 2, 0]
