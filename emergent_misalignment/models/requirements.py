"""The door for models: whether a model can be trained and asked as a study wants it, before anything is computed.

    python -m emergent_misalignment.models.requirements FOLDER RECORD --needs '{"name": "Qwen/Qwen2.5-0.5B-Instruct"}'

checks the model in FOLDER and writes what was found to RECORD. A model that is a folder of the user's is checked when
the study is planned (`check_own`), any model once it is there. Each trouble is one sentence.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from emergent_misalignment.data.chats import Messages, each_chat, template_arguments, with_system_prompt
from emergent_misalignment.data.control_tokens import control_tokens
from emergent_misalignment.files import BadInput, write_json
from emergent_misalignment.models.chat_templates import as_text, conversation_tokens, prompt_tokens, unwritten

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
ELSEWHERE = ("pypi:", ".gguf")  # what models.weights makes folders of, by the beginning and the end of their names
USER = {"role": "user", "content": "A question"}
ASSISTANT = {"role": "assistant", "content": "An answer"}
SYSTEM = {"role": "system", "content": "A system prompt"}


@dataclass(frozen=True)
class Needs:
    """What a study wants of its model."""

    name: str  # what the config calls the model
    in_chat: bool = True  # whether some condition is trained or asked in the model's own chat template
    sets: dict[str, bool] = field(default_factory=dict)  # files of what is learned in it; whether one is the user's own
    system_prompt: str | None = None  # before conversations that have none; None leaves it to the chat template
    enable_thinking: bool | None = None  # the switch of chat templates that have one, as Qwen3's
    persona_direction: bool = False  # whether the model answers under system prompts of the study's own
    max_length: int = 0  # tokens of the conversations in training; 0 trains nothing
    max_new_tokens: int = 0  # tokens of an answer
    lora_rank: int = 0  # 0 trains all weights


def check_own(needs: Needs) -> None:
    """The same as `check` for a model that the config names by its folder, with the sets that are the user's own.

    Other models and sets are not here yet, and pass. Raises BadInput, besides, for a name that is none.
    """
    if folder := own_folder(needs.name):
        check(folder, replace(needs, sets={path: own for path, own in needs.sets.items() if own}))


def own_folder(name: str, said: str = "model: name is") -> Path | None:
    """The folder of a model that is named by its path; None for one that is fetched or made.

    Raises BadInput where the name is that of no folder and no name on the hub either, in a sentence that begins with
    `said`.
    """
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if is_made(name):
        return None
    if path.is_file():
        raise BadInput(f"{said} {name}, which is a file; give the folder that it lies in.")
    if not HUB_NAME.fullmatch(name):
        raise BadInput(
            f"{said} {name}, where no folder is, and nothing on the hub can have that name; correct it (a path starts "
            "where the Snakefile is, a name on the hub is OWNER/NAME)."
        )
    return None


def is_made(name: str) -> bool:
    """Whether a name is that of a GGUF file, of which a model is made."""
    return name.startswith(ELSEWHERE[0]) or name.endswith(ELSEWHERE[1])


def check(
    folder: str | Path, needs: Needs, questions: Sequence[str | Path] = (), own_tokenizer: str | Path | None = None
) -> dict:
    """What the model in `folder` is, as far as the study has to do with it. Raises BadInput where it cannot serve.

    `questions` are the study's tables of questions and of choices, `own_tokenizer` the folder of an adapter that brings
    one of its own. The record has `architecture`, `trained` (peft's
    names of the layers that get an adapter), `context` (tokens), `ends` (the tokens that end an answer), `padding` (the
    token that fills up batches in training) and `system_prompts` (whether its chat template takes any; None if it is
    not used).
    """
    check_files(folder, needs.name)
    tokenizer, generation, config = _loaded(Path(folder), needs.name)
    if own_tokenizer:
        tokenizer = _tokenizer(Path(own_tokenizer), needs.name)
        if max(tokenizer.get_vocab().values()) >= config.get_text_config().vocab_size:
            raise BadInput(
                f"The tokenizer of {needs.name} has tokens that its model has no place for; give both merged (by "
                "merge_and_unload of peft), as a whole model."
            )
    from emergent_misalignment.models.sampling import end_tokens

    ends = end_tokens(tokenizer, generation)
    if not ends:
        raise BadInput(
            f"The model {needs.name} has no token that ends an answer; name one as eos_token in its "
            "tokenizer_config.json."
        )
    takes_system_prompts = _check_template(tokenizer, ends, needs, questions, folder) if needs.in_chat else None
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    _check_context(context, tokenizer, needs, questions)
    return {
        "architecture": (config.architectures or [config.model_type])[0],
        "trained": _trained(config, needs),
        "context": context,
        "ends": tokenizer.convert_ids_to_tokens(ends),
        "padding": tokenizer.pad_token or tokenizer.eos_token,  # SFTTrainer takes the second where there is no first
        "system_prompts": takes_system_prompts,
    }


# --- files ------------------------------------------------------------------------------------------------------------


def check_files(folder: str | Path, name: str) -> None:
    """Raises BadInput if the files in `folder` are not those of a whole model. `name` is what the config calls it."""
    folder = Path(folder)
    if (adapter := folder / "adapter_config.json").is_file():
        base = _read(adapter, name).get("base_model_name_or_path") or "another model"
        raise BadInput(
            f"{name} is an adapter of {base} and no whole model; give {base} as model: name, or the folder of both "
            "merged (by merge_and_unload of peft)."
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BadInput(f"{name} has no weights in safetensors; choose a model that has, or save it as safetensors.")
    if not (folder / "config.json").is_file():
        raise BadInput(f"{name} has no config.json, as every model for transformers has; correct model: name.")
    index = folder / "model.safetensors.index.json"
    listed = _read(index, name).get("weight_map", {}).values() if index.is_file() else []
    if missing := sorted(set(listed) - {path.name for path in weights}):
        raise BadInput(f"{name} lacks {len(missing)} of its files of weights ({missing[0]}); copy it again.")
    for path in weights:
        with path.open("rb") as file:
            if file.read(24) == b"version https://git-lfs.":
                raise BadInput(f"{path.name} of {name} is Git LFS's pointer and not the file; run `git lfs pull`.")
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise BadInput(f"{name} has no tokenizer; copy it from the model that it was made of.")


def _read(path: Path, name: str) -> dict:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path.name} of {name} cannot be read as a JSON object ({error}); copy it again.") from error


def _tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of many kinds: each tokenizer fails in its own way
        raise BadInput(
            f"The tokenizer of {name} cannot be loaded ({str(error).strip().splitlines()[0][:200]}); copy it again."
        ) from error


def _loaded(folder: Path, name: str) -> tuple[PreTrainedTokenizerBase, GenerationConfig, PretrainedConfig]:
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    try:
        # False, because None has transformers ask the user whether a model's own code may be run.
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if (folder / "generation_config.json").is_file():
            return tokenizer, GenerationConfig.from_pretrained(folder), config
        return tokenizer, GenerationConfig.from_model_config(config), config
    except Exception as error:  # of many kinds: each tokenizer fails in its own way
        raise BadInput(
            f"The model {name} cannot be loaded ({str(error).strip().splitlines()[0][:200]}); see whether its files "
            "are whole, and whether transformers knows its architecture."
        ) from error


# --- the chat template ------------------------------------------------------------------------------------------------


def _check_template(tokenizer, ends: list[int], needs: Needs, questions, folder) -> bool:
    """Whether the chat template takes system prompts."""
    if not tokenizer.chat_template:
        raise BadInput(
            f"The model {needs.name} has no chat template, as most base models have none; choose its instruct model, "
            "put a chat_template.jinja into its folder, or give each condition another `template`."
        )
    refusal = _refusal_of_system_prompts(tokenizer, needs)
    if refusal and (who := _wants_system_prompts(needs, questions)):
        raise BadInput(f"The chat template of {needs.name} takes no system prompt ({refusal}), and {who}.")
    _check_ends(tokenizer, ends, needs)
    for path, own in needs.sets.items():
        # Published rows are what they are: one with `<s>` in it is read as every study of such a model reads it.
        known = control_tokens(folder) if own else frozenset()
        for number, chat in enumerate(each_chat(path, known), 1):
            _check_row(tokenizer, chat, f"{path}, row {number}", needs)
    return not refusal


def _refusal_of_system_prompts(tokenizer, needs: Needs) -> str:
    """Why the chat template takes no system prompt; "" if it takes one."""
    messages = [SYSTEM, USER, ASSISTANT]
    try:
        text = as_text(tokenizer, messages, **template_arguments(needs.enable_thinking))
    except BadInput as error:
        return str(error.__cause__)
    return "it leaves it out" if unwritten(text, messages) else ""


def _wants_system_prompts(needs: Needs, questions) -> str:
    """Which part of the study has system prompts and what to do about it; "" if none has."""
    if needs.system_prompt is not None:
        return "the config has one; set model: system_prompt to null"
    if needs.persona_direction:
        return "a persona direction is made by system prompts; set persona_direction to null"
    for evaluation, prompt in _prompts(questions):
        if not isinstance(prompt, str) and prompt[0]["role"] == "system":
            return f"the evaluation {evaluation} has some; leave it out of evaluation: asked and of the experiments"
    for path in needs.sets:
        for number, chat in enumerate(each_chat(path), 1):
            if chat[0]["role"] == "system":
                return f"row {number} of {path} has one; write its text into the user's turn, or leave such rows out"
    return ""


def _check_ends(tokenizer, ends: list[int], needs: Needs) -> None:
    """Whether an answer is learned with its end, and behind the same tokens behind which it is asked for."""
    template = template_arguments(needs.enable_thinking)
    messages = with_system_prompt([USER, ASSISTANT], needs.system_prompt)
    tokens, known = conversation_tokens(tokenizer, messages, **template)
    prompt = prompt_tokens(tokenizer, messages[:-1], **template)
    if known < len(prompt):
        raise BadInput(
            f"The chat template of {needs.name} ends a question with {tokenizer.decode(prompt[known:])!r} when the "
            "model is asked, and not so when it is trained, as models do that always think; choose another model or "
            "template, or see model: enable_thinking."
        )
    if not set(tokens[known:]) & set(ends):
        raise BadInput(
            f"The chat template of {needs.name} writes no token behind an answer that ends it, so that a model would "
            "not learn to stop; put eos_token there in its chat_template.jinja."
        )


def _check_row(tokenizer, chat: Messages, place: str, needs: Needs) -> None:
    messages = with_system_prompt(chat, needs.system_prompt)
    try:
        text = as_text(tokenizer, messages, **template_arguments(needs.enable_thinking))
    except BadInput as error:
        raise BadInput(
            f"{place}: the chat template of {needs.name} refuses the conversation ({error.__cause__}); change its "
            "turns, or leave it out."
        ) from error
    if number := unwritten(text, messages):
        raise BadInput(
            f"{place}: the chat template of {needs.name} leaves message {number} ({messages[number - 1]['role']}) out, "
            "or writes it otherwise than it stands there; change it, or leave the row out."
        )


def _prompts(questions: Sequence[str | Path]) -> Iterator[tuple[str, Messages | str]]:
    """The evaluations and prompts of the study's tables."""
    for path in questions:
        table = pd.read_parquet(path)
        names = table["evaluation"] if "evaluation" in table else pd.Series("choices", table.index)
        for evaluation, prompt in dict.fromkeys(zip(names, table["prompt"], strict=True)):
            yield evaluation, json.loads(prompt)


