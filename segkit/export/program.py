"""A program of `torch.export` (.pt2): the graph with its weights, which torch runs and compiles ahead of time without segkit."""

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from segkit.errors import SegkitError
from segkit.export.card import card
from segkit.task import SegmentationTask

CARD = "segkit.json"  # the name of the extra file with the card


def write_program(task: SegmentationTask, program: ExportedProgram, path: Path, normalize: bool) -> None:
    """Writes a captured network to a `.pt2` file; its card is the extra file `segkit.json` in it."""
    file = io.BytesIO()  # torch's writer ends the process where the disk is full
    torch.export.save(program, file, extra_files={CARD: json.dumps(card(task, normalize))})
    path.write_bytes(file.getbuffer())


def load_program(path: str | Path) -> tuple[ExportedProgram, dict[str, Any]]:
    """A program and its card.

    Raises:
        SegkitError: The file is missing, damaged, or not of segkit.
    """
    files = {CARD: ""}
    try:
        program = torch.export.load(path, extra_files=files)
        return program, json.loads(files[CARD])
    except Exception as error:  # what a damaged archive raises has no common type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SegkitError(f"cannot read the program {str(path)!r} ({reason}); write it by export.py --format torch_export") from None
