"""Options of the figures that explain operators."""

from dataclasses import dataclass, field

from segkit.config.choices import Upsample, UpsampleInit
from segkit.config.rules import within
from segkit.errors import SegkitError


@dataclass(kw_only=True)
class OperatorFigureConfig:
    """A figure of what upsampling operators do: a worked example and the responses of one, or a row for each of several.

    Args:
        upsample: operators to draw, one with its worked example; default: all, or those of the checkpoint
        checkpoint: run folder or .ckpt file whose operators are drawn stage by stage, before and after training
        scale: upsampling factor
        init: initial weights of what is shown for one initialisation only; bilinear is for transpose and transpose_k2 only
        seed: decides the random weights
        out: file to write, .png or .pdf
    """

    upsample: list[Upsample] = field(default_factory=list)
    checkpoint: str | None = None
    scale: int = 2
    init: UpsampleInit = "smooth"
    seed: int = 0
    out: str = "operators.png"

    def __post_init__(self) -> None:
        within("", self, 2, 16, "scale")
        within("", self, 0, 2**63 - 1, "seed")
        if self.checkpoint is not None and (self.scale, self.init, self.seed) != (2, "smooth", 0):
            raise SegkitError("--checkpoint: the run decides scale, initial weights and seed; leave out --scale, --init and --seed")
        if self.checkpoint is not None and len(self.upsample) > 1:
            raise SegkitError(f"--upsample {' '.join(self.upsample)}: with --checkpoint name one of the run's operators, or none")
        _picture_file(self.out)


@dataclass(kw_only=True)
class FeaturesFigureConfig:
    """A figure of the feature maps before and after every upsampling stage, of runs or of small untrained networks.

    Args:
        image: image file; default: a built-in scene, or the first validation image of the run
        upsample: operators of untrained networks, side by side; default: transpose
        init: initial weights of their operators
        seed: decides all their weights
        channels: maps shown before and after each stage, those that vary most
        crop: side in image pixels of the central window that is shown; default: the smaller of 128 and the image
        out: file to write, .png or .pdf
    """

    image: str | None = None
    upsample: list[Upsample] = field(default_factory=list)
    init: UpsampleInit = "smooth"
    seed: int = 0
    channels: int = 4
    crop: int | None = None
    out: str = "features.png"

    def __post_init__(self) -> None:
        within("", self, 0, 2**63 - 1, "seed")
        within("", self, 1, 16, "channels")
        within("", self, 8, 512, "crop")
        _picture_file(self.out)


@dataclass(kw_only=True)
class OverlapFigureConfig:
    """A table and a figure of how often transposed convolutions write to each output pixel.

    Args:
        kernel: kernel sizes k
        stride: strides s, each combined with each kernel size
        padding: paddings p; default: (k - s) / 2, rounded down and up where it is no integer
        out: file to write, .png or .pdf
    """

    kernel: list[int] = field(default_factory=lambda: [2, 3, 4, 5, 6, 7])
    stride: list[int] = field(default_factory=lambda: [2, 3])
    padding: list[int] = field(default_factory=list)
    out: str = "overlap.png"

    def __post_init__(self) -> None:
        for name, least, most in (("kernel", 1, 16), ("stride", 2, 8), ("padding", 0, 8)):
            values = getattr(self, name)
            if (not values and name != "padding") or not all(least <= value <= most for value in values):
                raise SegkitError(f"--{name} {values}: give numbers from {least} to {most}")
            if len(values) > 8:
                raise SegkitError(f"--{name}: {len(values)} numbers do not fit a page; give 8 at most")
        _picture_file(self.out)


def _picture_file(out: str) -> None:
    if not out.endswith((".png", ".pdf")):
        raise SegkitError(f"--out {out}: give a file name that ends in .png or .pdf")
