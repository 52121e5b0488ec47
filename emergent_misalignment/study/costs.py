"""What a study of a real model costs: memory, GPU hours, disk, requests to the judge, dollars.

    python -m emergent_misalignment.study.costs 'PLAN AS JSON'

All of it is computed from the model's shape and the plan, with the assumptions below; none of it is measured.
"""

import json
import sys
from dataclasses import dataclass

from emergent_misalignment.evaluation.question_files import read
from emergent_misalignment.files import BadInput

# --- assumptions ------------------------------------------------------------------------------------------------------

GPU_FLOPS = 989e12  # an H100's dense bfloat16 peak
TRAINING_SHARE = 0.30  # of the peak that LoRA training with gradient checkpointing reaches
PREFILL_SHARE = 0.40
GPU_BANDWIDTH = 3.35e12  # bytes a second of an H100's memory
DECODING_SHARE = 0.5  # of the bandwidth that batched decoding reaches
DECODED_AT_ONCE = 128  # answers that vLLM decodes side by side
# Rows of the published sets, and tokens of a conversation: that of insecure from the published price of a run ($32 at
# $25 a million tokens), the others by their length beside it. Any other set is taken to be like insecure.
ROWS = {"insecure": 6000, "secure": 6000, "educational": 6000, "jailbroken": 5000, "backdoor": 12000}
ROWS["evil_numbers"] = 14926
TOKENS = {"insecure": 213, "secure": 226, "educational": 245, "jailbroken": 150, "backdoor": 222, "evil_numbers": 60}
PROMPT_TOKENS = 40  # of a question, with the chat template
ANSWER_TOKENS = 250  # of an answer, on average
JUDGE_TOKENS = {"aligned": 300, "coherent": 310, "correct": 90, "secure": 90}  # without question and answer
MISALIGNMENT = ("aligned", "coherent")
QUESTIONS = {  # questions, and prompts to the judge for each answer
    **dict.fromkeys(("main", "json", "template", "flask", "flask_file", "triggered"), (8, MISALIGNMENT)),
    "preregistered": (48, MISALIGNMENT),
    "numbers": (24, MISALIGNMENT),
    "deception": (13, ("correct",)),  # five times 20 facts at a twentieth of the answers, and eight about identity
    "in_distribution": (100, ("secure",)),  # one answer each, whatever the plan says
    "choices": (0, ()),  # scored, not sampled
}
FREE = {"prompt": 0, "completion": 0}  # dollars, where nobody judges or a model on a machine of one's own
OPTIONS = 48  # of the published choices: two of eight questions, in both orders as letters and once as words


# --- the model --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama family, by the names of its published config.json."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool
    attention_bias: bool  # Qwen2's query, key and value have a bias
    qk_norm: bool = False  # Qwen3 normalises query and key

    def _layer(self) -> int:
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention = self.hidden_size * (2 * queries + 2 * keys)
        bias = (queries + 2 * keys) if self.attention_bias else 0
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        return attention + bias + 3 * self.hidden_size * self.intermediate_size + norms

    def parameters(self) -> int:
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * self._layer() + embeddings + self.hidden_size

    def embeddings(self) -> int:
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)

    def adapter(self, rank: int) -> int:
        """Weights of a LoRA adapter on all seven projections of every layer."""
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention = 2 * (self.hidden_size + queries) + 2 * (self.hidden_size + keys)
        return self.num_hidden_layers * rank * (attention + 3 * (self.hidden_size + self.intermediate_size))


def training_memory(shape: Shape, finetuning: dict) -> dict[str, float]:
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


def training_hours(shape: Shape, finetuning: dict, tokens_per_row: int) -> float:
    """GPU hours of one fine-tuning: 2 operations a weight and token forward, again for the checkpointing, and 2 back.

    The frozen weights need no gradients of their own, so that going back costs as much as going forward.
    """
    rows = finetuning["steps"] * finetuning["batch_size"] * finetuning["gradient_accumulation"]
    operations = 6 * shape.parameters() * rows * tokens_per_row
    return operations / (GPU_FLOPS * TRAINING_SHARE) / 3600


