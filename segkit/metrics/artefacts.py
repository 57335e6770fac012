"""How much of a checkerboard an operator puts on a flat input, and how much of a grid there is in a network's logits.

Shapes: B batch, C/D channels in/out, K classes, H W rows/columns, s scale of an operator or period of a grid, F frequencies.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

SCALES = (2, 4, 8, 16, 32)  # the grids that upsampling by 2 leaves, stage by stage
NULLS = (3, 5, 7)  # periods that no stage has: what the index says there is its noise
MARGIN = 4  # input pixels between the measured one and the border: the reach of a 17 x 17 kernel at scale 2
FREQUENCIES = 129  # of a spectrum: 0 to 1/2 cycles per pixel in steps of 1/256, so that 1/2, 1/4, ... 1/32 are among them


def alone(operator: nn.Module) -> Callable[[Tensor], Tensor]:
    """An operator as a function of its input alone: one with `guided = True` is given a guide of zeros."""
    if not getattr(operator, "guided", False):
        return operator

    def run(x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        s, g = operator.scale, operator.guide_channels
        assert isinstance(s, int)
        assert isinstance(g, int)
        out: Tensor = operator(x, x.new_zeros(b, g, s * h, s * w))
        return out

    return run


@torch.no_grad()
def phase_gains(operator: nn.Module, in_channels: int | None = None) -> Tensor:
    """The response to a constant, phase by phase: float64 `[C, D, s, s]`.

    Entry (c, d, a, b) is what output channel d holds in rows a and columns b (mod s), far from the border, when input channel c is one and
    the others are zero, less the response to zeros. The operator is evaluated as in `eval()` and left in the mode it was in.

    Args:
        operator: Maps `[B, C, H, W]` to `[B, D, s*H, s*W]`; s is measured. A guided one sees zeros (`alone`).
        in_channels: C; default: the operator's own attribute of that name.
    """
    channels = operator.in_channels if in_channels is None else in_channels
    assert isinstance(channels, int), channels
    parameter = next(operator.parameters(), torch.zeros(()))
    modes = {module: module.training for module in operator.modules()}
    operator.eval()
    run = alone(operator)

    def response(constants: Tensor, margin: int) -> Tensor:
        """What becomes of the pixel in the middle of an image of constants `[N, C]`: `[N, D, s, s]`."""
        size = 2 * margin + 1
        out = run(constants[:, :, None, None].expand(-1, -1, size, size))
        scale = out.shape[-1] // size
        middle = slice(scale * margin, scale * (margin + 1))
        return out[..., middle, middle].double()

    try:
        nothing = parameter.new_zeros(1, channels)
        mixture = torch.randn(1, channels, generator=torch.Generator().manual_seed(0)).to(parameter)
        # A smaller image does if the border is out of reach in it: that is up to 13 times as fast.
        far = response(mixture, MARGIN) - response(nothing, MARGIN)
        close = 100 * torch.finfo(parameter.dtype).eps * far.abs().max()
        margin = next(
            (m for m in range(1, MARGIN) if (response(mixture, m) - response(nothing, m) - far).abs().max() <= close),
            MARGIN,
        )
        still = response(nothing, margin)
        ones = torch.eye(channels, dtype=parameter.dtype, device=parameter.device)
        return torch.cat([response(some, margin) - still for some in torch.split(ones, 64)])
    finally:
        for module, training in modes.items():
            module.training = training


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


class NetworkIndex:
    """The network index CI_net(s): the share of the logits' variation inside cells of s x s pixels that repeats from cell to cell.

    From the logits the mean of each s x s cell is taken; the rest h has an energy E[h²] and, at every phase (a, b) of the cells, a mean
    P[a, b] over cells and images, the grid. Two halves of the images give two estimates of it, whose product is free of the bias that
    noise has in a square: CI_net = <P_odd, P_even> / E[h²], both summed over classes and averaged over phases, clipped to [0, 1]; 0 where
    the logits do not vary in the cells. Images are cropped to whole cells, so s may be any period; a period that the network cannot make,
    such as 3, says how much of the index is noise.

    All sums are float64, so that images come in any number and any order.

    Args:
        num_classes: K.
        periods: The values of s.
    """

    def __init__(self, num_classes: int, periods: Sequence[int] = (*SCALES, *NULLS)) -> None:
        self.sums = {s: torch.zeros(2, num_classes, s, s, dtype=torch.float64) for s in periods}  # by half, class, phase
        self.totals = {s: torch.zeros(2, 3, dtype=torch.float64) for s in periods}  # by half: cells, energy in them, energy

    @torch.no_grad()
    def update(self, logits: Tensor, index: Tensor) -> None:
        """Adds the images of a batch.

        Args:
            logits: Floating point `[B, K, H, W]`.
            index: Integer `[B]`; the parity of an image's index says to which half it belongs, whatever the batches and processes.
        """
        half = index.to(_device(logits)) % 2
        self.sums, self.totals = ({s: value.to(half.device) for s, value in held.items()} for held in (self.sums, self.totals))
        for classes, piece in _pieces(logits):
            x = piece.double()
            squares = torch.einsum("bkhw,bkhw->bhw", x, x)
            for s in self.sums:
                h, w = x.shape[-2] // s, x.shape[-1] // s
                rows = x[..., : h * s, :].view(*x.shape[:2], h, s, x.shape[-1])[..., : w * s]
                phases = rows.sum(-3).view(*x.shape[:2], s, w, s).sum(-2)
                cells = rows.sum(-2).view(*x.shape[:2], h, w, s) @ x.new_ones(s)  # their sums; 20 times as fast as sum(-1)
                power = squares[..., : h * s, : w * s].sum((1, 2))
                count = torch.full_like(power, 0 if classes.start else h * w)
                self.sums[s][:, classes].index_add_(0, half, phases)
                self.totals[s].index_add_(0, half, torch.stack([count, power - cells.square().sum((1, 2, 3)) / s**2, power], dim=1))

    def tensors(self) -> list[Tensor]:
        """What several processes add up, in place."""
        return [*self.sums.values(), *self.totals.values()]

    def grid(self, s: int) -> Tensor:
        """The repeating pattern P of every class, mean of the halves: float64 `[K, s, s]`."""
        return self._halves(s).mean(0).cpu()

    def _halves(self, s: int) -> Tensor:
        means = self.sums[s] / self.totals[s][:, :1, None, None]  # NaN in a half with no cell
        return means - means.mean((-2, -1), keepdim=True)

    def compute(self) -> dict[int, float]:
        """CI_net of every period, in [0, 1]; NaN where a half has no image of at least s x s pixels."""
        found = {}
        for s, totals in self.totals.items():
            cells, energy, power = totals.sum(0).tolist()
            even, odd = self._halves(s)
            # what float32 logits cannot resolve is no variation
            value = (odd * even).mean((-2, -1)).sum().item() / (energy / (cells * s**2)) if energy > 1e-12 * power else 0.0
            found[s] = min(max(value, 0.0), 1.0) if bool((totals[:, 0] > 0).all()) else float("nan")
        return found


class Spectrum:
    """The power spectrum of logits along rows and columns, mean over images and classes.

    Of each row (and each column) of the logits, less its mean and under a Hann window, the squared Fourier transform is taken; images of
    any size meet on one grid of frequencies, on which every one has the same weight. The integral over -1/2..1/2 is the variance. Natural
    logits fall off smoothly; a grid of period s, whatever its shape, stands out as peaks at the multiples of 1/s: at 1/2 what the last
    doubling left, at 1/4 and 1/2 the one before, and so on. Smoothing lowers the whole right end instead.
    """

    def __init__(self) -> None:
        self.sum = torch.zeros(2, FREQUENCIES, dtype=torch.float64)  # along columns (down the rows), along rows
        self.images = torch.zeros(1, dtype=torch.float64)

    @torch.no_grad()
    def update(self, logits: Tensor) -> None:
        """Adds the images of a batch, floating point `[B, K, H, W]`."""
        self.sum, self.images = self.sum.to(_device(logits)), self.images.to(_device(logits)) + len(logits)
        columns, rows = (torch.zeros(n // 2 + 1, dtype=torch.float64, device=self.sum.device) for n in logits.shape[-2:])
        for _, x in _pieces(logits):
            columns += _line_power(x.transpose(-2, -1).contiguous())
            rows += _line_power(x)
        self.sum += torch.stack([_regrid(p, n) for p, n in zip((columns, rows), logits.shape[-2:], strict=True)]) / logits.shape[1]

    def tensors(self) -> list[Tensor]:
        """What several processes add up, in place."""
        return [self.sum, self.images]

    def compute(self) -> tuple[Tensor, Tensor]:
        """Frequencies float64 `[F]` in cycles per pixel, and the density along columns and along rows, float64 `[2, F]`."""
        return torch.linspace(0, 0.5, FREQUENCIES, dtype=torch.float64), (self.sum / self.images).cpu()


def _line_power(x: Tensor) -> Tensor:
    """Power spectrum along the rows of `[B, K, H, W]`, mean over rows, sum over images and classes: float64 `[W // 2 + 1]`."""
    window = torch.hann_window(x.shape[-1], device=x.device)
    lines = torch.fft.rfft((x - x.mean(-1, keepdim=True)) * window)
    return torch.view_as_real(lines).square().sum((0, 1, 2)).sum(-1).double() / (x.shape[-2] * window.square().sum())


def _regrid(power: Tensor, width: int) -> Tensor:
    """From the frequencies of lines of `width` pixels to ours: the value of each is the mean of theirs over the band it stands for."""

    def bands(count: int, step: float) -> tuple[Tensor, Tensor]:
        edges = ((torch.arange(count + 1, dtype=torch.float64) - 0.5) * step).clamp(0, 0.5)
        return edges[:-1], edges[1:]

    (low, high), (start, end) = bands(FREQUENCIES, 0.5 / (FREQUENCIES - 1)), bands(len(power), 1 / width)
    overlap = (torch.minimum(high[:, None], end) - torch.maximum(low[:, None], start)).clamp(min=0)
    return (overlap / (high - low)[:, None]).to(power.device) @ power


def _device(logits: Tensor) -> torch.device:
    """Where sums in float64 are possible."""
    return torch.device("cpu") if logits.device.type == "mps" else logits.device


def _pieces(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Logits as contiguous float32 or float64 `[B, k, H, W]` with the classes they belong to.

    A CPU gets pieces that stay in its cache, which is two to three times as fast; a GPU everything at once.
    """
    x = logits.to(_device(logits))
    count = max(2**18 // x[:, 0].numel(), 1) if x.device.type == "cpu" else x.shape[1]
    for first in range(0, x.shape[1], count):
        piece = x[:, first : first + count]
        yield slice(first, first + count), (piece if piece.dtype == torch.float64 else piece.float()).contiguous()
