"""Precision and attention implementation for this machine."""

from functools import cache

import torch


def fast_bfloat16() -> bool:
    """Whether training in bfloat16 is faster than in float32.

    On CPUs it is with AMX only. On a Xeon with AVX-512's bfloat16 instructions and without AMX, a step of the default
    study's pretraining takes 0.23 CPU seconds in bfloat16 and 0.16 in float32.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


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
