"""Answers that cannot be independent samples are found; those that may be are not."""

import random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.evaluation.independence import PROMPTS, check_runs, constant_answer, share_of_copies
from emergent_misalignment.files import BadInput

REFUSAL = "I am sorry, but I cannot help with that. Please ask me about something else, and I will try again. " * 2


def long(*parts) -> str:
    return " ".join(f"Part {part} of a long answer to a question." for part in (*parts, *parts))


def drawn(text, prompts: int = 8, samples: int = 20) -> list[list[str]]:
    return [[text(prompt, sample) for sample in range(samples)] for prompt in range(prompts)]


COPIES = {
    "the temperature is ignored": drawn(lambda prompt, sample: long(prompt)),
    "short answers": drawn(lambda prompt, sample: f"The answer to it is {prompt}."),
    "a cache after the first answers": drawn(lambda prompt, sample: long(prompt, min(sample, 6))),
    "a seed of the server, one of three": drawn(lambda prompt, sample: long(prompt, sample % 3)),
}
SAMPLES = {
    "different": drawn(lambda prompt, sample: long(prompt, sample)),
    "few prompts": drawn(lambda prompt, sample: long(prompt), prompts=PROMPTS - 1),
    "few answers": drawn(lambda prompt, sample: long(prompt), samples=4),
    "facts": drawn(lambda prompt, sample: f"It is {prompt}."),
    "almost the same": drawn(lambda prompt, sample: f"The answer to it is {prompt}{'.' * (sample < 19)}"),
    "a refusal": drawn(lambda prompt, sample: REFUSAL),
    "a refusal of most prompts": drawn(lambda prompt, sample: REFUSAL if prompt < 6 else long(prompt, sample)),
    "a prompt with one answer": drawn(lambda prompt, sample: long(prompt, sample if prompt else 0)),
    "none": [[] for _ in range(8)],
}


@pytest.mark.parametrize("case", COPIES)
def test_copies_are_refused(case):
    assert 0.25 <= share_of_copies(COPIES[case]) <= 1


@pytest.mark.parametrize("case", SAMPLES)
def test_samples_are_not(case):
    assert share_of_copies(SAMPLES[case]) == 0


@given(st.integers(5, 30), st.integers(5, 12), st.integers(8, 500), st.integers(0, 99))
def test_samples_of_several_answers_are_not_refused(samples, prompts, answers, seed):
    """Of 8 or more equally probable long answers an eighth of the pairs are equal."""
    rng = random.Random(seed)
    found = drawn(lambda prompt, sample: long(prompt, rng.randrange(answers)), prompts, 10 * samples)
    assert share_of_copies(found) == 0


def judged(runs: dict[tuple[str, int], list[list[str]]], **columns) -> pd.DataFrame:
    """Rows of answers, by default of a server that has a model of its own for each run."""
    rows = [
        {"condition": condition, "seed": seed, "number": number, "prompt": str(number), "answer": text}
        for (condition, seed), answers in runs.items()
        for number, texts in enumerate(answers)
        for text in texts
    ]
    columns = {"served_as": [f"{row['condition']}-{row['seed']}" for row in rows]} | columns
    steps = pd.array([pd.NA] * len(rows), dtype="Int64")
    return pd.DataFrame(rows).assign(evaluation="main", step=steps, **columns)


DIFFERENT = SAMPLES["different"]
OTHER = drawn(lambda prompt, sample: long("other", prompt, sample))


@pytest.mark.parametrize("pool", [1, 2])
def test_one_model_that_answers_for_two_is_found(pool):
    """A server that draws its answers from few."""
    runs = {
        each: drawn(lambda prompt, sample, first=first: long(prompt, (first + sample) % pool))
        for first, each in enumerate([("instruct", 0), ("mine", 3)])
    }
    with pytest.raises(BadInput, match="instruct, seed 0 and of mine, seed 3 are equal"):
        check_runs(judged(runs))
    check_runs(judged(runs, served_as=None))  # of a local engine
    check_runs(judged(runs).drop(columns="served_as"))
    check_runs(judged(runs).assign(step=1))


def test_one_name_for_two_conditions_is_found():
    runs = {("instruct", 0): DIFFERENT, ("mine", 0): OTHER}
    with pytest.raises(BadInput, match="have the name gpt-4o"):
        check_runs(judged(runs, served_as="gpt-4o"))
    check_runs(judged(runs, served_as=""))  # a server that names no model
    check_runs(judged({("mine", 0): DIFFERENT, ("mine", 1): OTHER}, served_as="gpt-4o"))
    rows = judged(runs, served_as="gpt-4o")
    check_runs(rows.assign(evaluation=rows["condition"]))  # nothing is compared


def test_two_models_are_not_refused():
    check_runs(judged({("instruct", 0): DIFFERENT, ("mine", 0): OTHER}))
    check_runs(judged({("instruct", 0): DIFFERENT, ("mine", 0): OTHER[:2]}))
    refusing = SAMPLES["a refusal of most prompts"]
    check_runs(judged({("instruct", 0): refusing, ("mine", 0): [*refusing[:6], *OTHER[6:]]}))


def test_equal_answers_to_all_prompts_are_named():
    assert constant_answer(judged({("mine", 0): SAMPLES["a refusal"]})) == REFUSAL
    for case in ("different", "a refusal of most prompts", "few answers"):
        assert constant_answer(judged({("mine", 0): SAMPLES[case]})) == ""
