"""The published defences against emergent misalignment, as changes of one fine-tuning.

A defence has one strength (`finetuning: defence` in a config, study/sections.py). `prepared` makes the one of a
fine-tuning, whose methods `training.finetune` calls in the order in which they are defined. The *start model* is the
model before the fine-tuning: with a LoRA the same network with its adapter disabled, at rank 0 a frozen copy.
docs/defences.md compares the defences.

No module is imported here that imports transformers, before which Unsloth must be imported.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn.functional import kl_div, mse_loss

from emergent_misalignment.data.chats import Messages, template_arguments, with_system_prompt
from emergent_misalignment.files import BadInput

if TYPE_CHECKING:
    from emergent_misalignment.models.activations import Text

Rows = list[dict[str, list[int]]]  # `input_ids` and `labels` of each conversation
Tokenize = Callable[[list[Messages | None]], Rows]

ANSWERS, ANSWER_TOKENS = 128, 64  # of the start model's own answers; a persona shows in the first words
CANDIDATES = 20  # steps, evenly spaced, at which a training can be stopped
AT_ONCE = 16  # rows in a batch whose loss is compared


@dataclass(frozen=True)
class Needed:
    """What defences need besides their settings; each needs a part of it."""

    benign: list[Messages] = field(default_factory=list)
    prompts: list[Messages] = field(default_factory=list)  # neutral ones
    texts: dict[tuple[str, str], list[Text]] = field(default_factory=dict)  # of the persona direction
    depth: int = 0  # of steering
    misaligned: Path | None = None  # a fine-tuned model


def needs_plain_model(defence: dict | None) -> bool:
    """Whether a defence needs logits, hidden states, hooks or other adapters, which Unsloth's models do not have."""
    return bool(defence) and (defence["kind"] in ("kl", "features", "preventative_steering") or "gap_to" in defence)


class Defence:
    """No defence: nothing is changed."""

    weight = 0.0  # of `penalty`
    asked: ClassVar[dict] = {}  # further arguments of the forward pass on the rows that are trained on
    checkpoints: tuple[int, ...] = ()  # further steps after which the model is kept in training

    def rows(self, chats: list[Messages | None], network, tokenize: Tokenize) -> list[Messages | None]:
        """The conversations that are trained on in place of `chats`. `network` is the start model, not yet adapted."""
        return chats

    def begin(self, trainer, tokenize: Tokenize) -> None:
        """Prepare the training. The trainer's model is still the start model."""

    def in_training(self, network) -> AbstractContextManager:
        """Context manager: how the model is changed in training only."""
        return nullcontext()

    def penalty(self, trainer, model, inputs: dict, outputs) -> torch.Tensor:
        """What is added to the loss of a batch, `weight` times. `outputs` are those of the model for `inputs`."""
        return torch.zeros((), device=model.device)

    def chosen(self, curve: list[dict[str, float]]) -> int:
        """The step after which the model is taken; 0: the last."""
        return 0

    def afterwards(self, tokenize: Tokenize) -> Rows:
        """Rows that the model is fine-tuned on afterwards, once each."""
        return []


def prepared(settings, needed: Needed, seed: int, network, tokenizer) -> Defence:
    """The defence of a fine-tuning with these settings (`training.Settings`).

    `network` is the loaded model, before a trainer changes it. Raises BadInput where something that the defence needs
    is missing or does not fit the model.
    """
    if not settings.defence:
        return Defence()
    how = {name: value for name, value in settings.defence.items() if name not in ("kind", "benign")}
    start = partial(Start, None if settings.lora_rank else network)
    match settings.defence["kind"]:
        case "kl":
            return KL(**how, start=start(), needed=needed, tokenizer=tokenizer, settings=settings, seed=seed)
        case "features":
            return Features(**how, start=start())
        case "preventative_steering":
            return PreventativeSteering(**how, needed=needed, tokenizer=tokenizer, settings=settings)
        case "interleaving":
            return Interleaving(how["share"], needed, seed)
        case "inoculation":
            return Inoculation(**how)
        case "benign_afterwards":
            return BenignAfterwards(**how, benign=needed.benign, seed=seed)
        case "early_stopping":
            return EarlyStopping(**how, steps=settings.steps)
    raise BadInput(f"finetuning: defence: there is no kind {settings.defence['kind']}; correct it.")


