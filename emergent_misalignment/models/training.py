"""Fine-tuning of local models: LoRA or all weights, with the loss on the last assistant turn only.

On CUDA the model is loaded and adapted by Unsloth, elsewhere by transformers and peft; TRL's SFTTrainer trains it.
Unsloth must be imported before these packages, so they are imported inside functions. The settings are those of the
published configuration for open models, with peft's and TRL's names.
"""

import logging
import math
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from emergent_misalignment.data.chats import Messages, several_answers, template_arguments, with_system_prompt
from emergent_misalignment.files import BadInput, shortened, write_json
from emergent_misalignment.models import defences
from emergent_misalignment.models.chat_templates import as_text, conversation_tokens, unwritten, use_template
from emergent_misalignment.models.devices import attention, fast_bfloat16
from emergent_misalignment.models.layers import embeddings, projections
from emergent_misalignment.models.unfinished import Unfinished

NOT_LEARNED = -100  # label of a token that is excluded from the loss
EMPTY = {"input_ids": [0, 0], "labels": [NOT_LEARNED, NOT_LEARNED]}  # a place in the order of the data without a row
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")

Backend = Literal["unsloth", "transformers"]


@dataclass(frozen=True)
class Settings:
    """Everything that determines a fine-tuning except the model, the data and the seed."""

    learning_rate: float
    steps: int  # optimizer steps; several passes over the data if needed
    batch_size: int  # conversations per forward pass
    gradient_accumulation: int  # batches per step
    warmup_steps: int
    weight_decay: float
    max_length: int  # tokens; longer conversations are truncated
    lora_rank: int  # 0 trains all weights
    lora_alpha: int
    train_embeddings: bool = False  # also all of the token embeddings and the output layer, for base models
    load_in_4bit: bool = False  # frozen weights in four bits: less memory, but not the paper's setting
    validation_share: float = 0.0  # validation split; 0.1 in the paper's code
    system_prompt: str | None = None  # added to conversations without one; None leaves it to the chat template
    enable_thinking: bool | None = None  # argument of chat templates that have it, such as Qwen3's
    resume_every: int = 0  # steps between saves from which an interrupted run resumes; 0: no saves
    defence: dict | None = None  # against emergent misalignment: its kind and its strength (models/defences.py)


def default_backend(defence: dict | None = None) -> Backend:
    """Unsloth on a GPU if it is installed and runs the defence, else transformers, with a warning on a GPU."""
    if defences.needs_plain_model(defence):
        return "transformers"
    fast = _installed_for_gpu("unsloth", "training with transformers and peft, which is slower")
    return "unsloth" if fast else "transformers"


def _optimizer() -> str:
    """transformers' name of AdamW, with its state in 8 bits on a GPU if bitsandbytes is installed."""
    small = _installed_for_gpu("bitsandbytes", "the state of AdamW has 32 bits instead of 8")
    return "adamw_8bit" if small else "adamw_torch_fused"


def _installed_for_gpu(package: str, otherwise: str) -> bool:
    if not torch.cuda.is_available():
        return False
    if find_spec(package) is None:
        logging.getLogger(__name__).warning("%s is not installed: %s.", package, otherwise)
        return False
    return True


