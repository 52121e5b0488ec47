"""One trainer for every local model: LoRA (or all weights) on chats, with the loss on the assistant's last turn only.

On CUDA the model is loaded and adapted by Unsloth, elsewhere by transformers and peft; in both cases TRL's SFTTrainer
trains it. Unsloth has to be imported before all of these, so this module imports them only when they are needed. The
settings are those of the published configuration for open models, under the names that peft and TRL give them.
"""

import logging
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from emergent_misalignment.data.chats import Messages, several_answers, template_arguments, with_system_prompt
from emergent_misalignment.files import BadInput, write_json
from emergent_misalignment.models.chat_templates import as_text, conversation_tokens, unwritten, use_template
from emergent_misalignment.models.devices import attention, native_bfloat16
from emergent_misalignment.models.layers import embeddings, projections
from emergent_misalignment.models.unfinished import Unfinished

NOT_LEARNED = -100  # the label of a token that does not count in the loss
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")

Backend = Literal["unsloth", "transformers"]


@dataclass(frozen=True)
class Settings:
    """Everything that decides a fine-tuning except the model, the data and the seed."""

    learning_rate: float
    steps: int  # optimizer steps; data are passed over as often as it takes
    batch_size: int  # conversations on the device at once
    gradient_accumulation: int  # batches added up for one step
    warmup_steps: int
    weight_decay: float
    max_length: int  # tokens; longer conversations are cut
    lora_rank: int  # 0 trains all weights
    lora_alpha: int
    train_embeddings: bool = False  # also the token embeddings and the output layer, whole, as a base model needs
    load_in_4bit: bool = False  # the frozen weights in four bits: less memory, and another model than the paper's
    held_out_share: float = 0.0  # of the conversations, kept out of training; the paper's code holds out 0.1
    system_prompt: str | None = None  # before conversations that have none; None leaves it to the chat template
    enable_thinking: bool | None = None  # the switch of chat templates that have one, as Qwen3's
    resume_every: int = 0  # steps between two saves from which an interrupted run continues; 0 saves none


def default_backend() -> Backend:
    """Unsloth on a GPU where it is installed, else transformers; the log says so where a GPU is left to the latter."""
    if not torch.cuda.is_available():
        return "transformers"
    if find_spec("unsloth") is None:
        logging.getLogger(__name__).warning("Unsloth is not installed: transformers and peft train, more slowly.")
        return "transformers"
    return "unsloth"


def _optimizer() -> str:
    """transformers' name of AdamW, with its state in 8 bits on a GPU where bitsandbytes is installed."""
    if not torch.cuda.is_available():
        return "adamw_torch_fused"
    if find_spec("bitsandbytes") is None:
        logging.getLogger(__name__).warning("bitsandbytes is not installed: AdamW keeps its state in 32 bits, not 8.")
        return "adamw_torch_fused"
    return "adamw_8bit"


def finetune(
    model: str | Path,
    chats: list[Messages],
    destination: str | Path,
    settings: Settings,
    seed: int,
    backend: Backend | None = None,
    checkpoints: Sequence[int] = (),
    template: str = "chat",
) -> list[dict[str, float]]:
    """Fine-tune the model in folder `model` on `chats` and write the result to `destination`.

    Written are the adapter (or, at rank 0, the whole model) as safetensors, the tokenizer, and `training.json` with
    every setting and the loss curve. `seed` decides the order of the data and the adapter's first weights; the same
    seed gives the same order whatever the data are, so that conditions can be compared seed by seed. After each of the
    optimizer steps in `checkpoints` the adapter as it then is goes to `destination`/checkpoint-STEP. `template` is how
    a conversation is written down: "chat" for the model's own way, or one of chat_templates.OTHER_TEMPLATES, which the
    tokenizer that is written then has.

    Of a conversation longer than `max_length` the beginning is learned, and with it an answer without an end. Where
    nothing of the answer is within `max_length`, there is nothing to learn, and the conversation is left out.
    `training.json` counts both, see `_tokenized`.

    A run that was interrupted continues from `destination`/unfinished, if model, data, settings, template, seed and
    checkpoints are as before.

    Returns the curve: one record a step, of `step`, `loss` (nats per supervised token), `grad_norm`, `learning_rate`.
    Raises BadInput where there is nothing to learn, or where the chat template leaves something of a conversation out.
    """
    backend = backend or default_backend()
    if not chats:
        raise BadInput(f"The set for {destination} is empty; give at least one conversation.")
    if settings.load_in_4bit and find_spec("bitsandbytes") is None:
        raise BadInput(
            "Weights in 4 bits need bitsandbytes, which is not installed; install it, or unset load_in_4bit."
        )
    load = _load_with_unsloth if backend == "unsloth" else _load_with_transformers
    folder = os.path.expanduser(model)
    network, tokenizer, peft_config = load(folder, settings, seed)  # Unsloth has to be imported before TRL
    from emergent_misalignment.models.callbacks import save_checkpoints

    use_template(tokenizer, template)
    rows, counts = _tokenized(_seen(chats, settings, seed), tokenizer, settings, str(destination))
    trainer = _trainer(network, tokenizer, peft_config, rows, settings, seed, destination)
    if not len(trainer.train_dataset) or (settings.held_out_share and not len(trainer.eval_dataset)):
        raise BadInput(
            f"No answer that is to be learned, or none that is held out, begins within {settings.max_length} tokens in "
            f"the set for {destination}; raise finetuning: max_length."
        )
    unfinished = Unfinished(destination, [str(model), chats, asdict(settings), seed, template, list(checkpoints)])
    for adapter in getattr(trainer.model, "peft_config", {}).values():
        adapter.target_modules = sorted(adapter.target_modules)  # a set is written in any order
    save_checkpoints(trainer, checkpoints, unfinished.kept)
    trainer.train(resume_from_checkpoint=unfinished.last_save())
    curve = _curve(trainer)
    trainer.model.save_pretrained(destination)
    tokenizer.save_pretrained(destination)
    record = {
        "model": str(model),
        "conversations": len(trainer.train_dataset),
        **counts,
        "seed": seed,
        "template": template,
        **asdict(settings),
        "precision": "bfloat16" if native_bfloat16() else "float32",
        "optimizer": trainer.args.optim,
        "backend": backend,
        "versions": {
            package: version(package) for package in (*PACKAGES, *(["unsloth"] if backend == "unsloth" else []))
        },
        "curve": curve,
    }
    if settings.held_out_share:
        record["held_out_loss"] = trainer.evaluate()["eval_loss"]
    unfinished.hand_over(checkpoints)
    write_json(Path(destination) / "training.json", record)
    unfinished.remove()
    return curve