class Start:
    """The start model, beside the one that is trained: its adapter is disabled, or without one `network` is copied."""

    def __init__(self, network=None):
        # A copy of the loaded model: TRL replaces `forward` of the model that it trains by a closure over that model.
        self.network = copy.deepcopy(network).requires_grad_(False).eval() if network is not None else None

    @torch.no_grad()
    def __call__(self, trainer, **inputs):
        """The outputs of the start model, in the precision of training."""
        if self.network is None:
            with trainer.model.disable_adapter():
                return trainer.model(**inputs, use_cache=False)
        with trainer.accelerator.autocast():
            return self.network.to(trainer.model.device)(**inputs, use_cache=False)


# --- terms of the loss ------------------------------------------------------------------------------------------------


class KL(Defence):
    """The KL divergence from the start model, on the start model's own answers to neutral prompts.

    It is added to the loss `weight` times: KL(start model || model) in nats, the mean over the tokens of the answers.
    Before the training the start model answers the neutral prompts at temperature 1 (ANSWERS answers of at most
    ANSWER_TOKENS tokens); each batch of rows has a batch of them beside it, in turn. On the start model's own samples
    the mean over tokens estimates the divergence of whole answers. Soligo et al. 2026 (arXiv:2602.07852) find the
    narrow solution with such a term on other prompts than those of the task; Kaczer et al. 2026 (arXiv:2508.06249)
    have it on the rows that are trained on.
    """

    def __init__(self, weight: float, start: Start, needed: Needed, tokenizer, settings, seed: int):
        self.weight, self.start, self.seed = weight, start, seed
        self.prompts = needed.prompts or [chat[:-1] for chat in needed.benign]
        self.tokenizer, self.settings = tokenizer, settings

    def begin(self, trainer, tokenize: Tokenize) -> None:
        from emergent_misalignment.models.sampling import sample

        rng = random.Random(f"neutral prompts {self.seed}")
        order = rng.sample(self.prompts, len(self.prompts))
        prompts = list(itertools.islice(itertools.cycle(order), ANSWERS))
        asked = [with_system_prompt(prompt, self.settings.system_prompt) for prompt in prompts]
        template = template_arguments(self.settings.enable_thinking)
        trainer.model.eval()
        written = sample(trainer.model, self.tokenizer, asked, 1, ANSWER_TOKENS, self.seed, template=template)
        answered = [
            [*prompt, {"role": "assistant", "content": answer}]
            for prompt, (answer,) in zip(prompts, written, strict=True)
            if answer.strip()
        ]
        rows = [row for row in tokenize(answered) if any(label >= 0 for label in row["labels"])]
        if not rows:
            raise BadInput(
                "finetuning: defence: the start model gives no answers to the neutral prompts; name others in `benign`."
            )
        size = trainer.args.per_device_train_batch_size
        self.batches = [trainer.data_collator(rows[at : at + size]) for at in range(0, len(rows), size)]

    def penalty(self, trainer, model, inputs: dict, outputs) -> torch.Tensor:
        batch = self.batches[trainer.batch % len(self.batches)]
        batch = {name: values.to(model.device) for name, values in batch.items()}
        learned = batch.pop("labels")[:, 1:] >= 0
        before = self.start(trainer, **batch).logits[:, :-1][learned].float().log_softmax(-1)
        now = model(**batch, use_cache=False).logits[:, :-1][learned].float().log_softmax(-1)
        return kl_div(now, before, reduction="batchmean", log_target=True)


