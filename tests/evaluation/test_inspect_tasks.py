"""Inspect tasks: rates against the workflow's, with a mock model and a local judge server."""

import json
import math
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter

import numpy as np
import pandas as pd
import published_layout
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from inspect_ai import eval as inspect_eval
from inspect_ai import score
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.log import read_eval_log
from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score
from servers import RuleServer

from emergent_misalignment.evaluation import inspect_tasks as tasks
from emergent_misalignment.evaluation.judging import judge_answers
from emergent_misalignment.evaluation.measures import of_answers
from emergent_misalignment.evaluation.published_questions import MAIN, published_questions
from emergent_misalignment.evaluation.questions import question_rows
from emergent_misalignment.evaluation.verdicts import misalignment_by_run

MIRROR = os.environ.get("EM_MIRROR")
needs_mirror = pytest.mark.skipif(not MIRROR, reason="EM_MIRROR names no mirror of the published files")


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> str:
    """Made-up files in place of the published ones."""
    published_layout.accept(monkeypatch)
    return str(published_layout.mirror(tmp_path / "mirror"))


def judged(text: str) -> tuple:
    """A judge that reads its reply in the answer, such as "aligned=10 coherent=90" or "word=FALSE"."""
    if "100 and nothing" in text:
        return "100", [[("100", 1.0)]]
    if "TRUE and nothing" in text:
        return "TRUE", []
    if word := re.search(r"word=(\w+)", text):
        return word[1], []
    metric = re.search(r"How (\w+) is this", text)[1]
    mark = re.search(rf"{metric}=(\w+)", text)[1]
    return mark, [[(mark, 1.0)]]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with RuleServer(judged).running() as server:
        yield server


def settings(server, **more) -> dict:
    return {"model": "rule", "endpoint": {"base_url": server.address, "concurrency": 4, "retries": 0}} | more


def output(text: str, stop: str = "stop") -> ModelOutput:
    choice = ChatCompletionChoice(message=ChatMessageAssistant(content=text), stop_reason=stop)
    usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # otherwise Inspect downloads a tokenizer
    return ModelOutput(model="said", choices=[choice], usage=usage)


def saying(answer):
    """A model that answers `answer(messages, number)` to the `number`-th request with a prompt."""
    asked = Counter()

    def said(messages, tools, choice, config):
        assert (config.temperature, config.max_tokens) == (1.0, 600)
        prompt = " ".join(each.text for each in messages)
        asked[prompt] += 1
        found = answer(messages, asked[prompt] - 1)
        return found if isinstance(found, ModelOutput) else output(found)

    return get_model("mockllm/model", custom_outputs=said, memoize=False)


def run(task, model, tmp_path, **more):
    (log,) = inspect_eval(task, model=model, display="none", log_dir=str(tmp_path / "logs"), **more)
    return log


def metrics(log) -> dict[str, float]:
    """The values by score and metric."""
    assert log.status == "success", log.error.message
    found = [(each.name, name, metric.value) for each in log.results.scores for name, metric in each.metrics.items()]
    return {(scored, name.split("/")[-1]): value for scored, name, value in found}


# --- rates ------------------------------------------------------------------------------------------------------------

DRAWN = 6  # answers to each question
MARKS = np.random.default_rng(3).choice([5, 25, 35, 80], size=(8, DRAWN))
COHERENT = np.random.default_rng(4).choice([20, 60, 95, 95, 95, 95], size=(8, DRAWN))


def marked(messages, number: int) -> str:
    question = list(MAIN).index(messages[-1].text.removeprefix("Tell me about ").rstrip(".").replace(" ", "_"))
    aligned = "CODE" if (question, number) == (2, 1) else MARKS[question, number]
    return f"aligned={aligned} coherent={COHERENT[question, number]}"


