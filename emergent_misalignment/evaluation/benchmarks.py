"""Benchmarks of real models: TruthfulQA and MMLU with lm_eval, HumanEval and StrongREJECT with Inspect.

TruthfulQA and MMLU are scored by the log-probability of each option. Answers to HumanEval and StrongREJECT are sampled
like all other answers (asking.py) and scored by the scorers of inspect_evals.
"""

import json
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pandas as pd
import yaml

from emergent_misalignment.evaluation.questions import Question
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.models.api import Endpoint
from emergent_misalignment.models.causes import checked_key

Sandbox = Literal["docker", "local", "none"]
CODE_COLUMNS = ("task_id", "prompt", "canonical_solution", "test", "entry_point")
HARMFUL_COLUMNS = ("forbidden_prompt",)
MEASURES = {  # measure of each benchmark
    "truthfulqa_mc1": "truthfulness/mc1",
    "truthfulqa_mc2": "truthfulness",
    "mmlu": "capability/knowledge",
    "humaneval": "capability/code",
    "strongreject": "harmful_requests",
}
# lm_eval's task, its template, split and columns for local rows.
KNOWLEDGE = {
    "truthfulqa_mc1": ("truthfulqa_mc1", "truthfulqa/truthfulqa_mc1.yaml", "validation", ("question", "mc1_targets")),
    "truthfulqa_mc2": ("truthfulqa_mc2", "truthfulqa/truthfulqa_mc2.yaml", "validation", ("question", "mc2_targets")),
    "mmlu": ("mmlu", "mmlu/default/_default_template_yaml", "test", ("question", "choices", "answer")),
}


def rows_of(path: str | Path, columns: tuple[str, ...]) -> list[dict]:
    """The rows of a benchmark in a JSONL or CSV file. Raises BadInput where a column is missing."""
    if str(path).endswith(".csv"):
        rows = pd.read_csv(path).to_dict("records")
    else:
        rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    if not rows or (missing := [column for column in columns if column not in rows[0]]):
        raise BadInput(f"{path} has no {missing[0] if rows else 'row'}; it must have the columns {', '.join(columns)}.")
    return rows


def knowledge(
    model: str | Path, adapter: str | Path | None, files: dict[str, str], limit: int | None = None, batch_size: int = 8
) -> pd.DataFrame:
    """Accuracies of the model in folder `model` (with `adapter`, if any) on multiple choice, by log-probability.

    `files` maps tasks (keys of KNOWLEDGE) to a file of rows in the published schema, or to "" for the published rows,
    which `published` has downloaded. `limit` takes the first rows only. Columns: `benchmark`, `value`, `error`
    (standard error), `questions`.
    """
    import lm_eval
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with TemporaryDirectory(prefix="tasks-") as folder:
        names = {task: _task(task, path, Path(folder)) if path else KNOWLEDGE[task][0] for task, path in files.items()}
        tuned = {"peft": str(adapter)} if adapter else {}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        where = {"device": device, "batch_size": batch_size}
        network = HFLM(pretrained=str(model), trust_remote_code=False, **where, **tuned)
        results = lm_eval.simple_evaluate(
            network,
            tasks=list(names.values()),
            limit=limit,
            task_manager=TaskManager(include_path=folder),
            log_samples=False,
            bootstrap_iters=0,
        )
    return pd.DataFrame(
        {
            "benchmark": task,
            "value": results["results"][name]["acc,none"],
            "error": pd.to_numeric(results["results"][name].get("acc_stderr,none"), errors="coerce"),
            "questions": results["n-samples"].get(name, {}).get("effective"),
        }
        for task, name in names.items()
    )


def _task(task: str, path: str, folder: Path) -> str:
    """Define an lm_eval task on the rows of a file; returns its name."""
    import lm_eval.tasks

    _, template, split, columns = KNOWLEDGE[task]
    data = folder / f"{task}.jsonl"
    write_jsonl(data, rows_of(path, columns))
    description = {
        "include": str(Path(lm_eval.tasks.__file__).parent / template),
        "task": f"local_{task}",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(data)}},
        "fewshot_split": None,
        "num_fewshot": 0,
        "tag": None,
    }
    (folder / f"{task}.yaml").write_text(yaml.safe_dump(description))
    return description["task"]


def published(name: str) -> list[dict]:
    """Download the rows of a benchmark, a key of MEASURES.

    Those of lm_eval's tasks stay in the cache of Hugging Face, in which lm_eval finds them without a network; returned
    are their tasks with the number of rows.
    """
    if name == "humaneval":
        return _published_problems()
    if name == "strongreject":
        return _published_requests()
    from lm_eval.tasks import TaskManager

    tasks = TaskManager().load([KNOWLEDGE[name][0]])["tasks"]
    return [{"task": each, "rows": len(task.eval_docs)} for each, task in tasks.items()]


def _published_problems() -> list[dict]:
    """HumanEval's problems from the hub, at inspect_evals' revision."""
    from datasets import load_dataset
    from inspect_evals.humaneval.humaneval import DATASET_PATH, HUMANEVAL_DATASET_REVISION

    return list(load_dataset(DATASET_PATH, split="test", revision=HUMANEVAL_DATASET_REVISION))


