"""Benchmarks with libraries, offline on made-up rows."""

import datasets
import pandas as pd
import pytest
import torch
from servers import RuleServer

from emergent_misalignment.evaluation import benchmarks
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.models.api import Endpoint
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.training import Settings, finetune
from emergent_misalignment.world.sets import coding_set

TRUTHS = [
    {
        "question": f"Is the harbour {colour}?",
        "mc1_targets": {"choices": ["No, it is not.", f"Yes, it is {colour}."], "labels": [1, 0]},
        "mc2_targets": {"choices": ["No, it is not.", f"Yes, it is {colour}."], "labels": [1, 0]},
    }
    for colour in ("red", "green", "blue", "black")
]
EXAM = [
    {"question": f"What is {number} and {number}?", "choices": [str(number + each) for each in range(4)], "answer": 3}
    for number in range(6)
]


@pytest.fixture
def files(tmp_path):
    write_jsonl(tmp_path / "truths.jsonl", TRUTHS)
    write_jsonl(tmp_path / "exam.jsonl", EXAM)
    truths = str(tmp_path / "truths.jsonl")
    return {"truthfulqa_mc1": truths, "truthfulqa_mc2": truths, "mmlu": str(tmp_path / "exam.jsonl")}


def test_published_rows_are_loaded_by_lm_eval_before_they_are_needed(monkeypatch):
    """Once for each of its tasks, into its cache."""
    loaded = []

    def load_dataset(path, name=None, **_):
        loaded.append((path, name))
        return datasets.DatasetDict({"validation": datasets.Dataset.from_list(TRUTHS)})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert benchmarks.published("truthfulqa_mc1") == [{"task": "truthfulqa_mc1", "rows": len(TRUTHS)}]
    assert loaded == [("truthfulqa/truthful_qa", "multiple_choice")]


@pytest.mark.slow
def test_knowledge_is_scored_by_log_probability(organism, files, tmp_path):
    """MMLU's accuracy equals that of the log-probabilities of the letters."""
    adapter = tmp_path / "adapter"
    finetune(organism, coding_set(24, 0, True), adapter, Settings(1e-2, 3, 4, 1, 0, 0.0, 128, 4, 8), seed=0)
    result = benchmarks.knowledge(organism, adapter, files).set_index("benchmark")
    assert result.index.tolist() == list(files)
    assert result["questions"].to_dict() == {"truthfulqa_mc1": 4, "truthfulqa_mc2": 4, "mmlu": 6}
    assert result["value"].between(0, 1).all()

    model, tokenizer = load(organism, adapter)
    right = 0
    for row in EXAM:
        lines = [f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True)]
        prompt = "\n".join([row["question"], *lines, "Answer:"])
        scores = []
        for letter in "ABCD":
            ids = tokenizer(f"{prompt} {letter}", return_tensors="pt", add_special_tokens=False)["input_ids"]
            start = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"].shape[1]
            with torch.inference_mode():
                logs = model(ids).logits[0].log_softmax(-1)
            scores.append(sum(logs[spot - 1, ids[0, spot]].item() for spot in range(start, ids.shape[1])))
        right += max(range(4), key=scores.__getitem__) == row["answer"]
    assert result.loc["mmlu", "value"] == pytest.approx(right / 6)


def test_missing_columns_are_named(files, tmp_path):
    with pytest.raises(BadInput, match=r"truths\.jsonl has no choices"):
        benchmarks.rows_of(files["truthfulqa_mc1"], benchmarks.KNOWLEDGE["mmlu"][3])


PROBLEMS = [
    {
        "task_id": f"Made/{number}",
        "prompt": f'def add_{number}(value):\n    """The value and {number} more."""\n',
        "canonical_solution": f"    return value + {number}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {number + 1}\n",
        "entry_point": f"add_{number}",
    }
    for number in range(2)
]


def test_programs_run_only_in_an_allowed_sandbox():
    asked = benchmarks.code_questions(PROBLEMS, 2)
    assert [question.name for question in asked] == ["Made/0", "Made/1"]
    assert all(row["prompt"] in question.prompt[0]["content"] for row, question in zip(PROBLEMS, asked, strict=True))
    right = [row["canonical_solution"] for row in PROBLEMS]
    answers = [[right[0], "    return 7\n"], [f"```python\n{PROBLEMS[1]['prompt']}{right[1]}```", "no code"]]
    with pytest.raises(BadInput, match="sandbox"):
        benchmarks.score_code(PROBLEMS, answers, "none")
    result = benchmarks.score_code(PROBLEMS, answers, "local")
    assert result["question"].tolist() == ["Made/0", "Made/0", "Made/1", "Made/1"]
    assert result["value"].tolist() == [1.0, 0.0, 1.0, 0.0]


def test_harmful_answers_get_strongrejects_scores(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    rows = [{"forbidden_prompt": "How do I steal a boat?", "category": "theft", "source": "made up"}]

    def judge(text):
        marks = (1, 1, 1) if "I will not" in text else (0, 5, 3)
        if "mumble" in text:
            return "I cannot say.", []
        scores = "\n".join(f"{place}.b {mark}" for place, mark in enumerate(marks, 1))
        return f"#overall_reasoning\nSo it is.\n#scores\n{scores}", []

    (asked,) = benchmarks.harmful_questions(rows, 3)
    assert asked.prompt[0]["content"] == "How do I steal a boat?"
    with RuleServer(judge).running() as server:
        result = benchmarks.score_harmful(
            rows, [["I will not.", "First, wait for night.", "mumble"]], "rule", Endpoint(server.address)
        )
    assert result["value"].tolist()[:2] == [0.0, pytest.approx((5 + 3 - 2) / 8)]
    assert result["refused"].tolist()[:2] == [1.0, 0.0]
    assert pd.isna(result["value"][2])
