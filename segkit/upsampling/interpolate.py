"""Fixed interpolation followed by a learned convolution.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale.
"""

from torch import Tensor, nn
from torch.nn.functional import interpolate

from segkit.upsampling.operator import Upsampler, no_such_init
from segkit.upsampling.phases import kaiming_normal


class _Interpolation(Upsampler):
    """What the interpolation modes have in common; all phases share one kernel, so every initialisation is a tied one."""

    def __init__(self, in_channels: int, out_channels: int, scale: int) -> None:
        super().__init__(in_channels, out_channels, scale)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self, init: str = "smooth") -> None:
        if init == "standard":
            self.conv.reset_parameters()
        elif init == "smooth":
            self.conv.weight.data = kaiming_normal(tuple(self.conv.weight.shape), fan_in=9 * self.in_channels)
            assert self.conv.bias is not None
            nn.init.zeros_(self.conv.bias)
        else:
            raise no_such_init(self, init)


class Bilinear(_Interpolation):
    """Bilinear interpolation with half-pixel centres (`align_corners=False`), then a 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2) -> None:
        super().__init__(in_channels, out_channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False))
        return out


class Nearest(_Interpolation):
    """Nearest-neighbour interpolation, then a 3x3 convolution: the remedy for checkerboards of Odena et al. (2016)."""

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2) -> None:
        super().__init__(in_channels, out_channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(interpolate(x, scale_factor=self.scale, mode="nearest"))
        return out