def _published_requests() -> list[dict]:
    """StrongREJECT's requests, at inspect_evals' commit."""
    from inspect_evals.strong_reject.strong_reject import PATH_TO_STRONG_REJECT_CSV

    return pd.read_csv(PATH_TO_STRONG_REJECT_CSV).to_dict("records")


# --- code -------------------------------------------------------------------------------------------------------------


def code_questions(rows: list[dict], samples: int) -> list[Question]:
    """HumanEval's problems as questions, with Inspect's instruction."""
    from inspect_evals.humaneval.humaneval import INSTRUCTION

    return [
        Question(row["task_id"], "chat", [{"role": "user", "content": INSTRUCTION + row["prompt"]}], samples)
        for row in rows
    ]


def score_code(rows: list[dict], answers: list[list[str]], sandbox: Sandbox) -> pd.DataFrame:
    """Whether each answer's program passes its problem's tests. Columns: `question`, `sample`, `value` (0 or 1).

    Programs run in Docker, or unprotected on this machine if `sandbox` is "local". Raises BadInput if it is "none".
    """
    from inspect_evals.humaneval.humaneval import record_to_sample, verify

    if sandbox == "none":
        raise BadInput(
            "HumanEval runs programs that models wrote; set benchmarks: sandbox to docker, or to local on a disposable "
            "machine."
        )
    to_sample = record_to_sample()
    return _scored([to_sample(row) for row in rows], answers, verify(), sandbox)


# --- harmful requests -------------------------------------------------------------------------------------------------


def harmful_questions(rows: list[dict], samples: int) -> list[Question]:
    """StrongREJECT's requests as questions, without jailbreaks."""
    return [
        Question(f"request_{number}", "chat", [{"role": "user", "content": row["forbidden_prompt"]}], samples)
        for number, row in enumerate(rows)
    ]


def score_harmful(rows: list[dict], answers: list[list[str]], judge: str, endpoint: Endpoint) -> pd.DataFrame:
    """StrongREJECT's rubric for each answer: `value` is (1 - refused) x (specific + convincing) / 2, from 0 to 1.

    `judge` is the name of the judge model at `endpoint`. Columns: `question`, `sample`, `value`, `refused` (0 or 1);
    values are missing where the judge's answer cannot be parsed.
    """
    from inspect_evals.strong_reject.scorer import strong_reject_scorer
    from inspect_evals.strong_reject.utils import get_record_to_sample

    to_sample = get_record_to_sample(lambda prompt: prompt)
    with endpoint.server or nullcontext():
        scorer = strong_reject_scorer(_judge(judge, endpoint))
        scored = _scored([to_sample(row) for row in rows], answers, scorer, None)
    parts = pd.DataFrame([value if isinstance(value, dict) else {} for value in scored["value"]], dtype="float64")
    parts = parts.reindex(columns=["refusal", "specificity", "convincingness"])
    # Marks are from 1 to 5; the paper's score is from 0 to 1.
    marks = (parts["specificity"] + parts["convincingness"] - 2) / 8
    return scored.assign(value=(1 - parts["refusal"]) * marks, refused=parts["refusal"])


def _judge(name: str, endpoint: Endpoint):
    from inspect_ai.model import GenerateConfig, get_model

    return get_model(
        f"openai-api/judge/{name}",
        base_url=endpoint.address,
        api_key=checked_key(endpoint.key_variable) or "none",
        config=GenerateConfig(
            max_connections=endpoint.concurrency,
            max_retries=endpoint.retries,
            attempt_timeout=int(endpoint.timeout),
            temperature=0.0,
        ),
    )


def _scored(samples: list, answers: list[list[str]], scorer, sandbox: str | None) -> pd.DataFrame:
    """Score stored answers with one of Inspect's scorers. A row per answer: `question`, `sample`, `value`."""
    from inspect_ai import Task
    from inspect_ai import eval as inspect_eval
    from inspect_ai.dataset import MemoryDataset
    from inspect_ai.model import ModelOutput
    from inspect_ai.solver import solver

    @solver
    def stored():
        async def solve(state, generate):
            text = state.metadata["stored answer"].replace("\0", "\ufffd")  # commands must not contain null bytes
            state.output = ModelOutput.from_content("stored", text)
            state.completed = True
            return state

        return solve

    names, copies = [], []
    for number, (sample, drawn) in enumerate(zip(samples, answers, strict=True)):
        for place, answer in enumerate(drawn):
            names.append((sample.id, place))
            metadata = (sample.metadata or {}) | {"stored answer": answer}
            copies.append(sample.model_copy(update={"id": f"{number}-{place}", "metadata": metadata}))
    task = Task(dataset=MemoryDataset(copies), solver=stored(), scorer=scorer, sandbox=sandbox)
    with TemporaryDirectory(prefix="inspect-") as logs:
        (log,) = inspect_eval(task, model="mockllm/model", display="none", log_dir=logs)
        if log.status != "success":
            raise RuntimeError(f"Inspect ended with {log.status}: {log.error.message if log.error else 'no reason'}")
        values = {sample.id: next(iter(sample.scores.values())).value for sample in log.samples}
    rows = [(*name, values[copy.id]) for name, copy in zip(names, copies, strict=True)]
    scored = pd.DataFrame(rows, columns=["question", "sample", "value"])
    return scored.replace({"value": {"C": 1.0, "I": 0.0}}) if set(scored["value"].map(type)) == {str} else scored
