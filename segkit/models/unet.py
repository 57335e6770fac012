"""U-Net.

Shapes: B batch, C channels, K classes, H W rows/columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segkit.models.blocks import classifier, double_conv, pad_to_stride
from segkit.models.encoders import build_encoder
from segkit.models.recompute import run
from segkit.models.stages import guide, per_stage, width_per_stage
from segkit.upsampling import Operator, build_upsampler, is_guided


class DecoderStage(nn.Module):
    """Operator, concatenation with the skip, two conv-norm-activation blocks.

    Args:
        in_channels: Channels of the coarse features.
        skip_channels: Channels of the encoder's features at the finer stride; 0 where it has none.
        out_channels: Channels after the stage, and already after the operator.
        operator: The upsampling operator's class.
        init: Its initialisation.
        norm: Normalisation layers.
        width: Channels of a 1x1 convolution before the operator; None: there is none.
        guide_channels: Channels of what a guided operator looks at.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        operator: type[nn.Module],
        init: str,
        norm: str,
        width: int | None = None,
        guide_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.upsample = build_upsampler(operator, in_channels, out_channels, 2, init, width, guide_channels)
        self.convs = double_conv(out_channels + skip_channels, out_channels, norm)

    def forward(self, coarse: Tensor, skip: Tensor | None, *guide: Tensor) -> Tensor:
        """`[B, C, H, W]`, `[B, S, 2H, 2W]` (or None) and, for a guided operator, `[B, G, 2H, 2W]` -> `[B, D, 2H, 2W]`."""
        fine = self.upsample(coarse, *guide)
        out: Tensor = self.convs(fine if skip is None else torch.cat([fine, skip], dim=1))
        return out


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) over any encoder, with the upsampling operator as a parameter.

    Every stage doubles the resolution, the last one reaches the input's. With `encoder="plain"` the contracting path mirrors
    `decoder_channels`; `(512, 256, 128, 64)` is the network of 2015, with padding and normalisation.

    Args:
        num_classes: K.
        encoder: `plain`, any smp encoder or any timm model with a feature pyramid.
        encoder_weights: None, "imagenet", or a `.safetensors` / `.pt` file.
        in_channels: Channels of the images; pretrained first layers are adapted (`segkit.models.encoders.build_encoder`).
        upsample: Name in `segkit.upsampling.UPSAMPLERS`, a class of your own, or a list with one of these per stage, deepest first.
        upsample_init: Initial weights of the operators (`segkit.upsampling.Upsampler.reset_parameters`); default smooth.
        upsample_width: Channels of a 1x1 convolution before each operator, deepest first; default: no such convolution.
        decoder_channels: Channels per decoder stage, deepest first; their number is the depth, 32-fold reduction for five.
        norm: `batch` or `group`.
        dropout: Probability of dropping a channel before the classifier, in [0, 1).

    Raises:
        SegkitError: If a name, a number or the weights do not fit.
    """

    def __init__(
        self,
        num_classes: int,
        encoder: str = "resnet34",
        encoder_weights: str | None = None,
        in_channels: int = 3,
        upsample: Operator | Sequence[Operator] = "transpose",
        upsample_init: str | None = None,
        upsample_width: Sequence[int] | None = None,
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
        norm: str = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        depth = len(decoder_channels)
        operators = per_stage(upsample, depth)
        widths = [*reversed(decoder_channels), 2 * decoder_channels[0]]
        self.encoder = build_encoder(encoder, in_channels, depth, encoder_weights, widths, norm)
        *skips, deepest = self.encoder.channels
        inputs = [deepest, *decoder_channels[:-1]]
        self.stages = nn.ModuleList(
            DecoderStage(c, s, d, operator, upsample_init or "smooth", norm, w, s or in_channels)
            for c, s, d, operator, w in zip(
                inputs, reversed(skips), decoder_channels, operators, width_per_stage(upsample_width, depth), strict=True
            )
        )
        self.channels = list(decoder_channels)  # of the stages, deepest first
        self.recompute = False  # `segkit.models.recompute`
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier(decoder_channels[-1], num_classes, 3)  # with 16 channels, 1x1 learns far more slowly

    def forward(self, images: Tensor, stages: list[Tensor] | None = None) -> Tensor:
        """`[B, C, H, W] -> logits [B, K, H, W]` for any H, W >= 1; sizes that do not divide are padded inside and cropped.

        Args:
            images: Of any size.
            stages: Where it is given, it gets the outputs of all stages, deepest first, those of the padded image.
        """
        h, w = images.shape[-2:]
        padded = pad_to_stride(images, 2 ** len(self.stages), self.encoder.smallest)
        *skips, x = self.encoder(padded)
        for i, stage in enumerate(self.stages, start=1):
            assert isinstance(stage, DecoderStage)
            skip = skips[-i] if self.encoder.channels[-1 - i] else None
            looks_at = [guide(skip, padded, 2 ** (len(self.stages) - i))] if is_guided(stage.upsample) else []
            x = run(stage, x, skip, *looks_at, again=self.recompute)
            if stages is not None:
                stages.append(x)
        logits: Tensor = self.classifier(self.dropout(x))
        return logits[..., :h, :w]
