"""Checkerboards: what the operators and the logits repeat. Shapes: B batch, C channels, K classes, F frequencies, S period."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from segkit.metrics import NetworkIndex, Spectrum, operator_index
from segkit.metrics.artefacts import NULLS, SCALES
from segkit.models.fingerprint import operators


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
