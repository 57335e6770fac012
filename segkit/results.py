"""What an evaluation leaves behind: `metrics.json`, `per_image.npz`, `per_image.csv`, and what it says of single images.

Shapes: K classes, N images.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch.distributed as dist

from segkit.metrics import Scores
from segkit.runs import write_whole
from segkit.task import SegmentationTask


def gather(*columns: np.ndarray) -> tuple[np.ndarray, ...]:
    """Columns with a row per image, of all processes together and in the order of the images; the first column are their indices.

    Every process must call it.
    """
    parts = [columns]
    if dist.is_available() and dist.is_initialized():
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, columns)
        parts = everyone
    together = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(together[0])
    return tuple(column[order] for column in together)


def gather_per_image(task: SegmentationTask) -> tuple[np.ndarray, np.ndarray]:
    """The last evaluation of all processes, in the order of the images: indices int64 `[N]` and confusion matrices int64 `[N, K, K]`.

    Every process must call it.
    """
    indices, matrices = gather(*task.per_image())
    return indices, matrices


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON has no NaN


def _plain(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _plain(value) for name, value in values.items()}
    return _number(values) if isinstance(values, float) else values


def summary(result: Scores, class_names: list[str]) -> dict[str, Any]:
    """Scores as plain values; classes that occur neither in truth nor in prediction are None and left out of the means."""
    return {
        "miou": _number(result.miou),
        "accuracy": _number(result.accuracy),
        "mean_dice": _number(result.mean_dice),
        "iou": {name: _number(iou) for name, iou in zip(class_names, result.iou, strict=True)},
        "absent": [class_names[i] for i in result.absent],
    }


def write_results(
    folder: Path,
    task: SegmentationTask,
    names: list[str],
    per_image: tuple[np.ndarray, np.ndarray],
    *,
    measured: Mapping[str, Any] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Writes `metrics.json` and `per_image.npz` (index, name, matrix, classes) to `folder`.

    Args:
        folder: Made if it is missing.
        task: The task that has just been evaluated.
        names: The image behind each entry of `per_image`.
        per_image: From `gather_per_image`.
        measured: Further results for `metrics.json`; NaN becomes None.
        arrays: Further columns for `per_image.npz`.
        about: Plain values that describe the evaluation, such as split and step.

    Returns:
        What `metrics.json` holds.
    """
    assert task.validation_scores is not None
    indices, matrices = per_image
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {
        "index": indices,
        "name": np.array(names),
        "matrix": matrices,
        "classes": np.array(task.class_names),
        **(arrays or {}),
    }
    np.savez_compressed(folder / "per_image.npz", **columns)
    values = {**about, "images": len(indices), **summary(task.validation_scores, task.class_names), **_plain(measured or {})}
    write_whole(folder / "metrics.json", json.dumps(values, indent=2) + "\n")  # last: what has it is complete
    return values


class ImageScores(NamedTuple):
    """Scores of single images, NaN where there is nothing to score. No score of a data set is an average over them.

    Args:
        miou: Mean IoU over the classes in each image, truth or prediction, in [0, 1]: `[N]`.
        accuracy: Share of its valid pixels that are right: `[N]`.
        iou: IoU of every class: `[N, K]`.
        wrong: Pixels of each class that are missed or false: `[N, K]`.
    """

    miou: np.ndarray
    accuracy: np.ndarray
    iou: np.ndarray
    wrong: np.ndarray


def image_scores(matrices: np.ndarray) -> ImageScores:
    """The scores of confusion matrices, integer `[N, K, K]` with rows truth and columns prediction."""
    hit, both = np.diagonal(matrices, axis1=1, axis2=2), matrices.sum(1) + matrices.sum(2)
    union, pixels = both - hit, matrices.sum((1, 2))
    present = union > 0
    iou = _ratio(hit, union)
    return ImageScores(_ratio(np.where(present, iou, 0).sum(1), present.sum(1)), _ratio(hit.sum(1), pixels), iou, wrong=union - hit)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    values: np.ndarray = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return values


def write_table(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Writes columns of one length as CSV as in RFC 4180; NaN and None are empty."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:  # names of files need not be UTF-8
        writer = csv.writer(file)
        writer.writerow(columns)
        plain = (column.tolist() if isinstance(column, np.ndarray) else column for column in columns.values())
        writer.writerows(["" if cell is None or cell != cell else cell for cell in row] for row in zip(*plain, strict=True))