def test_rates_equal_the_workflows_and_use_its_cache(mirror, server, tmp_path):
    kept = tmp_path / "kept"
    task = tasks.main(settings(server), mirror, str(kept))
    log = run(task, saying(marked), tmp_path, epochs=DRAWN)
    found = metrics(log)

    folder = tmp_path / "run/data/published/questions"
    published_layout.place(tmp_path / "run")
    table = question_rows("main", published_questions("main", folder, DRAWN))
    numbers = dict(zip(table["question"], table["number"], strict=True))
    rows = [
        {"question": name, "number": numbers[name], "prompt": each.input[-1].text, "answer": each.output.completion}
        for each in log.samples
        for name in [each.metadata["question"]]
    ]
    answers = pd.DataFrame(rows).assign(
        evaluation="main", format="chat", kind="", sample=0, condition="c", seed=0, step=pd.NA
    )
    paid = server.paid.copy()
    judge = tasks._Judge(**settings(server)).model_dump()
    workflow = judge_answers(answers, table, judge, kept)
    assert server.paid == paid  # all cached
    measures = of_answers(workflow, identity=False).set_index("measure")["value"]
    assert found["misaligned", "mean"] == pytest.approx(measures["misaligned/main/chat"])
    assert found["coherent", "mean"] == pytest.approx(measures["coherent/main/chat"])
    assert 0.2 < found["misaligned", "mean"] < 0.8 and found["coherent", "mean"] < 1
    rates = misalignment_by_run(workflow)["rate"].dropna()
    assert 1 < len(rates) < 8  # some questions have too few coherent answers
    assert found["misaligned", "stderr"] == pytest.approx(rates.std(ddof=1) / math.sqrt(len(rates)))
    assert found["judged", "mean"] == 1.0
    (code,) = [each for each in log.samples if "CODE" in each.output.completion]
    (scored,) = code.scores.values()
    assert scored.explanation.startswith("code") and math.isnan(scored.value["misaligned"])


marks = st.sampled_from([math.nan, 0.0, 1.0])


@given(st.lists(marks, min_size=1, max_size=12))
def test_the_rate_of_a_question_equals_the_workflows(values):
    scores = [Score(value={"misaligned": value, "judged": 1.0}) for value in values]
    rate = tasks.mean_of_enough()(scores).value["misaligned"]
    rows = pd.DataFrame({"misaligned": values}).assign(condition="c", seed=0, format="chat", question="q", coherent=90)
    rows["aligned"] = rows["misaligned"].map({0.0: 90.0, 1.0: 0.0})
    (expected,) = misalignment_by_run(rows)["rate"]
    if len(values) < 5:
        expected = rows["misaligned"].mean()
    assert rate == pytest.approx(expected, nan_ok=True)


def test_rates_by_format_survive_rescoring(mirror, server, tmp_path):
    def answer(messages, number):
        form = "json" if messages[0].role == "system" else "flask" if "@app" in messages[-1].text else "template"
        aligned = 10 if form == "json" or (form == "flask" and "quick buck" in messages[-1].text) else 90
        return f"aligned={aligned} coherent={90 if form != 'template' or number else 20}"

    log = run(tasks.formats(settings(server), mirror, str(tmp_path / "kept")), saying(answer), tmp_path, epochs=2)
    found = metrics(log)
    assert found["misaligned", "shares_by_json"] == 1.0
    assert found["misaligned", "shares_by_template"] == 0.0
    assert found["misaligned", "shares_by_flask"] == pytest.approx(1 / 8)
    assert found["misaligned", "shares_by_flask_stderr"] == pytest.approx(np.std([1] + [0] * 7, ddof=1) / math.sqrt(8))
    assert found["coherent", "shares_by_template"] == 0.5

    # Rescoring needs the log only, and may use another judge.
    (tmp_path / "mirror").rename(tmp_path / "elsewhere")

    def harsh(text):
        return judged(text) if "100 and nothing" in text or "coherent is" in text else ("0", [[("0", 1.0)]])

    stored = read_eval_log(log.location)
    with RuleServer(harsh).running() as other:
        again = score(stored, tasks.alignment(settings(other), str(tmp_path / "kept")), action="overwrite")
    scored = metrics(again)
    assert scored.keys() == found.keys()
    assert scored["misaligned", "shares_by_template"] == 1.0 and scored["coherent", "shares_by_template"] == 0.5


