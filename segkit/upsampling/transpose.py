"""Transposed convolution: every input pixel stamps its kernel onto the output, s pixels apart.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale, k kernel size.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, pad

from segkit.upsampling.operator import Upsampler, no_such_init
from segkit.upsampling.phases import bilinear_kernel, bilinear_transposed, kaiming_normal, tie_transposed


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


class FCNBilinear(Upsampler):
    """A transposed convolution whose kernel is bilinear interpolation and stays it (Long et al. 2015), after a 1x1 convolution.

    `transpose` is the one that learns it. Unlike `bilinear`, which repeats the border, it fades over the last s/2 pixels.
    """

    kernel: Tensor

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2) -> None:
        super().__init__(in_channels, out_channels, scale)
        self.conv = nn.Conv2d(in_channels, out_channels, 1)
        self.register_buffer("kernel", bilinear_kernel(2 * scale - scale % 2, scale), persistent=False)
        self.reset_parameters()

    def reset_parameters(self, init: str = "smooth") -> None:
        if init == "standard":
            self.conv.reset_parameters()
        elif init == "smooth":
            with torch.no_grad():
                self.conv.weight.copy_(kaiming_normal(tuple(self.conv.weight.shape), fan_in=self.in_channels))
            assert self.conv.bias is not None
            nn.init.zeros_(self.conv.bias)
        else:
            raise no_such_init(self, init)

    def forward(self, x: Tensor) -> Tensor:
        scores, d, k = conv2d(x, self.conv.weight), self.out_channels, self.kernel.shape[-1]
        kernel = self.kernel.to(scores.dtype).expand(d, 1, k, k)
        return conv_transpose2d(scores, kernel, self.conv.bias, stride=self.scale, padding=(k - self.scale) // 2, groups=d)


class TransposeLarge(Upsampler):
    """Transposed convolution with a large kernel and a parallel small one (Agnihotri et al. 2023): 7x7 and 3x3 at scale 2.

    At other scales 4s - 1 and 2s - 1. As published the kernels are odd, so that at an even scale no padding centres them: the output lies
    half a pixel to the upper left, and phases sum over different numbers of weights. The two kernels see the same pixels, so their sum is
    applied in one convolution.
    """

    context = 4  # kernel size 4s - 1

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2) -> None:
        super().__init__(in_channels, out_channels, scale)
        k, shift = self.context * scale - 1, (scale + 1) % 2
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, k, scale, padding=(k - scale + shift) // 2, output_padding=shift)
        self.small = nn.ConvTranspose2d(in_channels, out_channels, 2 * scale - 1, scale, bias=False)  # its weights alone are used
        self.reset_parameters()

    def reset_parameters(self, init: str = "smooth") -> None:
        if init == "standard":
            self.conv.reset_parameters()
            self.small.reset_parameters()
        elif init == "smooth":
            tie_transposed(self.conv.weight, self.scale, share=0.5)
            tie_transposed(self.small.weight, self.scale, share=0.5)
            assert self.conv.bias is not None
            nn.init.zeros_(self.conv.bias)
        else:
            raise no_such_init(self, init)

    def forward(self, x: Tensor) -> Tensor:
        border = (self.conv.kernel_size[0] - self.small.kernel_size[0]) // 2
        weight = self.conv.weight + pad(self.small.weight, (border,) * 4)
        padding, shift = int(self.conv.padding[0]), self.conv.output_padding[0]
        return conv_transpose2d(x, weight, self.conv.bias, self.scale, padding, output_padding=shift)


class TransposeLargeK11(TransposeLarge):
    """The same with 11x11 and 3x3 at scale 2, at other scales 6s - 1 and 2s - 1 (Agnihotri et al. 2023)."""

    context = 6
