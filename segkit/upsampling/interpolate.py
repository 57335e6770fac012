"""Fixed interpolation and a learned convolution.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, interpolate

from segkit.errors import SegkitError
from segkit.upsampling.operator import Upsampler, no_such_init
from segkit.upsampling.phases import kaiming_normal
from segkit.upsampling.rewrite import rewritten


def start_convolution(conv: nn.Conv2d, init: str, operator: Upsampler, summed: int | None = None) -> None:
    """Draws the weights of the convolution after an interpolation; all phases share one kernel, so every initialisation is a tied one.

    Args:
        conv: The convolution.
        init: `smooth` or `standard`.
        operator: Whose it is.
        summed: Inputs that an output pixel sums over; default: those of the kernel.
    """
    if init == "standard":
        conv.reset_parameters()
    elif init == "smooth":
        with torch.no_grad():
            conv.weight.copy_(kaiming_normal(tuple(conv.weight.shape), fan_in=summed or conv.weight[0].numel()))
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
    else:
        raise no_such_init(operator, init)


class _Interpolation(Upsampler):
    """What the operators of one fixed interpolation and one convolution have in common."""

    kernel_size: ClassVar[int] = 3

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2) -> None:
        super().__init__(in_channels, out_channels, scale)
        self.conv = nn.Conv2d(in_channels, out_channels, self.kernel_size, padding=self.kernel_size // 2)
        self.reset_parameters()

    def reset_parameters(self, init: str = "smooth") -> None:
        start_convolution(self.conv, init, self)


class Bilinear(_Interpolation):
    """Bilinear interpolation with half-pixel centres (`align_corners=False`), then a 3x3 convolution (Odena et al. 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False))
        return out


class BilinearK1(_Interpolation):
    """A 1x1 convolution, then bilinear interpolation: the cheapest way up from wide features.

    The two commute exactly: interpolation mixes pixels with weights that sum to one, the convolution mixes channels. Convolution first
    takes 1/s² of the multiply-adds and interpolates D channels in place of C.
    """

    kernel_size = 1

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(self.conv(x), scale_factor=self.scale, mode="bilinear", align_corners=False)


class Nearest(_Interpolation):
    """Nearest-neighbour interpolation, then a 3x3 convolution: the remedy for checkerboards of Odena et al. (2016)."""

    def plain(self, x: Tensor) -> Tensor:
        """As the words say it: interpolation, then convolution."""
        out: Tensor = self.conv(interpolate(x, scale_factor=self.scale, mode="nearest"))
        return out

    def forward(self, x: Tensor) -> Tensor:
        if not rewritten("nearest", x, self.scale):
            return self.plain(x)
        return conv_transpose2d(x, fold_nearest(self.conv.weight, self.scale), self.conv.bias, stride=self.scale, padding=1)


def fold_nearest(weight: Tensor, scale: int) -> Tensor:
    """Nearest neighbour and the 3x3 convolution after it as one transposed convolution of stride s, padding 1 and kernel s + 2.

    Along one axis: Y[m] = sum over t of w[t] U[m + t - 1], where U[n] = X[n // s] inside the image and 0 outside. X[i] reaches Y[m] with
    the sum of those w[t] for which m + t - 1 lies in s i .. s i + s - 1: a kernel over m - s i + 1 of s + 2 taps, each the sum of up to s
    weights. What is zero outside U is zero outside X, so that borders are equal too. It takes (s + 2)² multiply-adds per input pixel and
    pair of channels where the two steps take 9 s².

    Args:
        weight: The convolution's `[D, C, 3, 3]`.
        scale: s.

    Returns:
        `[C, D, s + 2, s + 2]`, differentiable in `weight`.
    """
    spread = weight.new_zeros(scale + 2, 3)
    for t in range(3):
        spread[2 - t : 2 - t + scale, t] = 1
    folded = weight.flatten(2) @ torch.kron(spread, spread).T  # both axes in one product
    return folded.reshape(*weight.shape[:2], scale + 2, scale + 2).transpose(0, 1)


class Bicubic(_Interpolation):
    """Bicubic interpolation (Keys 1981, a = -0.75 as in PyTorch), then a 3x3 convolution; overshoots at edges."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(bicubic(x, self.scale))
        return out


def bicubic(x: Tensor, scale: int) -> Tensor:
    """Bicubic interpolation of `[B, C, H, W]`, in deterministic mode on a GPU as two products with the matrices of the interpolation.

    The gradient of PyTorch's own is not deterministic there.
    """
    if not (x.is_cuda and torch.are_deterministic_algorithms_enabled()):
        return interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
    return by_matrices(x, scale)


def by_matrices(x: Tensor, scale: int) -> Tensor:
    """Bicubic interpolation of `[B, C, H, W]` as `M_H X M_Wᵀ`, where M holds in its columns what becomes of single pixels."""
    rows, columns = (
        interpolate(torch.eye(n).double()[None, None], scale_factor=(scale, 1), mode="bicubic", align_corners=False)[0, 0].to(x)
        for n in x.shape[-2:]
    )
    return rows @ x @ columns.T


class BilinearAdditive(Upsampler):
    """Bilinear interpolation, the sum of every s² consecutive channels, then a 3x3 convolution (Wojna et al. 2019).

    Summation keeps the number of values: s² times the pixels, 1/s² of the channels.

    Raises:
        SegkitError: If s² does not divide C.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2) -> None:
        super().__init__(in_channels, out_channels, scale)
        if in_channels % scale**2:
            raise SegkitError(
                f"in_channels={in_channels} of BilinearAdditive: every {scale**2} channels are summed, so give a multiple of {scale**2} "
                f"(with --upsample_width a 1x1 convolution before the operator has as many as you say)"
            )
        self.conv = nn.Conv2d(in_channels // scale**2, out_channels, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self, init: str = "smooth") -> None:
        start_convolution(self.conv, init, self, summed=9 * self.in_channels)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        summed = x.reshape(b, c // self.scale**2, self.scale**2, h, w).sum(2)  # before the interpolation: the two commute
        out: Tensor = self.conv(interpolate(summed, scale_factor=self.scale, mode="bilinear", align_corners=False))
        return out