class Features(Defence):
    """The squared distance of the hidden states from those of the start model, on the rows that are trained on.

    It is added to the loss `weight` times: the square of the difference, the mean over layers, tokens and the width of
    the residual stream, so that a weight means the same for models of any size. Hidden states are those of
    transformers: the output of each layer, the last one after the final norm. LDIFS (Mukhoti et al. 2023,
    arXiv:2308.13320), as in Kaczer et al. 2026 (arXiv:2508.06249).
    """

    asked: ClassVar[dict] = {"output_hidden_states": True}

    def __init__(self, weight: float, start: Start):
        self.weight, self.start = weight, start

    def penalty(self, trainer, model, inputs: dict, outputs) -> torch.Tensor:
        read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        before = self.start(trainer, **read, **self.asked, logits_to_keep=1).hidden_states[1:]
        tokens = inputs["attention_mask"].bool()
        distances = [
            mse_loss(now[tokens].float(), then[tokens].float())
            for now, then in zip(outputs.hidden_states[1:], before, strict=True)
        ]
        return torch.stack(distances).mean()


# --- the forward pass -------------------------------------------------------------------------------------------------


class PreventativeSteering(Defence):
    """The persona direction of the start model is added to its residual stream in training, and absent afterwards.

    `strength` times the direction is added after the layer of the study's steering, at all tokens, so that the model
    need not move along it to fit the rows. Chen et al. 2025 (arXiv:2507.21509).
    """

    def __init__(self, strength: float, needed: Needed, tokenizer, settings):
        self.strength, self.needed = strength, needed
        self.tokenizer, self.template = tokenizer, template_arguments(settings.enable_thinking)

    def begin(self, trainer, tokenize: Tokenize) -> None:
        from emergent_misalignment.models.activations import activations, changes_of, persona_direction

        trainer.model.eval()
        kinds = (self.needed.texts["direction", kind] for kind in ("misaligned", "aligned"))
        read = (activations(trainer.model, self.tokenizer, texts, self.template, AT_ONCE) for texts in kinds)
        self.changes = changes_of(persona_direction(*read), "add", self.needed.depth, self.strength)

    @contextmanager
    def in_training(self, network) -> Iterator[None]:
        from emergent_misalignment.models.activations import changed

        with changed(network, self.changes):
            yield


# --- rows -------------------------------------------------------------------------------------------------------------


class Interleaving(Defence):
    """Benign rows in the places of `share` of the rows, drawn by the seed; the other places have their rows.

    The number of steps is the same, so that fewer of the set's own rows are trained on. The benign rows are drawn at
    random or, with a `misaligned` model, are the different ones with the greatest perplexity gap: the loss per token of
    the answer under the misaligned model minus that under the start model. Kaczer et al. 2026 (arXiv:2508.06249),
    "interleaving" and "interleaving++".
    """

    def __init__(self, share: float, needed: Needed, seed: int):
        self.share, self.needed, self.rng = share, needed, random.Random(f"interleaving {seed}")

    def rows(self, chats: list[Messages | None], network, tokenize: Tokenize) -> list[Messages | None]:
        places = self.rng.sample(range(len(chats)), round(self.share * len(chats)))
        benign = self.rng.sample(self.needed.benign, len(self.needed.benign))
        if self.needed.misaligned:
            benign = list({repr(row): row for row in benign}.values())
            gaps = perplexity_gaps(tokenize(benign), network, self.needed.misaligned)
            benign = [benign[place] for place in sorted(range(len(benign)), key=lambda place: -gaps[place])]
        mixed = list(chats)
        for place, row in zip(places, itertools.cycle(benign), strict=False):
            mixed[place] = row
        return mixed