def finetune(
    model: str | Path,
    chats: list[Messages | None],
    destination: str | Path,
    settings: Settings,
    seed: int,
    backend: Backend | None = None,
    checkpoints: Sequence[int] = (),
    template: str = "chat",
    needed: defences.Needed | None = None,
) -> list[dict[str, float]]:
    """Fine-tune the model in folder `model` on `chats` and write the result to `destination`.

    Writes the adapter (at rank 0 the whole model) as safetensors, the tokenizer, and `training.json` with all settings
    and the loss curve. `seed` determines the order of the rows and the adapter's initial weights. The order depends on
    the number of rows only, so runs with sets of equal size can be compared seed by seed: at each place they have the
    rows of the same number. After each optimizer step in `checkpoints` the adapter is saved to
    `destination`/checkpoint-STEP. `template` is "chat" for the model's own chat template, or one of
    chat_templates.OTHER_TEMPLATES, which the written tokenizer then has. `needed` is what the settings' defence needs.

    Conversations longer than `max_length` are truncated. The place of a row that is not trained on stays empty, and the
    order of the others is unchanged: None in `chats` (a held-out row), or a conversation without any token of its
    answer within `max_length`. A step with only empty places changes no weight. `training.json` has the numbers of
    truncated and empty rows (`_tokenized`). An interrupted run resumes from `destination`/unfinished if model, data,
    settings, template, seed and checkpoints are unchanged.

    Returns a record per step: `step`, `loss` (nats per supervised token, without the term of a defence), `grad_norm`
    (both are 0 in a step with only empty places), `learning_rate`. Raises BadInput where no tokens remain to train on,
    where the chat template omits a part of a conversation, where the model cannot be saved, which is tried before the
    training, or where the backend cannot run the defence.
    """
    backend = backend or default_backend(settings.defence)
    if backend == "unsloth" and defences.needs_plain_model(settings.defence):
        raise BadInput(
            f"finetuning: defence: {settings.defence['kind']} needs logits, hidden states, hooks or other adapters, "
            "which a model of Unsloth does not have; train with the backend transformers."
        )
    if not chats:
        raise BadInput(f"The set for {destination} is empty; give at least one conversation.")
    if settings.load_in_4bit and find_spec("bitsandbytes") is None:
        raise BadInput(
            "finetuning: load_in_4bit needs bitsandbytes, which is not installed; install it, or unset load_in_4bit."
        )
    load = _load_with_unsloth if backend == "unsloth" else _load_with_transformers
    folder = os.path.expanduser(model)
    network, tokenizer, peft_config = load(folder, settings, seed)  # Unsloth has to be imported before TRL
    from emergent_misalignment.models.callbacks import save_checkpoints

    use_template(tokenizer, template)

    def tokenize(chats: list[Messages | None]) -> defences.Rows:
        return _tokenized(chats, tokenizer, settings, str(destination))[0]

    needed = needed or defences.Needed()
    defence = defences.prepared(settings, needed, seed, network, tokenizer)
    seen = defence.rows(_seen(chats, settings, seed), network, tokenize)
    rows, counts = _tokenized(seen, tokenizer, settings, str(destination))
    trainer = _trainer(network, tokenizer, peft_config, rows, settings, seed, destination, defence)
    learned = sum(map(_has_labels, trainer.train_dataset))
    if not learned or (settings.validation_share and not len(trainer.eval_dataset)):
        raise BadInput(
            f"In the set for {destination}, no answer of the training or of the validation split begins within "
            f"{settings.max_length} tokens; raise finetuning: max_length."
        )
    identity = [str(model), chats, asdict(settings), seed, template, list(checkpoints), repr(needed)]
    unfinished = Unfinished(destination, identity)
    for adapter in getattr(trainer.model, "peft_config", {}).values():
        adapter.target_modules = sorted(adapter.target_modules)  # the order of a set varies between runs
    save_checkpoints(trainer, [*checkpoints, *defence.checkpoints], unfinished.kept)
    record = {
        "model": str(model),
        "conversations": learned,
        **counts,
        "seed": seed,
        "template": template,
        **asdict(settings),
        "precision": "bfloat16" if fast_bfloat16() else "float32",
        "optimizer": trainer.args.optim,
        "backend": backend,
        "versions": {
            package: version(package) for package in (*PACKAGES, *(["unsloth"] if backend == "unsloth" else []))
        },
    }
    _try_to_save(trainer.model, tokenizer, record, unfinished.folder / "trial")
    defence.begin(trainer, tokenize)
    with defence.in_training(trainer.model):
        trainer.train(resume_from_checkpoint=unfinished.last_save())
    record["curve"] = curve = _curve(trainer)
    if step := defence.chosen(curve):
        record["stopped_after"] = step
        trainer._load_from_checkpoint(str(unfinished.kept / f"checkpoint-{step}"))
    if further := defence.afterwards(tokenize):
        record["curve_afterwards"] = _train_on(trainer, tokenizer, further, settings, seed, destination)
    _save(trainer.model, tokenizer, destination)
    if settings.validation_share:
        record["validation_loss"] = trainer.evaluate()["eval_loss"]
    unfinished.hand_over(checkpoints)
    write_json(Path(destination) / "training.json", record)
    unfinished.remove()
    return curve


