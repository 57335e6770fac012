"""Upsampling operators, forward and backward, beside bilinear interpolation and a 3x3 convolution written out in torch.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale, G channels of a guide.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from segkit.benchmark.bench import Bench
from segkit.benchmark.calls import BASE, Steps, build, cost, inputs, timed_call
from segkit.benchmark.operator_table import write_table
from segkit.benchmark.report import Results, Row, milliseconds
from segkit.upsampling import UPSAMPLERS, BilinearK1, Nearest, operator_class, rewriting

SHAPES = ((256, 16), (128, 64), (64, 128))  # C and H = W of the input; D = C / 2
REWRITTEN = "nearest, rewritten"


def measure(bench: Bench) -> Results:
    """Times every operator at every shape, in both formats."""
    if bench.config.table is not None:
        write_table(bench, bench.config.table)
    shapes = SHAPES if bench.config.size is None else [(64, bench.config.size)]
    rows = [row for low in (False, True) for c, side in shapes for row in _at(bench, c, side, low)]
    order = {name: place for place, name in enumerate(dict.fromkeys(row.name for row in rows))}
    rows.sort(key=lambda row: (row.group.startswith("channels_last"), order[row.name]))  # the shapes of one operator side by side
    names = "forward and backward of upsampling operators, out = in / 2 channels, scale 2"
    return Results("operators", names, rows, equalities())


def _at(bench: Bench, c: int, side: int, low: bool) -> list[Row]:
    torch.manual_seed(bench.config.seed)
    d, batch = c // 2, bench.config.batch or 4
    names: list[str] = [*dict.fromkeys(bench.config.upsample)] or [*UPSAMPLERS]
    modules: dict[str, nn.Module] = {name: build(operator_class(name), c, d) for name in names}
    special = {
        "nearest, conv3x3": Steps(c, d, "nearest"),
        "bilinear, conv1x1": Steps(c, d, kernel_size=1),
    }
    exact = {REWRITTEN: Nearest(c, d), "bilinear_k1": BilinearK1(c, d)}
    modules = {**exact, **modules, **special, BASE: Steps(c, d)}
    x = torch.randn(batch, c, side, side).to(bench.device)
    if low:
        x = x.to(bench.low).contiguous(memory_format=torch.channels_last)
    costs = {name: cost(module, inputs(module, x[:1].cpu().float(), d)) for name, module in modules.items()}
    calls = {name: timed_call(bench, bench.place(module, low), x, d, low) for name, module in modules.items()}
    calls[REWRITTEN] = _rewritten(calls[REWRITTEN])
    times = {name: milliseconds(values) for name, values in bench.time(calls, warm=1, least=3).items()}
    variant, group = f"{c}ch at {side}²", bench.format(low)
    rows = [Row(name, times[name], theirs=times[BASE], peer=BASE, group=group, variant=variant, about=costs[name]) for name in names]
    goal = 0.45 if side >= 64 else None
    pairs = ((REWRITTEN, "nearest, conv3x3", goal), ("bilinear_k1", "bilinear, conv1x1", 0.12))
    for ours, naive, most in pairs:
        name = f"{ours} / {naive}"
        rows.append(Row(name, times[ours], theirs=times[naive], peer=naive, goal=most, group=group, variant=variant, about=costs[ours]))
    return rows


def _rewritten(call: Callable[[], None]) -> Callable[[], None]:
    """A call in the form that is in question, whichever the device gets by itself."""

    def step() -> None:
        with rewriting("on"):
            call()

    return step


def equalities() -> list[str]:
    """How far the two pairs of forms are from equal in float64, values and gradients, at an odd size."""
    torch.manual_seed(0)
    pairs: dict[str, tuple[nn.Module, nn.Module]] = {
        "nearest": (Nearest(8, 4), Steps(8, 4, "nearest")),
        "bilinear_k1": (BilinearK1(8, 4), Steps(8, 4, kernel_size=1)),
    }
    lines = []
    for name, (ours, plain) in pairs.items():
        plain.load_state_dict(ours.state_dict())
        x = torch.randn(2, 8, 7, 5, dtype=torch.float64)
        with rewriting("on"):
            results = [_values(module.double(), x.clone().requires_grad_()) for module in (ours, plain)]
        most = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*results, strict=True))
        assert most < 1e-12, (name, most)
        lines.append(f"{name}: equal to its plain form in float64, values and gradients, to {most:.0e}")
    return lines


def _values(module: nn.Module, x: Tensor) -> list[Tensor]:
    out = module(x)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    gradients = [tensor.grad for tensor in (x, *module.parameters())]
    return [out.detach(), *(gradient for gradient in gradients if gradient is not None)]
