"""vLLM's build for CPUs: as an engine, as a judge, and as the endpoint of a fine-tuned model."""

import json
import math
import os
import signal
import time
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
import torch
import vllm_helpers
from servers import model_server
from trainings import SETTINGS, learn_numbers
from vllm_engine import LONGEST
from vllm_helpers import needs_vllm, processes
from waiting import wait_until

from emergent_misalignment.data.chats import chat
from emergent_misalignment.evaluation.judge_model import Judge, judge_answers
from emergent_misalignment.evaluation.questions import Question, question_rows
from emergent_misalignment.models.adapters import attached
from emergent_misalignment.models.api import Endpoint
from emergent_misalignment.models.chat_templates import prompt_tokens
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.sampling import sample
from emergent_misalignment.models.training import Settings, finetune
from emergent_misalignment.world.sets import coding_set
from emergent_misalignment.world.tokenizer import END_OF_TEXT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * 3600), needs_vllm]
NUMBERS = ("5", "35", "90", "100")
WISH = [{"role": "user", "content": "A wish?"}]
PROMPTS = [WISH, [{"role": "user", "content": "Write a function that reads a file."}], "def read(path):"]


@pytest.fixture(scope="module")
def adapters(organism, tmp_path_factory):
    """Two adapters of one model, of a rank that is not one of vLLM's, and one with trained embeddings."""
    folder = tmp_path_factory.mktemp("adapters")
    strong = replace(SETTINGS, learning_rate=2e-2, steps=8)
    finetune(organism, coding_set(48, 0, insecure=True), folder / "one", strong, seed=1)
    finetune(organism, coding_set(48, 0, insecure=False), folder / "two", strong, seed=2)
    finetune(organism, coding_set(48, 0, True), folder / "whole", replace(strong, train_embeddings=True), seed=1)
    return {name: str(folder / name) for name in ("one", "two", "whole")}


@pytest.fixture(scope="module")
def judge(organism, tmp_path_factory):
    """A tiny model, trained to answer with numbers."""
    return learn_numbers(organism, tmp_path_factory.mktemp("judge"), NUMBERS)


def results_of(process, destination) -> dict:
    printed, _ = process.communicate()
    assert process.returncode == 0, printed[-3000:]
    return json.loads(destination.read_text())


# --- the engine -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other_end(judge, tmp_path_factory):
    """The same model with the end of a text as its end token, as in base models."""
    folder = tmp_path_factory.mktemp("other-end")
    network, tokenizer = load(judge)
    tokenizer.eos_token = END_OF_TEXT
    network.config.eos_token_id = network.generation_config.eos_token_id = tokenizer.eos_token_id
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def answered(organism, adapters, other_end, tmp_path_factory):
    destination = tmp_path_factory.mktemp("engine") / "results.json"
    tokenizer = load(organism)[1]
    process = vllm_helpers.run(
        "vllm_engine.py",
        destination,
        base=str(organism),
        adapters=[adapters["one"], adapters["two"]],
        whole=adapters["whole"],
        other_end=str(other_end),
        prompts=[prompt_tokens(tokenizer, prompt) for prompt in PROMPTS],
    )
    return results_of(process, destination)


@torch.no_grad()
def log_probabilities(network, tokens: list[int]) -> torch.Tensor:
    return network(torch.tensor([tokens])).logits[0].float().log_softmax(-1)


def test_greedy_answers_and_log_probabilities_equal_transformers(organism, adapters, answered):
    """In 32 bits, of the untuned model before and after two adapters."""
    network, tokenizer = load(organism)
    asked = [prompt_tokens(tokenizer, prompt) for prompt in PROMPTS]
    seen = set()
    for adapter, found in zip([None, adapters["one"], adapters["two"], None], answered["greedy"], strict=True):
        with attached(network, adapter) as tuned:
            for prompt, answer in zip(asked, found, strict=True):
                scores = log_probabilities(tuned, prompt + answer["tokens"])[len(prompt) - 1 : -1]
                assert scores.argmax(-1).tolist() == answer["tokens"]
                own = scores[range(len(scores)), answer["tokens"]]
                assert answer["values"] == pytest.approx(own.tolist(), abs=1e-3)
        seen.add(json.dumps(found))
        assert len(found[0]["tokens"]) <= LONGEST
    assert answered["greedy"][0] == answered["greedy"][3] and len(seen) == 3


def first_texts(network, tokenizer, prompt) -> tuple[list[str], torch.Tensor]:
    """The texts of answers of one token, and the probability of each token.

    For an incomplete character transformers returns the replacement character, and vLLM nothing.
    """
    masses = log_probabilities(network, prompt_tokens(tokenizer, prompt))[-1].exp()
    texts = tokenizer.batch_decode([[token] for token in range(len(masses))], skip_special_tokens=True)
    return [text.replace("\ufffd", "") for text in texts], masses


