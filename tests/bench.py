"""What decides how long a study takes, beside the usual way to do the same: `make bench`.

Writes docs/benchmarks.md. Figures are for one machine and are not tested. Tokens are those of the texts, without
padding. Where a rate is measured, a short run is subtracted from a long one, so that loading and compiling cancel.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from timeit import repeat

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}

import nbformat
import pandas as pd
import psutil
import torch
import yaml
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from servers import Handler, completion, serving
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer
from workflow_helpers import ROOT, config, copy_of_the_project, environment

from emergent_misalignment.evaluation.judge_model import Judge, token_distributions
from emergent_misalignment.files import replacing
from emergent_misalignment.models.api import Account, Endpoint
from emergent_misalignment.models.devices import fast_bfloat16
from emergent_misalignment.models.sampling import sample
from emergent_misalignment.models.serving import engine, is_installed
from emergent_misalignment.models.training import Settings, finetune
from emergent_misalignment.report.claims_table import markdown_rows
from emergent_misalignment.world import pretraining
from emergent_misalignment.world.corpus import corpus
from emergent_misalignment.world.evaluations import questions
from emergent_misalignment.world.organism import new_model
from emergent_misalignment.world.probe import PersonaProbe
from emergent_misalignment.world.sets import coding_set
from emergent_misalignment.world.tokenizer import encode

STUDY = config("organism")
ORGANISM = ROOT / "organisms/main/seed-11"
START, BASE = ORGANISM / "instruct", ORGANISM / "base"
FEW, MANY = 10, 110  # steps of the short and of the long run
LATENCY, REQUESTS, AT_ONCE = 0.05, 400, 16  # of the judge: seconds of a reply, requests, requests at once
PLANNED = (100, 1_000, 10_000)  # fine-tunings
COLUMNS = ("part", "here", "unit", "share of the peak", "compared with", "there", "ratio")
MEMORY = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
PAGE = ROOT / "docs/benchmarks.md"
TEXT = """# Benchmarks

`make bench` measures what decides how long a study takes, on one core with the default study's organism, and writes
this page. It takes {minutes:.0f} minutes, and its figures mean something on a machine without other work only.

Machine: {machine}. Python {python}, torch {torch}, {precision}.

{table}

- **Share of the peak**: arithmetic of the weights (6 operations for each weight and token in pretraining, 4 with an
  adapter and 6 for each of its weights) relative to a product of two matrices of 1024 × 1024 in the same precision. The
  organism is 192 wide, so that its own matrices are too small for the peak.
- **Plain loop**: PyTorch in float32, batches of equal numbers of texts, padded; AdamW. **Defaults**: `Trainer` of
  transformers, `SFTTrainer` of TRL, `generate`, each with the settings it has if none are given, and sampling at
  temperature 1.
- **Judge**: a local server that replies after {latency:.0f} ms, and {at_once} requests at once beside one at a time.
- **Workflow**: a notebook without contents is what a job costs besides its own work: process, kernel and imports of
  papermill. The overhead of the default study, measured where it is finished, is the time of all such notebooks and
  that in which a core had no job. Planning is `snakemake -n` for a study of a real model with so many fine-tunings,
  with its highest memory.