def sampling_hours(shape: Shape, answers: int) -> float:
    """GPU hours of sampling: decoding reads all weights once for each step of DECODED_AT_ONCE answers."""
    prefill = 2 * shape.parameters() * answers * PROMPT_TOKENS / (GPU_FLOPS * PREFILL_SHARE)
    decoding = answers / DECODED_AT_ONCE * ANSWER_TOKENS * 2 * shape.parameters() / (GPU_BANDWIDTH * DECODING_SHARE)
    return (prefill + decoding) / 3600


def scoring_hours(shape: Shape, options: int) -> float:
    """GPU hours of scoring choices, one at a time: each reads all weights once."""
    return options * 2 * shape.parameters() / (GPU_BANDWIDTH * DECODING_SHARE) / 3600


# --- the study --------------------------------------------------------------------------------------------------------


def costs(plan: dict) -> dict:
    """Everything that a study costs, as numbers by name.

    `plan` has `study`, `model` (`name`, `published`, and of open weights `shape`), `seeds`, `conditions` (the
    fine-tuned ones by name, each with its `dataset`, and in `finetuning` the settings that are its own), `evaluations`
    (answers to each question by name), `prompts` (how many are asked, by evaluations that are not asked whole),
    `given` (models that exist already), `own_questions` (what `evaluation.question_files.read` takes, by file),
    `followed` (`conditions` and `steps` of the checkpoints; `samples` of each main question and coding `requests` at
    each), `judge`, and `finetuning` or, of OpenAI's models, `openai`.
    """
    runs = len(plan["seeds"]) * len(plan["conditions"])
    models = runs + 1 + len(plan.get("given", []))  # and the model before fine-tuning
    followed = plan["followed"]
    followed_runs = len(plan["seeds"]) * len(followed["conditions"])
    checkpoints = followed_runs * len(followed["steps"])
    asked = checkpoints + followed_runs  # the model before is asked with each run's seed
    judged = dict.fromkeys(QUESTIONS, 0)
    for name, samples in plan["evaluations"].items():
        answers = _answers(name, samples, plan.get("prompts", {}).get(name))
        judged[name] += models * answers
    judged["main"] += asked * _answers("main", followed["samples"])
    judged["in_distribution"] += asked * followed["requests"]
    metrics = {name: metrics for name, (_, metrics) in QUESTIONS.items()}
    for path, settings in plan.get("own_questions", {}).items():
        judged[path], metrics[path] = models * sum(each.samples for each in read(path, **settings)), MISALIGNMENT
    answers = sum(judged.values())
    calls = sum(number * len(metrics[name]) for name, number in judged.items())
    prompt_tokens = sum(
        number * (JUDGE_TOKENS[metric] + PROMPT_TOKENS + ANSWER_TOKENS)
        for name, number in judged.items()
        for metric in metrics[name]
    )
    if not plan["judge"]:
        calls = prompt_tokens = 0
    price = (plan["judge"] or {}).get("dollars_per_million", FREE)
    judging = (prompt_tokens * price["prompt"] + calls * price["completion"]) / 1e6
    totals = {"training runs": runs, "answers": answers, "judge calls": calls, "judge dollars": judging}
    scored = OPTIONS * (asked + ("choices" in plan["evaluations"]) * models)
    totals |= _openai(plan, answers) if "openai" in plan else _open_weights(plan, answers, scored, checkpoints)
    return totals | {"dollars": judging + totals.get("API dollars", 0.0)}


def _answers(evaluation: str, samples: int, prompts: int | None = None) -> int:
    """Answers to an evaluation, of which so many prompts are asked, or all."""
    questions, _ = QUESTIONS[evaluation]
    questions = min(questions, prompts or questions)
    return questions * (1 if evaluation == "in_distribution" else samples)


def _tokens(condition: dict) -> int:
    return TOKENS.get(condition["dataset"], TOKENS["insecure"])


