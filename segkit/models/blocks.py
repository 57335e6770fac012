"""The pieces that encoders and decoders share.

Shapes: B batch, C/D channels in/out, H W rows/columns.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from segkit.errors import SegkitError

NORMS = ("batch", "group")


def norm_layer(norm: str, channels: int) -> nn.Module:
    """Batch normalisation, or group normalisation with up to 32 groups (Wu & He 2018) for batches of one or two images."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(32, channels), channels)
    raise SegkitError(f"unknown norm {norm!r}; choose from {', '.join(NORMS)}")


def exact_group_norms(network: nn.Module) -> None:
    """Makes every group norm of a network copy what lies in `channels_last` memory on a CPU, in place.

    There torch 2.11 to 2.15 subtracts the squared mean from the mean of squares, in float32: of 1024 x 1024 values of mean 3 and deviation
    0.05 the result is up to 0.5 off, and logits of a dark and even image a quarter of the largest.
    """
    for norm in network.modules():
        if isinstance(norm, nn.GroupNorm):
            norm.register_forward_pre_hook(_contiguous_on_cpu)


def _contiguous_on_cpu(norm: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
    (x,) = inputs
    return (x.contiguous(),) if x.device.type == "cpu" and not torch.compiler.is_exporting() else None


def conv_norm_act(in_channels: int, out_channels: int, norm: str = "batch") -> nn.Sequential:
    """3x3 convolution, normalisation, ReLU: `[B, C, H, W] -> [B, D, H, W]`; Kaiming weights, no bias in front of the norm."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, norm_layer(norm, out_channels), nn.ReLU(inplace=True))


def double_conv(in_channels: int, out_channels: int, norm: str = "batch") -> nn.Sequential:
    """Two conv-norm-activation blocks, the unit of the U-Net: `[B, C, H, W] -> [B, D, H, W]`."""
    return nn.Sequential(conv_norm_act(in_channels, out_channels, norm), conv_norm_act(out_channels, out_channels, norm))


def classifier(in_channels: int, num_classes: int, kernel_size: int = 1) -> nn.Conv2d:
    """Convolution from features to class scores: `[B, C, H, W] -> [B, K, H, W]`; unit-variance weights, zero bias."""
    conv = nn.Conv2d(in_channels, num_classes, kernel_size, padding=kernel_size // 2)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def pad_to_stride(images: Tensor, stride: int, smallest: int) -> Tensor:
    """Repeats the last rows and columns until H and W are multiples of `stride` and at least `smallest`.

    The caller crops the logits back to H x W.

    Args:
        images: `[B, C, H, W]`, any H, W >= 1.
        stride: The network's coarsest stride.
        smallest: A multiple of `stride`; batch normalisation needs two cells a side to train on one tiny image.
    """
    h, w = images.shape[-2:]
    if (
        torch.compiler.is_exporting()
    ):  # new symbols for the cells: every size behind them is a plain multiple, and divides without remainder
        rows, columns = (torch.sym_fresh_size(torch.sym_max((n + stride - 1) // stride, smallest // stride)) for n in (h, w))
        for cells in (rows, columns):
            torch._check(cells >= smallest // stride)
        return pad(images, (0, stride * columns - w, 0, stride * rows - h), mode="replicate")  # type: ignore[arg-type]
    down, right = (max(math.ceil(n / stride) * stride, smallest) - n for n in (h, w))
    return pad(images, (0, right, 0, down), mode="replicate") if down or right else images
