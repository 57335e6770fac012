"""What an evaluation measures beside its confusion matrices: callbacks that listen to it, and what is told of their results.

Shapes: B batch, K classes, N images, R radii, F frequencies, s period.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from segkit.metrics import (
    NetworkIndex,
    Spectrum,
    bf_scores,
    boundary_counts,
    boundary_iou,
    operator_index,
    scores,
    trimap_matrices,
)
from segkit.metrics.artefacts import NULLS, SCALES
from segkit.metrics.boundary import RADII
from segkit.models.fingerprint import operators
from segkit.results import gather


class Clock(Callback):
    """The seconds that the last validation took, loading and the other callbacks included."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts."""
        self.seconds = -time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops."""
        self.seconds += time.perf_counter()


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


class ArtefactMeasures(Callback):
    """The network index and the spectrum of the logits of a validation (`segkit.metrics.artefacts`), over all processes.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.index, self.spectrum = NetworkIndex(num_classes), Spectrum()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self.index, self.spectrum = NetworkIndex(self.num_classes), Spectrum()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Adds the `logits` [B, K, H, W] in `outputs`."""
        self.index.update(outputs["logits"], batch["index"])
        self.spectrum.update(outputs["logits"])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds up the sums of all processes."""
        if dist.is_available() and dist.is_initialized():
            for tensor in (*self.index.tensors(), *self.spectrum.tensors()):
                dist.all_reduce(tensor)

    def summary(self, model: nn.Module, image_channels: int = 3) -> dict[str, dict[str, float]]:
        """CI_op of every operator of `model`, CI_net of every scale, and of the periods that are no scale; NaN where it has no value."""
        network = self.index.compute()
        return {
            "ci_op": operator_indices(model, image_channels),
            "ci_net": {str(s): network[s] for s in SCALES},
            "null": {str(s): network[s] for s in NULLS},
        }

    def arrays(self) -> dict[str, Any]:
        """What a figure needs, for `artefacts.npz`.

        `frequency` float64 `[F]` in cycles per pixel; `spectrum` float64 `[F]`, the mean of `spectrum_axis` `[2, F]` (down the columns,
        along the rows); `grid_S` float64 `[K, S, S]`, the pattern of period S that repeats in the logits of each class.
        """
        frequency, spectrum = self.spectrum.compute()
        grids = {f"grid_{s}": self.index.grid(s).numpy() for s in (*SCALES, *NULLS)}
        return {"frequency": frequency.numpy(), "spectrum": spectrum.mean(0).numpy(), "spectrum_axis": spectrum.numpy(), **grids}


@torch.no_grad()
def operator_indices(model: nn.Module, image_channels: int = 3) -> dict[str, float]:
    """CI_op of every operator of a network by its name, in [0, 1] (`segkit.metrics.operator_index`).

    An operator of the user's own need not say how many channels it takes: that is looked up by passing an image of zeros through the
    network. NaN for one that cannot be measured: it takes more than one tensor, or the network does not pass through it.

    Args:
        model: Images `[B, C, H, W]` to logits; left as it was.
        image_channels: C, needed only where an operator has no `in_channels`.
    """
    found = operators(model)
    channels: dict[str, int] = {}
    for name, operator in found.items():
        said = getattr(operator, "in_channels", None)
        if isinstance(said, int):
            channels[name] = said
    if len(channels) < len(found):
        channels |= _channels_seen(model, {name: operator for name, operator in found.items() if name not in channels}, image_channels)
    return {name: _index(operator, channels[name]) if name in channels else float("nan") for name, operator in found.items()}


def _index(operator: nn.Module, in_channels: int) -> float:
    try:
        return operator_index(operator, in_channels)
    except Exception:  # a user's code, which may want whatever else
        return float("nan")


def _channels_seen(model: nn.Module, wanted: Mapping[str, nn.Module], image_channels: int) -> dict[str, int]:
    """How many channels arrive at each operator that one tensor `[B, C, H, W]` arrives at."""
    seen: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if len(inputs) == 1 and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4:
                seen[name] = inputs[0].shape[1]

        return hook

    modes = {module: module.training for module in model.modules()}
    hooks = [operator.register_forward_pre_hook(note(name)) for name, operator in wanted.items()]
    model.eval()
    try:
        model(next(model.parameters()).new_zeros(1, image_channels, 64, 64))
    except Exception:  # as above; what has been seen is good
        return seen
    finally:
        for handle in hooks:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return seen


def lines(measured: Mapping[str, Any]) -> dict[str, str]:
    """The results in words, for `segkit.console.header`, from what `boundary_summary` and `ArtefactMeasures.summary` return."""
    rows = {}
    if "boundary" in measured:
        found = measured["boundary"]
        rows["boundary mIoU"] = f"{_digits(found['miou'])}   BF score {_digits(found['bf'])}"
        rows["trimap mIoU"] = "   ".join(f"{r} px {_digits(value)}" for r, value in found["trimap"].items())
    if "artefacts" in measured:
        found = measured["artefacts"]
        rows["CI_op"] = "   ".join(f"{name} {_digits(value)}" for name, value in found["ci_op"].items())
        rows["CI_net"] = "   ".join(f"{s} px {_digits(value)}" for s, value in found["ci_net"].items())
        rows["CI_net, null"] = "   ".join(f"{s} px {_digits(value)}" for s, value in found["null"].items())
    return rows


def _digits(value: float) -> str:
    return "none" if value != value else f"{value:.4f}"
