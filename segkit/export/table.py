"""Every operator and decoder in every format, compared with the original network: the table of `docs/export.md`."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from segkit import __version__
from segkit.errors import RunFailed, SegkitError
from segkit.export.parity import SIZES, TOLERANCE
from segkit.export.write import SUFFIXES, export
from segkit.models import DECODERS
from segkit.task import SegmentationTask
from segkit.upsampling import UPSAMPLERS

START, END = "<!-- parity -->", "<!-- end of parity -->"


def small_task(decoder: str, upsample: str, encoder: str = "plain") -> SegmentationTask:
    """An untrained task whose batch norms have seen something: statistics, scales and shifts far from those of initialisation."""
    torch.manual_seed(0)
    task = SegmentationTask(
        ["sky", "road", "pole", "car"],
        [[70, 130, 180], [128, 64, 128], [220, 220, 0], [0, 0, 142]],
        [0.4, 0.5, 0.6],
        [0.2, 0.25, 0.3],
        decoder=decoder,
        encoder=encoder,
        upsample=upsample,
        upsample_init="standard",
        decoder_channels=[32, 16, 16, 8, 8],
    )
    for norm in task.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.normal_(norm.running_mean, std=0.2)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
    return task.eval()


# An FCN's operators are those of the U-Net on fewer channels: there the five classical ones stand for all.
PAIRS = [("unet", operator) for operator in sorted(UPSAMPLERS)]
PAIRS += [(d, u) for d in DECODERS if d != "unet" for u in ("bilinear", "nearest", "pixel_shuffle", "transpose", "transpose_k2")]


def table(say: Callable[[str], None], pairs: Sequence[tuple[str, str]] = tuple(PAIRS)) -> str:
    """The table in Markdown: largest difference of a logit relative to the largest logit, and the share of labels that differ.

    Args:
        say: Told each row as soon as it is there.
        pairs: Decoder and operator of each row.
    """
    lines = [
        f"| decoder | operator | {' | '.join(SUFFIXES)} |",
        "|---|---|" + "---|" * len(SUFFIXES),
    ]
    for decoder, operator in pairs:
        with tempfile.TemporaryDirectory() as folder:
            cells = [_cell(small_task(decoder, operator), Path(folder), format) for format in SUFFIXES]
        lines.append(f"| {decoder} | {operator} | {' | '.join(cells)} |")
        say(lines[-1])
    import onnxruntime

    foot = (
        f"segkit {__version__}, torch {torch.__version__.split('+')[0]}, onnxruntime {onnxruntime.__version__}, float32, CPU; "
        f"{len(SIZES)} sizes, batches of one and of two images."
    )
    return "\n".join([*lines, "", foot])


def _cell(task: SegmentationTask, folder: Path, format: str) -> str:
    try:
        parity = export(task, folder / f"network{SUFFIXES[format]}", format)
    except (SegkitError, RunFailed):
        return "refused"
    assert parity is not None
    assert parity.difference <= TOLERANCE * parity.largest
    if parity.difference == 0:
        return "equal"
    return f"{parity.difference / parity.largest:.0e}, {100 * parity.labels:.1g} %"


def insert(page: str, text: str) -> str:
    """The page with `text` between the two markers.

    Raises:
        SegkitError: The page does not have them, once each and in order.
    """
    if page.count(START) != 1 or page.count(END) != 1 or page.index(START) > page.index(END):
        raise SegkitError(f"the page needs a line {START} and, behind it, a line {END}: the table goes between them")
    before, rest = page.split(START)
    return f"{before}{START}\n{text}\n{END}{rest.split(END)[1]}"
