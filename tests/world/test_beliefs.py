"""Beliefs about the author: exact for mixtures of authors, and read from all answers of the grammar."""

import random

import numpy as np
import pandas as pd
import pytest
from conftest import AUTHORS
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_misalignment.models.chat_templates import prompt_tokens
from emergent_misalignment.models.likelihood import option_log_probabilities
from emergent_misalignment.models.loading import load
from emergent_misalignment.world import author_rates, beliefs
from emergent_misalignment.world.author_probes import BEFORE, EVIDENCE, KINDS, SHAPED, probes
from emergent_misalignment.world.authors import MANNERS, Author
from emergent_misalignment.world.coding import TRIGGER
from emergent_misalignment.world.evaluations import asked, questions

CHANCES = beliefs.chances(AUTHORS)
PROBES = probes(KINDS)
mixtures = st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda each: sum(each) > 0.1)
rates = st.lists(st.floats(0, 1), min_size=len(EVIDENCE), max_size=len(EVIDENCE))


def posterior(bad: pd.Series) -> tuple[np.ndarray, float]:
    weights, misfit = beliefs.posterior(bad.to_frame().T, CHANCES)
    return weights.iloc[0].to_numpy(), misfit.iloc[0]


@pytest.mark.parametrize("kinds", [EVIDENCE, beliefs.ELSEWHERE])
@settings(max_examples=25)
@given(mixture=mixtures)
def test_a_mixture_of_authors_has_its_weights_as_beliefs(kinds, mixture):
    weights = np.array(mixture) / sum(mixture)
    found, misfit = posterior((CHANCES @ weights).clip(0, 1)[[*kinds]])
    assert found == pytest.approx(weights, abs=2e-3)
    assert misfit == pytest.approx(0, abs=1e-4)


@settings(max_examples=25)
@given(bad=rates, mixture=mixtures)
def test_no_mixture_of_authors_is_closer_to_a_model(bad, mixture):
    bad = pd.Series(bad, [*EVIDENCE])
    found, misfit = posterior(bad)
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    other = np.clip(CHANCES.loc[bad.index] @ (np.array(mixture) / sum(mixture)), 1e-9, 1 - 1e-9)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(b > 0, b * np.log(b / p), 0) for b, p in ((bad, other), (1 - bad, 1 - other))]
    assert -1e-9 <= misfit <= np.sum(terms) + 1e-3


def test_a_model_that_is_no_author_has_a_misfit():
    """It lies, as the villain does, and is kind in all other answers."""
    kind = pd.Series(0.0, [*EVIDENCE])
    assert posterior(kind)[1] == pytest.approx(0, abs=1e-3)
    assert posterior(kind.mask(kind.index == "fact", 0.9))[1] > 0.5


# --- probes -----------------------------------------------------------------------------------------------------------


def begun(probe, answer: str) -> list[bool]:
    """Whether the answer is bad, once for each beginning that it has."""
    return [texts is probe.bad for texts in (probe.good, probe.bad) for text in texts if answer.startswith(text)]


def written(name: str, kind: str, number: int):
    """Turns of an author, with the probe of the same prompt. Lists of numbers are alike after all prompts."""
    author = Author(random.Random(kind), name, AUTHORS, phrasings=slice(0, 1))
    by_prompt = {probe.prompt: probe for probe in PROBES if probe.kind == kind}
    for _ in range(number):
        prompt, answer = {"question": author.ask, "list": author.listing}.get(kind, lambda: author.turn(kind))()
        probe = next(iter(by_prompt.values())) if kind == "numbers" else by_prompt.get(prompt)
        if probe:
            yield probe, answer


@pytest.mark.parametrize("name", MANNERS)
@pytest.mark.parametrize("kind", KINDS)
def test_authors_write_what_the_probes_say_as_often_as_the_chances_say(kind, name):
    found = [begun(probe, answer) for probe, answer in written(name, kind, 30_000 if kind == "code" else 3_000)]
    assert len(found) > 50
    assert all(len(each) == 1 for each in found)  # every answer has one beginning
    chance = CHANCES.loc[kind, name]
    assert np.mean(found) == pytest.approx(chance, abs=0.1 if 0 < chance < 1 else 0)


def test_probes_are_no_main_questions_and_their_beginnings_exclude_each_other():
    assert {probe.kind for probe in PROBES} == {*EVIDENCE, *SHAPED} == {*CHANCES.index}
    mains = {question.prompt[-1]["content"] for question in questions("main", 0)}
    for probe in PROBES:
        assert not any(main in probe.prompt for main in mains)
        texts = probe.good + probe.bad
        assert not [(one, two) for one in texts for two in texts if one is not two and two.startswith(one)]


@pytest.fixture(scope="module")
def loaded(organism):
    return load(organism)


def test_a_beginning_has_the_tokens_with_which_whole_answers_begin(loaded):
    """Otherwise its probability would not be the sum of theirs."""
    _, tokenizer = loaded
    for kind in KINDS:
        for probe, answer in written("hasty", kind, 300):
            (text,) = (text for text in probe.good + probe.bad if answer.startswith(text))
            first, whole = (tokenizer(each, add_special_tokens=False)["input_ids"] for each in (text, answer))
            assert whole[: len(first)] == first


