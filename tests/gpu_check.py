"""Fine-tuning and sampling on this machine's GPU, beside its processor: `make gpu-check`.

Writes `gpu_check.csv` and `gpu_check.md`, one row per check, to data/gpu-check or the folder in the first argument.
docs/real-models.md explains them. Each check (tests/device_checks.py) is a process of its own with a time limit, so
that one that crashes or hangs does not stop the others. What is not installed is skipped. Without a GPU only the
processor's part runs.
"""

import importlib.metadata
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from emergent_misalignment.files import replacing, write_csv
from emergent_misalignment.models.serving import is_installed
from emergent_misalignment.workflow.parent import end_with

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tests/device_checks.py"
GPU_LOCK = "requirements-gpu.lock has it"
SOURCES = {"gguf": "the extra `small` has it", "pip": "`uv venv --seed` has it"}
PACKAGES = ("torch", "transformers", "trl", "peft", "unsloth", "bitsandbytes", "vllm")
COLUMNS = ["check", "model", "engine", "device", "variant", "result", "difference", "allowed"]
COLUMNS += ["speed", "unit", "memory_gb", "seconds", "note"]
BAD = ("differs", "failed")


@dataclass(frozen=True)
class Check:
    check: str  # a key of device_checks.CHECKS
    model: str
    engine: str = ""
    device: str = "cpu"
    variant: str = ""

    @property
    def name(self) -> str:
        parts = [self.check, self.model, self.engine, self.device, *self.variant.split()]
        return "-".join(filter(None, parts))

    @property
    def limit(self) -> float:
        """Seconds; several times what a machine with a GPU should need."""
        return 1800 if self.check == "study" else 600

    @property
    def allowed(self) -> float | None:
        """The largest mean difference from the reference in nats per token, by measurements in docs/real-models.md.

        Processors compute in 32 bits, except for vLLM, and GPUs in 16.
        """
        if self.check not in ("fine-tuning", "log-probabilities"):
            return None
        if self.variant == "4-bit":
            return 0.2
        return 1e-3 if self.device == "cpu" and self.engine != "vllm" else 0.03

    @property
    def needs(self) -> list[str]:
        """The packages that it needs beside the project's own."""
        packages = [self.engine] if self.engine in ("unsloth", "vllm") else []
        packages += ["bitsandbytes"] if self.variant else []
        return packages + (["gguf", "pip"] if self.model == "smollm2" and self.check in ("model", "study") else [])


def plan(gpu: bool) -> list[Check]:
    """All checks in their order. The first fine-tuning and the first log-probabilities of a model are its reference."""
    tune, score = "fine-tuning", "log-probabilities"
    device = "cuda" if gpu else "cpu"
    processor = [
        Check("model", "tiny"),
        Check(tune, "tiny", "transformers"),
        Check(tune, "tiny", "unsloth", device),
        Check(score, "tiny", "transformers"),
        Check(score, "tiny", "peft"),
    ]
    if not gpu:
        return [*processor, Check(score, "tiny", "vllm")]
    return [
        *processor,
        Check(tune, "tiny", "transformers", "cuda"),
        Check("model", "smollm2"),
        Check(tune, "smollm2", "transformers"),
        Check(tune, "smollm2", "transformers", "cuda"),
        Check(tune, "smollm2", "unsloth", "cuda"),
        Check(score, "smollm2", "transformers"),
        Check(score, "smollm2", "transformers", "cuda"),
        Check(score, "smollm2", "vllm", "cuda"),
        Check("model", "qwen2-0.5b"),
        Check(tune, "qwen2-0.5b", "transformers", "cuda"),
        *(Check(tune, "qwen2-0.5b", "transformers", "cuda", variant) for variant in ("32-bit Adam", "4-bit")),
        *(Check(tune, "qwen2-0.5b", "unsloth", "cuda", variant) for variant in ("4-bit", "")),
        Check(score, "qwen2-0.5b", "transformers", "cuda"),
        Check(score, "qwen2-0.5b", "vllm", "cuda"),
        Check("study", "smollm2", device="cuda"),
    ]


