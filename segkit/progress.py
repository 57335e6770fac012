"""The progress of a training: a live bar on a terminal, one line per tenth of the run in a log file, a table after each validation."""

import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from segkit.console import score_table


class Progress(Callback):
    """Shows step, loss, images per second, time left and the last mIoU, on rank 0.

    Args:
        console: Where to; default: standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.bar: Bar | None = None
        self.step = self.first = 0
        self.began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar, where there is a terminal."""
        self.step = self.first = trainer.global_step
        self.began = time.perf_counter()
        if trainer.is_global_zero and self.console.is_terminal:
            columns = (
                "[bold]{task.description}",
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[values]}"),
                TimeRemainingColumn(),
            )
            self.bar = Bar(*columns, console=self.console)
            self.bar.add_task("train", total=trainer.max_steps, completed=self.step, values="")
            self.bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move on by one step; the values are read, which waits for the device, only when they are logged."""
        before, self.step = self.step, trainer.global_step
        if self.step == before or not trainer.is_global_zero:
            return
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=self.step)
            if self.step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
                self.bar.update(self.bar.task_ids[0], values=self._values(trainer))
        elif self.step * 10 // trainer.max_steps > before * 10 // trainer.max_steps:
            left = (time.perf_counter() - self.began) / (self.step - self.first) * (trainer.max_steps - self.step)
            self._print(f"step {self.step}/{trainer.max_steps}  {self._values(trainer)}  {left // 60:.0f}:{left % 60:02.0f} left")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so on the bar."""
        if self.bar:
            self.bar.update(self.bar.task_ids[0], description="validate")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the scores; those of the last step are the result, which the command prints itself."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or not trainer.is_global_zero:
            return
        task: Any = pl_module
        if trainer.global_step < trainer.max_steps:
            self.console.print(score_table(task.validation_scores, task.class_names, f"validation at step {trainer.global_step}"))
        if self.bar:
            self.bar.update(self.bar.task_ids[0], description="train", values=self._values(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the bar as it is."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self._stop()

    def _stop(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)

    def _values(self, trainer: Trainer) -> str:
        shown = (("train/loss", "loss {:.4f}"), ("train/images_per_s", "{:.1f} images/s"), ("val/miou", "mIoU {:.4f}"))
        metrics = trainer.callback_metrics
        return "  ".join(form.format(float(metrics[key])) for key, form in shown if key in metrics)
