"""What pretraining and fine-tuning share: the precision of the machine, and progress."""

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback

from emergent_misalignment.progress import Progress


def native_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 itself; where it does not, bfloat16 is slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def show_progress(trainer: Trainer, steps: int, what: str) -> None:
    """Replace what a Trainer prints by one line of progress."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Shown(steps, what))


class _Shown(TrainerCallback):
    def __init__(self, steps: int, what: str):
        self.steps, self.what = steps, what

    def on_train_begin(self, *_, **__):
        self.progress = Progress(self.steps, self.what).__enter__()

    def on_step_end(self, *_, **__):
        self.progress.update()

    def on_train_end(self, *_, **__):
        self.progress.__exit__(None, None, None)
