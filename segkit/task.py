"""The LightningModule: model, loss, metrics, optimiser and schedule.

Shapes: B batch, C channels, K classes, H W rows/columns, N images.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from segkit import step_values
from segkit.architectures import default_dropout, default_upsample
from segkit.checkpoint import load_checkpoint
from segkit.config import IGNORE_INDEX
from segkit.errors import RunFailed, SegkitError
from segkit.losses import ALONE, build_loss
from segkit.metrics import Scores, labels, scores
from segkit.models import build_model
from segkit.models.auxiliary import DeepSupervision
from segkit.models.blocks import exact_group_norms
from segkit.models.finite import nonfinite
from segkit.optim import build_optimizer, learning_rate_factor, parameter_groups
from segkit.plausible import refuse_growth, refuse_nonsense, refuse_others
from segkit.ranks import Ranks
from segkit.tally import Tally
from segkit.watch import Watch

Batch = Mapping[str, Tensor]
WEIGHTS = ("state_dict", "raw_state_dict")  # of a checkpoint: what is evaluated and, beside averages, what is trained
NAMED = 8  # images, in one message


class SegmentationTask(pl.LightningModule):
    """Trains and evaluates a segmentation network.

    A batch is `{"image": uint8 or uint16 [B, C, H, W], "mask": uint8 [B, H, W], "index": int64 [B]}`; normalisation happens here, on the
    device.
    Hyper-parameters are plain scalars, strings and lists, so that a checkpoint loads with `weights_only=True` and rebuilds the model.

    Args:
        class_names: Names of the K classes, in the order of the mask values.
        colors: One (r, g, b) per class.
        mean: Per-channel mean of pixel values in [0, 1], as shares of `white`.
        std: Per-channel standard deviation.
        white: The largest pixel value: 255 of uint8 images, 65535 of uint16 images.
        model: A network of your own, `[B, C, H, W] -> [B, K, H, W]`, in place of the one that the options describe; `load` wants it again.
        run_config: The complete configuration, nested plain values, carried by the checkpoint for `eval.py`.
        class_weights: One weight per class, or None.
        ignore_index: Mask value that neither trains nor scores.
        seed: Decides the random numbers of each training step (dropout).
        fused: One kernel for the optimiser's update.
        decoder, encoder, ...: The fields of the same name in `segkit.config.TrainConfig`.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        colors: Sequence[Sequence[int]],
        mean: Sequence[float],
        std: Sequence[float],
        *,
        white: int = 255,
        model: nn.Module | None = None,
        run_config: dict[str, Any] | None = None,
        decoder: str = "unet",
        encoder: str = "plain",
        encoder_weights: str | None = None,
        in_channels: int = 3,
        upsample: str | Sequence[str] | None = None,
        upsample_init: str | None = None,
        upsample_width: Sequence[int] | None = None,
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
        norm: str = "batch",
        dropout: float | None = None,
        loss: str = "ce_dice",
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        deep_supervision: float = 0.0,
        optimizer: str = "adamw",
        lr: float = 3e-3,
        encoder_lr: float = 1.0,
        weight_decay: float = 1e-2,
        momentum: float = 0.9,
        schedule: str = "onecycle",
        warmup: float = 0.1,
        fused: bool = True,
        channels_last: bool = True,
        ignore_index: int = IGNORE_INDEX,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["model", "run_config"])
        upsample = default_upsample(decoder) if upsample is None else upsample
        dropout = default_dropout(decoder) if dropout is None else dropout
        self.hparams.update({"upsample": upsample, "dropout": dropout})
        for name, value in self.hparams.items():
            if isinstance(value, tuple):
                self.hparams[name] = [list(v) if isinstance(v, tuple) else v for v in value]
        if not len(mean) == len(std) == in_channels:
            raise SegkitError(
                f"in_channels={in_channels}, but the normalisation has {len(mean)} means and {len(std)} deviations: give one per channel"
            )
        self.class_names, self.colors, self.ignore_index = list(class_names), [list(c) for c in colors], ignore_index
        self.run_config = run_config
        self.model = model or build_model(
            decoder,
            len(class_names),
            decoder_channels=decoder_channels,
            encoder=encoder,
            encoder_weights=encoder_weights,
            in_channels=in_channels,
            upsample=upsample,
            upsample_init=upsample_init,
            upsample_width=upsample_width,
            norm=norm,
            dropout=dropout,
        )
        if not 0 <= deep_supervision < math.inf:
            raise SegkitError(f"--deep_supervision {deep_supervision} must be finite and >= 0")
        self.deep_supervision = DeepSupervision(self.model, len(class_names)) if deep_supervision else None
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self.memory_format)
        exact_group_norms(self.model)
        self.loss = build_loss(
            loss, num_classes=len(class_names), class_weights=class_weights, label_smoothing=label_smoothing, ignore_index=ignore_index
        )
        self.register_buffer("mean", torch.tensor(list(mean)).view(-1, 1, 1) * white, persistent=False)
        self.register_buffer("scale", 1 / (torch.tensor(list(std)).view(-1, 1, 1) * white), persistent=False)
        self.score: Callable[[Tensor], Tensor] | None = None  # what evaluates images in place of one pass: tiles, flips, scales; not saved
        self.validation_loss = True  # False leaves `val/loss` out of a validation whose scores alone are wanted; not saved
        self.names: Mapping[str, Callable[[int], str]] = {}  # "train", "val" -> what an image of that index is called; not saved
        self.step = 0  # optimiser steps behind the weights, once they are loaded
        self.validation_scores: Scores | None = None
        self._values: dict[str, Tensor | float] = {}  # of the step at hand
        self._trained: list[nn.Parameter] = []
        self._watch: Watch | None = None  # of the fit at hand
        self._tally = Tally(len(class_names), ignore_index, self.loss)  # of the evaluation at hand, or the last one

    def __setattr__(self, name: str, value: Any) -> None:
        """Skips torch's search for parameters where a plain attribute stays one: Lightning renames its current hook 40 times a step."""
        if name in self.__dict__ and (value is None or isinstance(value, str)):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @classmethod
    def load(cls, checkpoint: str | Path, model: nn.Module | None = None) -> "SegmentationTask":
        """Rebuilds the task of a checkpoint: model, weights, classes, normalisation. Never downloads and runs no code from the file.

        Args:
            checkpoint: A `.ckpt` file.
            model: The network, where training was given one of the user's own.

        Raises:
            SegkitError: If the file is missing, broken or no checkpoint of segkit.
        """
        state = load_checkpoint(checkpoint)
        try:
            if model is None:
                refuse_growth(state["hyper_parameters"], state["state_dict"])
            refuse_nonsense(state["hyper_parameters"])
            if not isinstance(config := state.get("config"), dict | None):
                raise ValueError("its configuration is none")
            task = cls(**{**state["hyper_parameters"], "encoder_weights": None}, model=model, run_config=config)
            refuse_others(task.state_dict(), state["state_dict"])
            task.load_state_dict(state["state_dict"])
            task.step = int(state["global_step"])
        except Exception as error:  # of what a stranger calls hyper-parameters any line may stumble
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise SegkitError(f"{checkpoint} does not fit this version of segkit ({reason}); train again or use its version") from error
        return task.eval()

    def normalize(self, images: Tensor) -> Tensor:
        """Images `[B, C, H, W]` to float with zero mean and unit deviation, in the memory layout of the model."""
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.scale, Tensor)
        return ((images.to(self.mean.dtype) - self.mean) * self.scale).contiguous(memory_format=self.memory_format)

    def forward(self, images: Tensor, *stages: list[Tensor]) -> Tensor:
        """Images `[B, C, H, W]`, uint8 or uint16 as in training, to logits `[B, K, H, W]`; `stages` as a `UNet` takes it."""
        logits: Tensor = self.model(self.normalize(images), *stages)
        return logits

    def objective(self, images: Tensor, masks: Tensor, ranks: Ranks = ALONE) -> tuple[Tensor, Tensor]:
        """What training minimises, the loss and, under deep supervision, the weighted auxiliary losses; and the logits `[B, K, H, W]`.

        Args:
            images: `[B, C, H, W]`, uint8 or uint16 as in training.
            masks: `[B, H, W]`.
            ranks: The processes whose batches are parts of one.
        """
        loss = partial(self.loss, ranks=ranks)
        if self.deep_supervision is None:
            logits = self(images)
            return loss(logits, masks), logits
        stages: list[Tensor] = []
        logits = self(images, stages)
        return loss(logits, masks) + self.hparams["deep_supervision"] * self.deep_supervision(stages, masks, loss), logits

    @torch.inference_mode()
    def predict(self, image: np.ndarray) -> np.ndarray:
        """Labels uint8 `[H, W]` of one image `[H, W, C]`, uint8 or uint16 as in training; the task is left in evaluation mode.

        Raises:
            SegkitError: The image has other channels or bits than those of the training.
        """
        taken = (len(self.hparams["mean"]), np.dtype(np.uint16 if self.hparams["white"] > 255 else np.uint8))
        if image.ndim != 3 or (image.shape[2], image.dtype) != taken:
            raise SegkitError(f"an image of {image.dtype} {list(image.shape)}; the network takes {taken[1]} [H, W, {taken[0]}]")
        self.eval()
        batch = torch.from_numpy(np.require(image.transpose(2, 0, 1), requirements=["C", "W"]))[None].to(self.device)
        return labels(self(batch))[0].cpu().numpy()

    # training

    @property
    def watch(self) -> Watch:
        """What ends this fit when a number is not finite."""
        if self._watch is None:
            self._watch = Watch(self._learning(), partial(self._named, "train"), self._fail, scaled=self.trainer.precision == "16-mixed")
        return self._watch

    def _learning(self) -> list[nn.Module]:
        """The network and what only training has beside it."""
        return [self.model, *([self.deep_supervision] if self.deep_supervision else [])]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Makes every step's random numbers a function of (seed, step, rank), so that a resumed run draws the same."""
        part = batch_idx % self.trainer.accumulate_grad_batches
        state = np.random.SeedSequence([self.hparams["seed"], self.global_step, part, self.global_rank]).generate_state(2)
        self._seed(int(state[0]) << 32 | int(state[1]))
        self.watch.begin(self.global_step, batch["index"], first=part == 0)

    def _seed(self, seed: int) -> None:
        """`torch.manual_seed` for this device alone: that one notes a trace of the stack for each kind of device that is not there."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type != "cpu":
            torch.manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch, of whose images each process has its own; under accumulation the step is by the mean over its batches.

        Raises:
            RunFailed: As `Watch.forward` says.
        """
        loss, logits = self.objective(batch["image"], batch["mask"], Ranks.all())
        self.watch.forward(loss.detach(), logits)
        self._values["train/loss"] = loss.detach()
        if step_values.shown(self.trainer, self.global_step + 1):  # each batch of an accumulated step, as Lightning's log does
            step_values.note(self.trainer, self._values)
        return loss

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips the total norm of all gradients, notes it, and stops before an update that would destroy the weights or go on from ruins.

        Raises:
            RunFailed: As `Watch.update` says.
        """
        norm = nn.utils.clip_grad_norm_(self._trained or self.parameters(), gradient_clip_val or math.inf)
        self.watch.update(norm)
        self._values.update({"train/grad_norm": norm, "train/lr": optimizer.param_groups[-1]["lr"]})
        if step_values.shown(self.trainer, self.global_step + 1):
            step_values.note(self.trainer, self._values)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Writes the values of the step, once it is done, where they are due or the run has just been told to end."""
        if "train/lr" not in self._values:  # further batches are to come before the update
            return
        if step_values.written(self.trainer, self.global_step):
            step_values.note(self.trainer, self._values)
            step_values.write(self.trainer)
        self._values.clear()

    def _fail(self, line: str) -> NoReturn:
        """Ends the run, in every process at once; the first one says why."""
        raise RunFailed(line if self.global_rank == 0 else "")

    def _named(self, split: str, images: Sequence[int]) -> str:
        name = self.names.get(split, "image {}".format)
        more = f" and {len(images) - NAMED} more" if len(images) > NAMED else ""
        return ", ".join(name(index) for index in images[:NAMED]) + more

    def optimizer(self) -> torch.optim.Optimizer:
        """A new optimiser of the parameters."""
        h = self.hparams
        groups = parameter_groups(self, h["lr"], h["weight_decay"], h["encoder_lr"], encoder_prefix="model.encoder.")
        return build_optimizer(h["optimizer"], groups, h["lr"], h["momentum"], fused=h["fused"])

    def configure_optimizers(self) -> Any:
        """The optimiser, and its learning rate as a function of the optimiser step."""
        self._trained, self._watch = list(self.parameters()), None  # of this fit; finding them takes a small network a tenth of a step
        h, optimizer, steps = self.hparams, self.optimizer(), self.trainer.max_steps
        factor = learning_rate_factor(h["schedule"], round(h["warmup"] * steps), steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor), "interval": "step"},
        }

    # validation

    def on_validation_start(self) -> None:
        """Several processes agree on the running statistics of the norms, which they keep apart while training."""
        self._share_statistics()

    def on_validation_epoch_start(self) -> None:
        """Starts new counts; where `EMA` has put the averaged weights in place by now, the processes agree on their statistics too."""
        self._tally = Tally(len(self.class_names), self.ignore_index, self.loss if self.validation_loss else None)
        self._share_statistics()

    def _share_statistics(self) -> None:
        Ranks.all().average([buffer for buffer in self.model.buffers() if buffer.is_floating_point()])

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Counts one batch at native resolution.

        Returns:
            `prediction` uint8 `[B, H, W]`, `logits` `[B, K, H, W]` (of `score` where it is set), `matrices` int64 `[B, K, K]`, rows truth.
        """
        logits = (self.score or self)(batch["image"])
        prediction, matrices = self._tally.add(batch["index"], batch["mask"], logits)
        return {"prediction": prediction, "logits": logits, "matrices": matrices}

    def on_validation_epoch_end(self) -> None:
        """Adds up the counts of all processes and logs the scores.

        Raises:
            RunFailed: Logits are not finite, in any process: in all of them.
        """
        total = self._tally.total(self.device)
        if total.failed:
            self._fail(
                f"the logits contain NaN or infinity on {self._named('val', total.failed)}: the weights have diverged or the input has; "
                "take an earlier checkpoint or a lower --lr"
            )
        self.validation_scores = result = scores(total.matrix)
        values = {"val/loss": total.loss} if self.validation_loss else {}
        values |= {
            "val/miou": result.miou,
            "val/accuracy": result.accuracy,
            "val/mean_dice": result.mean_dice,
        }
        values |= {f"val/iou/{name}": iou for name, iou in zip(self.class_names, result.iou, strict=True) if not math.isnan(iou)}
        self.log_dict({key: torch.tensor(value, dtype=torch.float32) for key, value in values.items()}, rank_zero_only=False)

    def per_image(self) -> tuple[np.ndarray, np.ndarray]:
        """This process's last evaluation: indices int64 `[N]`, confusion matrices int64 `[N, K, K]` (rows truth, columns prediction)."""
        return self._tally.per_image()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the configuration, with which `eval.py` needs no other flag, the number of processes that share each batch, and of each
        its running statistics, which differ between two validations.

        Raises:
            RunFailed: A weight or a running statistic is not finite, in any process: no file is written, and the last one stays.
        """
        if bad := [name for name in Ranks.all().gather(nonfinite(*self._learning())) if name]:
            self._fail(f"{bad[0]} is not finite at step {self.global_step}; the weights were not saved. Go on from the last checkpoint")
        checkpoint["config"] = self.run_config
        checkpoint["processes"] = self.trainer.world_size
        if self.trainer.world_size > 1:
            buffers = [f"model.{name}" for name, buffer in self.model.named_buffers() if buffer.is_floating_point()]
            own = {key: {name: checkpoint[key][name].cpu() for name in buffers} for key in WEIGHTS if key in checkpoint}
            checkpoint["statistics"] = Ranks.all().gather(own)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to go on with another number of processes, whose batches would be others; takes this process's statistics."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        processes = checkpoint.get("processes", 1)
        hold_processes(processes, self.trainer.world_size)
        for key, values in checkpoint.get("statistics", [{}] * processes)[self.global_rank].items():
            checkpoint[key].update(values)
        if self.trainer.precision == "64-true":  # what Lightning does too, but after the weights have been loaded and cut to float32
            self.double()


def hold_processes(before: object, now: int) -> None:
    """Raises a SegkitError where a run would go on with another number of processes than `before`, which a stranger may have written."""
    if not isinstance(before, int) or before != now:
        raise SegkitError(
            f"the run was trained by {before} processes; with {now} its batches would change: "
            f"give --trainer.devices and --trainer.num_nodes that make {before}"
        )
