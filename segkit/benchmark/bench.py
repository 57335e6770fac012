"""What every subject measures with: the options, the device, and the peers that are there."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from segkit.benchmark.timing import LEAST, interleave
from segkit.config import BenchmarkConfig
from segkit.errors import SegkitError

MODULES = {"smp": "segmentation_models_pytorch", "torchvision": "torchvision", "monai": "monai", "torchmetrics": "torchmetrics"}
LOW = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
PRELOADED = ["segkit.benchmark.networks", "segkit.benchmark.tile", "segmentation_models_pytorch"]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Bench:
    """One benchmark: how to measure, and with whom.

    Args:
        config: The options.
        device: Hardware.
        peers: Those that are asked for and installed.
    """

    config: BenchmarkConfig
    device: torch.device
    peers: frozenset[str]

    @property
    def low(self) -> torch.dtype:
        """The type that autocast computes in; float32 where the precision is 32-true."""
        return LOW.get(self.config.precision, torch.float32)

    def arithmetic(self, low: bool = True) -> Any:
        """The context of a forward pass: autocast to the precision asked for, or none."""
        return torch.autocast(self.device.type, self.low) if low and self.low != torch.float32 else nullcontext()

    def format(self, low: bool = True) -> str:
        """What the arithmetic and the memory layout are called in results."""
        return f"channels_last, {str(self.low).removeprefix('torch.')}" if low else "contiguous, float32"

    def time(
        self, calls: Mapping[str, Callable[[], object]], warm: int = 2, least: int = LEAST, wall: bool = False
    ) -> dict[str, list[float]]:
        """Seconds of each call, round by round (`timing.interleave`); `wall`: by the wall, whatever the options say.

        Where the options give no seconds, one round, and none to warm up.
        """
        warm, least = (warm, least) if self.config.seconds else (0, 1)
        wait = torch.cuda.synchronize if self.device.type == "cuda" else lambda: None
        return interleave(
            calls, self.config.seconds, warm=warm, least=least, clock=time.perf_counter if wall else self.clock, synchronize=wait
        )

    def ceiling(self) -> float:
        """Multiply-adds a second of a large matrix product in the precision asked for: the best of several."""
        side = 8192 if self.device.type == "cuda" else 1024
        a, b = (torch.randn(side, side, device=self.device, dtype=self.low) for _ in range(2))
        return float(side**3 / min(self.time({"product": lambda: a @ b})["product"]))

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds, of the wall or of this process, as the options say."""
        return time.process_time if self.config.clock == "cpu" else time.perf_counter

    def place(self, module: nn.Module, low: bool = True) -> nn.Module:
        """A module on the device, in the layout of `format`, compiled if that is wanted."""
        module = module.to(self.device, memory_format=torch.channels_last if low else torch.contiguous_format)  # type: ignore[call-overload]
        if self.config.compile:
            module.compile()
        return module

    def images(self, batch: int, side: int, low: bool = True) -> Tensor:
        """Random normalised images float32 `[B, 3, side, side]` in the layout of `format`."""
        drawn = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(self.device)
        return drawn.contiguous(memory_format=torch.channels_last) if low else drawn


def open_bench(config: BenchmarkConfig, say: Callable[[str], object]) -> Bench:
    """Finds the device and the peers; says which peer is missing, and what that leaves out.

    Raises:
        SegkitError: The device is not there, or has no such arithmetic.
    """
    name = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    if name == "cuda" and not torch.cuda.is_available():
        raise SegkitError("--device cuda: torch finds no graphics card here; use --device cpu")
    if name == "cpu" and config.precision == "16-mixed":
        raise SegkitError("--precision 16-mixed: a CPU has no such arithmetic; use bf16-mixed or 32-true")
    if name == "cuda" and config.clock == "cpu":
        raise SegkitError("--clock cpu: a graphics card's time is none of the processors'; use --clock wall, or --device cpu")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    there = frozenset(peer for peer in config.against if find_spec(MODULES[peer]) is not None)
    for peer in dict.fromkeys(config.against):
        if peer not in there:
            say(f"{peer} is not installed, so its rows are left out; pip install 'segkit[peers]'")
    return Bench(config, torch.device(name), there)


def in_fresh_process(function: Callable[..., Result], *arguments: object) -> Result:
    """What a function of a module returns in a process of its own, whose peak of memory nothing has raised before.

    The process is forked from a small server, not from this one: Linux hands the peak of a parent on to what it starts.

    Args:
        function: Of a module, so that its name is enough to find it.
        arguments: Plain values.

    Returns:
        Plain values.

    Raises:
        RuntimeError: The process failed.
    """
    return in_fresh_processes(function, [arguments])[0]


def in_fresh_processes(function: Callable[..., Result], arguments: Sequence[tuple[object, ...]]) -> list[Result]:
    """`in_fresh_process` of several at a time, one for each tuple of arguments."""
    context: Any = get_context("forkserver" if sys.platform != "win32" else "spawn")
    if sys.platform != "win32":
        context.set_forkserver_preload(PRELOADED)  # once for all, and none of it counts as growth
    started = []
    for given in arguments:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(sender, function, given), daemon=True)
        process.start()
        sender.close()
        started.append((process, receiver))
    results = []
    for process, receiver in started:
        try:
            text = receiver.recv()
        except EOFError:
            text = None
        process.join()
        if text is None:
            raise RuntimeError(f"{function.__module__}.{function.__name__} failed in its process, exit code {process.exitcode}")
        results.append(json.loads(text))
    return results


def _send(sender: Any, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    sender.send(json.dumps(function(*arguments)))
    sender.close()


def repository() -> Path:
    """The folder that holds the package."""
    return Path(__file__).resolve().parents[2]