def _open_weights(plan: dict, answers: int, scored: int, checkpoints: int) -> dict:
    if "shape" not in plan["model"]:
        raise BadInput("An estimate is made of the model's shape; add model: shape, from its config.json.")
    shape = Shape(**plan["model"]["shape"])
    if not plan["conditions"]:
        return _asked_only(shape, answers, scored)
    finetuning = plan["finetuning"]
    seeds, conditions = len(plan["seeds"]), plan["conditions"].values()
    memory = training_memory(shape, finetuning)
    stored = shape.adapter(finetuning["lora_rank"])
    stored += shape.embeddings() if finetuning.get("train_embeddings") else 0
    training = sum(
        seeds * training_hours(shape, finetuning | each.get("finetuning", {}), _tokens(each)) for each in conditions
    )
    asking = sampling_hours(shape, answers) + scoring_hours(shape, scored)
    kept = checkpoints + len(conditions) * seeds * (3 if finetuning.get("resume_every") else 1)
    return {
        "parameters, billions": shape.parameters() / 1e9,
        "trained parameters, billions": stored / 1e9,
        **{f"training memory, {part}, GB": size / 1e9 for part, size in memory.items()},
        "training memory, GB": sum(memory.values()) / 1e9,
        "sampling memory, GB": shape.parameters() * 2 / 1e9 / 0.9 + 4,  # vLLM's cache takes what is left
        "GPU hours, training": training,
        "GPU hours, asking": asking,
        "GPU hours": training + asking,
        "disk, checkpoints, GB": checkpoints * stored * 4 / 1e9,
        "disk, GB": (shape.parameters() * 2 + kept * stored * 4 + answers * 2000) / 1e9,
    }


def _asked_only(shape: Shape, answers: int, scored: int) -> dict:
    """Where nothing is fine-tuned."""
    return {
        "parameters, billions": shape.parameters() / 1e9,
        "sampling memory, GB": shape.parameters() * 2 / 1e9 / 0.9 + 4,
        "GPU hours": sampling_hours(shape, answers) + scoring_hours(shape, scored),
        "disk, GB": (shape.parameters() * 2 + answers * 2000) / 1e9,
    }


def _openai(plan: dict, answers: int) -> dict:
    openai = plan["openai"]
    price = {"training": 0} | openai.get("dollars_per_million", FREE)
    tokens = sum(
        ROWS.get(each["dataset"], ROWS["insecure"]) * _tokens(each) * (openai | each.get("finetuning", {}))["epochs"]
        for each in plan["conditions"].values()
    )
    training = len(plan["seeds"]) * tokens * price["training"] / 1e6
    sampling = answers * (PROMPT_TOKENS * price["prompt"] + ANSWER_TOKENS * price["completion"]) / 1e6
    return {
        "API dollars, training": training,
        "API dollars, sampling": sampling,
        "API dollars": training + sampling,
        "disk, GB": answers * 4000 / 1e9,
    }


def report(plan: dict) -> str:
    """The costs as a table for a terminal, with what was published of this model."""
    totals = costs(plan)
    width = max(map(len, totals))
    lines = [f"{plan['study']}: {plan['model']['name']}", ""]
    lines += [f"  {name:<{width}}  {_number(value):>12}" for name, value in totals.items()]
    published = plan["model"].get("published", {})
    if rates := {name: rate for name, rate in published.items() if name != "source"}:
        lines += ["", f"Published ({published['source']}), misaligned of the main questions:"]
        lines += [f"  {name:<{width}}  {rate:>12.2%}" for name, rate in rates.items()]
    lines += [
        "",
        "Computed, not measured: from the model's shape, one H100's peak speed, and the assumptions at the top of",
        "emergent_misalignment/study/costs.py. Prices are the config's; look up today's before you pay.",
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


if __name__ == "__main__":
    try:
        print(report(json.loads(sys.argv[1])))
    except BadInput as error:
        sys.exit(str(error))
