"""How much of a checkerboard an upsampling operator puts on a flat input.

Shapes: C/D channels in/out, N rows and columns of the test input, s scale.
"""

import torch
from torch import Tensor, nn

SIZE, MARGIN = 11, 4  # input pixels a side, and those at each border that are left out: the reach of a 17 x 17 kernel at scale 2


@torch.no_grad()
def phase_gains(operator: nn.Module, in_channels: int | None = None) -> Tensor:
    """The response to a constant, phase by phase: float64 `[C, D, s, s]`.

    Entry (c, d, a, b) is what output channel d holds in rows a and columns b (mod s), far from the border, when input channel c is one and
    the others are zero, less the response to zeros. The operator is evaluated as in `eval()` and left in the mode it was in.

    Args:
        operator: Maps `[B, C, H, W]` to `[B, D, s*H, s*W]`; s is measured.
        in_channels: C; default: the operator's own attribute of that name.
    """
    channels = operator.in_channels if in_channels is None else in_channels
    assert isinstance(channels, int), channels
    parameter = next(operator.parameters(), torch.zeros(()))
    modes = {module: module.training for module in operator.modules()}
    operator.eval()
    gains = []
    try:
        still = operator(parameter.new_zeros(1, channels, SIZE, SIZE))
        scale, cells = still.shape[-1] // SIZE, SIZE - 2 * MARGIN
        inside = slice(scale * MARGIN, -scale * MARGIN)
        for ones in torch.split(torch.eye(channels, dtype=parameter.dtype, device=parameter.device), 16):
            response = operator(ones[:, :, None, None].expand(-1, -1, SIZE, SIZE)) - still
            inner = response[..., inside, inside].double()
            gains.append(inner.reshape(*inner.shape[:2], cells, scale, cells, scale).mean((2, 4)))
    finally:
        for module, training in modes.items():
            module.training = training
    return torch.cat(gains)


def checkerboard_index(gains: Tensor) -> float:
    """The share of the gains' energy that varies with the phase, in [0, 1]; 0 where there is no response at all.

    Args:
        gains: `[..., s, s]`, as `phase_gains` measures them.
    """
    energy = gains.square().sum()
    return ((gains - gains.mean((-2, -1), keepdim=True)).square().sum() / energy).item() if energy > 0 else 0.0


def operator_index(operator: nn.Module, in_channels: int | None = None) -> float:
    """The operator index CI_op in [0, 1]: 0 where a flat input stays flat, 1 where nothing but a grid of period s is left of it.

    By Parseval's theorem it is the share of the response to a constant that lies on the non-zero multiples of the frequency 2π/s: the
    checkerboard of Odena et al. (2016), as one number. Untied random phases have 1 - 1/s² on average.

    Args:
        operator: Maps `[B, C, H, W]` to `[B, D, s*H, s*W]`.
        in_channels: C; default: the operator's own attribute of that name.
    """
    return checkerboard_index(phase_gains(operator, in_channels))


def operators(model: nn.Module) -> dict[str, nn.Module]:
    """The upsampling operators of a network, by name: its modules called `upsample` and those in a list called `upsamplers`."""
    return {
        name: module
        for name, module in model.named_modules()
        if name.rsplit(".", 1)[-1] == "upsample" or name.rsplit(".", 2)[-2:-1] == ["upsamplers"]
    }


def operator_indices(model: nn.Module) -> dict[str, float]:
    """The operator index of every operator in a network that knows its `in_channels`."""
    return {name: operator_index(operator) for name, operator in operators(model).items() if hasattr(operator, "in_channels")}
