"""Transposed convolution: every input pixel stamps its kernel onto the output, s pixels apart.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale, k kernel size.
"""

from torch import Tensor, nn

from segkit.upsampling.operator import Upsampler, no_such_init
from segkit.upsampling.phases import bilinear_transposed, tie_transposed


class _TransposedConvolution(Upsampler):
    """What the kernel sizes have in common; with padding (k - s) / 2 the output is exactly s times the input and is not shifted."""

    def __init__(self, in_channels: int, out_channels: int, scale: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, scale)
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, kernel_size, stride=scale, padding=(kernel_size - scale) // 2)
        self.reset_parameters()

    def reset_parameters(self, init: str = "smooth") -> None:
        if init == "standard":
            self.conv.reset_parameters()
        elif init in ("smooth", "bilinear"):
            fill = tie_transposed if init == "smooth" else bilinear_transposed
            fill(self.conv.weight, self.scale)
            assert self.conv.bias is not None
            nn.init.zeros_(self.conv.bias)
        else:
            raise no_such_init(self, init)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class Transpose(_TransposedConvolution):
    """Transposed convolution whose kernels overlap: k = 2s, padding s/2 (Zeiler et al. 2010; Long et al. 2015).

    An odd scale takes k = 2s - 1, padding (s - 1)/2, as in FCN's bilinear kernels: with k = 2s any padding would shift the image.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2) -> None:
        super().__init__(in_channels, out_channels, scale, kernel_size=2 * scale - scale % 2)


class TransposeK2(_TransposedConvolution):
    """Transposed convolution whose kernels tile without overlap: k = s (the up-convolution of Ronneberger et al. 2015).

    Equals a 1x1 convolution followed by a pixel shuffle.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2) -> None:
        super().__init__(in_channels, out_channels, scale, kernel_size=scale)
