"""`metrics.csv`, the run folder's own record of every logged number."""

import csv
import io
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger


class FolderLogger(Logger):
    """`metrics.csv`: a row per optimiser step, a column per key in the order of their first appearance.

    A row is on disk when `log_metrics` returns; a second call for the same step completes it, and a new key rewrites the file atomically.
    (Lightning's CSVLogger deletes the file of the run that it resumes, and writes a row per call.)

    Args:
        folder: Run folder. A `metrics.csv` in it goes on.
    """

    name, version = "metrics.csv", ""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.columns: list[str] = ["step"]
        self.rows: list[dict[str, Any]] = []  # the last one, and before it those for which the disk had no room
        self.saved = True  # they are on disk
        self.offset = self.end = 0  # where the first of them starts, and the last ends, in bytes; 0 until this logger has written

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add `metrics` to the row of `step`, the number of optimiser steps done.

        Raises:
            OSError: There is no room; the row is written with the next one.
        """
        if not self.rows or self.rows[-1]["step"] != step:
            if self.saved:
                self.rows, self.offset = [], self.end  # not the end of the file, to which a full disk may have let half a row
            self.rows.append({"step": step})
        self.saved = False
        self.rows[-1].update(metrics)
        if not self.offset or any(key not in self.columns for row in self.rows for key in row):
            late = {str(row["step"]) for row in self.rows}
            self._rewrite([row for row in self._rows() if row["step"] not in late])
        else:
            with self.path.open("r+", newline="", encoding="utf-8") as file:
                file.seek(self.offset)
                csv.DictWriter(file, self.columns, lineterminator="\n").writerows(self.rows)
                file.truncate()
                self.end = file.tell()
        self.saved = True

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: `config.yaml` records them."""

    def rewind(self, step: int) -> None:
        """Drop every row after `step`, from which a resumed run goes on."""
        if self.path.exists():
            kept = [row for row in self._rows() if int(row["step"]) <= step]
            self.rows = [{**row, "step": int(row["step"])} for row in kept[-1:]]
            self._rewrite(kept[:-1])

    def _rows(self) -> list[dict[str, str]]:
        """The rows on disk, without those that a crash, a full disk or a power cut has damaged; learns the columns."""
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        try:
            rows = list(reader)
            whole = [row for row in rows if re.fullmatch("[0-9]+", row.get("step") or "") and None not in (*row, *row.values())]
        except csv.Error:
            rows, whole = [{}], []
        if len(whole) < len(rows):
            shutil.copy(self.path, self.path.with_name("metrics.damaged.csv"))
        named = list(reader.fieldnames or [])
        self.columns = named if "step" in named else ["step"]
        return whole

    def _rewrite(self, earlier: Sequence[Mapping[str, Any]]) -> None:
        columns = list(dict.fromkeys([*self.columns, *(key for row in self.rows for key in row)]))
        temporary = self.path.with_name(".metrics.csv.tmp")
        try:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(earlier)
                offset = file.tell()
                writer.writerows(self.rows)
                end = file.tell()
            os.replace(temporary, self.path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self.columns, self.offset, self.end = columns, offset, end
