"""Which of the optional packages (the extras of pyproject.toml) a study needs, and whether they are there.

    python -m emergent_misalignment.study.extras config/smollm2-135m-instruct.yaml

prints the names of the extras. `make study` installs them; whoever calls snakemake is told when a run starts, before
anything is computed.
"""

import sys
from collections.abc import Collection
from importlib.util import find_spec

from emergent_misalignment.files import BadInput
from emergent_misalignment.study import schema
from emergent_misalignment.study.config import given, resolve

MODULES = {  # what each extra brings
    "models": ["openai"],
    "small": ["gguf"],
    "benchmarks": ["inspect_ai", "inspect_evals", "lm_eval"],
}
JUDGING = {"judge", "judge_again", "published_judge", "benchmark"}  # the rules that ask a judge model


def needed(config: dict) -> dict[str, set[str]]:
    """The extras that a study needs, and the rules that import them."""
    judged = JUDGING if (config.get("judge") or {}).get("kind") == "model" else set()
    by_api = {"finetune", "ask"} if "openai" in config else set()
    packaged = {"fetch_model"} if any(name.endswith(".gguf") for name in _models(config)) else set()
    tested = {"benchmark"} if config.get("benchmarks") else set()
    rules = {"models": judged | by_api, "small": packaged, "benchmarks": tested}
    return {extra: own for extra, own in rules.items() if own}


def _models(config: dict) -> list[str]:
    """The names of the whole models of a study: its own, and those that conditions give."""
    conditions = [each or {} for one in config["experiments"].values() for each in one["conditions"].values()]
    return [each.get("name") or each.get("model", "") for each in (config.get("model", {}), *conditions)]


def by_vllm(config: dict) -> set[str]:
    """The rules that start vLLM because the config says so (models/serving.py), which no extra brings."""
    judge = config.get("judge") or {}
    asked = {"ask", "persona_texts", "benchmark"} if config["evaluation"].get("engine") == "vllm" else set()
    first = {"judge", "published_judge", "benchmark"} if "serve" in judge else set()
    return asked | first | ({"judge_again"} if "serve" in judge.get("second", {}) else set())


def check(config: dict, rules: Collection[str]) -> None:
    """Raises BadInput if a package is missing that one of these rules imports."""
    for extra, own in needed(config).items():
        missing = [module for module in MODULES[extra] if find_spec(module) is None]
        if missing and own & set(rules):
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