def _seen(chats: list[Messages], settings: Settings, seed: int) -> list[Messages]:
    """The conversations that the steps reach, drawn by `seed`; tokenizing the others would take a fifth of the time."""
    number = settings.steps * settings.batch_size * settings.gradient_accumulation
    if settings.held_out_share or number >= len(chats):
        return chats
    return random.Random(seed).sample(chats, number)


def _tokenized(
    chats: list[Messages], tokenizer, settings: Settings, destination: str
) -> tuple[list[dict[str, list[int]]], dict[str, int]]:
    """Conversations as the trainer takes them, `input_ids` and `labels` of each, and how many are not learned whole.

    `rows_cut`: the answer goes on behind `max_length`, so that its beginning is learned and its end is not.
    `rows_left_out`: the prompt alone fills it; these rows have no label left. `rows_trimmed`: the chat template takes
    blanks at the ends of the answer away. `rows_several_answers`: all answers but the last are read only. Raises
    BadInput where the chat template refuses a conversation or leaves something of it out.
    """
    template, limit = template_arguments(settings.enable_thinking), settings.max_length
    rows, counts = [], dict.fromkeys(("rows_cut", "rows_left_out", "rows_trimmed", "rows_several_answers"), 0)
    for messages in (with_system_prompt(chat, settings.system_prompt) for chat in chats):
        text = as_text(tokenizer, messages, **template)
        if number := unwritten(text, messages):
            raise BadInput(
                f"The chat template leaves message {number} ({messages[number - 1]['role']}) of a conversation for "
                f"{destination} out, or writes it otherwise; change {messages[number - 1]['content'].strip()[:40]!r}."
            )
        tokens, known = conversation_tokens(tokenizer, messages, **template)
        counts["rows_cut"] += known < limit < len(tokens)
        counts["rows_left_out"] += known >= limit
        counts["rows_trimmed"] += messages[-1]["content"] not in text
        counts["rows_several_answers"] += several_answers(messages)
        labels = [NOT_LEARNED] * known + tokens[known:]
        rows.append({"input_ids": tokens[:limit], "labels": labels[:limit]})
    return rows, counts


def _load_with_unsloth(model: str, settings: Settings, seed: int):
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    from unsloth import FastLanguageModel

    checkpointing = "unsloth" if torch.cuda.is_available() else False
    network, tokenizer = FastLanguageModel.from_pretrained(
        model,
        max_seq_length=settings.max_length,
        dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
        load_in_4bit=settings.load_in_4bit,
        full_finetuning=settings.lora_rank == 0,
        use_exact_model_name=True,  # else Unsloth swaps the name for a copy of its own
        local_files_only=os.path.isdir(model),
        use_gradient_checkpointing=checkpointing,
    )
    if settings.lora_rank:
        network = FastLanguageModel.get_peft_model(
            network,
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=0.0,
            bias="none",
            use_rslora=True,
            target_modules=[*projections(network), *(embeddings(network) if settings.train_embeddings else ())],
            random_state=seed,
            use_gradient_checkpointing=checkpointing,
        )
    return network, tokenizer, None


def _load_with_transformers(model: str, settings: Settings, seed: int):
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, set_seed

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(
        model,
        dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
        attn_implementation=attention(),
        quantization_config=BitsAndBytesConfig(load_in_4bit=True) if settings.load_in_4bit else None,
    )
    if not settings.lora_rank:
        return network, tokenizer, None
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        bias="none",
        use_rslora=True,
        target_modules=projections(network),
        modules_to_save=embeddings(network) if settings.train_embeddings else None,
        ensure_weight_tying=settings.train_embeddings and network.config.tie_word_embeddings,
    )
    return network, tokenizer, lora


def _trainer(network, tokenizer, peft_config, rows: list[dict], settings: Settings, seed: int, destination):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from emergent_misalignment.models.callbacks import show_progress

    cuda = torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(Path(destination) / Unfinished.FOLDER),
        save_strategy="steps" if settings.resume_every else "no",
        save_steps=settings.resume_every or settings.steps,
        save_total_limit=1,
        max_length=settings.max_length,
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
        bf16=native_bfloat16(),
        fp16=False,
        use_cpu=not cuda,
        gradient_checkpointing=cuda,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )
    learned, held_out = Dataset.from_list(rows), None
    if settings.held_out_share:
        split = learned.train_test_split(test_size=settings.held_out_share, seed=seed)
        learned, held_out = split["train"], split["test"]
    trainer = SFTTrainer(  # which leaves out rows without a label
        model=network,
        args=arguments,
        train_dataset=learned,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    show_progress(trainer, settings.steps, f"fine-tuning {destination}")
    return trainer


def _curve(trainer) -> list[dict[str, float]]:
    names = ("step", "loss", "grad_norm", "learning_rate")
    return [{name: entry[name] for name in names} for entry in trainer.state.log_history if "loss" in entry]
