"""What an evaluation counts, image by image and in all processes together.

Shapes: B batch, K classes, H W rows/columns, N images.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from segkit.errors import RunFailed
from segkit.metrics import confusion_matrices, labels
from segkit.ranks import Ranks


class Total(NamedTuple):
    """The counts of all processes.

    Args:
        matrix: Confusion matrix int64 `[K, K]`, rows truth, columns prediction.
        loss: Mean over all valid pixels; NaN where none was computed.
        failed: Indices of the images whose logits are not finite, in order.
    """

    matrix: Tensor
    loss: float
    failed: list[int]


class Tally:
    """Counts one evaluation.

    Args:
        num_classes: K.
        ignore_index: Mask value that does not count.
        loss: `(logits [B, K, H, W], masks [B, H, W]) -> scalar`, or None where scores alone are wanted.
    """

    def __init__(self, num_classes: int, ignore_index: int, loss: Callable[[Tensor, Tensor], Tensor] | None) -> None:
        self.num_classes, self.ignore_index, self.loss = num_classes, ignore_index, loss
        self.indices: list[Tensor] = []
        self.matrices: list[Tensor] = []
        self.losses = torch.zeros(2, dtype=torch.float64)  # loss x pixels, pixels
        self.failed: list[int] = []

    def add(self, indices: Tensor, masks: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Counts a batch: images `[B]`, their masks `[B, H, W]` and logits `[B, K, H, W]`.

        Returns:
            Predictions uint8 `[B, H, W]` and confusion matrices int64 `[B, K, K]`.
        """
        try:
            prediction = labels(logits)
        except RunFailed:  # the other processes would wait for this one: all stop at the end of the pass, with the images that failed
            self.failed += indices[~logits.flatten(1).isfinite().all(1)].tolist()
            prediction = labels(logits.nan_to_num())
        matrices = confusion_matrices(prediction, masks, self.num_classes, self.ignore_index)
        self.indices.append(indices.cpu())
        self.matrices.append(matrices.cpu())
        if self.loss and (valid := int(matrices.sum())):
            self.losses += torch.tensor([self.loss(logits, masks).item() * valid, valid], dtype=torch.float64)
        return prediction, matrices

    def total(self, device: torch.device) -> Total:
        """Adds up the counts of all processes, on the device that they exchange tensors on; every process must call it."""
        everyone, k = Ranks.all(), self.num_classes
        matrix = torch.stack([part.sum(0) for part in self.matrices]).sum(0) if self.matrices else torch.zeros(k, k, dtype=torch.int64)
        losses = self.losses.to(device, torch.float32 if device.type == "mps" else torch.float64)
        matrix, losses = everyone.sum(matrix.to(device)), everyone.sum(losses)
        failed = sorted(index for part in everyone.gather(self.failed) for index in part)
        return Total(matrix.cpu(), (losses[0] / losses[1]).item(), failed)

    def per_image(self) -> tuple[np.ndarray, np.ndarray]:
        """This process's images: indices int64 `[N]`, confusion matrices int64 `[N, K, K]`."""
        return torch.cat(self.indices).numpy(), torch.cat(self.matrices).numpy()
