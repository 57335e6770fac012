"""What happens around the training steps: averaged weights, checkpoints, prediction panels, throughput.

Their order in the Trainer is EMA, StopSignals, Checkpoints, PanelCallback, Progress, Throughput, Validations: a checkpoint holds the newest
average, and the clock of Throughput, after all that draws and saves, leaves out what belongs to a validation.
Shape legend: B batch, C channels, H W rows and columns.
"""

import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from segkit import step_values, tracking


class EMA(Callback):
    """Exponential moving average of the weights: evaluated, saved as the checkpoint's `state_dict`, and left in the model after the fit.

    After step n the average moves to `d * average + (1 - d) * weights`, d = min(decay, n / (9 + n)); this warm-up, which forgets the random
    start, is that of TensorFlow's ExponentialMovingAverage. Integer buffers are copied. The checkpoint holds the raw weights too, as
    `raw_state_dict`.

    Lightning's WeightAveraging is not used: it sets up before the weights are on their device, so that on a GPU its average stays in host
    memory; it swaps the task's temporary buffers too; and it overwrites the raw weights before a checkpoint at the end of training.

    Args:
        decay: Share of the old average that a late step keeps, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        assert 0 < decay < 1
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self.step, self.swapped = 0, False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the average from the checkpoint and the raw weights into the model; a checkpoint without an average starts one."""
        if trainer.state.fn == TrainerFn.FITTING and "raw_state_dict" in checkpoint:
            self.average = dict(checkpoint["state_dict"])
            pl_module.load_state_dict(checkpoint["raw_state_dict"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with the model's weights; they are loaded and on their device by now."""
        weights = pl_module.state_dict()
        self.average = {name: self.average.get(name, weight).detach().to(weight.device).clone() for name, weight in weights.items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the step that the run starts from."""
        self.step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update, once per optimiser step."""
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        decay = min(self.decay, self.step / (9 + self.step))
        pairs = [(self.average[name], weight) for name, weight in pl_module.state_dict().items()]
        for average, weight in pairs:
            if not average.is_floating_point():
                average.copy_(weight)
        moving = [(average, weight) for average, weight in pairs if average.is_floating_point()]
        torch._foreach_lerp_([average for average, _ in moving], [weight for _, weight in moving], 1 - decay)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the average."""
        self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to the raw weights, before anything is saved."""
        self._swap(pl_module)

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        if not self.average:  # not in a fit
            return
        for name, weight in pl_module.state_dict().items():
            raw = weight.clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(raw)
        self.swapped = not self.swapped

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the weights, and what the optimiser works on beside it."""
        if not self.average:
            return
        if self.swapped:  # a signal has stopped a validation
            checkpoint["raw_state_dict"] = self.average
        else:
            checkpoint["raw_state_dict"] = checkpoint["state_dict"]
            checkpoint["state_dict"] = self.average

    @torch.no_grad()
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the model."""
        for name, weight in pl_module.state_dict().items():
            weight.copy_(self.average[name])
        self.average = {}


class Checkpoints(Callback):
    """Writes `last.ckpt` at every validation, every `save_every` steps and at the end; `best.ckpt` when `val/miou` is the highest so far.

    A checkpoint resumes to the bit when it is saved between two optimiser steps, from whatever hook: all that is taken from it is how
    many steps are done. Lightning's own loop counters depend on the hook: saved at the start of a batch, they count one batch too many, and
    the resumed run validates one step early ever after. So they are dropped, and Lightning starts as if afresh, at that step.

    Args:
        folder: `checkpoints/` of the run folder.
        save_every: Optimiser steps between two checkpoints, besides those of the validations; None: no others.
    """

    def __init__(self, folder: Path, save_every: int | None = None) -> None:
        self.folder, self.save_every = folder, save_every
        self.best, self.best_step = -math.inf, 0
        self.saved_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What the run goes on from is saved."""
        self.saved_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save between two steps."""
        if self.save_every and trainer.global_step % self.save_every == 0 and trainer.global_step != self.saved_step:
            self._save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save; every rank takes part."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        miou = trainer.strategy.broadcast(float(trainer.callback_metrics["val/miou"]))  # one decision for all ranks
        if math.isfinite(miou) and miou > self.best:
            self.best, self.best_step = miou, trainer.global_step
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=False)
        self._save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what no validation has saved."""
        if self.saved_step != trainer.global_step:
            self._save_last(trainer)

    def _save_last(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=False)
        self.saved_step = trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        """The best value and its step."""
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with the best value of the earlier part of the run."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Start Lightning's counters at the step of the checkpoint, and the record of the run with them."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        checkpoint.pop("loops", None)  # without them Lightning skips its own restart, with its rules for epochs half done
        step, loop = checkpoint["global_step"], trainer.fit_loop.epoch_loop
        counters = loop.batch_progress.total, loop.automatic_optimization.optim_progress.optimizer.step.total
        for counter, done in zip(counters, (step * trainer.accumulate_grad_batches, step), strict=True):
            counter.reset()
            counter.increment_by(done)
        loop.on_load_checkpoint({"_batches_that_stepped": step})
        tracking.rewind(trainer.loggers, step)


class PanelCallback(Callback):
    """Draws the first validation images of rank 0 with truth and prediction into `panels/step_000200.png`, and shows them in W&B.

    Args:
        folder: `panels/` of the run folder.
        count: Number of images; 0 draws none.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.shown: list[tuple[Any, Any, Any, str]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a new panel."""
        self.shown = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep what is still wanted of `batch`, and of the `prediction` [B, H, W] in `outputs`."""
        if not trainer.is_global_zero:
            return
        from segkit.panels import viewable

        for i in range(min(len(batch["image"]), self.count - len(self.shown))):
            image = viewable(batch["image"][i].permute(1, 2, 0).cpu().numpy())
            self.shown.append(
                (image, batch["mask"][i].cpu().numpy(), outputs["prediction"][i].cpu().numpy(), f"image {int(batch['index'][i])}")
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, save, and log."""
        if not self.shown or trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        from PIL import Image

        from segkit.panels import draw_panels

        images, masks, predictions, titles = (list(column) for column in zip(*self.shown, strict=True))
        task: Any = pl_module
        drawn = draw_panels(images, masks, predictions, task.class_names, task.colors, task.ignore_index, titles)
        path = self.folder / f"step_{trainer.global_step:06d}.png"
        temporary = path.with_name(f".{path.name}")  # who is killed meanwhile leaves none, or all of it
        Image.fromarray(drawn).save(temporary)
        os.replace(temporary, path)
        tracking.log_panels(trainer.loggers, trainer.global_step, images, masks, predictions, task.class_names, task.ignore_index, titles)


class Throughput(Callback):
    """Measures `train/images_per_s`: training images of all devices per second, loading included, validation left out."""

    def __init__(self) -> None:
        self.start, self.images, self.step = 0.0, 0, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.start, self.images, self.step = time.perf_counter(), 0, trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count, and note the result where the task writes it with the other values of the step."""
        self.images += len(batch["image"]) * trainer.world_size
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        if self.step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            now = time.perf_counter()
            step_values.note(trainer, {"train/images_per_s": self.images / (now - self.start)})
            self.start, self.images = now, 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.start -= time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let it go on."""
        self.start += time.perf_counter()
