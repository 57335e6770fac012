"""One operator as something that is timed and counted: its inputs, its cost, a step forward and backward.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

from segkit.benchmark.bench import Bench
from segkit.upsampling import is_guided, rewriting

BASE = "bilinear, conv3x3"


class Steps(nn.Module):
    """Interpolation, then a convolution, with nothing rewritten.

    Args:
        in_channels: C.
        out_channels: D.
        mode: Of the interpolation.
        kernel_size: Of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, mode: str = "bilinear", kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W] -> [B, D, 2H, 2W]`."""
        align = None if self.mode == "nearest" else False
        out: Tensor = self.conv(interpolate(x, scale_factor=2, mode=self.mode, align_corners=align))
        return out


def build(cls: type[nn.Module], in_channels: int, out_channels: int, scale: int = 2) -> nn.Module:
    """An operator; one that looks at a guide gets one of D channels."""
    if is_guided(cls):
        return cls(in_channels, out_channels, scale, guide_channels=out_channels)
    return cls(in_channels, out_channels, scale)


def inputs(operator: nn.Module, x: Tensor, out_channels: int, scale: int = 2) -> tuple[Tensor, ...]:
    """What an operator is called with: `x` `[B, C, H, W]` and, where it looks at one, a random guide `[B, D, s*H, s*W]`."""
    if not is_guided(operator):
        return (x,)
    shape = (len(x), out_channels, scale * x.shape[-2], scale * x.shape[-1])
    guide = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(x)
    layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return x, guide.contiguous(memory_format=layout)


def cost(operator: nn.Module, given: tuple[Tensor, ...]) -> dict[str, int]:
    """Parameters, and multiply-adds of convolutions and matrix products per image, in the form that the operator is defined by."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), rewriting("off"):
        operator(*given)
    return {"params": sum(p.numel() for p in operator.parameters()), "MACs": counter.get_total_flops() // 2 // len(given[0])}


def timed_call(bench: Bench, operator: nn.Module, x: Tensor, out_channels: int, low: bool) -> Callable[[], None]:
    """Forward and backward of an operator on `x` `[B, C, H, W]`, up to the gradients of input, guide and weights."""
    given = tuple(tensor.clone(memory_format=torch.preserve_format).requires_grad_() for tensor in inputs(operator, x, out_channels))
    with torch.no_grad(), bench.arithmetic(low):
        back = torch.ones_like(operator(*given))

    def step() -> None:
        with bench.arithmetic(low):
            out = operator(*given)
        out.backward(back)
        for tensor in (*given, *operator.parameters()):
            tensor.grad = None

    return step
