"""The architectures of segmentation-models-pytorch behind `--decoder smp:NAME`, and their options. Standard library only."""

from collections.abc import Sequence
from dataclasses import dataclass

from segkit.errors import SegkitError, unknown

PREFIX = "smp:"
DECODER_CHANNELS = (256, 128, 64, 32, 16)  # the default, which says nothing of a network that has no such option
NORM = "batch"  # likewise


@dataclass(frozen=True)
class Architecture:
    """What segkit has to know of an architecture of smp.

    Args:
        operators: Interpolations that `--upsample` replaces; 0: none can be replaced.
        depth: Halvings of its encoder.
        dropout: What smp calls the probability of its dropout; None: it has no dropout.
        pooled: Whether it normalises maps of one pixel over the batch, so that it cannot train on one image a step.
        smallest: Least height and width that it takes, in pixels; smaller images are padded to it.
    """

    operators: int = 0
    depth: int = 5
    dropout: str | None = None
    pooled: bool = False
    smallest: int = 64


ARCHITECTURES: dict[str, Architecture] = {
    "Unet": Architecture(operators=5),
    "UnetPlusPlus": Architecture(),
    "MAnet": Architecture(),
    "Linknet": Architecture(operators=5),
    "FPN": Architecture(operators=10, dropout="decoder_dropout"),
    "PSPNet": Architecture(operators=1, depth=3, dropout="psp_dropout"),
    "DeepLabV3": Architecture(operators=1, dropout="decoder_aspp_dropout", pooled=True),
    "DeepLabV3Plus": Architecture(operators=2, dropout="decoder_aspp_dropout", pooled=True),
    "PAN": Architecture(operators=1, pooled=True, smallest=128),  # it halves features of stride 16 three times more
    "UPerNet": Architecture(operators=1, pooled=True),
    "Segformer": Architecture(operators=1),
}
REFUSED = {"DPT": "it takes a plain vision transformer of one image size, which is no encoder of segkit"}


def architecture_of(decoder: str) -> str | None:
    """`FPN` of `smp:FPN`; None of a decoder of segkit's own.

    Raises:
        SegkitError: The architecture is none of smp's, or one that does not fit.
    """
    if not decoder.startswith(PREFIX):
        return None
    name = decoder.removeprefix(PREFIX)
    if name in REFUSED:
        raise SegkitError(f"decoder {decoder!r}: {REFUSED[name]}; choose from {', '.join(PREFIX + n for n in ARCHITECTURES)}")
    if name not in ARCHITECTURES:
        raise unknown("architecture of smp", name, ARCHITECTURES)
    return name


def default_upsample(decoder: str) -> str | None:
    """The operator of a decoder where none is chosen: `transpose`, and in a network of smp None, its own interpolation."""
    return None if decoder.startswith(PREFIX) else "transpose"


def default_dropout(decoder: str) -> float | None:
    """The dropout of a decoder where none is chosen: 0, and in a network of smp None, its own."""
    return None if decoder.startswith(PREFIX) else 0.0


def refuse_options(
    decoder: str, *, encoder: str, upsample: object, upsample_init: str | None, upsample_width: Sequence[int] | None, dropout: float | None
) -> None:
    """Raises a SegkitError for the first option that has no meaning in an architecture of smp; of segkit's own decoders it asks nothing.

    Args:
        decoder: Such as `smp:FPN`.
        encoder: Name of the encoder.
        upsample: None, the network's own interpolation, or operators.
        upsample_init: As `TrainConfig`.
        upsample_width: As `TrainConfig`.
        dropout: None, the network's own, or a probability.
    """
    name = architecture_of(decoder)
    if name is None:
        return
    taken = ARCHITECTURES[name]
    if encoder == "plain":
        raise SegkitError(
            f"encoder 'plain' of decoder {decoder!r}: smp's decoders want an encoder of smp or timm, such as --encoder resnet18"
        )
    if upsample is not None and not taken.operators:
        able = ", ".join(PREFIX + other for other, its in ARCHITECTURES.items() if its.operators)
        raise SegkitError(
            f"upsample {_word(upsample)} of decoder {decoder!r}: it interpolates inside its blocks, where no operator fits; "
            f"leave --upsample out, or choose one of {able}"
        )
    for option, value in (("upsample_init", upsample_init), ("upsample_width", upsample_width)):
        if value is not None and upsample is None:
            raise SegkitError(f"{option} {value} of decoder {decoder!r}: its own interpolation has no weights; give --upsample too")
    if dropout is not None and taken.dropout is None:
        raise SegkitError(f"dropout {dropout} of decoder {decoder!r}: the network has no dropout; leave --dropout out")


def refuse_layers(decoder: str, norm: str, decoder_channels: Sequence[int]) -> None:
    """Raises a SegkitError where layers are chosen, and the decoder is one of smp's, which brings its own."""
    if architecture_of(decoder) is None:
        return
    for option, value, default in (("norm", norm, NORM), ("decoder_channels", list(decoder_channels), list(DECODER_CHANNELS))):
        if value != default:
            raise SegkitError(f"{option} {value} of decoder {decoder!r}: smp's decoders bring their own layers; leave --{option} out")


def _word(operators: object) -> str:
    """Operators in one word."""
    words = [operators] if isinstance(operators, str | type) or not isinstance(operators, Sequence) else operators
    return "+".join(word.__name__ if isinstance(word, type) else str(word) for word in words)