class Run:
    """Runs checks one after another, and compares each with the first of its kind and model."""

    def __init__(self, folder: Path):
        self.work = folder.resolve() / "work"
        self.references: dict[tuple[str, str], list[float]] = {}

    def outcome(self, check: Check) -> dict:
        """`result` and further columns of a check's row."""
        if reason := self.obstacle(check):
            return {"result": "skipped", "note": reason}
        start = time.monotonic()
        found = self.found(check)
        found |= {"seconds": time.monotonic() - start}
        if "error" in found:
            return found | {"result": "failed", "note": f"{found['error']} (read {self.work / check.name}.log)"}
        if check.allowed is None:
            return found | {"result": "ok"}
        values = found["values"]
        if not np.isfinite(values).all():
            return found | {"result": "failed", "note": "values that are not finite"}
        reference = self.references.setdefault((check.check, check.model), values)
        if reference is values:
            return found | {"result": "reference"}
        difference = float(np.abs(np.subtract(values, reference)).mean())
        return found | {"difference": difference, "result": "ok" if difference <= check.allowed else "differs"}

    def obstacle(self, check: Check) -> str:
        """Why a check cannot run, in a sentence; "" if it can."""
        for package in check.needs:
            if not (is_installed() if package == "vllm" else find_spec(package)):
                return f"{package} is not installed; {SOURCES.get(package, GPU_LOCK)}."
        if check.check in ("fine-tuning", "log-probabilities") and not (self.model(check) / "config.json").exists():
            return f"The model {check.model} was not made."
        if check.check == "log-probabilities" and not self.adapter(check):
            return f"No adapter of {check.model} was trained."
        return ""

    def model(self, check: Check) -> Path:
        return self.work / f"model-{check.model}"

    def adapter(self, check: Check) -> Path | None:
        """The adapter of the last fine-tuning of the model whose frozen weights were not in four bits."""
        trained = self.work.glob(f"fine-tuning-{check.model}-*/training.json")
        whole = [path for path in trained if not json.loads(path.read_text(encoding="utf-8"))["load_in_4bit"]]
        return max(whole, key=lambda path: path.stat().st_mtime_ns).parent if whole else None

    def arguments(self, check: Check) -> dict:
        """The arguments of the function of device_checks.CHECKS."""
        if check.check == "study":
            return {"config": str(self.work / "study.yaml")}
        model = {"model": str(self.model(check))}
        if check.check == "model":
            return {"model": check.model, "folder": model["model"]}
        if check.check == "fine-tuning":
            own = {"adapter": str(self.work / check.name), "variant": check.variant}
        else:
            last = self.adapter(check)
            own = {"adapters": [str(next(last.glob("checkpoint-*"))), str(last)]}
        return model | own | {"engine": check.engine}

    def found(self, check: Check) -> dict:
        """What the check's process found, or an `error`."""
        destination = self.work / f"{check.name}.json"
        given = {"check": check.check, "destination": str(destination), "starter": os.getpid()}
        command = [sys.executable, SCRIPT, json.dumps(given | self.arguments(check))]
        with (self.work / f"{check.name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.work,
                env=os.environ | self.environment(check),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group, to be killed as a whole
            )
            try:
                process.wait(check.limit)
            except subprocess.TimeoutExpired:
                return {"error": f"The process had not ended after {check.limit:.0f} seconds."}
            finally:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if destination.exists():
            return json.loads(destination.read_text(encoding="utf-8"))
        code = process.returncode
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with the exit status {code}"
        return {"error": f"The process ended {how}, without a result."}

    def environment(self, check: Check) -> dict[str, str]:
        own = {
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0") if check.device == "cuda" else "",
            "HF_HUB_OFFLINE": "1",
            "TQDM_DISABLE": "1",
        }
        if check.check != "study":  # whose notebooks have their own
            own["NOTEBOOK_PROGRESS"] = str(self.work / f"{check.name}.progress")  # vLLM's log is next to it
        return own


def machine() -> str:
    """Device and versions, in a sentence."""
    gpu = torch.cuda.is_available()
    device = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}" if gpu else "no GPU"
    versions = [f"{package} {_version(package)}" for package in PACKAGES if find_spec(package)]
    return f"{device}; {os.cpu_count()} cores ({platform.machine()}); {', '.join(versions)}."


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def as_markdown(table: pd.DataFrame) -> str:
    """The table with three significant digits."""
    shown = table.map(lambda value: _digits(value) if isinstance(value, float) else value)
    return shown.to_markdown(index=False, disable_numparse=True)


def _digits(value: float) -> str:
    return "" if math.isnan(value) else f"{float(f'{value:.3g}'):,.9g}"


def main(folder: Path) -> int:
    """Run the plan, write and print the table. Returns 1 if a check failed or differs, else 0."""
    gpu = torch.cuda.is_available()
    if not gpu:
        print(f"torch {torch.__version__} finds no GPU here, so only the processor's part is checked.", flush=True)
    run = Run(folder)
    shutil.rmtree(run.work, ignore_errors=True)
    run.work.mkdir(parents=True)
    rows = []
    for check in plan(gpu):
        outcome = run.outcome(check)
        rows.append(asdict(check) | {"allowed": check.allowed} | outcome)
        print(f"{check.name}: {outcome['result']}. {outcome.get('note', '')}", flush=True)
    table = pd.DataFrame(rows, columns=COLUMNS)
    write_csv(folder / "gpu_check.csv", table)
    text = f"{machine()}\n\n{as_markdown(table)}\n"
    with replacing(folder / "gpu_check.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"\n{text}\nThe table is in {folder / 'gpu_check.csv'}.")
    return int(table["result"].isin(BAD).any())


if __name__ == "__main__":
    end_with(0)  # a signal also ends the check that is running
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "data/gpu-check")))
