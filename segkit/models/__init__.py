"""Segmentation networks as plain `nn.Module`s: images `[B, C, H, W]` to logits `[B, K, H, W]`, for any H and W."""

from collections.abc import Sequence

from torch import nn

from segkit.errors import unknown
from segkit.models.fcn import FCN, SCALES
from segkit.models.unet import UNet

DECODERS = ("unet", *(f"fcn{variant}" for variant in SCALES))


def build_model(decoder: str, num_classes: int, *, decoder_channels: Sequence[int], **options: object) -> nn.Module:
    """The network behind a `--decoder` name.

    Args:
        decoder: `unet`, `fcn32s`, `fcn16s` or `fcn8s`.
        num_classes: K.
        decoder_channels: Channels per stage, deepest first; a U-Net's only.
        options: What `UNet` and `FCN` have in common: encoder, encoder_weights, in_channels, upsample, upsample_init, upsample_width, norm,
            dropout.
    """
    if decoder not in DECODERS:
        raise unknown("decoder", decoder, DECODERS)
    if decoder == "unet":
        return UNet(num_classes, decoder_channels=decoder_channels, **options)  # type: ignore[arg-type]
    return FCN(num_classes, decoder.removeprefix("fcn"), **options)  # type: ignore[arg-type]


__all__ = ["DECODERS", "FCN", "UNet", "build_model"]
