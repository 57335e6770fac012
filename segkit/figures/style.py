"""What all figures share. They are drawn on `Figure` objects: no window, no global state; legible in grey and to the colour-blind."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segkit.errors import SegkitError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIGNED, MAGNITUDE = "cividis", "Greys"  # colour maps, both with steadily rising lightness
INK, GREY, ACCENT = "#222222", "#777777", "#d55e00"


def picture(ax: "Axes", values: np.ndarray, colors: str, least: float, most: float) -> None:
    """Shows `values` `[H, W]` pixel by pixel, `least` and `most` at the ends of the colour map."""
    ax.imshow(values, cmap=colors, vmin=least, vmax=most, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(linewidth=0.5, color=GREY)


def save(figure: "Figure", path: str | Path) -> None:
    """Writes a figure as the suffix says, .png at 200 dots per inch or .pdf with its letters as text.

    Raises:
        SegkitError: The file cannot be written.
    """
    from matplotlib import rc_context

    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with rc_context({"pdf.fonttype": 42}):
            figure.savefig(path, dpi=200)
    except OSError as error:
        raise SegkitError(f"cannot write {str(path)!r} ({error.strerror}); give another --out") from error
