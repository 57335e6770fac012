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
        self.row: dict[str, Any] = {}
        self.offset = 0  # where the last row starts, in bytes; 0 until this logger has written

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add `metrics` to the row of `step`, the number of optimiser steps done."""
        if self.row.get("step") != step:
            self.row = {"step": step}
            self.offset = self.path.stat().st_size if self.offset else 0
        self.row.update(metrics)
        if not self.offset or any(key not in self.columns for key in metrics):
            earlier = [row for row in self._rows() if row["step"] != str(step)]
            self.columns = list(dict.fromkeys([*self.columns, *metrics]))
            self._rewrite([*earlier, self.row])
        else:
            with self.path.open("r+", newline="", encoding="utf-8") as file:
                file.seek(self.offset)
                csv.DictWriter(file, self.columns, lineterminator="\n").writerow(self.row)
                file.truncate()

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: `config.yaml` records them."""

    def rewind(self, step: int) -> None:
        """Drop every row after `step`, from which a resumed run goes on."""
        if self.path.exists():
            kept = [row for row in self._rows() if int(row["step"]) <= step]
            self._rewrite(kept)
            self.row = {**kept[-1], "step": int(kept[-1]["step"])} if kept else {}

    def _rows(self) -> list[dict[str, str]]:
        """The rows on disk, without a last line that a crash cut short and what a disk has damaged; learns the columns."""
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        try:
            rows = list(reader)
            whole = [row for row in rows if None not in row and re.fullmatch("[0-9]+", row.get("step") or "")]
        except csv.Error:
            rows, whole = [{}], []
        if len(whole) < len(rows):
            shutil.copy(self.path, self.path.with_name("metrics.damaged.csv"))
        named = list(reader.fieldnames or [])
        self.columns = named if "step" in named else ["step"]
        return whole

    def _rewrite(self, rows: Sequence[Mapping[str, Any]]) -> None:
        temporary = self.path.with_name(".metrics.csv.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            for row in rows:
                self.offset = file.tell()
                writer.writerow(row)
        os.replace(temporary, self.path)