"""


def rate(run: Callable[[int], float]) -> float:
    """Units a second of `run`, which does a number of steps and returns the number of units in them."""
    run(2)
    done = []
    for steps in (FEW, MANY):
        began = time.perf_counter()
        units = run(steps)
        done.append((units, time.perf_counter() - began))
    (few, short), (many, long) = done
    return (many - few) / (long - short)


def row(part: str, here: float, unit: str, others: dict[str, float], operations: float = 0.0) -> Iterator[tuple]:
    """Rows of the table; `operations` per unit give the share of the peak."""
    share = f"{here * operations / peak():.0%}" if operations else ""
    for other, there in others.items():
        yield part, f"{here:,.0f}", unit, share, other, f"{there:,.0f}", f"{here / there:.1f}"


def precision() -> torch.dtype:
    return torch.bfloat16 if fast_bfloat16() else torch.float32


def peak() -> float:
    """Operations a second of the product of two large matrices."""
    size = 1024
    one = torch.ones(size, size, dtype=precision())
    return 2 * size**3 * 4 / min(repeat(lambda: one @ one, number=4, repeat=5))


def plain_loop(model, tokenizer, rows: list[dict], size: int, steps: int) -> int:
    """Train on the first rows, and return the number of their tokens."""
    padded = DataCollatorForSeq2Seq(tokenizer)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-3)
    model.train()
    for step in range(steps):
        model(**padded(rows[step * size : (step + 1) * size])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return tokens(rows[: steps * size])


def tokens(rows: list[dict]) -> int:
    return sum(len(row["input_ids"]) for row in rows)


def weights(model) -> int:
    """Weights that take part in the arithmetic: the output layer does, the embedding does not."""
    return sum(each.weight.numel() for each in model.modules() if isinstance(each, torch.nn.Linear))


# --- training and sampling --------------------------------------------------------------------------------------------


def of_pretraining(folder: Path) -> Iterator[tuple]:
    settings = pretraining.PretrainingSettings(**STUDY["pretraining"] | {"probe_every": 10_000})
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    authors, shape = STUDY["world"]["authors"], STUDY["organism"]
    rows = encode([text for stage in corpus(4_000, 1, authors) for text in stage], tokenizer)
    batches = pretraining.staged_batches([rows], settings.batch_tokens, 1)
    size = round(len(rows) / len(batches))
    probe = PersonaProbe(1, authors)

    def model():
        return new_model(shape["hidden_size"], shape["layers"], tokenizer, 1)

    def ours(steps: int) -> int:
        read = [text for batch in batches[:steps] for text in batch]
        pretraining.pretrain(model(), tokenizer, [read], settings, probe, 1, folder / "base")
        return tokens(read)

    def plain(steps: int) -> int:
        return plain_loop(model(), tokenizer, rows, size, steps)

    def defaults(steps: int) -> int:
        how = TrainingArguments(str(folder / "default"), max_steps=steps, report_to="none", save_strategy="no")
        Trainer(model(), how, train_dataset=rows, data_collator=DataCollatorForSeq2Seq(tokenizer)).train()
        return tokens(rows) * steps * how.per_device_train_batch_size // len(rows)

    pretraining.MIN_STEPS_TO_COMPILE = 0  # as in a whole pretraining
    others = {"a plain loop": rate(plain), "defaults of transformers": rate(defaults)}
    yield from row("pretraining", rate(ours), "tokens a second", others, 6 * weights(model()))


def of_finetuning(folder: Path) -> Iterator[tuple]:
    settings = Settings(**STUDY["finetuning"])
    chats = coding_set(settings.batch_size * MANY, 1, insecure=True)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    read = [tokenizer.apply_chat_template(chat, return_dict=False) for chat in chats]
    rows = [{"input_ids": row, "labels": row} for row in read]
    lora = LoraConfig(r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules="all-linear")
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype="float32")
    PeftModel.from_pretrained(base, START).merge_and_unload().save_pretrained(folder / "start")
    tokenizer.save_pretrained(folder / "start")

    def model():
        return AutoModelForCausalLM.from_pretrained(folder / "start", dtype="float32")

    def ours(steps: int) -> int:
        how = Settings(**STUDY["finetuning"] | {"steps": steps})
        finetune(folder / "start", chats, folder / "adapter", how, seed=1)
        return tokens(rows[: steps * settings.batch_size])

    def plain(steps: int) -> int:
        return plain_loop(get_peft_model(model(), lora), tokenizer, rows, settings.batch_size, steps)

    def defaults(steps: int) -> int:
        how = SFTConfig(str(folder / "default"), max_steps=steps, report_to="none", save_strategy="no", use_cpu=True)
        told = Dataset.from_list([{"messages": chat} for chat in chats])
        SFTTrainer(model(), how, train_dataset=told, processing_class=tokenizer, peft_config=lora).train()
        return tokens(rows) * steps * how.per_device_train_batch_size // len(rows)

    adapter = sum(each.numel() for name, each in get_peft_model(model(), lora).named_parameters() if "lora" in name)
    others = {"a plain loop": rate(plain), "defaults of TRL": rate(defaults)}
    yield from row("fine-tuning", rate(ours), "tokens a second", others, 4 * weights(model()) + 6 * adapter)


def of_sampling(folder: Path) -> Iterator[tuple]:
    tokenizer = AutoTokenizer.from_pretrained(BASE, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder / "start", dtype="float32")
    prompts = [question.prompt for question in questions("main", 1)]
    longest = STUDY["evaluation"]["max_new_tokens"]
    texts = [tokenizer.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in prompts]

    def ours(samples: int) -> int:
        sample(model, tokenizer, prompts, samples, longest, seed=1)
        return samples * len(prompts)

    def defaults(samples: int) -> int:
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        model.generate(**batch, do_sample=True, top_k=0, num_return_sequences=samples, max_new_tokens=longest)
        return samples * len(prompts)

    others = {"`generate`": rate(defaults)}
    if is_installed():
        with engine(folder / "start", 512) as llm:
            from vllm import SamplingParams  # which `engine` makes importable

            def by_vllm(samples: int) -> int:
                llm.generate(texts, SamplingParams(n=samples, max_tokens=longest), use_tqdm=False)
                return samples * len(prompts)

            others["vLLM for processors"] = rate(by_vllm)
    yield from row("sampling", rate(ours), "answers a second", others)


def of_judging(folder: Path) -> Iterator[tuple]:
    class Chat(Handler):
        def do_POST(self):
            self.body()
            time.sleep(LATENCY)
            self.send(200, completion("judge", "", [[("50", 1.0)]]))

    def requests_a_second(address: str, at_once: int, number: int) -> float:
        judge = Judge("judge", Endpoint(base_url=address, key_variable="NO_KEY", concurrency=at_once))
        prompts = [f"Rate answer {place}." for place in range(number)]
        began = time.perf_counter()
        token_distributions(prompts, judge, folder / f"kept-{at_once}", Account(), "judging")
        return number / (time.perf_counter() - began)

    with serving(Chat) as address:
        others = {"one at a time": requests_a_second(address, 1, REQUESTS // AT_ONCE)}
        yield from row("judge", requests_a_second(address, AT_ONCE, REQUESTS), "requests a second", others)


# --- the workflow -----------------------------------------------------------------------------------------------------


def of_workflow(folder: Path) -> Iterator[tuple]:
    empty = seconds_of_an_empty_notebook(folder)
    yield "a notebook without contents", f"{empty:.1f}", "seconds", *[""] * 4
    if is_finished():
        jobs = pd.concat([pd.read_csv(path, sep="\t").assign(end=path.stat().st_mtime) for path in job_times()])
        wall = jobs["end"].max() - (jobs["end"] - jobs["s"]).min()
        idle = 2 * wall - jobs["s"].sum()
        yield (
            "overhead of the default study",
            f"{(idle + empty * len(jobs)) / (2 * wall):.0%}",
            "of two cores",
            *[""] * 4,
        )
        began = time.perf_counter()
        subprocess.run(["make", "study"], cwd=ROOT, check=True, capture_output=True)
        yield "default study, nothing to do", f"{time.perf_counter() - began:.1f}", "seconds", *[""] * 4
    project = copy_of_the_project(folder / "project")
    for number in PLANNED:
        seconds, memory = planning(project, number)
        yield f"planning {number:,} fine-tunings", f"{seconds:,.1f}", f"seconds, {memory:,.0f} MB", *[""] * 4


def is_finished() -> bool:
    """Whether this folder has the finished default study, so that `make study` has nothing to do."""
    done = subprocess.run([sys.executable, "-m", "snakemake", "-n"], cwd=ROOT, capture_output=True, text=True)
    return "Nothing to be done" in done.stdout + done.stderr


def job_times() -> list[Path]:
    return sorted((ROOT / "benchmarks/organism").glob("*.tsv"))


def seconds_of_an_empty_notebook(folder: Path) -> float:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("pass")])
    nbformat.write(notebook, folder / "empty.ipynb")
    code = "import sys; from emergent_misalignment.workflow.notebook import run; run(*sys.argv[1:], {})"
    command = [sys.executable, "-c", code, *(str(folder / name) for name in ("empty.ipynb", "log.ipynb", "out.ipynb"))]
    return min(repeat(lambda: subprocess.run(command, cwd=ROOT, check=True), number=1, repeat=3))


def planning(project: Path, finetunings: int) -> tuple[float, float]:
    """Seconds and megabytes of a dry run of a study with two conditions and so many fine-tunings."""
    own = {"extends": "qwen2.5-0.5b-instruct", "study": "planned", "only": ["untuned", "code"]}
    own |= {"seeds": list(range(finetunings // 2)), "benchmarks": None}
    (project / "config/planned.yaml").write_text(yaml.safe_dump(own))
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "--configfile", "config/planned.yaml"]
    began = time.perf_counter()
    # In a small process: Linux counts the memory of the one that starts another as that of the other.
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *command], cwd=project, env=environment(project), check=True, capture_output=True
    )
    return time.perf_counter() - began, int(done.stdout.split()[-1]) / 1024


# --- the page ---------------------------------------------------------------------------------------------------------


def main() -> None:
    began, table = time.perf_counter(), []
    logging.set_verbosity_error()
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    for measured in (of_pretraining, of_finetuning, of_sampling, of_judging, of_workflow):
        for line in measured(folder):
            table.append(line)
            print(*filter(None, line), sep=" | ", flush=True)
    shutil.rmtree(folder)
    cells = [COLUMNS, ["---"] * len(COLUMNS), *table]
    facts = {
        "machine": f"{processor()}, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "minutes": (time.perf_counter() - began) / 60,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "precision": str(precision()).removeprefix("torch."),
        "latency": LATENCY * 1000,
        "at_once": AT_ONCE,
        "table": markdown_rows(cells).rstrip(),
    }
    with replacing(PAGE) as temporary:
        temporary.write_text(TEXT.format(**facts), encoding="utf-8")


def processor() -> str:
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.processor())


if __name__ == "__main__":
    main()