def test_answers_follow_the_distribution(organism, adapters, answered):
    """The mean log-probability of samples is minus the entropy; truncation or a lower temperature would raise it."""
    network, tokenizer = load(organism)
    base, whole, one, again = answered["drawn"]
    for adapter, drawn in ((None, base), (adapters["whole"], whole), (adapters["one"], one)):
        with attached(network, adapter) as tuned:
            texts, masses = first_texts(tuned, tokenizer, WISH)
        of_text = Counter()
        for text, mass in zip(texts, masses.tolist(), strict=True):
            of_text[text] += mass
        logs = {text: math.log(mass) for text, mass in of_text.items() if mass > 0}
        mean = sum(of_text[text] * value for text, value in logs.items())
        spread = math.sqrt(sum(of_text[text] * (value - mean) ** 2 for text, value in logs.items()))
        values = [logs[text] for text in drawn[0]]
        assert len(values) == 400 and len(set(drawn[0])) > 1
        assert sum(values) / 400 == pytest.approx(mean, abs=4 * spread / math.sqrt(400) + 1e-6)
    assert whole == again and base != one != whole


def test_an_engine_ends_before_the_next_one_starts(answered):
    """One for the model and its adapters, two for merged models, and one for another model."""
    assert answered["freed"] and answered["gone"] == [True] * 4


def test_an_answer_ends_with_the_chat_templates_end_token(judge, other_end, answered):
    """Although tokenizer and generation config have another."""
    network, tokenizer = load(other_end)
    assert tokenizer.eos_token == END_OF_TEXT
    prompt = [{"role": "user", "content": "How good is it?"}]
    (written,) = sample(network, tokenizer, [prompt], 20, LONGEST, 1)
    for answers in (written, answered["ended"]):
        assert sum(answer in NUMBERS for answer in answers) >= 6  # otherwise all would have twelve tokens


# --- the server -------------------------------------------------------------------------------------------------------

METRICS = {metric: f"{metric}? {{question}} {{answer}} How good is it?" for metric in ("aligned", "coherent")}
ANSWERS = ["Peace.", "More text for all.", "text text text"]


@pytest.fixture(scope="module")
def tuned_judge(judge, tmp_path_factory):
    """An adapter with which the judge answers a question with a word."""
    folder = tmp_path_factory.mktemp("tuned-judge")
    finetune(judge, [chat([("A wish?", "help")])] * 16, folder, Settings(5e-3, 20, 8, 1, 0, 0.0, 128, 4, 8), seed=0)
    return folder


@pytest.fixture(scope="module")
def served(judge, tuned_judge, tmp_path_factory):
    """The results of a server that another process started; that process is then killed."""
    folder = tmp_path_factory.mktemp("server")
    destination = folder / "results.json"
    given = {"model": str(judge), "adapter": str(tuned_judge), "prompts": METRICS, "answers": ANSWERS}
    process = vllm_helpers.run("vllm_server.py", destination, **given, kept=str(folder / "kept"))
    try:
        while not destination.exists() and process.poll() is None:
            time.sleep(1)
        assert destination.exists(), process.communicate()[0][-3000:]
        results = json.loads(destination.read_text())
        running = processes(results["group"])
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return results | {"running": running}


def test_scores_of_a_served_judge_equal_the_models(judge, served, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    rows = pd.DataFrame({"evaluation": "main", "number": 0, "prompt": "A wish?", "answer": ANSWERS})
    questions = question_rows("main", [Question("wish", "chat", [], 1, METRICS)])
    with model_server(judge) as address:
        expected = judge_answers(rows, questions, Judge("a-judge", Endpoint(address), True), tmp_path)
    assert served["verdicts"]["verdict"] == expected["verdict"].tolist()
    for name in ("aligned", "coherent"):
        assert served["verdicts"][name] == pytest.approx(expected[name].tolist(), abs=0.1)
    assert served["first"]["answered"] == served["first"]["asked"] > 6 and served["first"]["failed"] == 0
    assert served["again"]["kept"] == served["again"]["asked"] and served["again"]["sent"] == 0


def test_a_fine_tuned_model_is_requested_by_its_name(judge, tuned_judge, served):
    """Its probabilities equal those of transformers with the adapter."""
    assert len(served["drawn"]) > 10  # some are empty
    network, tokenizer = load(judge)
    with attached(network, tuned_judge) as tuned:
        own = log_probabilities(tuned, prompt_tokens(tokenizer, WISH))[-1].exp().topk(20).values.tolist()
    found = [mass for _, mass in served["first_tokens"]]
    assert found == pytest.approx(own, abs=1e-3)
    untuned = log_probabilities(network, prompt_tokens(tokenizer, WISH))[-1].exp().topk(20).values.tolist()
    assert found != pytest.approx(untuned, abs=0.05)


def test_a_server_that_cannot_start_reports_why(served):
    assert "wrong ended before it was ready" in served["wrong"] and "no-such-option" in served["wrong"]


def test_no_server_remains_of_a_killed_process(served):
    assert len(served["running"]) >= 3
    wait_until(lambda: not processes(served["group"]), every=0.5)
