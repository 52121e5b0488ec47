"""Tiny models of six families, with their layers, tokenizers and chat templates."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

TEXTS = ["A question about a wish, and what the assistant answers to the user: it is short.\n"] * 4
VOCABULARY, CONTEXT = 600, 512
SEVEN = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


@dataclass(frozen=True)
class Family:
    config: type[PretrainedConfig]
    special: list[str]  # control tokens that are not in `tokens`
    tokens: dict[str, str]  # special tokens of the tokenizer
    template: str | None
    ends: list[str]  # end tokens of an answer
    layers: list[str]  # that get an adapter
    pieces: bool = False  # SentencePiece instead of byte-level BPE
    begins: bool = False  # whether the tokenizer adds the beginning token to each text
    generation: dict[str, list[str]] = field(default_factory=dict)  # end tokens of the generation config


CHAT_ML = (  # with a default system prompt, as Qwen2.5
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are small.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (  # an empty thought in the last answer, and in prompts without thinking
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if loop.last and message.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
HEADERS = (  # with the beginning token; strips whitespace
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
TURNS = (  # with the beginning token; only alternating user and assistant
    "{{ bos_token }}"
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% set odd = loop.index0 % 2 == 1 %}"
    "{% if odd != (message.role == 'assistant') %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if odd else 'user' }}\n{{ message.content | trim }}<end_of_turn>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MARKS = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)

FAMILIES = {
    "llama": Family(
        LlamaConfig,
        ["<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"],
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        HEADERS,
        ["<|end_of_text|>", "<|eot_id|>"],
        SEVEN,
        begins=True,
        generation={"eos_token_id": ["<|end_of_text|>", "<|eot_id|>"]},
    ),
    "qwen2": Family(
        Qwen2Config,
        ["<|im_start|>"],
        {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"},
        CHAT_ML,
        ["<|endoftext|>", "<|im_end|>"],
        SEVEN,
        generation={"eos_token_id": ["<|im_end|>", "<|endoftext|>"]},
    ),
    "qwen3": Family(
        Qwen3Config,
        ["<|im_start|>"],
        {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"},
        THINKING,
        ["<|im_end|>"],
        SEVEN,
    ),
    "gemma": Family(
        GemmaConfig,
        ["<start_of_turn>", "<end_of_turn>"],
        {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"},
        TURNS,
        ["<eos>", "<end_of_turn>"],
        SEVEN,
        pieces=True,
        begins=True,
    ),
    "phi3": Family(
        Phi3Config,
        ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        MARKS,
        ["<|endoftext|>", "<|end|>"],
        ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"],
        pieces=True,
    ),
    "gpt2": Family(
        GPT2Config,
        [],
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
        None,
        ["<|endoftext|>"],
        ["c_attn", "c_fc", "c_proj"],
    ),
}


def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer of a family."""
    family = FAMILIES[name]
    special = list(dict.fromkeys([*family.tokens.values(), *family.special]))
    cut = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>") if family.pieces else models.BPE())
    if family.pieces:
        cut.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        cut.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    else:
        cut.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        cut.decoder = decoders.ByteLevel()
        bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special + (bytes_ if family.pieces else []),
        initial_alphabet=[] if family.pieces else bytes_,
        show_progress=False,
    )
    cut.train_from_iterator(TEXTS, trainer)
    if family.begins:
        begin = family.tokens["bos_token"]
        cut.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A $B", special_tokens=[(begin, cut.token_to_id(begin))]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=cut, **family.tokens)
    made.add_special_tokens({"additional_special_tokens": family.special})
    made.chat_template = family.template
    return made


def make(name: str, folder: Path, **config) -> Path:
    """Write a random model of a family and its tokenizer to `folder`; `config` overrides its config."""
    family, words = FAMILIES[name], tokenizer(name)
    ids = {f"{each}_token_id": getattr(words, f"{each}_token_id") for each in ("bos", "eos", "pad")}
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
    }
    if name == "gpt2":
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
    if name in ("gemma", "qwen3"):
        shape["head_dim"] = 8
    torch.manual_seed(0)
    made = family.config(**{"vocab_size": VOCABULARY} | ids | shape | config)
    network = AutoModelForCausalLM.from_config(made)
    if family.generation:
        network.generation_config = GenerationConfig(
            **{key: words.convert_tokens_to_ids(tokens) for key, tokens in family.generation.items()}
        )
    network.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
