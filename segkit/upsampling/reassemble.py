"""Content-aware reassembly: every output pixel is a weighted mean of the 5 x 5 inputs around it, with weights that the network predicts.

Each ends in the 3x3 convolution of `bilinear`, so that nothing but the interpolation differs.

Shapes: B batch, C/D channels in/out, G channels of the guide, E channels of an embedding, H W rows/columns, s scale, t taps (25).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad, pixel_shuffle, pixel_unshuffle

from segkit.upsampling.interpolate import start_convolution
from segkit.upsampling.operator import GuidedUpsampler, Upsampler

WINDOW = 5  # side of the neighbourhood that is reassembled
EMBEDDING = 64  # channels that kernels are predicted from


def windows(x: Tensor) -> Tensor:
    """The 5 x 5 neighbours of every pixel, zeros outside the image: `[B, C, H, W] -> [B, H*W, 25, C]`."""
    h, w = x.shape[-2:]
    padded = pad(x, (WINDOW // 2,) * 4).movedim(1, -1)
    shifted = [padded[:, i : i + h, j : j + w] for i in range(WINDOW) for j in range(WINDOW)]
    return torch.stack(shifted, dim=3).flatten(1, 2)


def phases_last(x: Tensor, scale: int) -> Tensor:
    """The s² output pixels of every input pixel side by side: `[B, N, s*H, s*W] -> [B, H*W, s², N]`."""
    b, n = x.shape[:2]
    return pixel_unshuffle(x, scale).reshape(b, n, scale**2, -1).permute(0, 3, 2, 1)


def reassemble(x: Tensor, kernels: Tensor, scale: int) -> Tensor:
    """Weighted sums of neighbourhoods.

    Args:
        x: `[B, C, H, W]`.
        kernels: Weights `[B, H*W, s², 25]`.
        scale: s.

    Returns:
        `[B, C, s*H, s*W]`.
    """
    b, c, h, w = x.shape
    sums = kernels.to(x.dtype) @ windows(x)  # [B, H*W, s², C]
    return pixel_shuffle(sums.permute(0, 3, 2, 1).reshape(b, c * scale**2, h, w), scale)


class CARAFE(Upsampler):
    """Content-aware reassembly of features (Wang et al. 2019), then a 3x3 convolution.

    Kernels come from the input: a 1x1 convolution to 64 channels, a 3x3 convolution to 25 s² and a softmax over the 25 taps.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2) -> None:
        super().__init__(in_channels, out_channels, scale)
        self.compress = nn.Conv2d(in_channels, EMBEDDING, 1)
        self.encode = nn.Conv2d(EMBEDDING, WINDOW**2 * scale**2, 3, padding=1)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self, init: str = "smooth") -> None:
        """As in the paper for `smooth`: Xavier for the compressor, deviation 0.001 for the encoder."""
        start_convolution(self.conv, init, self)
        start_predictors(init, self.compress, self.encode)
        if init == "smooth":
            nn.init.xavier_uniform_(self.compress.weight)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.encode(self.compress(x)).reshape(x.shape[0], WINDOW**2, self.scale**2, -1)  # as a pixel shuffle orders them
        out: Tensor = self.conv(reassemble(x, logits.permute(0, 3, 2, 1).softmax(-1), self.scale))
        return out


class FADE(GuidedUpsampler):
    """Fusing the assets of decoder and encoder (Lu et al. 2022), then a 3x3 convolution.

    Kernels come from the input and from the guide: each is compressed to 64 channels, and one 3x3 convolution slides over both, over the
    input in steps of a coarse pixel and over the guide in steps of a fine one (semi-shift convolution); their sum passes a softmax. A gate
    that is predicted from the input blends the guide in, which a 1x1 convolution has brought to C channels.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2, guide_channels: int = 3) -> None:
        super().__init__(in_channels, out_channels, scale, guide_channels)
        self.compress = nn.Conv2d(in_channels, EMBEDDING, 1, bias=False)
        self.compress_guide = nn.Conv2d(guide_channels, EMBEDDING, 1)
        self.encode = nn.Conv2d(EMBEDDING, WINDOW**2, 3, padding=1)
        self.gate = nn.Conv2d(in_channels, 1, 1)
        self.match = nn.Conv2d(guide_channels, in_channels, 1, bias=False)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self, init: str = "smooth") -> None:
        """As in the paper for `smooth`: Xavier for the compressors, deviation 0.001 for the kernels' convolution and the gate."""
        start_convolution(self.conv, init, self)
        start_predictors(init, self.compress, self.compress_guide, self.encode, self.gate, self.match)
        if init == "smooth":
            nn.init.xavier_uniform_(self.compress.weight)
            nn.init.xavier_uniform_(self.compress_guide.weight)
            nn.init.kaiming_normal_(self.match.weight, nonlinearity="linear")

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        coarse = conv2d(self.compress(x), self.encode.weight, padding=1).flatten(2).transpose(1, 2)  # [B, H*W, 25]
        fine = phases_last(self.encode(self.compress_guide(guide)), self.scale)
        upsampled = reassemble(x, (fine + coarse[:, :, None]).softmax(-1), self.scale)
        gate = interpolate(self.gate(x).sigmoid(), scale_factor=self.scale, mode="nearest")
        out: Tensor = self.conv(gate * upsampled + (1 - gate) * self.match(guide))
        return out


class SAPA(GuidedUpsampler):
    """Similarity-aware point affiliation (Lu et al. 2022), bilinear variant, then a 3x3 convolution.

    The kernel of an output pixel says how similar the guide is there to each of the 25 inputs around it: a softmax over the inner products
    of embeddings of 64 channels, linear in the normalised features.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2, guide_channels: int = 3) -> None:
        super().__init__(in_channels, out_channels, scale, guide_channels)
        self.norm = nn.LayerNorm(in_channels)
        self.norm_guide = nn.LayerNorm(guide_channels)
        self.key = nn.Conv2d(in_channels, EMBEDDING, 1)
        self.query = nn.Conv2d(guide_channels, EMBEDDING, 1)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self, init: str = "smooth") -> None:
        """For `smooth` the embeddings start with deviation 0.02, as in the authors' transformers."""
        start_convolution(self.conv, init, self)
        start_predictors(init, self.key, self.query, deviation=0.02)
        self.norm.reset_parameters()
        self.norm_guide.reset_parameters()

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        keys = self.key(over_channels(self.norm, x))
        queries = self.query(over_channels(self.norm_guide, guide))
        similarity = phases_last(queries, self.scale) @ windows(keys).transpose(-1, -2)  # [B, H*W, s², 25]
        out: Tensor = self.conv(reassemble(x, similarity.softmax(-1), self.scale))
        return out


def over_channels(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer norm (Ba et al. 2016) over the channels of every pixel of `[B, C, H, W]`."""
    normalised: Tensor = norm(x.movedim(1, -1)).movedim(-1, 1)
    return normalised.to(x.dtype)


def start_predictors(init: str, *convolutions: nn.Conv2d, deviation: float = 0.001) -> None:
    """Draws convolutions that predict kernels: near zero for `smooth`, so that kernels start near the mean of their neighbourhood."""
    for conv in convolutions:
        if init == "standard":
            conv.reset_parameters()
            continue
        nn.init.normal_(conv.weight, std=deviation)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