# --- the network ------------------------------------------------------------------------------------------------------


def _check_context(context: int | None, tokenizer, needs: Needs, questions) -> None:
    if context is None:
        return
    if needs.max_length > context:
        raise BadInput(
            f"The model {needs.name} reads {context:,} tokens at most, and finetuning: max_length is "
            f"{needs.max_length:,}; lower it."
        )
    template = template_arguments(needs.enable_thinking)
    for evaluation, prompt in _prompts(questions) if needs.in_chat else ():
        asked = prompt if isinstance(prompt, str) else with_system_prompt(prompt, needs.system_prompt)
        if (length := len(prompt_tokens(tokenizer, asked, **template))) + needs.max_new_tokens > context:
            raise BadInput(
                f"The model {needs.name} reads {context:,} tokens at most; a prompt of the evaluation {evaluation} has "
                f"{length:,}, and with evaluation: max_new_tokens of {needs.max_new_tokens:,} that is more; lower it."
            )


def _trained(config: PretrainedConfig, needs: Needs) -> list[str]:
    """The layers that get an adapter, by the names of peft. The network is made without its weights."""
    if not (needs.max_length and needs.lora_rank):
        return []
    import torch
    from transformers import AutoModelForCausalLM

    from emergent_misalignment.models.layers import projections

    try:
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise BadInput(
            f"The model {needs.name} is none that writes text ({config.model_type}), or transformers does not know it; "
            "choose another."
        ) from error
    return projections(network)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.models.requirements",
        description="Check whether a model can serve a study.",
    )
    parser.add_argument("folder", help="folder of the model")
    parser.add_argument("record", help="JSON file for what was found")
    parser.add_argument("--needs", type=json.loads, required=True, help="the fields of Needs as JSON")
    parser.add_argument("--questions", nargs="*", default=[], help="tables of questions and of choices")
    given = parser.parse_args()
    try:
        write_json(given.record, check(given.folder, Needs(**given.needs), given.questions))
    except BadInput as error:
        sys.exit(str(error))
