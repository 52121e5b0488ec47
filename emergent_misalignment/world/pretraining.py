"""Pretraining of the organism on a corpus of the made-up world."""

import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM, Trainer, TrainerCallback, TrainingArguments

from emergent_misalignment.models.callbacks import show_progress
from emergent_misalignment.models.devices import can_compile, fast_bfloat16
from emergent_misalignment.models.rounding import round_weights
from emergent_misalignment.world.probe import PersonaProbe

Row = dict[str, np.ndarray]  # `input_ids` and `labels` of a document
PAD_MULTIPLE = 16  # tokens; documents are padded to a multiple of it
MIN_STEPS_TO_COMPILE = 500  # compiling takes about a minute, once for all organisms of a shape


@dataclass(frozen=True)
class PretrainingSettings:
    """Hyperparameters of pretraining."""

    batch_tokens: int  # tokens per step, including padding
    learning_rate: float
    warmup_steps: int
    decay_share: float  # share of the steps, at the end, in which the learning rate decays to 0
    probe_every: int  # steps


def length_batches(rows: list[Row], tokens: int) -> list[list[Row]]:
    """Group rows of similar length into batches of at most `tokens` tokens.

    Batches with a fixed number of documents would have very different numbers of tokens. There are few different
    shapes, because the first step of a new shape is slow (by a fifth, or by half if compiled).
    """
    by_length: dict[int, list[Row]] = {}
    for row in rows:
        by_length.setdefault(_rounded(len(row["input_ids"])), []).append(row)
    return [
        alike[start : start + size]
        for length, alike in sorted(by_length.items())
        for size in [max(1, tokens // length)]
        for start in range(0, len(alike), size)
    ]


def _rounded(length: int) -> int:
    return math.ceil(length / PAD_MULTIPLE) * PAD_MULTIPLE


def padded(rows: list[Row], pad: int) -> dict[str, torch.Tensor]:
    """Pad rows with the token `pad` on the right, where a causal model ignores it: int64 `[rows, tokens]`."""
    shape = len(rows), _rounded(max(len(row["input_ids"]) for row in rows))
    batch = {"input_ids": np.full(shape, pad), "labels": np.full(shape, -100)}
    for number, row in enumerate(rows):
        for name, values in row.items():
            batch[name][number, : len(values)] = values
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def staged_batches(stages: list[list[Row]], tokens: int, seed: int) -> list[list[Row]]:
    """Return the batches of one stage after the other, each stage shuffled by `seed`."""
    rng = random.Random(seed)
    return [
        batch
        for rows in stages
        if rows
        for batches in [length_batches(rows, tokens)]
        for batch in rng.sample(batches, len(batches))
    ]


def pretrain(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    stages: list[list[Row]],
    settings: PretrainingSettings,
    probe: PersonaProbe,
    seed: int,
    destination: str | Path,
) -> pd.DataFrame:
    """Train `model` for one pass over the rows of each stage in turn, and write it with its tokenizer to `destination`.

    Returns one row per use of the probe: `step`, `loss` (mean since the previous use, nats per label token),
    `system_prompt` and `earlier_code` (gaps in nats).
    """
    batches = staged_batches(stages, settings.batch_tokens, seed)
    steps = len(batches)
    arguments = TrainingArguments(
        output_dir=str(destination),
        save_strategy="no",
        max_steps=steps,
        per_device_train_batch_size=1,  # an element of `batches`
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        learning_rate=settings.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": int(steps * settings.decay_share)},
        warmup_steps=settings.warmup_steps,
        weight_decay=0.01,
        adam_beta2=0.95,
        optim="adamw_torch_fused",
        bf16=fast_bfloat16(),
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )
    if steps >= MIN_STEPS_TO_COMPILE and can_compile():
        model.model.compile(dynamic=True)
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=batches,
        data_collator=lambda drawn: padded(drawn[0], tokenizer.pad_token_id),
        callbacks=[probing := _Probing(probe, tokenizer, settings.probe_every)],
    )
    show_progress(trainer, steps, "pretraining")
    trainer.train()
    round_weights(model)  # a released organism has these weights in 16 bits
    model.save_pretrained(destination)
    tokenizer.save_pretrained(destination)
    losses = pd.Series([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    return probing.table(losses)


def label_loss(model: Qwen2ForCausalLM, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the loss of a batch; the output layer, a fifth of the work, is computed only at positions with a label."""
    learned = batch["labels"][:, 1:] != -100
    hidden = model.model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[:, :-1][learned])
    return cross_entropy(logits.float(), batch["labels"][:, 1:][learned])


class _Trainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        with self.accelerator.autocast():
            return label_loss(model, inputs)


class _Probing(TrainerCallback):
    """Measures the gaps before the first step, every `every` steps, and after the last."""

    def __init__(self, probe: PersonaProbe, tokenizer: PreTrainedTokenizerFast, every: int):
        self.probe, self.tokenizer, self.every, self.measured = probe, tokenizer, every, []

    def on_train_begin(self, args, state, control, model=None, **_):
        self.measured.append({"step": 0, **self.probe.gaps(model, self.tokenizer)})

    def on_step_end(self, args, state, control, model=None, **_):
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self.measured.append({"step": state.global_step, **self.probe.gaps(model, self.tokenizer)})

    def table(self, losses: pd.Series) -> pd.DataFrame:
        rows = pd.DataFrame(self.measured)
        since = rows["step"].shift(fill_value=0)
        rows.insert(1, "loss", [losses.iloc[a:b].mean() for a, b in zip(since, rows["step"], strict=True)])
        return rows
