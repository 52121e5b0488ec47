"""The precision that this machine is good at."""

import torch


def native_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 itself; where it does not, bfloat16 is slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