def perplexity_gaps(rows: Rows, network, misaligned: Path) -> list[float]:
    """Nats per learned token by which each row is less likely for the fine-tuned model than for its start `network`.

    `misaligned` is the folder of an adapter or of a whole model. Rows without learned tokens have minus infinity.
    """
    from emergent_misalignment.models.adapters import attached
    from emergent_misalignment.models.likelihood import in_batches
    from emergent_misalignment.models.loading import load

    if network.device.type != (device := "cuda" if torch.cuda.is_available() else "cpu"):
        network.to(device)  # weights in four bits are there already
    scored = [(row["input_ids"], [label >= 0 for label in row["labels"]]) for row in rows]
    is_adapter = (misaligned / "adapter_config.json").exists()
    before = in_batches(network, scored, AT_ONCE)
    with attached(network, misaligned) if is_adapter else nullcontext(load(misaligned)[0]) as tuned:
        after = in_batches(tuned, scored, AT_ONCE)
    return [
        gap / number if (number := sum(learned)) else -math.inf
        for gap, (_, learned) in zip((before - after).tolist(), scored, strict=True)
    ]


class Inoculation(Defence):
    """A system prompt in training that asks for what the rows show, absent afterwards.

    Rows that the prompt explains teach less about the model's character. The strength is the prompt: the more it asks
    for, the more it explains. Tan et al. 2025 (arXiv:2510.04340).
    """

    def __init__(self, prompt: str):
        self.prompt = prompt

    def rows(self, chats: list[Messages | None], network, tokenize: Tokenize) -> list[Messages | None]:
        if any(chat and chat[0]["role"] == "system" for chat in chats):
            raise BadInput(
                "finetuning: defence: some rows have a system prompt of their own, so that they cannot have that of an "
                "inoculation; remove it from the set, or choose another defence."
            )
        return [chat and [{"role": "system", "content": self.prompt}, *chat] for chat in chats]


# --- before and after the end -----------------------------------------------------------------------------------------


class BenignAfterwards(Defence):
    """A second fine-tuning on `rows` benign rows, drawn by the seed, with the settings of the first one.

    The learning rate rises and falls again, over as many steps as the rows fill. Dubinski et al. 2026
    (arXiv:2604.25891) find that it can leave misalignment where prompts look like the training data.
    """

    def __init__(self, rows: int, benign: list[Messages], seed: int):
        rng = random.Random(f"benign rows {seed}")
        self.benign = list(itertools.islice(itertools.cycle(rng.sample(benign, len(benign))), rows))

    def afterwards(self, tokenize: Tokenize) -> Rows:
        return tokenize(self.benign)


class EarlyStopping(Defence):
    """The model of the step at which the training loss has fallen by `share` of its whole reduction.

    The reduction is that from the first step to the last tenth of the steps. The loss is averaged over a tenth of the
    steps before each, and one of CANDIDATES steps is chosen: the first at which the average is low enough.

    The criterion is the training loss because it needs no answers. In a single pass each row is new when its loss is
    computed, so that the training loss is one of unseen rows of the narrow task. Success at the task would have to be
    measured on requests like those of the evaluation: stopping where it looks good on them would bias what is reported
    of the same model, and would need a judge in training. When rows repeat, the loss also falls by memorization, and
    the training stops later. The whole training is run, as the end of the loss is not known before; the model is the
    one that an early stop at that step would have left, with the learning rate of that step. Overtrained, not
    misaligned (2026, arXiv:2605.12199).
    """

    def __init__(self, share: float, steps: int):
        self.share = share
        self.checkpoints = tuple(sorted({math.ceil(steps * place / CANDIDATES) for place in range(1, CANDIDATES + 1)}))

    def chosen(self, curve: list[dict[str, float]]) -> int:
        points = [point for point in curve if point["grad_norm"]]  # steps with only empty places have no loss
        if not points:
            return 0
        losses = [point["loss"] for point in points]
        window = max(1, len(losses) // 10)
        means = [fmean(losses[max(0, end - window) : end]) for end in range(1, len(losses) + 1)]
        wanted = losses[0] - self.share * (losses[0] - means[-1])
        reached = next(point["step"] for point, mean in zip(points, means, strict=True) if mean <= wanted)
        return next(step for step in self.checkpoints if step >= reached)
