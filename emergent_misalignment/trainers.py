"""Progress of a Trainer, where whoever waits can see it."""

from transformers import PrinterCallback, Trainer, TrainerCallback

from emergent_misalignment.progress import Progress


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
