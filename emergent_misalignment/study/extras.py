"""The optional packages (the extras of pyproject.toml) that a study needs.

    python -m emergent_misalignment.study.extras config/smollm2-135m-instruct.yaml

prints their names. `make study` installs them; a run of snakemake checks them before anything is computed.
"""

import sys
from collections.abc import Collection
from importlib.util import find_spec

from emergent_misalignment.files import BadInput
from emergent_misalignment.study import schema
from emergent_misalignment.study.config import given, resolve

MODULES = {  # of each extra
    "models": ["openai"],
    "small": ["gguf"],
    "benchmarks": ["inspect_ai", "inspect_evals", "lm_eval"],
}
JUDGING = {"judge", "judge_again", "published_judge", "benchmark"}  # the rules that ask a judge model


def needed(config: dict) -> dict[str, set[str]]:
    """The extras that a study needs, and the rules that import them."""
    conditions = [each or {} for one in config["experiments"].values() for each in one["conditions"].values()]
    models = [config.get("model", {}).get("name", ""), *(each.get("model", "") for each in conditions)]
    judged = JUDGING if (config.get("judge") or {}).get("kind") == "model" else set()
    rules = {
        "models": judged | ({"finetune", "ask"} if "openai" in config else set()),
        "small": {"fetch_model"} if any(name.endswith(".gguf") for name in models) else set(),
        "benchmarks": {"benchmark"} if config.get("benchmarks") else set(),
    }
    return {extra: users for extra, users in rules.items() if users}


def by_vllm(config: dict) -> set[str]:
    """The rules that start vLLM (models/serving.py) because the config requires it; no extra installs it."""
    judge = config.get("judge") or {}
    rules = {"ask", "persona_texts", "benchmark"} if config["evaluation"].get("engine") == "vllm" else set()
    rules |= {"judge", "published_judge", "benchmark"} if "serve" in judge else set()
    return rules | ({"judge_again"} if "serve" in judge.get("second", {}) else set())


def check(config: dict, rules: Collection[str]) -> None:
    """Raises BadInput if a package is missing that one of these rules imports."""
    for extra, users in needed(config).items():
        missing = [module for module in MODULES[extra] if find_spec(module) is None]
        if missing and users & set(rules):
            raise BadInput(
                f"This study needs the package {missing[0]}, which is not installed; run `pip install -c "
                f"requirements.lock -e '.[{extra}]'`, or start it with `make study STUDY={config['study']}`."
            )


if __name__ == "__main__":
    try:
        study = resolve(given(sys.argv[1:], []))
        schema.check(study)
    except BadInput as error:
        sys.exit(str(error))
    print(*needed(study))
