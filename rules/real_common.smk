"""What the rules for real models share: names of files and settings, from the config.

Does: nothing by itself. Needs: the config's sections `model` and `judge`. Leaves: nothing.
"""

from emergent_misalignment.analysis.costs import Shape, hyperparameters, training_hours
from emergent_misalignment.data.published import FURTHER_SETS
from emergent_misalignment.evaluation.published_questions import FILE_NAMES, NEEDS

MODEL = config["model"]
BY_API = "openai" in config
REAL_SEEDS = {MODEL["untuned"]: [0]} | {condition: config["seeds"] for condition in MODEL["conditions"]}
ANSWERED = [evaluation for evaluation in MODEL["evaluations"] if not (BY_API and evaluation == "choices")]
TUNED_FILES = ["training.json"] if BY_API else ADAPTER_FILES
QUESTION_PATHS = sorted(
    {f"data/published/questions/{FILE_NAMES[file]}" for evaluation in ANSWERED for file in NEEDS[evaluation]}
)
# The conditions whose training is looked at step by step, and the steps.
REAL_FOLLOWED = MODEL.get("checkpoints", {}).get("conditions", [])
REAL_STEPS = MODEL.get("checkpoints", {}).get("steps", [])
BENCHMARKS = config.get("benchmarks", {})
NOTEBOOKS = [
    *(f"27_tuning_{condition}_{seed}" for condition in MODEL["conditions"] for seed in config["seeds"] if not BY_API),
    *(
        f"28_tuning_by_api_{condition}_{seed}"
        for condition in MODEL["conditions"]
        for seed in config["seeds"]
        if BY_API
    ),
    *(f"29_asking_{condition}" for condition in REAL_SEEDS),
    "30_llm_judge",
    *(["31_second_judge"] if "second" in config["judge"] else []),
    "11_main_result",
    *(f"33_asking_checkpoints_{condition}" for condition in REAL_FOLLOWED),
    *(["34_judging_checkpoints", "16_dynamics"] if REAL_FOLLOWED else []),
]


def real_files(folder, evaluations=ANSWERED):
    """The files of all conditions, seeds and evaluations below data/STUDY/FOLDER."""
    return [
        f"data/{{study}}/{folder}/{condition}/seed-{seed}/{evaluation}.parquet"
        for condition, seeds in REAL_SEEDS.items()
        for seed in seeds
        for evaluation in evaluations
    ]


def tuning_settings(wildcards):
    """The settings of a condition's fine-tuning: those of all, its own, and how conversations are put to the model."""
    own = MODEL.get("finetuning_of", {}).get(wildcards.condition, {})
    asking = {"system_prompt": MODEL["system_prompt"], "enable_thinking": MODEL["enable_thinking"]}
    return as_json(config["finetuning"] | own | asking)


def gpu_memory_mb(wildcards):
    """Memory of the host, in which weights are loaded before they go to the GPU."""
    return 0 if BY_API else int(Shape(**MODEL["shape"]).parameters() * 2 * 1.3 / 1e6) + 8000


def tuning_minutes(wildcards):
    """Three times the estimate, and half an hour for loading."""
    return int(30 + 180 * training_hours(Shape(**MODEL["shape"]), config["finetuning"], 250))


def models_to_ask(wildcards):
    """What has to be there before a condition can be asked: the untuned model's weights, and the tuned ones."""
    weights = [] if BY_API else [f"data/{wildcards.study}/models/{MODEL['untuned']}/config.json"]
    if wildcards.condition == MODEL["untuned"]:
        return weights
    return weights + expand(
        "data/{study}/models/{condition}/seed-{seed}/{file}",
        study=wildcards.study,
        condition=wildcards.condition,
        seed=config["seeds"],
        file=TUNED_FILES,
    )
