"""Feature maps before and after every upsampling stage of a network.

Shapes: B batch, C/D channels in/out, h w rows/columns of a map, H W of the image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from segkit.errors import SegkitError
from segkit.figures.style import ACCENT, INK
from segkit.metrics import operator_index
from segkit.models.fingerprint import operators

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS, GAP = 200, 6  # per inch, as figures are saved; between maps
WINDOW = 128  # default side of the window, in image pixels


@dataclass(frozen=True)
class Stage:
    """What goes into an upsampling operator and what comes out of it, for one image.

    Args:
        before: `[C, h, w]`.
        after: `[D, s·h, s·w]`.
        index: The operator's index CI_op.
    """

    before: Tensor
    after: Tensor
    index: float


@dataclass(frozen=True)
class Network:
    """A column of the figure.

    Args:
        title: One line or two.
        stages: In the order in which they run.
    """

    title: str
    stages: Sequence[Stage]

    def stride(self, maps: Tensor) -> int:
        """Image pixels to a pixel of `maps`: the last stage is as fine as the padded image."""
        return self.stages[-1].after.shape[-1] // maps.shape[-1]


@torch.inference_mode()
def record_stages(model: nn.Module, run: nn.Module, image: np.ndarray) -> list[Stage]:
    """Runs `run`, which contains `model`, on one image and keeps what passes through its operators.

    Args:
        model: The network whose operators are observed.
        run: Maps images `[1, C, H, W]` to anything; put into evaluation mode.
        image: `[H, W, C]`, of the type that `run` takes.
    """
    stages: list[Stage] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        channels = inputs[0].shape[1]
        hook.pop(module).remove()  # the index is measured by the operator itself
        stages.append(Stage(inputs[0][0].float(), output[0].float(), operator_index(module, channels)))

    hook = {module: module.register_forward_hook(keep) for module in operators(model).values()}
    run.eval()(torch.from_numpy(np.require(image.transpose(2, 0, 1), requirements=["C", "W"]))[None])
    return stages


@dataclass(frozen=True)
class Window:
    """The part of all maps that is shown: a square of the image whose sides fall between pixels of every map.

    Args:
        top: First row shown.
        left: First column shown.
        side: Rows and columns shown.
    """

    top: int
    left: int
    side: int

    def cut(self, maps: Tensor, stride: int) -> Tensor:
        """`[C, h, w]` with `stride` image pixels to a pixel, to `[C, n, n]`."""
        return maps[:, self.top // stride :, self.left // stride :][:, : self.side // stride, : self.side // stride]


def choose_window(networks: Sequence[Network], size: Sequence[int], crop: int | None = None) -> Window:
    """The central window of `crop` pixels a side, of an image of `size` H and W; default: the largest up to `WINDOW`.

    Raises:
        SegkitError: It does not fit the image or the strides.
    """
    coarsest = max(network.stride(stage.before) for network in networks for stage in network.stages)
    largest = max(min(size) // coarsest, 1) * coarsest  # of a tiny image some of the padding
    side = crop or min(max(WINDOW // coarsest, 1) * coarsest, largest)
    if side % coarsest or side > largest:
        raise SegkitError(f"--crop {crop}: give a multiple of {coarsest}, the coarsest stride, up to {largest}")
    top, left = (max(n - side, 0) // 2 // coarsest * coarsest for n in size)
    return Window(top, left, side)


class _Sheet:
    """A figure laid out in dots from its upper left corner, so that a pixel of a map can be a whole number of dots.

    Args:
        width: Dots.
        height: Dots.
        unit: Size of letters and lines; 1 on a page.
    """

    def __init__(self, width: int, height: int, unit: float) -> None:
        from matplotlib.figure import Figure

        self.width, self.height, self.unit = width, height, unit
        self.figure = Figure(figsize=(width / DOTS, height / DOTS), dpi=DOTS)

    def axes(self, x: float, y: float, width: float, height: float) -> "Axes":
        ax = self.figure.add_axes((x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height))
        ax.axis("off")
        return ax

    def write(self, x: float, y: float, text: str, size: float = 7, **style: Any) -> None:
        place = (x / self.width, 1 - y / self.height)
        self.figure.text(*place, text, fontsize=size * self.unit, color=INK, **{"va": "center", **style})


def draw_features(networks: Sequence[Network], image: np.ndarray, name: str, channels: int, crop: int | None = None) -> "Figure":
    """A row per stage; in it, for every network, the maps before and after its operator. Each map pixel is a whole number of dots wide.

    Args:
        networks: Side by side.
        image: What they saw, in colours: uint8 `[H, W, 3]`.
        name: Its name.
        channels: Maps shown before and after each stage: those that vary most in the window, each in a grey scale of its own.
        crop: Side of the central window in image pixels, a multiple of the coarsest stride; default: the largest up to `WINDOW`.

    Raises:
        SegkitError: The window does not fit.
    """
    window = choose_window(networks, image.shape[:2], crop)
    side = window.side * math.ceil(WINDOW / window.side)
    across = channels if len(networks) == 1 and channels <= 6 else math.ceil(math.sqrt(channels))
    width, height = ((n * (side + GAP) - GAP) for n in (across, math.ceil(channels / across)))
    pair, rows = 2 * width + 4 * GAP, max(len(network.stages) for network in networks)
    unit = max(1.0, len(networks) * pair / 1800)
    margin, label, thumb = round(60 * unit), round(36 * unit), round(240 * unit)
    band, line, column = thumb + 3 * label, height + label + 2 * GAP, pair + margin
    sheet = _Sheet(max(margin + len(networks) * column, round(1300 * unit)), band + rows * line, unit)

    _draw_image(sheet, image, window, (margin, GAP, thumb))
    lines = [
        f"maps: {window.side} x {window.side} pixels of it (box)",
        f"in: the {channels} channels of highest variance there, highest first",
        f"out: the {channels} of highest variance between cells of s x s pixels, so that a grid decides nothing",
        "each from its least (black) to its largest value (white); CI: operator index of the weights",
    ]
    right = margin + thumb * min(1, image.shape[1] / image.shape[0]) + 30 * unit
    sheet.write(right, 35 * unit, f"{name}, {image.shape[0]} x {image.shape[1]}", 8, weight="bold")
    for i, text in enumerate(lines, start=1):
        sheet.write(right, (40 + 36 * i) * unit, text)
    for row in range(rows):
        sheet.write(margin / 2, band + row * line + label + height / 2, f"stage {row + 1}", ha="center", rotation=90)
    for i, network in enumerate(networks):
        x = margin + i * column
        sheet.write(x, thumb + 1.5 * label, network.title, 8, weight="bold")
        for row, stage in enumerate(network.stages):
            y = band + row * line
            sheet.write(x, y + label / 2, f"in {_shape(stage.before)}")
            sheet.write(x + width + 4 * GAP, y + label / 2, f"out {_shape(stage.after)}, CI {stage.index:.2f}")
            scale = stage.after.shape[-1] // stage.before.shape[-1]
            for left, maps, cell in ((x, stage.before, 1), (x + width + 4 * GAP, stage.after, scale)):
                tiles = tile_maps(window.cut(maps, network.stride(maps)), channels, across, side, cell)
                sheet.axes(left, y + label, width, height).imshow(tiles, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    return sheet.figure


def _draw_image(sheet: _Sheet, image: np.ndarray, window: Window, place: tuple[int, int, int]) -> None:
    """The image with a box around the window, in the square of x, y and side `place`."""
    from matplotlib.patches import Rectangle

    (x, y, side), (h, w) = place, image.shape[:2]
    ax = sheet.axes(x, y, side * min(1, w / h), side * min(1, h / w))
    ax.imshow(image)
    box = (window.left - 0.5, window.top - 0.5), window.side, window.side
    ax.add_patch(Rectangle(*box, fill=False, edgecolor=ACCENT, linewidth=1.5 * sheet.unit, clip_on=False))


def _shape(maps: Tensor) -> str:
    return " x ".join(map(str, maps.shape))


def tile_maps(maps: Tensor, channels: int, across: int, side: int, cell: int) -> np.ndarray:
    """The maps of highest variance from cell to cell, `across` in a row, each scaled to [0, 1] and enlarged; white where there is none.

    Args:
        maps: `[C, n, n]`, n a divisor of `side`.
        channels: How many; of fewer, all.
        across: Maps in a row.
        side: Dots a side.
        cell: Rows and columns of a cell; within it a map is averaged before its variance is taken.
    """
    variance = avg_pool2d(maps, cell).flatten(1).var(1, correction=0)
    chosen = maps[variance.argsort(descending=True)[:channels]]
    low, high = chosen.amin((1, 2), keepdim=True), chosen.amax((1, 2), keepdim=True)
    scaled = ((chosen - low) / (high - low).clamp(min=1e-12)).numpy().repeat(side // maps.shape[-1], 1).repeat(side // maps.shape[-1], 2)
    down, step = math.ceil(channels / across), side + GAP
    sheet = np.ones((down * step - GAP, across * step - GAP), np.float32)
    for i, tile in enumerate(scaled):
        y, x = i // across * step, i % across * step
        sheet[y : y + side, x : x + side] = tile
    return sheet
