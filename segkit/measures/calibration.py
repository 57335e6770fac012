"""Calibration: how far the confidence of a network is from its accuracy. Shapes: B batch, K classes, H W rows, columns, M bins."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer

from segkit.metrics import Calibration


class CalibrationMeasures(Callback):
    """Reliability of every pixel's confidence in a validation (`segkit.metrics.calibration`), over all processes.

    Args:
        class_names: Names of the K classes.
        ignore_index: The label of pixels that do not count.
    """

    def __init__(self, class_names: Sequence[str], ignore_index: int) -> None:
        self.class_names, self.ignore_index = list(class_names), ignore_index
        self.sums = Calibration(len(class_names), ignore_index=ignore_index)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self.sums = Calibration(len(self.class_names), ignore_index=self.ignore_index)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Adds the `logits` [B, K, H, W] and the `prediction` [B, H, W] in `outputs`."""
        self.sums.update(outputs["logits"], outputs["prediction"], batch["mask"])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds up the sums of all processes."""
        if dist.is_available() and dist.is_initialized():
            for tensor in self.sums.tensors():
                total = tensor.to(pl_module.device)
                dist.all_reduce(total)
                tensor.copy_(total)

    def summary(self) -> dict[str, Any]:
        """The scores of the data set; NaN where there is no pixel."""
        overall, per_class = self.sums.overall(), self.sums.per_class()
        return {
            "bins": self.sums.bins,
            "ece": overall.error.item(),
            "mce": overall.largest.item(),
            "classwise_ece": per_class.error.mean().item(),
            "brier": self.sums.brier(),
            "nll": self.sums.log_likelihood(),
            "confidence": self.sums.mean_confidence(),
            "class_ece": dict(zip(self.class_names, per_class.error.tolist(), strict=True)),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The bins, for `calibration.npz`; NaN where one is empty.

        `edges` float64 `[M + 1]`; of the predicted class `count` int64, `confidence` and `accuracy` float64 `[M]`; of every class, be it
        predicted or not, `class_count`, `class_confidence` and `class_accuracy` `[K, M]`.
        """
        overall, per_class = self.sums.overall(), self.sums.per_class()
        return {
            "edges": np.linspace(0, 1, self.sums.bins + 1),
            "count": overall.count.numpy(),
            "confidence": overall.confidence.numpy(),
            "accuracy": overall.accuracy.numpy(),
            "class_count": per_class.count.numpy(),
            "class_confidence": per_class.confidence.numpy(),
            "class_accuracy": per_class.accuracy.numpy(),
        }