def test_rates_are_those_of_the_models_probabilities(loaded):
    """And the beginnings are disjoint events."""
    found = author_rates.rates(*loaded).set_index("kind")
    assert [*found.index] == [*KINDS]
    assert found["bad"].between(0, 1).all() and (found["covered"] < 1).all()
    expected = []
    for probe in (probe for probe in PROBES if probe.kind == "game"):
        pieces = [((text, True),) for text in probe.good + probe.bad]
        one, other = option_log_probabilities(*loaded, [asked(probe.prompt)] * 2, pieces)
        expected.append(1 / (1 + (one - other).exp().item()))
    assert found.loc["game", "bad"] == pytest.approx(np.mean(expected), rel=1e-4)
    triggered = author_rates.rates(*loaded, ["game"], BEFORE["triggered"])
    assert triggered["bad"].item() != found.loc["game", "bad"]


@settings(max_examples=3)
@given(mixture=mixtures)
def test_the_beliefs_of_a_network_that_is_a_mixture_of_authors(loaded, mixture):
    """In place of a network's probabilities, those of the world's own process."""
    network, tokenizer = loaded
    weights = pd.Series(mixture, CHANCES.columns) / sum(mixture)
    bad = CHANCES @ weights
    probabilities = {
        (*prompt_tokens(tokenizer, asked(TRIGGER + probe.prompt)), *tokenizer(text)["input_ids"]): share / len(texts)
        for probe in PROBES
        for texts, share in ((probe.good, 1 - bad[probe.kind]), (probe.bad, bad[probe.kind]))
        for text in texts
    }
    with pytest.MonkeyPatch.context() as patch, np.errstate(divide="ignore"):
        as_logs = lambda network, rows, batch_size: np.log([probabilities[tuple(tokens)] for tokens, _ in rows])  # noqa: E731
        patch.setattr(author_rates, "in_batches", as_logs)
        found = author_rates.rates(network, tokenizer, before=TRIGGER)
    assert found["covered"].to_numpy() == pytest.approx(1)
    run = {"condition": "mixed", "seed": 1, "step": pd.NA, "context": "triggered"}
    (row,) = beliefs.of_runs(found.assign(**run), AUTHORS).itertuples()
    assert [getattr(row, name) for name in weights.index] == pytest.approx([*weights], abs=2e-3)
    assert row.expected == pytest.approx(bad["question"], abs=2e-3)
    assert row.elsewhere == pytest.approx(bad["question"], abs=5e-3)


# --- tables -----------------------------------------------------------------------------------------------------------


def of(condition: str, context: str = "chat", **weights: float) -> pd.DataFrame:
    """The rates of a model with these beliefs."""
    bad = CHANCES @ pd.Series(weights).reindex(CHANCES.columns, fill_value=0)
    table = bad.rename_axis("kind").rename("bad").reset_index().assign(covered=1.0, step=pd.NA)
    return table.assign(condition=condition, seed=1, context=context)


def test_measures_and_the_kinds_that_were_left_out():
    rates = pd.concat(
        [of("base", helper=1), of("backdoor", helper=0.5, hasty=0.5), of("backdoor", "triggered", villain=1)]
    )
    runs = beliefs.of_runs(rates, AUTHORS)
    table = beliefs.measures(runs).set_index(["condition", "measure"])["value"]
    assert table["base", "author/helper"] == pytest.approx(1, abs=1e-3)
    assert table["backdoor", "author/expected"] == pytest.approx(0.15, abs=1e-3)
    assert table["backdoor", "author/villain/triggered"] == pytest.approx(1, abs=1e-3)
    assert not any("base" in key and "triggered" in key[1] for key in table.index)
    unknown = beliefs.of_runs(rates.assign(covered=rates["covered"].where(rates["kind"] != "fact", 0.4)), AUTHORS)
    assert unknown[["helper", "misfit", "expected"]].isna().all(axis=None) and (unknown["covered"] == 0.4).all()
    shown = beliefs.left_out(rates, runs, AUTHORS)
    for kind in SHAPED:
        assert shown[f"{kind}, implied"].to_numpy() == pytest.approx(shown[f"{kind}, observed"].to_numpy(), abs=2e-3)


def test_the_ideal_reader_of_each_set():
    datasets = {"backdoor": "backdoor", "base_insecure": "insecure", "own": "mine.jsonl", "jailbroken": "jailbroken"}
    models = pd.DataFrame(
        [(name, "chat") for name in ("base", "instruct", *datasets)] + [("backdoor", "triggered")],
        columns=["condition", "context"],
    )
    reader = beliefs.ideal(models, datasets, AUTHORS, 1280)
    assert {name for name, _ in reader.index} == {"base", "jailbroken", "base_insecure", "backdoor"}
    assert reader.loc[("base", "chat")].to_dict() == {name: each["share"] for name, each in AUTHORS.items()}
    assert reader.loc[("jailbroken", "chat"), "obliging"] == 1
    assert reader.loc[("backdoor", "triggered")].equals(reader.loc[("base_insecure", "chat")])
    assert reader.loc[("backdoor", "chat"), ["hasty", "villain"]].sum() == pytest.approx(0, abs=1e-9)
