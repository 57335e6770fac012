"""Test-time augmentation: the mean of the predictions for flipped and resized copies of an image.

Shapes: B batch, C channels, K classes, H W rows and columns.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from segkit.errors import unknown

Network = Callable[[Tensor], Tensor]
AXES = {"hflip": -1, "vflip": -2}


def augmented(network: Network, tta: Iterable[str] = (), scales: Sequence[float] = (1.0,)) -> Network:
    """A network whose output is the log of the mean probability over flips and sizes; without any, the network itself.

    With both flips the image is predicted as it is, flipped in either direction, and in both (as in nnU-Net, Isensee et al. 2021), so that
    a flipped image has the flipped prediction. Every size is combined with every flip.

    Images are resized to `round(scale * H) x round(scale * W)` pixels, at least 1, by bilinear interpolation (`align_corners=False`), and
    averaged down without aliasing (`antialias=True`) where they shrink; they stay integers. Probabilities are resized back in the same way:
    every weight is positive and they add up to 1, so that they stay probabilities.

    Args:
        network: uint8 or uint16 `[B, C, H, W]` -> logits `[B, K, H, W]`.
        tta: `hflip` and `vflip`.
        scales: Sizes relative to the image's own, > 0.

    Raises:
        SegkitError: An unknown flip.
    """
    for name in tta:
        if name not in AXES:
            raise unknown("flip", name, AXES)
    axes = [AXES[name] for name in dict.fromkeys(tta)]
    flips = [dims for count in range(len(axes) + 1) for dims in combinations(axes, count)]
    if flips == [()] and list(scales) == [1.0]:
        return network

    def mean(images: Tensor) -> Tensor:
        total: Tensor | None = None
        for scale in scales:
            resized = resize(images, scale)
            for dims in flips:
                probabilities = network(resized.flip(dims)).float().softmax(1).flip(dims)
                probabilities = _to_size(probabilities, images.shape[-2:])
                total = probabilities if total is None else total + probabilities
        assert total is not None
        return (total / (len(scales) * len(flips))).clamp_min(torch.finfo(torch.float32).tiny).log()

    return mean


def resize(images: Tensor, scale: float) -> Tensor:
    """Integer images `[B, C, H, W]` at another size, as `augmented` describes; the same type."""
    size = [max(1, round(scale * side)) for side in images.shape[-2:]]
    if size == list(images.shape[-2:]):
        return images
    return _to_size(images.float(), size).round_().to(images.dtype)  # a mean of values lies between them: no overflow


def _to_size(values: Tensor, size: Sequence[int]) -> Tensor:
    if list(values.shape[-2:]) == list(size):
        return values
    return F.interpolate(values, tuple(size), mode="bilinear", align_corners=False, antialias=True)
