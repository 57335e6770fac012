"""Fully convolutional networks.

Shapes: B batch, C channels, K classes, H W rows/columns.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from segkit.errors import SegkitError, unknown
from segkit.models.blocks import classifier, pad_to_stride
from segkit.models.encoders import build_encoder
from segkit.models.stages import guide, per_stage, width_per_stage
from segkit.upsampling import Operator, Transpose, TransposeK2, build_upsampler, is_guided

SCALES = {"32s": (32,), "16s": (2, 16), "8s": (2, 2, 8)}
PLAIN_WIDTHS = (16, 32, 64, 128, 256, 512)


class FCN(nn.Module):
    """FCN-32s, -16s and -8s (Long, Shelhamer & Darrell 2015) over any encoder, with the upsampling operator as a parameter.

    A 1x1 score layer on the features of each stride used; scores are upsampled by the operator and summed, from coarse to fine. Transposed
    convolutions start as bilinear interpolation on the class diagonal, as in the paper; score layers start random, not at zero, so that the
    encoder learns from the first step.

    Args:
        num_classes: K.
        variant: `32s` (one operator of scale 32), `16s` (2, 16) or `8s` (2, 2, 8).
        encoder: `plain`, any smp encoder or any timm model with a feature pyramid of depth 5.
        encoder_weights: None, "imagenet", or a `.safetensors` / `.pt` file.
        in_channels: Channels of the images; pretrained first layers are adapted (`segkit.models.encoders.build_encoder`).
        upsample: Name in `segkit.upsampling.UPSAMPLERS`, a class of your own, or a list with one per operator, coarsest first.
        upsample_init: Initial weights of the operators; default `bilinear` for `transpose` and `transpose_k2`, `smooth` for the others.
        upsample_width: Channels of a 1x1 convolution before each operator, coarsest first; default: no such convolution.
        norm: Normalisation layers of the plain encoder.
        dropout: Probability of dropping a channel before the score layers, in [0, 1).

    Raises:
        SegkitError: If a name, a number or the weights do not fit.
    """

    def __init__(
        self,
        num_classes: int,
        variant: str = "8s",
        encoder: str = "resnet34",
        encoder_weights: str | None = None,
        in_channels: int = 3,
        upsample: Operator | Sequence[Operator] = "transpose",
        upsample_init: str | None = None,
        upsample_width: Sequence[int] | None = None,
        norm: str = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if variant not in SCALES:
            raise unknown("FCN variant", variant, SCALES)
        scales = SCALES[variant]
        self.encoder = build_encoder(encoder, in_channels, 5, encoder_weights, PLAIN_WIDTHS, norm)
        used = list(reversed(self.encoder.channels))[: len(scales)]
        if 0 in used:
            raise SegkitError(
                f"encoder {encoder!r} has no features at one of the strides that FCN-{variant} scores; choose another encoder"
            )
        self.dropout = nn.Dropout2d(dropout)
        self.scores = nn.ModuleList(classifier(c, num_classes) for c in used)
        self.upsamplers = nn.ModuleList()
        guides = [*self.encoder.channels[4 : 5 - len(scales) : -1], self.encoder.channels[0]]  # at the strides that operators reach
        widths = width_per_stage(upsample_width, len(scales))
        for operator, scale, width, c in zip(per_stage(upsample, len(scales)), scales, widths, guides, strict=True):
            default = "bilinear" if issubclass(operator, Transpose | TransposeK2) else "smooth"
            self.upsamplers.append(
                build_upsampler(operator, num_classes, num_classes, scale, upsample_init or default, width, c or in_channels)
            )

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C, H, W] -> logits [B, K, H, W]` for any H, W >= 1; sizes that do not divide are padded inside and cropped."""
        h, w = images.shape[-2:]
        padded = pad_to_stride(images, 32, self.encoder.smallest)
        features = self.encoder(padded)
        first, *finer = (score(self.dropout(f)) for score, f in zip(self.scores, reversed(features), strict=False))
        logits: Tensor = first
        for i, (upsample, score) in enumerate(zip(self.upsamplers, [*finer, None], strict=True)):
            if is_guided(upsample):
                level = 0 if score is None else 4 - i
                feature = features[level] if self.encoder.channels[level] else None
                logits = upsample(logits, guide(feature, padded, 2**level))
            else:
                logits = upsample(logits)
            if score is not None:
                logits = logits + score
        return logits[..., :h, :w]
