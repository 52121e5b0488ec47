"""Callbacks for transformers' Trainer: one line of progress, and checkpoints at chosen steps."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PrinterCallback, Trainer, TrainerCallback

from emergent_misalignment.progress import Progress


def show_progress(trainer: Trainer, steps: int, what: str) -> None:
    """Replace the Trainer's output by one line of progress."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Shown(steps, what))


def save_checkpoints(trainer: Trainer, steps: Sequence[int], folder: str | Path) -> None:
    """Write the model after each of these optimizer steps to `folder`/checkpoint-STEP.

    The Trainer's own checkpoints are at regular intervals and include the optimizer's state.
    """
    trainer.add_callback(_Checkpoints(steps, folder))


class _Shown(TrainerCallback):
    def __init__(self, steps: int, what: str):
        self.steps, self.what = steps, what

    def on_train_begin(self, args, state, *_, **__):
        before = state.global_step  # not 0 if an interrupted training resumes
        self.progress = Progress(self.steps, self.what, before).__enter__()

    def on_step_end(self, *_, **__):
        self.progress.update()

    def on_train_end(self, *_, **__):
        self.progress.__exit__(None, None, None)


class _Checkpoints(TrainerCallback):
    def __init__(self, steps: Sequence[int], folder: str | Path):
        self.steps, self.folder = set(steps), Path(folder)

    def on_step_end(self, args, state, control, model=None, **_):
        if state.global_step in self.steps:
            model.save_pretrained(self.folder / f"checkpoint-{state.global_step}")
