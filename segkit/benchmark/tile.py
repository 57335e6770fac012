"""An image larger than a network takes, in overlapping tiles, beside MONAI's SlidingWindowInferer.

Shapes: B batch, C channels, K classes, H W rows/columns of the image, h w of a tile.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segkit.benchmark.bench import Bench
from segkit.benchmark.memory import peaks
from segkit.benchmark.report import Results, Row
from segkit.costs import peak_memory
from segkit.inference.bands import gather, whole
from segkit.inference.tiles import score_blocks
from segkit.metrics import labels

CLASSES, SIDE, OVERLAP = 19, 4096, 0.25
PEER = "MONAI gaussian"


class Tiny(nn.Module):
    """A network so small that what is around it shows, and a count of its own seconds: uint8 or float `[B, 3, h, w] -> [B, K, h, w]`."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(16, CLASSES, 2, stride=2)]
        self.layers = nn.Sequential(*layers).to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.seconds, self.device = 0.0, device

    def forward(self, images: Tensor) -> Tensor:
        """Pixel values to logits, in float32."""
        start = self._now()
        scaled = images.to(self.device, torch.float32).div_(255) if images.dtype == torch.uint8 else images
        logits: Tensor = self.layers(scaled.contiguous(memory_format=torch.channels_last))
        self.seconds += self._now() - start
        return logits

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def image(side: int) -> Tensor:
    """A random image uint8 `[1, 3, side, side]` that varies slowly, so that labels have areas."""
    small = torch.rand(1, 3, side // 16 + 1, side // 16 + 1, generator=torch.Generator().manual_seed(0))
    large = nn.functional.interpolate(small, size=(side, side), mode="bilinear")
    return large.mul_(255).to(torch.uint8)


def tiled(network: nn.Module, pixels: Tensor, window: int) -> np.ndarray:
    """Labels uint8 `[H, W]`, row band by row band, as `segkit.inference.Model` makes them."""
    size = (pixels.shape[-2], pixels.shape[-1])
    with torch.inference_mode():
        blocks = score_blocks(network, lambda a, b: pixels[..., a:b, :], size, tile=window, overlap=OVERLAP, batch_size=1)
        bands = ((top, left, labels(scores)[0].cpu().numpy(), None) for top, left, scores in blocks)
        return whole(gather(bands, size[1]), size)


def sliding(network: nn.Module, pixels: Tensor, window: int, device: torch.device) -> np.ndarray:
    """Labels uint8 `[H, W]` by MONAI, the weights of a tile Gaussian as ours are."""
    from monai.inferers.inferer import SlidingWindowInferer

    inferer = SlidingWindowInferer(window, sw_batch_size=1, overlap=OVERLAP, mode="gaussian")
    with torch.inference_mode():
        scores = inferer(pixels.to(device).float().div_(255), network)
        found: np.ndarray = scores.argmax(1)[0].to(torch.uint8).cpu().numpy()
        return found


def measure(bench: Bench) -> Results:
    """Times both, what is spent outside the network, and what memory they take beyond the image."""
    side, window = bench.config.size or SIDE, bench.config.window
    pixels, network = image(side), Tiny(bench.device)
    ways: dict[str, Callable[[], np.ndarray]] = {"segkit": lambda: tiled(network, pixels, window)}
    if "monai" in bench.peers:
        ways[PEER] = lambda: sliding(network, pixels, window, bench.device)
    overheads: dict[str, list[float]] = {name: [] for name in ways}
    results = {}

    def counted(name: str) -> Callable[[], None]:
        def run() -> None:
            network.seconds, start = 0.0, time.perf_counter()
            results[name] = ways[name]()
            overheads[name].append(100 * ((time.perf_counter() - start) / network.seconds - 1))

        return run

    times = bench.time({name: counted(name) for name in ways}, warm=1, least=3)
    shares = {name: values[-len(times[name]) :] for name, values in overheads.items()}  # of the rounds that count
    arguments: dict[str, tuple[Any, ...]] = {name: (name, side, window, bench.device.type, torch.get_num_threads()) for name in ways}
    memory = peaks(bench, tiling_peak, arguments)
    title = f"an image of {side}², tiles of {window}, overlap {OVERLAP:.0%}, {CLASSES} classes, a tiny network"
    if PEER not in ways:
        rows = [
            Row("overhead over the network", shares["segkit"], "%", measure="value"),
            Row("memory beyond the image", memory["segkit"], "MiB", measure="value"),
        ]
        return Results("tile", title, rows)
    rows = [
        Row("all of it", times["segkit"], "s", times[PEER], PEER),
        Row("overhead over the network", shares["segkit"], "%", shares[PEER], PEER, goal=0.4),
        Row("memory beyond the image", memory["segkit"], "MiB", memory[PEER], PEER, goal=0.25),
    ]
    same = float((results["segkit"] == results[PEER]).mean())
    floor = side * window * CLASSES * 4 * OVERLAP / 2**20 + side**2 / 2**20
    notes = [
        f"labels equal on {same:.4%} of the pixels",
        f"floor of the memory: {floor:.0f} MiB for the rows of scores that tiles share and the labels, and a tile's activations",
    ]
    return Results("tile", title, rows, notes)


def tiling_peak(name: str, side: int, window: int, device: str, threads: int) -> float:
    """MiB that predicting an image of `side`² takes beyond it, the network and the libraries."""
    torch.set_num_threads(threads)
    place = torch.device(device)
    pixels, network = image(side), Tiny(place)

    def way(given: Tensor) -> np.ndarray:
        return tiled(network, given, window) if name == "segkit" else sliding(network, given, window, place)

    way(pixels[..., : window + 32, : window + 32])  # what libraries load and plan at the first call
    return peak_memory(lambda: way(pixels), place)
