"""What an operator makes of one pixel, of an edge and of a constant.

Shapes: C/D channels in/out, H W rows/columns, s scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from segkit.metrics import alone, checkerboard_index, phase_gains


@dataclass(frozen=True)
class Responses:
    """Responses of one typical kernel, each scaled to a largest magnitude of 1 and a mean not below 0, and two numbers over all kernels.

    Args:
        impulse: To one pixel, `[5s, 5s]`, the pixel at row and column 2.
        edge: To a slanted edge from 0 to 1, `[12s, 12s]`.
        step: To a vertical edge from 0 to 1 between columns 2 and 3, one line per row phase: `[s, 6s]`.
        flat: To a constant, `[6s, 6s]`.
        gains: The means of `flat` over its pixels of each phase, `[s, s]`.
        spectrum: Shares of the frequencies (2πu/s, 2πv/s) in the energy of the response to a constant, over all kernels: `[s, s]`, sum 1.
        index: Operator index CI_op over all kernels: 1 less the first entry of `spectrum`.
    """

    impulse: np.ndarray
    edge: np.ndarray
    step: np.ndarray
    flat: np.ndarray
    gains: np.ndarray
    spectrum: np.ndarray
    index: float


def measure_responses(operators: Mapping[str, nn.Module], same_kernel: bool = False) -> dict[str, Responses]:
    """Records the responses of variants of one operator: other weights, same C, D and s.

    Args:
        operators: The variants; each has the attribute `in_channels`.
        same_kernel: Show one kernel of all variants, typical of the last and strong in each, not each variant's own.
    """
    gains = {name: phase_gains(operator) for name, operator in operators.items()}
    pairs = {name: typical_kernel(every) for name, every in gains.items()}
    if same_kernel:
        shares = [every.square().sum((-2, -1)) for every in gains.values()]
        strength = torch.stack([share / share.max().clamp(min=1e-300) for share in shares]).amin(0)
        pairs = dict.fromkeys(pairs, typical_kernel(gains[list(gains)[-1]], strength))
    return {name: _measure(operator, gains[name], pairs[name]) for name, operator in operators.items()}


def _measure(operator: nn.Module, gains: Tensor, pair: tuple[int, int]) -> Responses:
    s = gains.shape[-1]
    pixel, edge = torch.zeros(13, 13), torch.zeros(14, 14)
    pixel[6, 6], edge[:, 7:] = 1, 1
    flat, factor = normalized(respond(operator, pair, torch.ones(14, 14), crop=4))
    power = torch.fft.fft2(gains).abs().square().sum((0, 1))
    return Responses(
        normalized(respond(operator, pair, pixel, crop=4))[0],
        normalized(respond(operator, pair, slanted_edge(20), crop=4))[0],
        normalized(respond(operator, pair, edge, crop=4))[0][2 * s : 3 * s],
        flat,
        np.asarray(gains[pair] * factor),
        np.asarray(power / power.sum().clamp(min=1e-300)),
        checkerboard_index(gains),
    )


def typical_kernel(gains: Tensor, strength: Tensor | None = None) -> tuple[int, int]:
    """The pair (c, d) to show, of `gains` `[C, D, s, s]`.

    Of the kernels whose own index is close to that of all together, the strongest: that of the largest `strength` `[C, D]`, by default its
    energy. Those a thousand times weaker than the strongest of all do not count.
    """
    energy = gains.square().sum((-2, -1))
    strength = energy if strength is None else strength
    own = (gains - gains.mean((-2, -1), keepdim=True)).square().sum((-2, -1)) / energy
    distance = (own - checkerboard_index(gains)).abs().nan_to_num(1)  # 0 / 0 where a kernel is empty
    distance[strength < strength.max() / 1000] = 1
    likely = torch.where(distance <= distance.min().clamp(min=0.02), strength, -1)
    c, d = divmod(int(likely.argmax()), gains.shape[1])
    return c, d


@torch.no_grad()
def respond(operator: nn.Module, pair: tuple[int, int], image: Tensor, crop: int) -> Tensor:
    """What output channel d makes of `image` `[H, W]` in input channel c, without the bias and without `crop` input pixels a side."""
    (c, d), channels = pair, operator.in_channels
    assert isinstance(channels, int)
    x = torch.zeros(2, channels, *image.shape)
    x[0, c] = image
    responses = alone(operator)(x)
    response, still = responses[:, d]
    border = crop * response.shape[-1] // image.shape[-1]
    inner: Tensor = (response - still)[border:-border, border:-border]
    return inner


@torch.no_grad()
def reach(operator: nn.Module, size: int = 7) -> np.ndarray:
    """Root mean square over all C·D kernels of the response to the middle pixel of `size` x `size`: `[size·s, size·s]`."""
    channels = operator.in_channels
    assert isinstance(channels, int)
    x = torch.zeros(channels + 1, channels, size, size)
    x[range(channels), range(channels), size // 2, size // 2] = 1
    responses = alone(operator)(x)
    return np.asarray((responses[:-1] - responses[-1]).square().mean((0, 1)).sqrt())


def slanted_edge(size: int) -> Tensor:
    """0 on the left, 1 on the right, the border leaning by one pixel in three, as a camera would see it: each pixel its covered share."""
    fine = torch.arange(8 * size) / 8
    left = size / 2 + (size / 2 - fine[:, None]) / 3
    return (fine[None] >= left).float().view(size, 8, size, 8).mean((1, 3))


def normalized(response: Tensor) -> tuple[np.ndarray, float]:
    """Scaled to a largest magnitude of 1 and a mean not below 0, and the factor that did it."""
    factor = (-1 if response.mean() < 0 else 1) / max(response.abs().max().item(), 1e-12)
    return np.asarray(response * factor), factor
