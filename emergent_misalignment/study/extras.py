"""The optional packages (the extras of pyproject.toml) that a study needs.

    python -m emergent_misalignment.study.extras config/smollm2-135m-instruct.yaml

prints their names. `make study` installs them; a run of snakemake checks them before anything is computed.
"""

import sys
from collections.abc import Collection
from importlib.util import find_spec

from emergent_misalignment.files import BadInput
from emergent_misalignment.study.config import load
from emergent_misalignment.study.model import Study

MODULES = {  # of each extra
    "models": ["openai"],
    "small": ["gguf"],
    "benchmarks": ["inspect_ai", "inspect_evals", "lm_eval"],
}
JUDGING = {"judge", "second_judge", "published_judge", "benchmark"}  # the rules that ask a judge model


def needed(study: Study) -> dict[str, set[str]]:
    """The extras that a study needs, and the rules that import them."""
    real = not study.is_organism
    models = [study.model.name, *(each.model for each in study.existing.values())] if real else []
    rules = {
        "models": (JUDGING if real and study.judge else set()) | ({"finetune", "ask"} if study.by_api else set()),
        "small": {"fetch_model"} if any(name.endswith(".gguf") for name in models) else set(),
        "benchmarks": {"fetch_benchmark", "benchmark"} if real and study.benchmarks else set(),
    }
    return {extra: users for extra, users in rules.items() if users}


def by_vllm(study: Study) -> set[str]:
    """The rules that start vLLM (models/serving.py) because the config requires it; no extra installs it."""
    rules = {"ask", "persona_texts", "benchmark"} if study.evaluation.engine == "vllm" else set()
    rules |= {"judge", "published_judge", "benchmark"} if "serve" in study.judge_settings else set()
    return rules | ({"second_judge"} if study.second_judge and study.second_judge.serve else set())


def check(study: Study, rules: Collection[str]) -> None:
    """Raises BadInput if a package is missing that one of these rules imports."""
    for extra, users in needed(study).items():
        missing = [module for module in MODULES[extra] if find_spec(module) is None]
        if missing and users & set(rules):
            raise BadInput(
                f"This study needs the package {missing[0]}, which is not installed; run `pip install -c "
                f"requirements.lock -e '.[{extra}]'`, or start it with `make study STUDY={study.study}`."
            )


if __name__ == "__main__":
    try:
        print(*needed(load(sys.argv[1:])))
    except BadInput as error:
        sys.exit(str(error))
