"""Segmentation networks as plain `nn.Module`s: images `[B, C, H, W]` to logits `[B, K, H, W]`, for any H and W."""

from collections.abc import Sequence

from torch import nn

from segkit.architectures import (
    ARCHITECTURES,
    DECODER_CHANNELS,
    NORM,
    PREFIX,
    default_dropout,
    default_upsample,
    refuse_layers,
)
from segkit.errors import unknown
from segkit.models.fcn import FCN, SCALES
from segkit.models.smp_networks import SMPNetwork
from segkit.models.unet import UNet
from segkit.upsampling import Operator

DECODERS = ("unet", *(f"fcn{variant}" for variant in SCALES))  # segkit's own
Network = UNet | FCN | SMPNetwork  # what `build_model` gives


def build_model(
    decoder: str,
    num_classes: int,
    *,
    decoder_channels: Sequence[int] = DECODER_CHANNELS,
    upsample: Operator | Sequence[Operator] | None = None,
    norm: str = NORM,
    dropout: float | None = None,
    **options: object,
) -> nn.Module:
    """The network behind a `--decoder` name.

    Args:
        decoder: `unet`, `fcn32s`, `fcn16s`, `fcn8s`, or `smp:` and an architecture of segmentation-models-pytorch, such as `smp:FPN`.
        num_classes: K.
        decoder_channels: Channels per stage, deepest first; a U-Net's only.
        upsample: Operators; default `transpose`, and in a network of smp its own interpolation.
        norm: Normalisation layers, of segkit's own decoders.
        dropout: Probability of dropping a channel; default 0, and in a network of smp its own.
        options: What all have in common: encoder, encoder_weights, in_channels, upsample_init, upsample_width.
    """
    if decoder.startswith(PREFIX):
        refuse_layers(decoder, norm, decoder_channels)
        return SMPNetwork(num_classes, decoder.removeprefix(PREFIX), upsample=upsample, dropout=dropout, **options)  # type: ignore[arg-type]
    if decoder not in DECODERS:
        raise unknown("decoder", decoder, {*DECODERS, *(PREFIX + name for name in ARCHITECTURES)}, most=20)
    options |= {
        "upsample": default_upsample(decoder) if upsample is None else upsample,
        "dropout": default_dropout(decoder) if dropout is None else dropout,
        "norm": norm,
    }
    if decoder == "unet":
        return UNet(num_classes, decoder_channels=decoder_channels, **options)  # type: ignore[arg-type]
    return FCN(num_classes, decoder.removeprefix("fcn"), **options)  # type: ignore[arg-type]


__all__ = ["DECODERS", "FCN", "Network", "SMPNetwork", "UNet", "build_model"]
