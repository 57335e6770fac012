"""Boundaries: Boundary IoU, trimaps and BF score of every image, and of the data set. Shapes: B batch, K classes, N images, R radii."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from segkit.metrics import bf_scores, boundary_counts, boundary_iou, scores, trimap_matrices
from segkit.metrics.boundary import RADII
from segkit.results import gather


class BoundaryMeasures(Callback):
    """Boundary IoU counts, trimap matrices and BF score of every image of a validation (`segkit.metrics.boundary`)."""

    def __init__(self) -> None:
        self.columns: list[tuple[Tensor, ...]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self.columns = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Measures the `prediction` [B, H, W] in `outputs`."""
        task: Any = pl_module
        maps, classes, ignored = (outputs["prediction"], batch["mask"]), len(task.class_names), task.ignore_index
        columns = (
            batch["index"],
            *boundary_counts(*maps, classes, ignored),
            trimap_matrices(*maps, classes, ignore_index=ignored),
            bf_scores(*maps, classes, ignored).nanmean(1),
        )
        self.columns.append(tuple(column.cpu() for column in columns))

    def gathered(self) -> dict[str, np.ndarray]:
        """The columns for `per_image.npz`, of all processes, in the order of the images; every process must call it.

        `boundary_intersection` and `boundary_union` int64 `[N, K]`, `trimap_radius` int64 `[R]`, `trimap_matrix` int64 `[N, R, K, K]`
        (rows truth, columns prediction), `bf` float64 `[N]` (NaN for an image in which no class has a contour).
        """
        _, intersection, union, matrix, bf = gather(*(torch.cat(column).numpy() for column in zip(*self.columns, strict=True)))
        return {
            "boundary_intersection": intersection,
            "boundary_union": union,
            "trimap_radius": np.array(RADII),
            "trimap_matrix": matrix,
            "bf": bf,
        }


def boundary_summary(columns: Mapping[str, np.ndarray], class_names: Sequence[str]) -> dict[str, Any]:
    """The scores of a data set, from the columns of `BoundaryMeasures.gathered`; NaN where there is nothing to measure."""
    iou = boundary_iou(torch.from_numpy(columns["boundary_intersection"]), torch.from_numpy(columns["boundary_union"]))
    near = torch.from_numpy(columns["trimap_matrix"]).sum(0)
    return {
        "miou": iou.nanmean().item(),
        "iou": dict(zip(class_names, iou.tolist(), strict=True)),
        "bf": torch.from_numpy(columns["bf"]).nanmean().item(),
        "trimap": {str(r): scores(matrix).miou for r, matrix in zip(columns["trimap_radius"].tolist(), near, strict=True)},
    }
