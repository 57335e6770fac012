"""What a command says on the terminal: the header, the progress line's words, and the table of scores."""

import errno
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from segkit.errors import printable

ROWS = 12  # a longer list of classes goes on in a further pair of columns


class Scores(Protocol):
    """What is shown of a validation; every value in [0, 1], NaN where there is nothing to measure."""

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur."""

    @property
    def iou(self) -> Sequence[float]:
        """IoU of each class."""

    @property
    def accuracy(self) -> float:
        """Share of right pixels."""

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the classes that occur."""


class RunConsole(Console):
    """Standard output that may close while a run goes on, as behind `| head` or with its terminal: the run goes on without a reader."""

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal that is gone
                raise
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Write to nowhere from now on; rich would end the process."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def score_line(scores: Scores) -> str:
    """The three numbers that sum a validation up."""
    return f"mIoU {scores.miou:.4f}   accuracy {scores.accuracy:.4f}   mean Dice {scores.mean_dice:.4f}"


def score_table(scores: Scores, class_names: Sequence[str], title: str = "") -> Group:
    """IoU of every class, with the means below; a class that occurs neither in the masks nor in the predictions has none and is named."""
    groups = math.ceil(len(class_names) / ROWS)
    rows = math.ceil(len(class_names) / groups)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False, pad_edge=False)
    for _ in range(groups):
        table.add_column("class")
        table.add_column("IoU", justify="right")
    cells = [(Text(name), _iou(iou)) for name, iou in zip(class_names, scores.iou, strict=True)]
    for row in range(rows):
        table.add_row(*(cell for pair in cells[row::rows] for cell in pair))
    absent = [name for name, iou in zip(class_names, scores.iou, strict=True) if math.isnan(iou)]
    below = [score_line(scores), *([f"absent, so left out of the means: {', '.join(absent)}"] if absent else [])]
    return Group(*([Text(title, style="bold")] if title else []), table, *(Text(line) for line in below))


def _iou(iou: float) -> Text:
    return Text("absent", style="dim") if math.isnan(iou) else Text(f"{iou:.4f}")


def header(rows: Mapping[str, str]) -> Text:
    """Names and values in two columns; print it with `soft_wrap=True`, so that a long path or command stays one that can be copied."""
    width = max(map(len, rows))
    return Text("\n").join(Text.assemble((f"{name:{width}}", "dim"), f"  {printable(value)}") for name, value in rows.items())
