"""One file of any format, compared with the original before it gets its name."""

import os
import shutil
from pathlib import Path

from segkit.errors import RunFailed, SegkitError
from segkit.export.graph import capture
from segkit.export.onnx_file import write_onnx
from segkit.export.parity import Parity, compare, random_images, runner
from segkit.export.program import write_program
from segkit.export.weights import write_safetensors
from segkit.task import SegmentationTask

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}


def export(
    task: SegmentationTask, path: str | Path, format: str = "onnx", *, normalize: bool = True, opset: int = 20, check: bool = True
) -> Parity | None:
    """Writes a network for use elsewhere.

    Args:
        task: What `SegmentationTask.load` returns; moved to the CPU and into evaluation mode.
        path: File to write, whose suffix is the format's: `.onnx`, `.pt2` or `.safetensors`.
        format: `onnx`, `torch_export` or `safetensors`.
        normalize: Put the normalisation into the graph (weights have none).
        opset: ONNX operator set.
        check: Compare with the original on 20 sizes (`segkit.export.parity.SIZES`).

    Returns:
        The comparison.

    Raises:
        SegkitError: The network cannot be exported to this format.
        RunFailed: What was written computes something else; the file is removed.
    """
    path = Path(path)
    if path.suffix != SUFFIXES[format]:
        raise SegkitError(f"--out {path}: a file of --format {format} ends in {SUFFIXES[format]}")
    task.cpu().eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(folder, ignore_errors=True)  # of an export that was killed
    folder.mkdir()
    try:
        made = folder / path.name
        if format == "safetensors":
            write_safetensors(task, made)
        else:
            program = capture(task, normalize)
            if format == "onnx":
                write_onnx(task, program, made, normalize, opset)
            else:
                write_program(task, program, made, normalize)
        parity = compare(task, runner(made, task, normalize), random_images(task)) if check else None
        if parity is not None and not parity.holds:
            raise RunFailed(f"the exported network computes something else, and {path} is not written: {parity}")
        for file in folder.iterdir():
            os.replace(file, path.with_name(file.name))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return parity
