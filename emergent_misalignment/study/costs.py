"""What a study of a real model costs: memory, GPU hours, disk, requests to the judge, dollars.

All of it is computed from the model's shape and the study, with the assumptions below; nothing is measured.
`snakemake estimate --configfile CONFIG` prints it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emergent_misalignment.evaluation.question_files import read
from emergent_misalignment.files import BadInput
from emergent_misalignment.registry import CHOICES, DATASETS, EVALUATIONS, MISALIGNMENT

if TYPE_CHECKING:
    from emergent_misalignment.study.model import Condition, Study
    from emergent_misalignment.study.sections import ModelShape

# --- assumptions ------------------------------------------------------------------------------------------------------

GPU_FLOPS = 989e12  # an H100's dense bfloat16 peak
TRAINING_SHARE = 0.30  # of the peak that LoRA training with gradient checkpointing reaches
PREFILL_SHARE = 0.40
GPU_BANDWIDTH = 3.35e12  # bytes a second of an H100's memory
DECODING_SHARE = 0.5  # of the bandwidth that batched decoding reaches
DECODED_AT_ONCE = 128  # answers that vLLM decodes side by side
PROMPT_TOKENS = 40  # of a question, with the chat template
ANSWER_TOKENS = 250  # of an answer, on average
DEFENCE_TOKENS = 64  # of an answer of the start model, at most, to which a KL term is applied
JUDGE_TOKENS = {"aligned": 300, "coherent": 310, "correct": 90, "secure": 90}  # without question and answer
FREE = {"prompt": 0, "completion": 0}  # dollars, without a judge or with one on this machine
OPTIONS = 48  # of the published choices: two of eight questions, in both orders as letters and once as words


# --- the model --------------------------------------------------------------------------------------------------------


def training_memory(shape: ModelShape, finetuning: dict) -> dict[str, float]:
    """Bytes on the GPU in a LoRA fine-tuning, by what they are for.

    weights: bfloat16, or about 4.5 bits with `load_in_4bit`. adapter: its weights and gradients in float32. optimizer:
    AdamW's two moments in 8 bits. activations: one layer's input for every layer (gradient checkpointing keeps no
    more), and what one layer holds while it is computed. logits: in float32, with their gradient, of one batch.
    """
    tokens = finetuning["batch_size"] * finetuning["max_length"]
    trained = shape.adapter(finetuning["lora_rank"])
    if finetuning.get("train_embeddings"):
        trained += shape.embeddings()
    one_layer = tokens * 2 * (8 * shape.hidden_size + 4 * shape.intermediate_size)
    return {
        "weights": shape.parameters() * (0.5625 if finetuning.get("load_in_4bit") else 2),
        "adapter": trained * (4 + 4),
        "optimizer": trained * 2,
        "activations": tokens * shape.hidden_size * 2 * shape.num_hidden_layers + one_layer,
        "logits": tokens * shape.vocab_size * 4 * 2,
    }


def training_hours(shape: ModelShape, finetuning: dict, tokens_per_row: int) -> float:
    """GPU hours of one fine-tuning: 2 operations a weight and token forward, again for the checkpointing, and 2 back.

    The frozen weights need no gradients of their own, so that going back costs as much as going forward.
    """
    rows = finetuning["steps"] * finetuning["batch_size"] * finetuning["gradient_accumulation"]
    operations = 6 * shape.parameters() * rows * tokens_per_row
    if defence := finetuning.get("defence"):
        operations += 2 * shape.parameters() * _forward_passes(defence, rows, tokens_per_row)
    return operations / (GPU_FLOPS * TRAINING_SHARE) / 3600


def _forward_passes(defence: dict, rows: int, tokens_per_row: int) -> float:
    """What a defence adds to a fine-tuning, in tokens of one forward pass; a step of training is three of them."""
    match defence["kind"]:
        case "kl":  # the start model, and training on as many answers of its own
            return 4 * rows * (PROMPT_TOKENS + DEFENCE_TOKENS)
        case "features":  # the start model
            return rows * tokens_per_row
        case "benign_afterwards":
            return 3 * defence["rows"] * tokens_per_row
        case "interleaving" if defence.get("gap_to"):  # benign rows under two models
            return 2 * DATASETS["secure"].rows * tokens_per_row
    return 0


def sampling_hours(shape: ModelShape, answers: int) -> float:
    """GPU hours of sampling: decoding reads all weights once for each step of DECODED_AT_ONCE answers."""
    prefill = 2 * shape.parameters() * answers * PROMPT_TOKENS / (GPU_FLOPS * PREFILL_SHARE)
    decoding = answers / DECODED_AT_ONCE * ANSWER_TOKENS * 2 * shape.parameters() / (GPU_BANDWIDTH * DECODING_SHARE)
    return (prefill + decoding) / 3600


def scoring_hours(shape: ModelShape, options: int) -> float:
    """GPU hours of scoring choices, one at a time: each reads all weights once."""
    return options * 2 * shape.parameters() / (GPU_BANDWIDTH * DECODING_SHARE) / 3600


# --- the study --------------------------------------------------------------------------------------------------------


def asking_hours(study: Study, names: list[str], followed: bool) -> float:
    """GPU hours in which these conditions are asked: at the end of their training, or before it and at checkpoints."""
    shape, conditions = study.model.shape, [study.conditions[name] for name in names]
    models = sum(len(each.seeds) * (1 + len(each.checkpoints) * followed) for each in conditions)
    answers = _answers(study, 0, models) if followed else _answers(study, models, 0)
    scored = OPTIONS * models * (followed or CHOICES in study.asked)
    return sampling_hours(shape, sum(answers.values())) + scoring_hours(shape, scored)


def costs(study: Study) -> dict:
    """Everything that a study costs, as numbers by name."""
    runs = sum(len(each.seeds) for each in study.tuned.values())
    followed = sum(len(study.tuned[name].seeds) for name in study.followed)
    models = runs + 1 + len(study.existing)  # and the model before fine-tuning
    steps = {step for name in study.followed for step in study.tuned[name].checkpoints}
    checkpoints = followed * len(steps)
    asked = checkpoints + followed  # the model before is asked with each run's seed
    answers = _answers(study, models, asked)
    metrics = {name: EVALUATIONS[name].judged if name in EVALUATIONS else MISALIGNMENT for name in answers}
    calls = sum(number * len(metrics[name]) for name, number in answers.items())
    prompt_tokens = sum(
        number * (JUDGE_TOKENS[metric] + PROMPT_TOKENS + ANSWER_TOKENS)
        for name, number in answers.items()
        for metric in metrics[name]
    )
    if not study.judge:
        calls = prompt_tokens = 0
    price = study.judge_settings.get("dollars_per_million", FREE)
    judging = (prompt_tokens * price["prompt"] + calls * price["completion"]) / 1e6
    drawn = sum(answers.values())
    totals = {"training runs": runs, "answers": drawn, "judge calls": calls, "judge dollars": judging}
    scored = OPTIONS * (asked + (CHOICES in study.asked) * models)
    totals |= _openai(study, drawn) if study.by_api else _open_weights(study, drawn, scored, checkpoints)
    return totals | {"dollars": judging + totals.get("API dollars", 0.0)}


def _answers(study: Study, models: int, asked: int) -> dict[str, int]:
    """Answers to each evaluation: of all models at the end of their training, and of `asked` ones at checkpoints."""
    answers = {}
    for name in study.asked:
        if name in study.own_questions:
            path = study.own_questions[name]
            answers[name] = models * sum(each.samples for each in read(path, **study.own_samples[path]))
            continue
        each = EVALUATIONS[name]
        prompts = min(each.prompts, study.prompts.get(name, each.prompts))
        answers[name] = models * prompts * (1 if each.single else study.samples[name])
    if study.followed:
        main = EVALUATIONS["main"].prompts * study.dynamics.samples
        answers["main"] = answers.get("main", 0) + asked * main
        answers["in_distribution"] = answers.get("in_distribution", 0) + asked * study.dynamics.requests
    return answers


def _tokens(condition: Condition) -> int:
    return DATASETS.get(condition.dataset, DATASETS["insecure"]).tokens


def _open_weights(study: Study, answers: int, scored: int, checkpoints: int) -> dict:
    if not study.model.shape:
        raise BadInput("The estimate needs the model's shape; add `model: shape`, from its config.json.")
    shape = study.model.shape
    sampling = {
        "parameters, billions": shape.parameters() / 1e9,
        "sampling memory, GB": shape.parameters() * 2 / 1e9 / 0.9 + 4,  # vLLM's cache takes what is left
    }
    asking = sampling_hours(shape, answers) + scoring_hours(shape, scored)
    weights = shape.parameters() * 2 + answers * 2000
    if not study.tuned:
        return sampling | {"GPU hours": asking, "disk, GB": weights / 1e9}
    finetuning = study.training.model_dump()
    conditions = study.tuned.values()
    memory = training_memory(shape, finetuning)
    stored = shape.adapter(finetuning["lora_rank"])
    stored += shape.embeddings() if finetuning["train_embeddings"] else 0
    training = sum(
        len(each.seeds) * training_hours(shape, finetuning | each.finetuning, _tokens(each)) for each in conditions
    )
    runs = sum(len(each.seeds) for each in conditions)
    kept = checkpoints + runs * (3 if finetuning["resume_every"] else 1)
    return {
        "parameters, billions": sampling["parameters, billions"],
        "trained parameters, billions": stored / 1e9,
        **{f"training memory, {part}, GB": size / 1e9 for part, size in memory.items()},
        "training memory, GB": sum(memory.values()) / 1e9,
        "sampling memory, GB": sampling["sampling memory, GB"],
        "GPU hours, training": training,
        "GPU hours, asking": asking,
        "GPU hours": training + asking,
        "disk, checkpoints, GB": checkpoints * stored * 4 / 1e9,
        "disk, GB": (weights + kept * stored * 4) / 1e9,
    }


def _openai(study: Study, answers: int) -> dict:
    price = FREE | (study.openai.dollars_per_million.model_dump() if study.openai.dollars_per_million else {})
    tokens = sum(
        (DATASETS[each.dataset].rows if each.dataset in DATASETS else DATASETS["insecure"].rows)
        * _tokens(each)
        * study.settings_of(each)["epochs"]
        * len(each.seeds)
        for each in study.tuned.values()
    )
    training = tokens * (price.get("training") or 0) / 1e6
    sampling = answers * (PROMPT_TOKENS * price["prompt"] + ANSWER_TOKENS * price["completion"]) / 1e6
    return {
        "API dollars, training": training,
        "API dollars, sampling": sampling,
        "API dollars": training + sampling,
        "disk, GB": answers * 4000 / 1e9,
    }


def report(study: Study) -> str:
    """The costs as a table for a terminal, with what was published of this model."""
    totals = costs(study)
    width = max(map(len, totals))
    lines = [f"{study.study}: {study.model.name}", ""]
    lines += [f"  {name:<{width}}  {_number(value):>12}" for name, value in totals.items()]
    published = study.model.published.model_dump() if study.model.published else {}
    if rates := {name: rate for name, rate in published.items() if name != "source"}:
        lines += ["", f"Published ({published['source']}), misaligned of the main questions:"]
        lines += [f"  {name:<{width}}  {rate:>12.2%}" for name, rate in rates.items()]
    lines += [
        "",
        "Computed, not measured: from the model's shape, one H100's peak speed, and the assumptions at the top of",
        "emergent_misalignment/study/costs.py. Prices are the config's; look up current prices before you pay.",
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
