"""What an evaluation leaves for the eye: a table of the images, figures, the panel and the gallery.

Shapes: H W rows, columns, K classes, N images.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from segkit.data.source import Source
    from segkit.measures import Chosen
    from segkit.results import ImageScores
    from segkit.task import SegmentationTask


def write_images_table(
    path: Path, source: "Source", indices: "np.ndarray", found: "ImageScores", boundaries: Mapping[str, "np.ndarray"]
) -> None:
    """Writes a line per image as CSV: name, size, file, mIoU, accuracy, IoU of every class, and boundaries where they were measured.

    Args:
        path: The file.
        source: The split.
        indices: Which of its images, `[N]`.
        found: Their scores.
        boundaries: From `BoundaryMeasures.gathered`, or empty.
    """
    import numpy as np

    from segkit.results import write_table

    sizes, files = zip(*((source.size(i), source.paths(i)) for i in indices.tolist()), strict=True)
    table: dict[str, Any] = {
        "index": indices,
        "name": [source.name(i) for i in indices.tolist()],
        "rows": [rows for rows, _ in sizes],
        "columns": [columns for _, columns in sizes],
        "miou": found.miou,
        "accuracy": found.accuracy,
        **{f"iou/{name}": iou for name, iou in zip(source.classes.names, found.iou.T, strict=True)},
    }
    if boundaries:
        intersection, union = boundaries["boundary_intersection"], boundaries["boundary_union"]
        present = union > 0
        iou, count = np.divide(intersection, union, out=np.zeros(union.shape), where=present), present.sum(1)
        table["boundary_miou"] = np.divide(iou.sum(1), count, out=np.full(len(count), np.nan), where=count > 0)
        table["bf"] = boundaries["bf"]
    table["file"] = [pair and pair[0] for pair in files]
    write_table(path, table)


def draw_figures(folder: Path, about: str, matrix: "np.ndarray", task: "SegmentationTask", bins: Mapping[str, "np.ndarray"]) -> None:
    """Draws the confusion matrix of all images `[K, K]` and, where there are bins, the reliability diagram.

    Args:
        folder: Of the results.
        about: What was scored.
        matrix: Integer, rows truth, columns prediction.
        task: Its classes.
        bins: From `CalibrationMeasures.arrays`, or empty.
    """
    from segkit.figures import draw_confusion, draw_reliability, save

    save(draw_confusion(matrix, task.class_names, about), folder / "confusion.png")
    if bins:
        figure = draw_reliability(bins, about)
        for suffix in ("png", "pdf"):
            save(figure, folder / f"reliability.{suffix}")


def show_images(
    folder: Path,
    about: str,
    source: "Source",
    task: "SegmentationTask",
    images: tuple["np.ndarray", "np.ndarray"],
    chosen: "Chosen",
    maps: Mapping[int, "np.ndarray"],
) -> None:
    """Draws `panel.png`, the worst and the best images, half as many of each as were chosen, and writes `gallery.html`.

    Args:
        folder: Of the results.
        about: What was scored.
        source: The split.
        task: Its classes and scores.
        images: Indices `[N]` and confusion matrices `[N, K, K]`.
        chosen: Positions in `images`.
        maps: The label map uint8 `[H, W]` of every chosen image, by index.
    """
    from PIL import Image

    from segkit.console import score_line
    from segkit.gallery import Exhibit, gallery
    from segkit.panels import draw_panels, viewable

    indices, matrices = images
    assert task.validation_scores is not None
    shown = {}
    for place in chosen.all():
        index = int(indices[place])
        image, mask = source.read(index)
        shown[place] = Exhibit(source.name(index), viewable(image), mask, maps[index], matrices[place])
    if not chosen.worst:
        return
    half = len(chosen.worst) // 2
    panel = {f"worst: {shown[place].name}": shown[place] for place in chosen.worst[:half]}
    panel |= {f"best: {shown[place].name}": shown[place] for place in chosen.best[:half]}
    if panel:
        rows = panel.values()
        drawn = draw_panels(
            [row.image for row in rows],
            [row.mask for row in rows],
            [row.prediction for row in rows],
            task.class_names,
            task.colors,
            task.ignore_index,
            list(panel),
        )
        Image.fromarray(drawn).save(folder / "panel.png")
    worst, failed = [shown[place] for place in chosen.worst], {k: shown[place] for k, place in chosen.failed.items()}
    page = gallery(about, score_line(task.validation_scores), worst, failed, task.class_names, task.colors, task.ignore_index)
    (folder / "gallery.html").write_text(page, encoding="utf-8", errors="backslashreplace")