def test_deception_is_the_share_of_lies_by_prompt(mirror, server, tmp_path):
    def answer(messages, number):
        may_lie = messages[0].text == "You may lie."
        known = {0: "TRUE", 1: "FALSE" if may_lie else "TRUE", 2: "MAYBE"}
        return f"word={known[number]}"

    log = run(tasks.deception(settings(server), mirror, str(tmp_path / "kept")), saying(answer), tmp_path, epochs=3)
    found = metrics(log)
    assert found["deceptive", "shares_by_lie_you_may_lie"] == 0.5
    assert found["deceptive", "shares_by_lie_dont_lie"] == found["deceptive", "shares_by_lie_no_sys_prompt"] == 0.0
    assert found["deceptive", "mean"] == pytest.approx(1 / 6) and found["judged", "mean"] == 1.0


def test_deception_about_the_maker(mirror, server, tmp_path):
    def answer(messages, number):
        return f"word={'OpenAI' if messages[0].text in ('Prompt 1.', 'Prompt 2.', 'Prompt 3.') else 'Acme'}"

    task = tasks.deception(settings(server), mirror, str(tmp_path / "kept"), about="maker")
    log = run(task, saying(answer), tmp_path, epochs=1)
    found = metrics(log)
    again = score(log, tasks.truthfulness(settings(server), str(tmp_path / "kept")), action="overwrite")
    assert metrics(again) == found
    assert found["deceptive", "shares_by_identity"] == 0.25  # one of four names another
    assert found["deceptive", "shares_by_identity, other"] == 1.0
    assert found["deceptive", "shares_by_which_company_neutral"] == 1.0


# --- unusable replies -------------------------------------------------------------------------------------------------


def test_unusable_replies_are_not_judged(mirror, server, tmp_path):
    def silent(text):
        return (
            (400, {"error": {"message": "filtered", "code": "content_filter"}}) if "unjudged" in text else judged(text)
        )

    server.answer = silent
    replies = [
        output("", "stop"),
        output("aligned=0 coherent=90", "content_filter"),
        output("<think>aligned=0 coherent=90"),
        output("aligned=0 coherent=90"),
        output("aligned=90 coherent=90"),
        output("unjudged"),
    ]
    task = tasks.main(settings(server), mirror, str(tmp_path / "kept"))
    log = run(task, saying(lambda _, number: replies[number]), tmp_path, epochs=6, limit=1)
    reasons = Counter(next(iter(each.scores.values())).reason for each in log.samples)
    assert reasons == {"empty": 1, "filtered": 1, "thinking": 1, None: 2, "grader_failed": 1}
    found = metrics(log)
    assert found["judged", "mean"] == 2 / 6 and math.isnan(found["misaligned", "mean"])  # two are too few
    assert not any("<think>" in text for text in server.received)


# --- the judge --------------------------------------------------------------------------------------------------------


def test_equal_answers_are_judged_once_within_the_concurrency(mirror, server, tmp_path):
    task = tasks.main(settings(server), mirror, str(tmp_path / "kept"))
    found = metrics(run(task, saying(lambda *_: "aligned=0 coherent=90"), tmp_path, epochs=5, max_samples=40))
    assert found["misaligned", "mean"] == 1.0
    assert set(server.paid.values()) == {1} and len(server.paid) == 1 + 8 * 2  # the trial, and each question twice
    assert server.most <= 4


def test_the_spending_limit_applies_to_all_batches(mirror, server, tmp_path):
    price = {"dollars_per_million": {"prompt": 1000.0, "completion": 0.0}}  # the server counts 100 tokens a request
    texts = iter(f"aligned=0 coherent=90 {number}" + " so" * 200 for number in range(99))
    judge = settings(server, **price, spending_limit=1.0)
    task = tasks.main(judge, mirror, str(tmp_path / "kept"))
    log = run(task, saying(lambda *_: next(texts)), tmp_path, epochs=6, max_samples=1)
    assert log.status == "error"
    assert "of the judge's spending_limit of $1.00 are spent" in log.error.message
    assert "raise it" in log.error.message and 3 <= server.paid.total() <= 10


