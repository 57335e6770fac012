"""What an upsampling operator is, and how one is built.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale, k kernel size.
"""

from abc import ABC, abstractmethod

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
    `Upsampler` also takes part in the choice of initialisation.
    """

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
                own default for the layers used, phases untied), or `bilinear` (fixed interpolation weights to start from, only where
                the operator is a transposed convolution).
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W] -> [B, D, s*H, s*W]`."""

    def extra_repr(self) -> str:
        """Shows the contract in `print(model)`."""
        return f"{self.in_channels}, {self.out_channels}, scale={self.scale}"


def no_such_init(operator: Upsampler, init: str) -> SegkitError:
    """The error for an initialisation that `operator` does not have."""
    if init == "bilinear":
        return SegkitError(
            f"upsample_init='bilinear' is defined for transposed convolution only, not for {type(operator).__name__}: use 'smooth'"
        )
    return SegkitError(f"unknown upsample_init {init!r}; choose from {', '.join(INITS)}")


class Projected(nn.Module):
    """A 1x1 convolution to another number of channels, then an operator: with it, operators of one cost can be compared.

    Args:
        in_channels: C.
        width: Channels between the two.
        operator: Maps `[B, width, H, W]` to `[B, D, s*H, s*W]`.
    """

    def __init__(self, in_channels: int, width: int, operator: nn.Module) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.project = nn.Conv2d(in_channels, width, 1, bias=False)
        nn.init.kaiming_normal_(self.project.weight, nonlinearity="linear")  # keeps the variance: nothing non-linear follows
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W] -> [B, D, s*H, s*W]`."""
        out: Tensor = self.operator(self.project(x))
        return out


def build_upsampler(
    operator: type[nn.Module], in_channels: int, out_channels: int, scale: int = 2, init: str = "smooth", width: int | None = None
) -> nn.Module:
    """Builds an operator with weights from a random stream of its own.

    The global stream is advanced by exactly one draw, whatever the operator: so every other layer of a network starts bit-identical for one
    seed, and a comparison of operators compares nothing else.

    Args:
        operator: The class, called as `operator(in_channels, out_channels, scale)`.
        in_channels: C.
        out_channels: D.
        scale: s.
        init: See `Upsampler.reset_parameters`; a class that is no `Upsampler` keeps the weights that its constructor gave it.
        width: Channels of a 1x1 convolution before the operator; None: there is none.

    Returns:
        The module.
    """
    seed = int(torch.randint(2**62, ()))
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        built = operator(width or in_channels, out_channels, scale)
        if isinstance(built, Upsampler):
            built.reset_parameters(init)
        return Projected(in_channels, width, built) if width else built
