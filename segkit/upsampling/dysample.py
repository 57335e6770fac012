"""Upsampling by dynamic point sampling.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale, g groups, N images of a group.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, pixel_shuffle

from segkit.upsampling.interpolate import start_convolution
from segkit.upsampling.operator import Upsampler
from segkit.upsampling.reassemble import start_predictors

GROUPS = 4  # channels of a group share their points


class DySample(Upsampler):
    """Dynamic upsampling (Liu et al. 2023), static scope, then a 3x3 convolution: an output pixel reads the input at a predicted point.

    A 1x1 convolution predicts, for each of 4 groups of channels, offsets from the points of bilinear interpolation, a quarter of a pixel
    for each unit; the input is read there bilinearly. Offsets start near zero, so that it starts as `bilinear`. Where 4 does not divide C
    there are as many groups as can be.
    """

    dynamic: ClassVar[bool] = False

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2) -> None:
        super().__init__(in_channels, out_channels, scale)
        self.groups = math.gcd(GROUPS, in_channels)
        self.offset = nn.Conv2d(in_channels, 2 * self.groups * scale**2, 1)
        self.scope = nn.Conv2d(in_channels, 2 * self.groups * scale**2, 1, bias=False) if self.dynamic else None
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self, init: str = "smooth") -> None:
        """As in the paper for `smooth`: deviation 0.001 for offsets, zero for the scope."""
        start_convolution(self.conv, init, self)
        start_predictors(init, self.offset)
        if self.scope is not None:
            start_predictors(init, self.scope, deviation=0.0)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        s, g = self.scale, self.groups
        offsets: Tensor = self.offset(x) * (0.25 if self.scope is None else 0.5 * self.scope(x).sigmoid())
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32  # bfloat16 has no halves beyond pixel 128
        points = pixel_shuffle(offsets, s).to(exact).reshape(b * g, 2, s * h, s * w) + bilinear_points(h, w, s, x.device, exact)
        read = sample(x.to(exact).reshape(b * g, c // g, h, w), points)
        out: Tensor = self.conv(read.reshape(b, c, s * h, s * w).to(x.dtype))
        return out


class DySampleDynamic(DySample):
    """Dynamic upsampling (Liu et al. 2023), dynamic scope: how far a unit moves a point, up to half a pixel, is predicted too."""

    dynamic = True


def bilinear_points(h: int, w: int, scale: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Where each output pixel has its centre in the input, in pixels from the centre of the first: `[2, s*H, s*W]`, columns before rows."""
    rows, columns = ((torch.arange(scale * n, device=device, dtype=dtype) + 0.5) / scale - 0.5 for n in (h, w))
    return torch.stack([columns.expand(scale * h, scale * w), rows[:, None].expand(scale * h, scale * w)])


def sample(x: Tensor, points: Tensor) -> Tensor:
    """Reads an image at points, bilinearly; beyond the border it reads the border.

    Args:
        x: `[N, C, H, W]`.
        points: Columns and rows in pixels from the centre of the first, `[N, 2, H', W']`.

    Returns:
        `[N, C, H', W']`.
    """
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return sample_by_index(x, points)
    h, w = x.shape[-2:]
    grid = torch.stack([(2 * points[:, 0] + 1) / w - 1, (2 * points[:, 1] + 1) / h - 1], -1)
    return grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def sample_by_index(x: Tensor, points: Tensor) -> Tensor:
    """The same from the four neighbours of each point, whose gradient is deterministic on a GPU, as that of `grid_sample` is not."""
    n, c, h, w = x.shape
    columns, rows = points[:, 0].clamp(0, w - 1), points[:, 1].clamp(0, h - 1)
    left, top = columns.detach().floor(), rows.detach().floor()
    out = x.new_zeros(n, c, *points.shape[2:])
    for row, down in ((top, 1 - (rows - top)), (top + 1, rows - top)):
        for column, right in ((left, 1 - (columns - left)), (left + 1, columns - left)):
            place = (row.clamp(max=h - 1) * w + column.clamp(max=w - 1)).long()
            pixels = x.flatten(2).gather(2, place.flatten(1)[:, None].expand(-1, c, -1)).view_as(out)
            out = out + (down * right)[:, None] * pixels
    return out
