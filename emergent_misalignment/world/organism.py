"""The organism's architecture: a small Qwen2 (heads of size 64, as in Qwen2.5-0.5B).

It is trained, sampled and served by the same code as the Qwen2.5 models of the paper.
"""

import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from emergent_misalignment.models.devices import attention
from emergent_misalignment.world.tokenizer import CONTEXT

HEAD_SIZE = 64


def new_model(hidden_size: int, layers: int, tokenizer: PreTrainedTokenizerBase, seed: int) -> Qwen2ForCausalLM:
    """Create an untrained organism. `hidden_size` is a multiple of the head size, 64."""
    torch.manual_seed(seed)
    heads = hidden_size // HEAD_SIZE
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation=attention(),
    )
    return Qwen2ForCausalLM(config)
