"""The table of operators in a Markdown file, all of it computed: costs, time, checkerboards, what an operator can be exported to.

Shapes: B batch, C/D channels in/out, H W rows/columns, s scale.
"""

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from segkit.benchmark.bench import Bench
from segkit.benchmark.calls import BASE, Steps, build, cost, inputs, timed_call
from segkit.benchmark.timing import ratios, spread
from segkit.config import DataConfig
from segkit.errors import SegkitError
from segkit.measures import operator_indices
from segkit.metrics import operator_index
from segkit.runs import write_whole
from segkit.upsampling import UPSAMPLERS, build_upsampler

FIRST, LAST = "<!-- operators -->", "<!-- /operators -->"
C, D, SIDE = 64, 32, 64  # of the counts and the latency
COLUMNS = (
    "`--upsample`", f"parameters, {C} to {D}", f"MACs, {SIDE}²", "time", "CI before", "CI after", "ONNX", "deterministic",
)  # fmt: skip


def write_table(bench: Bench, path: str) -> None:
    """Puts the table of all operators between the two marks in a file.

    Raises:
        SegkitError: The file cannot be read or has no such marks.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SegkitError(f"--table {path}: {error}; give a Markdown file with {FIRST} and {LAST}") from None
    replaced(text, "", path)  # before the work, not after it
    write_whole(Path(path), replaced(text, markdown(operator_rows(bench)), path))


def replaced(text: str, table: str, path: str) -> str:
    """A text with another table between its marks."""
    before, first, rest = text.partition(FIRST)
    _, last, after = rest.partition(LAST)
    if not first or not last:
        raise SegkitError(f"--table {path}: the file has no lines {FIRST} and {LAST}; put them where the table belongs")
    return f"{before}{FIRST}\n{table}\n{LAST}{after}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The table, a line per operator."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def operator_rows(bench: Bench) -> list[list[str]]:
    """The cells of every operator, in the order of `COLUMNS`."""
    times = _times(bench)
    rows = []
    for name, cls in UPSAMPLERS.items():
        torch.manual_seed(bench.config.seed)
        operator = build(cls, C, D)
        counted = cost(operator, inputs(operator, torch.zeros(1, C, SIDE, SIDE), D))
        before, after = initial_index(cls, bench.config.seed), trained_index(name, bench.config.table_steps, bench.config.seed)
        rows.append(
            [
                f"`{name}`",
                f"{counted['params']:,}",
                f"{counted['MACs'] / 1e6:,.1f} M",
                f"{times[name]:.2f}",
                _digits(before),
                _digits(after),
                exports(operator),
                "yes" if repeats(operator, bench.device) else "no",
            ]
        )
    return rows


def _digits(index: float) -> str:
    return "none" if math.isnan(index) else f"{index:.2f}"


def _times(bench: Bench) -> dict[str, float]:
    """Forward and backward of every operator relative to bilinear interpolation and a 3x3 convolution."""
    low = bench.low != torch.float32
    modules = {BASE: Steps(C, D), **{name: build(cls, C, D) for name, cls in UPSAMPLERS.items()}}
    x = torch.randn(4, C, SIDE, SIDE).to(bench.device)
    if low:
        x = x.to(bench.low).contiguous(memory_format=torch.channels_last)
    times = bench.time({name: timed_call(bench, bench.place(module, low), x, D, low) for name, module in modules.items()})
    return {name: spread(ratios(values, times[BASE])).median for name, values in times.items()}


def initial_index(cls: type[nn.Module], seed: int) -> float:
    """The operator index of 64 to 64 channels, and as many of a guide where there is one, under smooth initialisation."""
    torch.manual_seed(seed)
    return operator_index(build_upsampler(cls, 64, 64, guide_channels=64), 64)


def trained_index(name: str, steps: int, seed: int) -> float:
    """The mean over the stages of the operator index after training a small plain U-Net on the built-in scenes."""
    from segkit.data.dataset import TrainDataset
    from segkit.data.scenes import CLASSES, Scenes
    from segkit.data.transforms import TrainTransform
    from segkit.losses import build_loss
    from segkit.models import UNet
    from segkit.optim import build_optimizer, learning_rate_factor, parameter_groups

    batch, source = 8, Scenes("train", 64, 64, seed)
    data = TrainDataset(source, TrainTransform(DataConfig(crop=64)), seed)
    torch.manual_seed(seed)
    network = UNet(len(CLASSES), encoder="plain", upsample=name, decoder_channels=(64, 32, 16)).to(memory_format=torch.channels_last)
    loss, groups = build_loss("ce_dice", num_classes=len(CLASSES)), parameter_groups(network, 3e-3, 1e-2)
    optimizer = build_optimizer("adamw", groups, 3e-3, 0.9, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor("onecycle", 0, steps))
    for step in range(steps):
        items = [data[divmod(step * batch + i, len(source))] for i in range(batch)]
        images = torch.stack([item["image"] for item in items]).float().sub(127.5).div(64)
        value = loss(network(images.contiguous(memory_format=torch.channels_last)), torch.stack([item["mask"] for item in items]))
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    found = [index for index in operator_indices(network, 3).values() if not math.isnan(index)]
    return fmean(found) if found else math.nan


def exports(operator: nn.Module) -> str:
    """Whether torch's exporter writes the operator as ONNX and onnxruntime computes the same: yes or no; ? without those libraries."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # what torch's exporter needs
    except ImportError:
        return "?"
    from segkit.export.graph import quiet

    given = tuple(tensor.detach() for tensor in inputs(operator, torch.randn(1, C, 7, 9), D))
    names = ["x", "guide"][: len(given)]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "operator.onnx"))
        try:
            with quiet(), torch.no_grad():
                torch.onnx.export(operator.eval(), given, path, dynamo=True, input_names=names, verbose=False)
                session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
                out = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)})[0]
                expected = operator(*given)
        except Exception:  # a tracer or a runtime fails in any way that Python knows, which is the answer
            return "no"
    return "yes" if torch.allclose(torch.from_numpy(out), expected, rtol=1e-3, atol=1e-4) else "no"


def repeats(operator: nn.Module, device: torch.device) -> bool:
    """Whether forward and backward are equal twice, to the bit, where torch is held to deterministic algorithms: here and on `device`."""
    for place in dict.fromkeys(("cpu", device.type)):
        moved = operator.to(place)
        x = torch.randn(2, C, 9, 7, generator=torch.Generator().manual_seed(0)).to(place)
        try:
            with _deterministic():
                first, second = (_gradients(moved, x) for _ in range(2))
        except RuntimeError:  # torch's word for an algorithm that has no such form
            return False
        finally:
            operator.to("cpu")
        if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
            return False
    return True


def _gradients(operator: nn.Module, x: Tensor) -> list[Tensor]:
    given: tuple[Any, ...] = tuple(tensor.clone().requires_grad_() for tensor in inputs(operator, x, D))
    operator.zero_grad()
    out = operator(*given)
    (out * torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)).sum().backward()
    return [out.detach(), *(p.grad.clone() for p in (*given, *operator.parameters()) if p.grad is not None)]


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
