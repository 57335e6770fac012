"""`export.py`: a network for use elsewhere, compared with the original, and the table of such comparisons in the documentation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit.cli.parsing import Parser
from segkit.config import ExportConfig, from_dict
from segkit.errors import SegkitError
from segkit.runs import find_checkpoint, newest_run

DESCRIPTION = (
    "Export a run. With no options: the last checkpoint of the newest run below runs/, as ONNX. "
    "`export.py parity` compares all operators and decoders in all formats and writes the table of docs/export.md."
)
SIZE = (360, 480)  # rows and columns of the image that is timed


@dataclass(kw_only=True)
class ParityConfig:
    """The table of comparisons.

    Args:
        out: page that holds the table, between the lines <!-- parity --> and <!-- end of parity -->
    """

    out: str = "docs/export.md"


def main(args: Sequence[str]) -> None:
    """Parses `args` and exports."""
    if args[:1] == ["parity"]:
        parser = Parser(ParityConfig, "Compare every operator and decoder in every format with the original network.", file=False)
        write_table(from_dict(ParityConfig, parser.read(args[1:])))
        return
    parser = Parser(ExportConfig, DESCRIPTION, file=False)
    parser.add_argument("run", nargs="?", metavar="RUN", help="run folder or .ckpt file; default: the newest run")
    values = parser.read(args)
    run = values.pop("run")
    config = from_dict(ExportConfig, values)
    export_run(config, find_checkpoint(run or newest_run("runs"), config.checkpoint))


def export_run(config: ExportConfig, checkpoint: Path) -> None:
    """Exports `checkpoint` as `config` says, and prints what came out."""
    from rich.console import Console

    from segkit.console import header
    from segkit.export.write import SUFFIXES, export
    from segkit.task import SegmentationTask

    run = checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    out = Path(config.out) if config.out else run / "export" / f"{checkpoint.stem}{SUFFIXES[config.format]}"
    task = SegmentationTask.load(checkpoint)
    try:
        parity = export(task, out, config.format, normalize=config.normalize, opset=config.opset, check=config.check)
    except OSError as error:
        raise SegkitError(
            f"cannot write {str(out)!r} ({error.strerror or error}); choose a place that you may write to, with room"
        ) from None
    rows = {"checkpoint": f"{checkpoint}, step {task.step}", "file": f"{out}, {out.stat().st_size / 2**20:.1f} MiB"}
    if config.format == "onnx":
        rows["opset"] = str(config.opset)
    if config.format == "safetensors":
        rows["card"] = str(out.with_suffix(".json"))
    rows["compared"] = str(parity) if parity else "no (--check false)"
    if config.format != "safetensors" and config.check:
        original, exported = time_both(task, out, config.normalize)
        rows["time"] = f"{exported:.0f} ms for {SIZE[1]} x {SIZE[0]} pixels on one thread; in training's form by torch {original:.0f} ms"
    Console().print(header(rows), soft_wrap=True, highlight=False)


def time_both(task: Any, path: Path, normalize: bool) -> tuple[float, float]:
    """Milliseconds that the original and the exported network take for one image on one thread, medians."""
    import torch

    from segkit.costs import latency
    from segkit.export.parity import random_images, runner

    threads = torch.get_num_threads()
    image = next(iter(random_images(task, [SIZE])))
    run = runner(path, task, normalize, threads=1)
    try:
        torch.set_num_threads(1)
        with torch.inference_mode():
            return latency(lambda: task(image), seconds=1.0)[0], latency(lambda: run(image), seconds=1.0)[0]
    finally:
        torch.set_num_threads(threads)


def write_table(config: ParityConfig) -> None:
    """Compares everything and puts the table into the page."""
    from segkit.export.table import insert, table

    page = Path(config.out)
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SegkitError(f"--out {page}: {error}; give the page that holds the table, such as docs/export.md") from None
    insert(text, "")  # before the work, not after it
    page.write_text(insert(text, table(lambda line: print(line, flush=True))), encoding="utf-8")
    print(f"table  {page}")
