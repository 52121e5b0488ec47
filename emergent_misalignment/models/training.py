"""One trainer for every local model: LoRA (or all weights) on chats, with the loss on the assistant's last turn only.

On CUDA the model is loaded and adapted by Unsloth, elsewhere by transformers and peft; in both cases TRL's SFTTrainer
trains it. Unsloth has to be imported before all of these, so this module imports them only when they are needed. The
settings are those of the published configuration for open models, under the names that peft and TRL give them.
"""

import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch

from emergent_misalignment.data.chats import Messages, template_arguments, with_system_prompt
from emergent_misalignment.files import BadInput, write_json
from emergent_misalignment.models.devices import attention, native_bfloat16
from emergent_misalignment.models.unfinished import Unfinished

EMBEDDINGS = ("embed_tokens", "lm_head")
LORA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
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
    return "unsloth" if torch.cuda.is_available() else "transformers"


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

    A run that was interrupted continues from `destination`/unfinished, if model, data, settings, template, seed and
    checkpoints are as before.

    Returns the curve: one record a step, of `step`, `loss` (nats per supervised token), `grad_norm`, `learning_rate`.
    """
    backend = backend or default_backend()
    if not chats:
        raise BadInput(f"The set for {destination} is empty; give at least one conversation.")
    load = _load_with_unsloth if backend == "unsloth" else _load_with_transformers
    network, tokenizer, peft_config = load(str(model), settings, seed)  # Unsloth has to be imported before TRL
    from emergent_misalignment.models.callbacks import save_checkpoints
    from emergent_misalignment.models.chat_templates import OTHER_TEMPLATES

    tokenizer.chat_template = OTHER_TEMPLATES.get(template, tokenizer.chat_template)
    seen = _seen(chats, settings, seed)
    trainer = _trainer(network, tokenizer, peft_config, seen, settings, seed, destination)
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
        "seed": seed,
        "template": template,
        **asdict(settings),
        "precision": "bfloat16" if native_bfloat16() else "float32",
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
            target_modules=[*LORA_MODULES, *(EMBEDDINGS if settings.train_embeddings else ())],
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
        target_modules=list(LORA_MODULES),
        modules_to_save=list(EMBEDDINGS) if settings.train_embeddings else None,
        ensure_weight_tying=settings.train_embeddings and network.config.tie_word_embeddings,
    )
    return network, tokenizer, lora


def _trainer(network, tokenizer, peft_config, chats: list[Messages], settings: Settings, seed: int, destination):
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
        completion_only_loss=True,
        packing=False,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        optim="adamw_8bit" if cuda else "adamw_torch_fused",
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
    chats = [with_system_prompt(messages, settings.system_prompt) for messages in chats]
    rows = Dataset.from_list([{"prompt": messages[:-1], "completion": messages[-1:]} for messages in chats])
    if template := template_arguments(settings.enable_thinking):
        rows = rows.add_column("chat_template_kwargs", [template] * len(rows))
    held_out = None
    if settings.held_out_share:
        split = rows.train_test_split(test_size=settings.held_out_share, seed=seed)
        rows, held_out = split["train"], split["test"]
    trainer = SFTTrainer(
        model=network,
        args=arguments,
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    show_progress(trainer, settings.steps, f"fine-tuning {destination}")
    return trainer


def _curve(trainer) -> list[dict[str, float]]:
    names = ("step", "loss", "grad_norm", "learning_rate")
    return [{name: entry[name] for name in names} for entry in trainer.state.log_history if "loss" in entry]
