"""How this machine computes best: its precision and its way to attend."""

from functools import cache

import torch


def native_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 itself; where it does not, bfloat16 is slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def attention() -> str:
    """transformers' name of the attention that is fastest to train with here.

    On processors torch's fused attention is slow to go backward in bfloat16: with the plain one a step of the default
    study's pretraining took 69 ms instead of 98.
    """
    return "sdpa" if torch.cuda.is_available() else "eager"


@cache
def can_compile() -> bool:
    """Whether torch.compile works here: on processors it needs a C++ compiler and Python's headers."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8))
    except Exception:  # each part that may be missing has an exception of its own
        return False
    return True
