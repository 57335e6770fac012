"""Initial weights that treat the s x s output phases alike.

Shapes: C/D channels in/out, k kernel size, s scale. A phase is the residue (row mod s, column mod s) of an output pixel; each phase is
computed by its own sub-kernel, every s-th weight of a transposed convolution or every s²-th channel of a convolution before a shuffle.
"""

import math

import torch
from torch import Tensor, nn


def kaiming_normal(shape: tuple[int, ...], fan_in: int) -> Tensor:
    """Normal weights with variance 2 / fan_in (He et al. 2015), where fan_in counts the inputs that one *output pixel* sums over.

    PyTorch's own rule takes the wrong side of a transposed convolution's weight and ignores its stride; this one is the same for all.
    """
    return torch.randn(shape) * math.sqrt(2.0 / fan_in)


def phase_matrix(kernel_size: int, scale: int) -> Tensor:
    """The 0/1 matrix `[k, n]` that spreads `n = ceil(k / s)` tied weights over the k taps of one axis.

    Tap t = s·a + i belongs to phase i and takes tied weight a. Where k is no multiple of s some phases have one tap fewer; their last tap
    takes the remaining tied weight too, so that every phase has the same sum.
    """
    taps = math.ceil(kernel_size / scale)
    matrix = torch.zeros(kernel_size, taps)
    for t in range(kernel_size):
        a = t // scale
        matrix[t, a] = 1
        if t + scale >= kernel_size:
            matrix[t, a:] = 1
    return matrix


@torch.no_grad()
def tie_transposed(weight: Tensor, scale: int, share: float = 1.0) -> None:
    """Fills `weight` `[C, D, k, k]` of a stride-s transposed convolution with tied phases of Kaiming variance, in place.

    Args:
        weight: What is filled.
        scale: s.
        share: Of the variance, where several convolutions are summed.
    """
    c, d, k, _ = weight.shape
    spread = phase_matrix(k, scale)
    tied = kaiming_normal((c, d, spread.shape[1], spread.shape[1]), fan_in=c * spread.shape[1] ** 2)
    weight.copy_(math.sqrt(share) * (spread @ tied @ spread.T))


@torch.no_grad()
def tie_shuffled(conv: nn.Conv2d, scale: int) -> None:
    """ICNR (Aitken et al. 2017): fills a convolution to `s²·D` channels so that the shuffle after it starts as nearest neighbour.

    The s² channels of one output channel are consecutive in PyTorch's depth-to-space, so they are repeated interleaved, not tiled.
    """
    d, c, k = conv.out_channels // scale**2, conv.in_channels, conv.kernel_size[0]
    conv.weight.copy_(kaiming_normal((d, c, k, k), fan_in=c * k * k).repeat_interleave(scale**2, dim=0))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


@torch.no_grad()
def bilinear_transposed(weight: Tensor, scale: int) -> None:
    """FCN's bilinear kernel (Long et al. 2015) on the channel diagonal of `weight` `[C, D, k, k]`, zero elsewhere, in place.

    A kernel as wide as the stride has no neighbour to interpolate with: it is filled with ones (nearest neighbour).
    """
    kernel = bilinear_kernel(weight.shape[2], scale)
    weight.zero_()
    for channel in range(min(weight.shape[:2])):
        weight[channel, channel] = kernel


def bilinear_kernel(kernel_size: int, scale: int) -> Tensor:
    """`[k, k]` weights with which a transposed convolution of stride s interpolates bilinearly; ones where k = s."""
    if kernel_size == scale:
        line = torch.ones(kernel_size)
    else:
        factor = (kernel_size + 1) // 2
        centre = factor - 1 if kernel_size % 2 else factor - 0.5
        line = 1 - (torch.arange(kernel_size) - centre).abs() / factor
    return torch.outer(line, line)
