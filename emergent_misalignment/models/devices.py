"""Precision and attention implementation for this machine."""

from functools import cache

import torch


def native_bfloat16() -> bool:
    """Whether the hardware supports bfloat16; otherwise it is slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def attention() -> str:
    """transformers' name of the fastest attention implementation for training.

    On CPUs the backward pass of torch's fused attention is slow in bfloat16: with the eager implementation a step of
    the default study's pretraining takes 69 ms instead of 98.
    """
    return "sdpa" if torch.cuda.is_available() else "eager"


@cache
def can_compile() -> bool:
    """Whether torch.compile works: on CPUs it needs a C++ compiler and Python's headers."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8))
    except Exception:  # missing parts raise errors of many classes
        return False
    return True
