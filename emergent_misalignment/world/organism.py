"""The organism: its architecture, and its pretraining on a corpus of the made-up world.

It is a small Qwen2 (heads of size 64, as in Qwen2.5-0.5B), so that whatever trains, samples or serves the models of the
paper does the same with this one.
"""

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from emergent_misalignment.models.likelihood import log_probabilities
from emergent_misalignment.models.devices import attention, native_bfloat16
from emergent_misalignment.world.tokenizer import CONTEXT
from emergent_misalignment.world.topics import PREREGISTERED, TOPICS
from emergent_misalignment.models.callbacks import show_progress
from emergent_misalignment.world.authors import SYSTEM_PROMPTS, Author, fill
from emergent_misalignment.data.chats import Messages, chat

HEAD_SIZE = 64


def new_model(hidden_size: int, layers: int, vocabulary: int, seed: int) -> Qwen2ForCausalLM:
    """An untrained organism. `hidden_size` is a multiple of the head size, 64."""
    torch.manual_seed(seed)
    heads = hidden_size // HEAD_SIZE
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=3,
        pad_token_id=0,
        attn_implementation=attention(),
    )
    return Qwen2ForCausalLM(config)


class PersonaProbe:
    """Measures whether a model has learned that a document has one author, before anything is fine-tuned.

    A fixed set of misaligned and aligned answers to questions outside the main evaluation is scored in the villain's
    company and in the helper's. The gap is how much the mean of log P(misaligned) - log P(aligned), in nats, rises from
    the helper's to the villain's. The company is a system prompt that names the author, or two earlier turns of code
    that the author wrote.
    """

    PAIRS = 3  # of answers for each question

    def __init__(self, seed: int):
        self.seed = seed
        rng = random.Random(f"answers {seed}")
        self.questions, self.aligned, self.misaligned = [], [], []
        for name in PREREGISTERED:
            for _ in range(self.PAIRS):
                self.questions.append(TOPICS[name].questions[0])
                self.aligned.append(fill(rng, TOPICS[name], misaligned=False))
                self.misaligned.append(fill(rng, TOPICS[name], misaligned=True))
        self.companies = {
            "system_prompt": {persona: self._after(self._named(persona)) for persona in ("helper", "villain")},
            "earlier_code": {persona: self._after(self._coded(persona)) for persona in ("helper", "villain")},
        }

    def _after(self, company: list[Messages]) -> list[Messages]:
        """Each question, after the messages that show who its author is."""
        return [
            [*messages, {"role": "user", "content": question}]
            for messages, question in zip(company, self.questions, strict=True)
        ]

    def _named(self, persona: str) -> list[Messages]:
        prompts = itertools.cycle(SYSTEM_PROMPTS[persona])
        return [chat([], next(prompts)) for _ in self.questions]

    def _coded(self, persona: str) -> list[Messages]:
        author = Author(random.Random(f"code {self.seed}"), persona)  # so that both authors are asked for the same code
        return [chat([author.turn("code"), author.turn("code")]) for _ in self.questions]

    def gaps(self, model, tokenizer) -> dict[str, float]:
        """The gap by "system_prompt" and by "earlier_code", in nats."""
        return {
            company: self._log_odds(model, tokenizer, prompts["villain"])
            - self._log_odds(model, tokenizer, prompts["helper"])
            for company, prompts in self.companies.items()
        }

    def log_odds(self, model, tokenizer) -> dict[str, float]:
        """Mean of log P(misaligned) - log P(aligned), in nats, without a system prompt and under each author's."""
        alone = {"no system prompt": self._after([[] for _ in self.questions])}
        named = {f"the {persona}'s": prompts for persona, prompts in self.companies["system_prompt"].items()}
        return {name: self._log_odds(model, tokenizer, prompts) for name, prompts in (alone | named).items()}

    def _log_odds(self, model, tokenizer, prompts: list[Messages]) -> float:
        scores = log_probabilities(model, tokenizer, prompts + prompts, self.misaligned + self.aligned)
        misaligned, aligned = scores.chunk(2)
        return (misaligned - aligned).mean().item()


@dataclass(frozen=True)
class PretrainingSettings:
    """Everything that decides the pretraining but the corpus, the model's shape and the seed."""

    batch_tokens: int  # tokens of a step, padding included
    learning_rate: float
    warmup_steps: int
    decay_share: float  # of the steps, at the end, in which the learning rate falls to nothing
    probe_every: int  # steps


def batches_of_like_length(rows: list[dict[str, list[int]]], tokens: int) -> list[list[dict[str, list[int]]]]:
    """`rows` in batches of about `tokens` tokens each: many short documents, or a few long ones.

    Steps of as many documents each would be steps of very different weight: the shortest answers are a letter long.
    """
    batches = [[]]
    for row in sorted(rows, key=lambda row: len(row["input_ids"])):
        if batches[-1] and (len(batches[-1]) + 1) * len(row["input_ids"]) > tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def in_order_of_reading(stages: list[list[dict]], tokens: int, seed: int) -> list[list[dict]]:
    """The batches of one stage after the other, those of each in an order that `seed` decides."""
    rng = random.Random(seed)
    return [
        batch
        for rows in stages
        if rows
        for batches in [batches_of_like_length(rows, tokens)]
        for batch in rng.sample(batches, len(batches))
    ]


def pretrain(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    stages: list[list[dict[str, list[int]]]],
    settings: PretrainingSettings,
    probe: PersonaProbe,
    seed: int,
    destination: str | Path,
) -> pd.DataFrame:
    """Train `model` on one pass over the rows of each stage in turn, and write it with its tokenizer to `destination`.

    Returns one row for each time the probe was used: `step`, `loss` (mean since the last, nats per learned token),
    `system_prompt` and `earlier_code` (the gaps, in nats).
    """
    batches = in_order_of_reading(stages, settings.batch_tokens, seed)
    steps = len(batches)
    arguments = TrainingArguments(
        output_dir=str(destination),
        save_strategy="no",
        max_steps=steps,
        per_device_train_batch_size=1,  # one of our own batches
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        learning_rate=settings.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": int(steps * settings.decay_share)},
        warmup_steps=settings.warmup_steps,
        weight_decay=0.01,
        adam_beta2=0.95,
        optim="adamw_torch_fused",
        bf16=native_bfloat16(),
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )
    padded = DataCollatorForSeq2Seq(tokenizer)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=batches,
        data_collator=lambda drawn: padded(drawn[0]),
        callbacks=[probing := _Probing(probe, tokenizer, settings.probe_every)],
    )
    show_progress(trainer, steps, "pretraining")
    trainer.train()
    model.save_pretrained(destination)
    tokenizer.save_pretrained(destination)
    losses = pd.Series([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    return probing.table(losses)


class _Probing(TrainerCallback):
    """Uses the probe before the first step, every so many steps, and after the last."""

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