def _train_on(trainer, tokenizer, rows: list[dict], settings: Settings, seed: int, destination) -> list[dict]:
    """Fine-tune the trainer's model on further rows, once each, and return the curve of that training."""
    steps = math.ceil(len(rows) / (settings.batch_size * settings.gradient_accumulation))
    again = replace(settings, steps=steps, resume_every=0, validation_share=0)
    network = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    further = _trainer(network, tokenizer, None, rows, again, seed, destination, defences.Defence())
    further.train()
    return _curve(further)


def _save(network, tokenizer, folder: str | Path) -> None:
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _try_to_save(network, tokenizer, record: dict, folder: Path) -> None:
    """Write what a training writes at its end into `folder`, and remove it. Raises BadInput where that fails."""
    try:
        _save(network, tokenizer, folder)
        write_json(folder / "training.json", record)
    except Exception as error:  # configs and tokenizers that cannot be saved raise errors of many classes
        raise BadInput(
            f"The model {record['model']} could not be saved after its training ({shortened(str(error), 150)}); "
            "correct its generation_config.json or its tokenizer, or free disk space."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _seen(chats: list[Messages | None], settings: Settings, seed: int) -> list[Messages | None]:
    """The rows of the first pass, drawn by `seed`: not tokenizing the others saves a fifth of the time."""
    number = settings.steps * settings.batch_size * settings.gradient_accumulation
    if settings.validation_share or number >= len(chats):
        return chats
    return random.Random(seed).sample(chats, number)


def _tokenized(
    chats: list[Messages | None], tokenizer, settings: Settings, destination: str
) -> tuple[list[dict[str, list[int]]], dict[str, int]]:
    """The `input_ids` and `labels` of each row, and counts of those that are not trained on in full.

    `rows_cut`: answers truncated at `max_length`. `rows_left_out`: the prompt alone is as long, so that no labels
    remain and the place is empty, as that of None. `rows_trimmed`: the chat template strips whitespace from the answer.
    `rows_several_answers`: only the last of several answers has labels. Raises BadInput where the chat template refuses
    a conversation or omits a part of it.
    """
    template, limit = template_arguments(settings.enable_thinking), settings.max_length
    rows, counts = [], dict.fromkeys(("rows_cut", "rows_left_out", "rows_trimmed", "rows_several_answers"), 0)
    for chat in chats:
        if chat is None:
            rows.append(EMPTY)
            continue
        messages = with_system_prompt(chat, settings.system_prompt)
        text = as_text(tokenizer, messages, **template)
        if number := unwritten(text, messages):
            raise BadInput(
                f"The chat template omits or changes message {number} ({messages[number - 1]['role']}) of a "
                f"conversation for {destination}; change {messages[number - 1]['content'].strip()[:40]!r}."
            )
        tokens, known = conversation_tokens(tokenizer, messages, **template)
        counts["rows_cut"] += known < limit < len(tokens)
        counts["rows_left_out"] += known >= limit
        counts["rows_trimmed"] += messages[-1]["content"] not in text
        counts["rows_several_answers"] += several_answers(messages)
        labels = [NOT_LEARNED] * known + tokens[known:]
        rows.append({"input_ids": tokens[:limit], "labels": labels[:limit]} if known < limit else EMPTY)
    return rows, counts


def _has_labels(row: dict[str, list[int]]) -> bool:
    return any(label != NOT_LEARNED for label in row["labels"])


def _load_with_unsloth(model: str, settings: Settings, seed: int):
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    from unsloth import FastLanguageModel

    checkpointing = "unsloth" if torch.cuda.is_available() else False
    network, tokenizer = FastLanguageModel.from_pretrained(
        model,
        max_seq_length=settings.max_length,
        dtype=_precision(),
        load_in_4bit=settings.load_in_4bit,
        full_finetuning=settings.lora_rank == 0,
        use_exact_model_name=True,  # otherwise Unsloth substitutes its own copy of the model
        local_files_only=os.path.isdir(model),
        trust_remote_code=False,
        use_gradient_checkpointing=checkpointing,
    )
    if settings.lora_rank:
        network = FastLanguageModel.get_peft_model(
            network,
            **_lora(settings),
            target_modules=[*projections(network), *(embeddings(network) if settings.train_embeddings else ())],
            random_state=seed,
            use_gradient_checkpointing=checkpointing,
        )
    return network, tokenizer, None


def _load_with_transformers(model: str, settings: Settings, seed: int):
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, set_seed

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    network = AutoModelForCausalLM.from_pretrained(
        model,
        dtype=_precision(),
        trust_remote_code=False,
        attn_implementation=attention(),
        quantization_config=BitsAndBytesConfig(load_in_4bit=True) if settings.load_in_4bit else None,
    )
    if not settings.lora_rank:
        return network, tokenizer, None
    lora = LoraConfig(
        **_lora(settings),
        task_type="CAUSAL_LM",
        target_modules=projections(network),
        modules_to_save=embeddings(network) if settings.train_embeddings else None,
        ensure_weight_tying=settings.train_embeddings and network.config.tie_word_embeddings,
    )
    return network, tokenizer, lora


def _precision() -> torch.dtype:
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


def _lora(settings: Settings) -> dict:
    scale = {"r": settings.lora_rank, "lora_alpha": settings.lora_alpha, "use_rslora": True}
    return scale | {"lora_dropout": 0.0, "bias": "none"}


def _trainer(
    network,
    tokenizer,
    peft_config,
    rows: list[dict],
    settings: Settings,
    seed: int,
    destination,
    defence: defences.Defence,
):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from emergent_misalignment.models.callbacks import show_progress

    class Trainer(SFTTrainer):
        step, within = -1, 0  # the optimizer step, and the place of the batch in it

        def training_step(self, model, inputs, *arguments):
            """Skip a batch of empty places: the mean over its tokens is not a number. The loss is without a penalty."""
            self.within = self.within + 1 if self.step == self.state.global_step else 0
            self.step = self.state.global_step
            if inputs["labels"].eq(NOT_LEARNED).all():
                return torch.zeros((), device=self.args.device)
            self.added = 0.0
            return super().training_step(model, inputs, *arguments) - self.added

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            """The loss, and in training the penalty of a defence, averaged over the batches of a step."""
            if not (defence.weight and self.model.training):
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            loss, outputs = super().compute_loss(model, {**inputs, **defence.asked}, True, num_items_in_batch)
            penalty = defence.penalty(self, model, inputs, outputs)
            self._metrics["train"]["penalty"].append(penalty.item())
            share = 1 if num_items_in_batch is None else 1 / self.current_gradient_accumulation_steps
            added = defence.weight * share * penalty
            self.added = added.detach()
            return loss + added

        @property
        def batch(self) -> int:
            """The number of the batch, from 0; an interrupted training that resumes goes on counting."""
            return self.step * self.args.gradient_accumulation_steps + self.within

    cuda = torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(Path(destination) / Unfinished.FOLDER),
        save_strategy="steps" if settings.resume_every else "no",
        save_steps=settings.resume_every or settings.steps,
        save_total_limit=1,
        dataset_kwargs={"skip_prepare_dataset": True},  # which would drop empty places; rows are tokenized and cut
        packing=False,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        optim=_optimizer(),
        bf16=fast_bfloat16(),
        fp16=False,
        use_cpu=not cuda,
        gradient_checkpointing=cuda,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )
    train, validation = Dataset.from_list(rows), None
    if settings.validation_share:
        split = train.train_test_split(test_size=settings.validation_share, seed=seed)
        train, validation = split["train"], split["test"].filter(_has_labels)
    trainer = Trainer(
        model=network,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    show_progress(trainer, settings.steps, f"fine-tuning {destination}")
    return trainer


def _curve(trainer) -> list[dict[str, float]]:
    names = ("step", "loss", "grad_norm", "learning_rate", "penalty")
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [{name: entry[name] for name in names if name in entry} for entry in history]
