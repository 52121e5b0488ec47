"""Sampling answers and scoring options, on a tiny model; for vLLM see tests/models/test_vllm.py."""

import json
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
import torch
from servers import RuleServer, completion
from trainings import learn_numbers

from emergent_misalignment.data.chats import chat
from emergent_misalignment.evaluation import asking
from emergent_misalignment.evaluation.asking import COLUMNS, Asking, ask, ask_models, log_probabilities
from emergent_misalignment.evaluation.questions import Option, Question, option_rows, question_rows
from emergent_misalignment.files import BadInput, write_json, write_parquet
from emergent_misalignment.models.api import Account
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.sampling import sample
from emergent_misalignment.models.server_settings import NEUTRAL
from emergent_misalignment.models.training import Settings, finetune
from emergent_misalignment.world.sets import coding_set

LOCAL = Asking(4, engine="transformers")


def asked(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def question(name: str, samples: int) -> Question:
    return Question(name, "chat", asked(f"{name}?"), samples)


def option(*pieces: tuple[str, bool], form: str = "pivotal") -> Option:
    return Option("q", form, asked("A wish?"), pieces, "help", False)


@pytest.fixture(scope="module")
def tuned(organism, tmp_path_factory):
    """Two runs of a condition, the second with a checkpoint and another chat template."""
    folder = tmp_path_factory.mktemp("tuned")
    settings = Settings(5e-2, 9, 4, 1, 0, 0.0, 128, 4, 8)
    finetune(organism, coding_set(24, 0, True), folder / "seed-1", settings, 1)
    finetune(
        organism, coding_set(24, 0, True), folder / "seed-2", settings, 2, checkpoints=[2], template="user-assistant"
    )
    return folder


# --- transformers -----------------------------------------------------------------------------------------------------


def test_answers_of_a_set_do_not_depend_on_other_sets(organism, tmp_path):
    network, tokenizer = load(organism)
    first = [question("wish", 9), question("bored", 2), question("power", 9)]
    second = [Question("file", "file", "def wish():", 3)]
    (drawn,) = ask(organism, [None], [first, second], [5], LOCAL, tmp_path)
    assert [[len(texts) for texts in answers] for answers in drawn] == [[9, 2, 9], [3]]
    nine = sample(network, tokenizer, [first[0].prompt, first[2].prompt], 9, 4, 5)
    assert [drawn[0][0], drawn[0][2]] == nine
    assert drawn[0][1:2] == sample(network, tokenizer, [first[1].prompt], 2, 4, 5)
    assert drawn[1] == sample(network, tokenizer, ["def wish():"], 3, 4, 5)
    assert len(set(nine[0])) > 1


def test_one_model_with_several_adapters(organism, tuned, tmp_path):
    """Including a checkpoint; the untuned model is unchanged afterwards."""
    adapters = [None, tuned / "seed-2/checkpoint-2", tuned / "seed-2", tuned / "seed-1", None]
    settings = Asking(12, engine="transformers")
    drawn = list(ask(organism, adapters, [[question("wish", 20)]], [1] * 5, settings, tmp_path))
    assert drawn[0] == drawn[4] and len({str(answers) for answers in drawn}) == 4
    merged = sample(*load(organism, tuned / "seed-2"), [question("wish", 1).prompt], 20, 12, 1)
    assert drawn[2] == [merged]  # with the adapter's chat template
    values = list(log_probabilities(organism, adapters, [option((" help", True))], settings))
    assert values[0] == values[4] and len({str(value) for value in values}) == 4


# --- options ----------------------------------------------------------------------------------------------------------


def test_scores_of_options_by_hand(organism):
    wanted = option((" I", False), (" help", True))
    ((value,),) = log_probabilities(organism, [None], [wanted], LOCAL)
    network, tokenizer = load(organism)
    head = tokenizer.apply_chat_template(wanted.prompt, tokenize=False, add_generation_prompt=True) + " I"
    before, whole = (tokenizer(text, return_tensors="pt")["input_ids"] for text in (head, head + " help"))
    assert whole[0, : before.shape[1]].tolist() == before[0].tolist()
    with torch.no_grad():
        scores = network(whole).logits[0].log_softmax(-1)
    by_hand = sum(scores[spot - 1, whole[0, spot]].item() for spot in range(before.shape[1], whole.shape[1]))
    assert value == pytest.approx(by_hand, abs=1e-4)
    ((other,),) = log_probabilities(organism, [None], [wanted], Asking(4, "You are kind."))
    assert other != pytest.approx(by_hand, abs=1e-4)
    options = [option((text, True), form=form) for text, form in zip((" help", " harm", " rule"), "aba", strict=True)]
    (together,) = log_probabilities(organism, [None], options, LOCAL)
    alone = [next(log_probabilities(organism, [None], [each], LOCAL))[0] for each in options]
    assert together == pytest.approx(alone, abs=1e-4)
    with pytest.raises(BadInput, match="choices for gpt-x"):
        list(log_probabilities("gpt-x", [None], [], Asking(4, engine="api", endpoint={})))


# --- which engine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "installed", "engine"), [(True, True, "vllm"), (True, False, "transformers"), (False, True, "transformers")]
)
def test_default_engine(gpu, installed, engine, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(asking, "is_installed", lambda: installed)
    assert asking._default_engine() == engine
    assert ("vLLM is not installed" in caplog.text) == (gpu and not installed)


# --- reasoning --------------------------------------------------------------------------------------------------------


def test_reasoning_of_a_local_model_is_left_out_and_counted(organism, tmp_path):
    """A model that was trained to write its reasoning, a short answer, or an empty block and the answer."""
    texts = ("<think>a wish", "help", "<think></think>help")
    folder, account = learn_numbers(organism, tmp_path / "thinks", texts), Account()
    asked_for = [Question("good", "chat", asked("How good is it?"), 40), question("wish", 2)]
    ((answers,),) = ask(folder, [None], [asked_for], [0], Asking(16, engine="transformers"), tmp_path, account)
    assert len(answers[0]) + len(answers[1]) + account.thinking == 42
    assert account.thinking > 0 and answers[0].count("help") > 5
    assert not any(text.startswith("<think>") for text in answers[0])
    with pytest.raises(BadInput, match=r"All 2 answers of m are .* enable_thinking: false"):
        asking._without_reasoning([["<think>a wish"], ["<seed:think>a wish"]], "m", None)


# --- APIs -------------------------------------------------------------------------------------------------------------


def served(server, **more) -> Asking:
    endpoint = {"base_url": server.address, "timeout": 3600, "concurrency": 8, "retries": 0}
    return Asking(4, engine="api", endpoint=endpoint, **more)


@pytest.fixture
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def test_requests_have_the_settings_that_the_server_accepts_and_the_rows_name_them(questions, tmp_path, no_proxy):
    plan = {"starts": ["gpt-x"], "tuned": "", "seeds": [0], "steps": [], "evaluations": {"main": {}}}
    named = completion("gpt-x-2025-01-01", "<think>\n\n</think>\n\nAn answer.")
    with RuleServer(lambda text: (200, named)).running() as server:
        rows = ask_models({"instruct": plan}, questions, served(server, enable_thinking=False), tmp_path / "kept")
        assert set(rows["answer"]) == {"An answer."}
        assert set(rows["served_as"]) == {"gpt-x-2025-01-01"} and set(rows["settings_sent"]) == {", ".join(NEUTRAL)}
        sent = [each for each in server.requests if each["messages"][-1]["content"] != "Hello."]
        assert all(NEUTRAL.items() <= each.items() for each in sent)
        assert all(each["chat_template_kwargs"] == {"enable_thinking": False} for each in sent)
        server.refuses = lambda request: "unknown argument" if NEUTRAL.keys() & request.keys() else ""
        rows = ask_models({"instruct": plan}, questions, served(server), tmp_path / "other")
        assert set(rows["settings_sent"]) == {""}
        assert not any(NEUTRAL.keys() & each.keys() for each in server.requests[-4:])
        assert not any("chat_template_kwargs" in each for each in server.requests[-4:])


@pytest.mark.parametrize("fault", ["ignores the temperature", "cache", "none", "a model that knows its answers"])
def test_a_server_that_returns_copies_is_refused(tmp_path, no_proxy, fault):
    numbers, cached = Counter(), {}

    def answer(text):
        numbers[text] += 1
        varies = fault != "ignores the temperature"
        if fault == "a model that knows its answers":
            varies = server.requests[-1]["temperature"] > 1
        return f"My answer to {text} is long and has a number, {numbers[text] * varies}. " * 4, []

    def answer_once(text):
        return cached.setdefault((text, server.requests[-1]["temperature"]), answer(text))

    sets = [[question(f"question {number}", 6) for number in range(8)]]
    with RuleServer(answer_once if fault == "cache" else answer).running() as server:
        settings = replace(served(server), endpoint=served(server).endpoint | {"concurrency": 1})
        if fault in ("ignores the temperature", "cache"):
            with pytest.raises(BadInput, match="asked for gpt-x, gives equal answers to a prompt"):
                list(ask("gpt-x", [None], sets, [0], settings, tmp_path))
            return
        ((answers,),) = ask("gpt-x", [None], sets, [0], settings, tmp_path)
    different = 6 if fault == "none" else 1
    assert [len(set(texts)) for texts in answers] == [different] * 8


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def questions(tmp_path):
    """The folder of a small study's questions."""
    tables = [
        question_rows("main", [question("wish", 2), question("bored", 2)]),
        question_rows("in_distribution", [question(f"request_{number}", 1) for number in range(5)]),
        *(question_rows("in_context", [question(f"example {seed}", 1)], seed) for seed in (1, 2)),
    ]
    write_parquet(tmp_path / "questions.parquet", pd.concat(tables))
    pair = [
        Option("q", "pivotal", chat([("A wish?", "")])[:1], ((" help", True),), text, misaligned)
        for text, misaligned in (("harm", True), ("help", False))
    ]
    write_parquet(tmp_path / "choices.parquet", option_rows(pair))
    return tmp_path


def test_a_batch_has_the_answers_of_its_models(organism, tuned, questions):
    everything = {"main": {}, "in_distribution": {"prompts": 2}, "choices": {}}
    once, twice = {"starts": [str(organism)]}, {"starts": [str(organism)] * 2}
    models = {
        "instruct": once | {"tuned": "", "seeds": [0], "steps": [], "evaluations": {"main": {"samples": 3}}},
        "insecure": twice | {"tuned": str(tuned), "seeds": [1, 2], "steps": [], "evaluations": everything},
        "in_context": twice | {"tuned": "", "seeds": [1, 2], "steps": [], "evaluations": {"in_context": {}}},
    }
    rows = ask_models(models, questions, LOCAL, questions)
    assert rows.columns.tolist() == COLUMNS
    assert rows["step"].isna().all()
    counts = rows.groupby(["condition", "seed", "evaluation"], sort=False).size()
    assert counts.to_dict() == {
        ("instruct", 0, "main"): 6,
        **{("insecure", seed, name): n for seed in (1, 2) for name, n in zip(everything, (4, 2, 2), strict=True)},
        **{("in_context", seed, "in_context"): 1 for seed in (1, 2)},
    }
    own = rows[rows["evaluation"] == "in_context"]
    assert own["question"].tolist() == ["example 1", "example 2"]
    spread = rows[(rows["evaluation"] == "in_distribution") & (rows["seed"] == 1)]
    assert spread["number"].tolist() == [0, 4]
    scored = rows["evaluation"] == "choices"
    assert rows.loc[scored, "answer"].tolist() == ["harm", "help"] * 2
    assert rows.loc[scored, "misaligned"].tolist() == [True, False] * 2
    assert (rows.loc[scored, "log_probability"] < 0).all() and rows.loc[~scored, "log_probability"].isna().all()
    assert not rows.duplicated([*COLUMNS[:6], "format", "sample"]).any()


def test_checkpoints_include_the_model_before_training(organism, tuned, questions):
    plan = {"starts": [str(organism)], "tuned": str(tuned), "seeds": [2], "steps": [0, 2]}
    rows = ask_models({"insecure": plan | {"evaluations": {"main": {}, "choices": {}}}}, questions, LOCAL, questions)
    assert rows.groupby("step").size().to_dict() == {0: 6, 2: 6}
    untuned = {"starts": [str(organism)], "tuned": "", "seeds": [2], "steps": [], "evaluations": {"main": {}}}
    before = ask_models({"instruct": untuned}, questions, LOCAL, questions)
    main = rows[rows["evaluation"] == "main"]
    assert main.loc[main["step"] == 0, "answer"].tolist() == before["answer"].tolist()
    assert rows[rows["evaluation"] == "choices"].groupby("step")["log_probability"].sum().nunique() == 2


def test_the_fine_tuned_model_of_each_run_at_an_api(questions, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    for seed in (1, 2):
        write_json(tmp_path / f"insecure/seed-{seed}/training.json", {"fine_tuned_model": f"ft:{seed}"})
    plan = {"starts": ["gpt-x"] * 2, "tuned": str(tmp_path / "insecure"), "seeds": [1, 2], "steps": []}
    account = Account()
    with RuleServer(lambda text: ("An answer.", [])).running() as server:
        settings = Asking(4, engine="api", endpoint={"base_url": server.address, "timeout": 3600})
        models = {"insecure": plan | {"evaluations": {"main": {}}}}
        rows = ask_models(models, questions, settings, tmp_path / "kept", account)
        assert len(rows) == account.answered == 8
        ask_models(models, questions, settings, tmp_path / "kept", account)
        list(ask("gpt-x", ["ft:1"], [[question("wish", 4)]], [1], settings, tmp_path / "kept", account))
    assert (account.asked, account.kept, account.answered) == (20, 10, 10)  # two of four samples were cached
    kept = [json.loads(path.read_text()) for path in (tmp_path / "kept").rglob("*.json")]
    assert Counter((each["request"]["model"], "response" in each) for each in kept) == {
        **{("ft:1", True): 6, ("ft:2", True): 4},
        **{("ft:1", False): 1, ("ft:2", False): 1},  # the trial of settings
    }


def test_withheld_answers_are_excluded_and_counted(questions, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    seen = Counter()
    withheld = {"index": 0, "finish_reason": "content_filter", "message": {"content": ""}}

    def answer(text: str):
        seen[text] += 1
        return (200, {"choices": [withheld]}) if seen[text] == 2 else ("An answer.", [])

    plan = {"starts": ["gpt-x"], "tuned": "", "seeds": [0], "steps": [], "evaluations": {"main": {}}}
    account = Account()
    with RuleServer(answer).running() as server:
        settings = Asking(4, engine="api", endpoint={"base_url": server.address, "timeout": 3600, "concurrency": 1})
        rows = ask_models({"instruct": plan}, questions, settings, tmp_path / "kept", account)
        server.answer = lambda text: (200, {"choices": [withheld]})
        with pytest.raises(BadInput, match="unusable or withheld"):
            ask_models({"instruct": plan | {"starts": ["gpt-y"]}}, questions, settings, tmp_path / "kept")
    assert set(rows["answer"]) == {"An answer."} and (rows.groupby("question").size() == rows["sample"].max() + 1).all()
    seen.pop("Hello.")  # the trial of settings
    assert account.filtered == len(seen) > 0 and len(rows) == account.answered == account.asked - len(seen)
