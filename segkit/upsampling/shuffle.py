"""Sub-pixel convolution: channels are rearranged into space.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale.
"""

from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

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
