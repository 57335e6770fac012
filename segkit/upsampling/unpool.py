"""Upsampling by remembered maxima.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from segkit.errors import SegkitError
from segkit.upsampling.interpolate import start_convolution
from segkit.upsampling.operator import GuidedUpsampler


class Unpool(GuidedUpsampler):
    """A 1x1 convolution, then max-unpooling (Badrinarayanan et al. 2017, SegNet): each value goes where the encoder's maximum was.

    The guide is the feature that the encoder pools, so its maxima are the indices of that pooling; the other s² - 1 pixels of a cell are
    zero, and a convolution must follow, as it does in a decoder. The plain encoder pools so, with the decoder's own channels.

    Raises:
        SegkitError: If the guide has other channels than the output.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2, guide_channels: int = 3) -> None:
        super().__init__(in_channels, out_channels, scale, guide_channels)
        if guide_channels != out_channels:
            raise SegkitError(
                f"unpool puts {out_channels} channels where the maxima of {guide_channels} channels of the encoder were: they have to be "
                "equal, as they are in a U-Net with --encoder plain; or choose another operator"
            )
        self.conv = nn.Conv2d(in_channels, out_channels, 1)
        self.reset_parameters()

    def reset_parameters(self, init: str = "smooth") -> None:
        start_convolution(self.conv, init, self)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        values: Tensor = self.conv(x)
        return interpolate(values, scale_factor=self.scale, mode="nearest") * maxima(guide, self.scale).to(values.dtype)


@torch.no_grad()
def maxima(guide: Tensor, scale: int) -> Tensor:
    """True at the first maximum of every s x s cell of `guide` `[B, D, s*H, s*W]`: what the indices of a max-pooling say.

    A product with it is `max_unpool2d`, which is neither deterministic on a GPU nor known to ONNX.
    """
    h, w = guide.shape[-2:]
    _, indices = max_pool2d(guide, scale, return_indices=True)  # of pixels counted row by row
    places = torch.arange(h * w, device=guide.device).view(h, w)
    return indices.repeat_interleave(scale, -2).repeat_interleave(scale, -1) == places
