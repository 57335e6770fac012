"""What an upsampling operator is, and how one is built.

Shapes: B batch, C/D channels in/out, G channels of the guide, H W rows/columns, s scale, k kernel size.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from segkit.errors import SegkitError

INITS = ("smooth", "standard", "bilinear")


class Upsampler(nn.Module, ABC):
    """An upsampling operator `[B, C, H, W] -> [B, D, s*H, s*W]`, exactly, for any H, W >= 1.

    Args:
        in_channels: C.
        out_channels: D.
        scale: s, an integer >= 2.

    An operator of your own needs no more than this signature and shape contract; any `nn.Module` class will do. One that derives from
    `Upsampler` also takes part in the choice of initialisation. One with `guided = True` derives from `GuidedUpsampler`, or has its
    signatures.
    """

    guided: ClassVar[bool] = False

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2) -> None:
        super().__init__()
        for name, value, least in (("in_channels", in_channels, 1), ("out_channels", out_channels, 1), ("scale", scale, 2)):
            if not isinstance(value, int) or value < least:
                raise SegkitError(f"{name}={value!r} of {type(self).__name__}: give an integer >= {least}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.scale = scale

    @abstractmethod
    def reset_parameters(self, init: str = "smooth") -> None:
        """Draws the weights anew.

        Args:
            init: `smooth` (Kaiming variance, the s x s phases tied: a constant input gives a constant interior), `standard` (PyTorch's
                own default for the layers used, phases untied), or `bilinear` (the weights of interpolation to start from;
                `transpose` and `transpose_k2` only).
        """

    def extra_repr(self) -> str:
        """Shows the contract in `print(model)`."""
        return f"{self.in_channels}, {self.out_channels}, scale={self.scale}"


class GuidedUpsampler(Upsampler):
    """An operator that also looks at finer features: `[B, C, H, W]` and a guide `[B, G, s*H, s*W]` to `[B, D, s*H, s*W]`.

    The guide is what the encoder has at the output's stride, or the image itself where the encoder has nothing.

    Args:
        in_channels: C.
        out_channels: D.
        scale: s, an integer >= 2.
        guide_channels: G.
    """

    guided: ClassVar[bool] = True

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2, guide_channels: int = 3) -> None:
        super().__init__(in_channels, out_channels, scale)
        if not isinstance(guide_channels, int) or guide_channels < 1:
            raise SegkitError(f"guide_channels={guide_channels!r} of {type(self).__name__}: give an integer >= 1")
        self.guide_channels = guide_channels


def no_such_init(operator: Upsampler, init: str) -> SegkitError:
    """The error for an initialisation that `operator` does not have."""
    if init == "bilinear":
        return SegkitError(
            f"upsample_init='bilinear' is defined for transpose and transpose_k2 only, not for {type(operator).__name__}: use 'smooth'"
        )
    return SegkitError(f"unknown upsample_init {init!r}; choose from {', '.join(INITS)}")


class Projected(nn.Module):
    """A 1x1 convolution to another number of channels, then an operator: with it, operators of one cost can be compared.

    Args:
        in_channels: C.
        width: Channels between the two.
        operator: Maps `[B, width, H, W]`, and a guide where it takes one, to `[B, D, s*H, s*W]`.
    """

    def __init__(self, in_channels: int, width: int, operator: nn.Module) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, getattr(operator, "out_channels", None)
        self.guided, self.scale = is_guided(operator), getattr(operator, "scale", None)
        self.project = nn.Conv2d(in_channels, width, 1, bias=False)
        nn.init.kaiming_normal_(self.project.weight, nonlinearity="linear")  # keeps the variance: nothing non-linear follows
        self.operator = operator

    @property
    def guide_channels(self) -> int:
        """G of a guided operator."""
        assert isinstance(self.operator.guide_channels, int)
        return self.operator.guide_channels

    def forward(self, x: Tensor, *guide: Tensor) -> Tensor:
        """`[B, C, H, W] -> [B, D, s*H, s*W]`."""
        out: Tensor = self.operator(self.project(x), *guide)
        return out


def is_guided(operator: nn.Module | type[nn.Module]) -> bool:
    """Whether an operator takes a guide besides its input."""
    return bool(getattr(operator, "guided", False))


def build_upsampler(
    operator: type[nn.Module],
    in_channels: int,
    out_channels: int,
    scale: int = 2,
    init: str = "smooth",
    width: int | None = None,
    guide_channels: int | None = None,
) -> nn.Module:
    """Builds an operator with weights from a random stream of its own.

    The global stream is advanced by exactly one draw, whatever the operator: so every other layer of a network starts bit-identical for one
    seed, and a comparison of operators compares nothing else.

    Args:
        operator: The class, called as `operator(in_channels, out_channels, scale)`, a guided one with `guide_channels` too.
        in_channels: C.
        out_channels: D.
        scale: s.
        init: See `Upsampler.reset_parameters`; a class that is no `Upsampler` keeps the weights that its constructor gave it.
        width: Channels of a 1x1 convolution before the operator; None: there is none.
        guide_channels: G; None: there is no guide here.

    Returns:
        The module.

    Raises:
        SegkitError: The operator needs a guide and there is none, or numbers of channels that are not these.
    """
    extra = {}
    if is_guided(operator):
        if guide_channels is None:
            raise SegkitError(f"{operator.__name__} needs a guide, and there is none here: choose an operator that takes its input alone")
        extra["guide_channels"] = guide_channels
    seed = int(torch.randint(2**62, ()))
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        built = operator(width or in_channels, out_channels, scale, **extra)
        if isinstance(built, Upsampler):
            built.reset_parameters(init)
        return Projected(in_channels, width, built) if width else built