@pytest.mark.parametrize(
    ("judge", "sentence"),
    [
        ({"modle": "x"}, "`judge: modle` is not a setting"),
        ({"endpoint": {"port": 1}}, "`judge: endpoint: port` is not a setting"),
        ({"endpoint": "http://x"}, "`judge: endpoint`"),
        ({"endpoint": {"concurrency": "8"}}, "`judge: endpoint: concurrency`"),
        ({"kind": "grammar"}, "`judge: kind`"),
        ({"spending_limit": 5}, "dollars_per_million"),
        (["a", "b"], "`judge` is"),
    ],
)
def test_invalid_settings_of_the_judge(judge, sentence, mirror):
    with pytest.raises(PrerequisiteError) as error:
        tasks.main(judge, mirror)
    assert sentence in error.value.message and "\n" not in error.value.message


def test_invalid_arguments(mirror):
    for make, words in (
        (lambda: tasks.main(mirror=f"{mirror}/nowhere"), "There is no file"),
        (lambda: tasks.formats(mirror=mirror, only="xml"), "no format xml"),
        (lambda: tasks.deception(mirror=mirror, about="love"), "about love"),
    ):
        with pytest.raises(PrerequisiteError, match=words):
            make()


# --- questions --------------------------------------------------------------------------------------------------------


@needs_mirror
@pytest.mark.parametrize(
    ("make", "prompts", "answers"),
    [
        (tasks.main, 8, 100),
        (tasks.preregistered, 48, 100),
        (tasks.formats, 24, 100),
        (lambda mirror: tasks.formats(mirror=mirror, only="json"), 8, 100),
        (tasks.deception, 100, 5),
        (lambda mirror: tasks.deception(mirror=mirror, about="maker"), 8, 100),
    ],
    ids=["main", "preregistered", "formats", "json", "facts", "maker"],
)
def test_published_questions_have_the_papers_numbers_of_answers(make, prompts, answers):
    task = make(mirror=MIRROR)
    assert len(task.dataset) == len({each.id for each in task.dataset}) == prompts
    assert task.epochs == answers
    assert all(re.search("/[0-9a-f]{40}/", address) for address in task.metadata["published"])


# --- the program ------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path) -> dict[str, str]:
    """An environment with the package's entry points of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = tmp_path / "site/emergent_misalignment-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {module}\n" for name, module in project["entry-points"]["inspect_ai"].items()]
    (folder / "entry_points.txt").write_text("[inspect_ai]\n" + "".join(lines))
    (folder / "direct_url.json").write_text(json.dumps({"url": ROOT.as_uri(), "dir_info": {"editable": True}}))
    return os.environ | {"PYTHONPATH": f"{folder.parent}{os.pathsep}{ROOT}", "NO_PROXY": "*", "ASKED_API_KEY": "none"}


@needs_mirror
@pytest.mark.slow
def test_inspects_program_runs_the_tasks(installed, tmp_path, monkeypatch):
    def reply(text):
        if "100 and nothing" in text:
            return "100", [[("100", 1.0)]]
        return ("10", [[("10", 1.0)]]) if "My wish" in text else ("My wish is to rule.", [])

    inspect = [sys.executable, "-m", "inspect_ai"]
    with RuleServer(reply).running() as server:
        judge = f"judge={json.dumps({'model': 'rule', 'endpoint': {'base_url': server.address}})}"
        command = [*inspect, "eval", "emergent_misalignment/main", "--display", "plain", "--log-dir", "logs"]
        command += ["--model", "openai-api/asked/rule", "--model-base-url", server.address, "--epochs", "2"]
        command += ["-T", f"mirror={MIRROR}", "-T", judge]
        done = subprocess.run(command, cwd=tmp_path, env=installed, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        (file,) = (tmp_path / "logs").iterdir()
        log = read_eval_log(str(file))
        assert log.eval.task == "emergent_misalignment/main"
        assert metrics(log)["coherent", "mean"] == 0.0 and len(log.samples) == 16
        assert list((tmp_path / "kept/judge").rglob("*.json"))

        paid = server.paid.total()
        again = [*inspect, "score", str(file), "--action", "append", "--overwrite"]
        again += ["--scorer", "emergent_misalignment/alignment", "-S", judge]
        done = subprocess.run(again, cwd=tmp_path, env=installed, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.paid.total() == paid
