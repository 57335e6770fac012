"""Progress without a library: one line that is drawn again on a terminal, a line per tenth of the work elsewhere."""

import sys
import time
from typing import TextIO

from segkit.errors import printable


class ProgressLine:
    """Counts pieces of work and shows how far they are.

    Args:
        total: Number of pieces.
        unit: What they are.
        stream: Where to; default: standard error.
    """

    def __init__(self, total: int, unit: str, stream: TextIO | None = None) -> None:
        self.total, self.unit, self.stream = total, unit, stream or sys.stderr
        self.live = self.stream.isatty()
        self.done, self.worked, self.drawn, self.shown = 0, 0.0, 0.0, 0
        self.began = time.monotonic()

    def advance(self, share: float, name: str) -> None:
        """Shows that `share` of the piece `name` is done."""
        now = time.monotonic()
        if self.live and now - self.drawn > 0.1:
            self.drawn = now
            self._draw(f"{self._line(share)}  {name}" + (f" {100 * share:.0f} %" if share else ""))

    def finish(self, worked: bool = True) -> None:
        """One more piece is done; `worked`: it took its time, and was not done before."""
        self.done += 1
        self.worked += worked
        if self.live:
            self.advance(0.0, "")
        elif self.done * 10 // self.total > self.shown and worked:
            self.shown = self.done * 10 // self.total
            self.say(self._line(0.0))

    def say(self, line: str) -> None:
        """A line that stays."""
        if self.live:
            self._draw("")
        self.stream.write(f"{printable(line)}\n")
        self.stream.flush()

    def close(self) -> None:
        """Removes the live line."""
        if self.live:
            self._draw("")

    def _line(self, share: float) -> str:
        worked = self.worked + share
        left = (time.monotonic() - self.began) / worked * (self.total - self.done - share) if worked else 0.0
        after = f"  {left // 60:.0f}:{left % 60:02.0f} left" if worked else ""
        full = round(24 * (self.done + share) / self.total)
        bar = f"{'━' * full}{'─' * (24 - full)}  " if self.live else ""
        return f"{bar}{self.done}/{self.total} {self.unit}{after}"

    def _draw(self, line: str) -> None:
        self.stream.write(f"\r\x1b[2K{printable(line[:150])}")
        self.stream.flush()
