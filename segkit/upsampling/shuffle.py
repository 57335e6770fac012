"""Sub-pixel convolution: channels are rearranged into space.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pixel_shuffle

from segkit.upsampling.operator import Upsampler, no_such_init
from segkit.upsampling.phases import tie_shuffled


class PixelShuffle(Upsampler):
    """A 3x3 convolution to s²·D channels, then depth-to-space (Shi et al. 2016), initialised by ICNR (Aitken et al. 2017)."""

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2) -> None:
        super().__init__(in_channels, out_channels, scale)
        self.conv = nn.Conv2d(in_channels, scale**2 * out_channels, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self, init: str = "smooth") -> None:
        if init == "standard":
            self.conv.reset_parameters()
        elif init == "smooth":
            tie_shuffled(self.conv, self.scale)
        else:
            raise no_such_init(self, init)

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle(self.conv(x), self.scale)


class BlurPixelShuffle(PixelShuffle):
    """`pixel_shuffle`, then a fixed blur that lets no checkerboard through (Sugawara et al. 2018, here without its shift).

    The kernel is a box of s pixels twice, 1 2 1 / 4 at scale 2: of odd length, so nothing is shifted, and zero at every multiple of the
    frequency 2π/s, so a constant stays constant whatever is learned. The border is repeated.
    """

    line: Tensor

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2) -> None:
        super().__init__(in_channels, out_channels, scale)
        self.register_buffer("line", (scale - torch.arange(1.0 - scale, scale).abs()) / scale**2, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        shuffled, d, r = super().forward(x), self.out_channels, self.scale - 1
        line = self.line.to(shuffled.dtype)
        # not by `pad`, the gradient of whose repetition Inductor of torch 2.15 lays out wrongly
        tall = torch.cat([*[shuffled[..., :1, :]] * r, shuffled, *[shuffled[..., -1:, :]] * r], dim=-2)
        rows = conv2d(tall, line.view(1, 1, -1, 1).expand(d, 1, -1, 1), groups=d)
        wide = torch.cat([*[rows[..., :1]] * r, rows, *[rows[..., -1:]] * r], dim=-1)
        return conv2d(wide, line.expand(d, 1, 1, -1), groups=d)
