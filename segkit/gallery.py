"""`gallery.html`: the worst images of an evaluation and, for each class, the one on which it fails most. One page, no script, no request.

Shape legend: H W rows and columns, K classes.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from segkit.panels import COLUMNS, WRONG, cells
from segkit.web_page import web_page

SIDE = 384  # pixels of a picture


@dataclass(frozen=True)
class Exhibit:
    """One image and what became of it.

    Args:
        name: Of the image; no other has it.
        image: uint8 `[H, W, 3]`.
        mask: The truth, uint8 `[H, W]`.
        prediction: uint8 `[H, W]`.
        matrix: Its confusion matrix, integer `[K, K]`, rows truth, columns prediction.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    prediction: np.ndarray
    matrix: np.ndarray


def gallery(
    title: str,
    about: str,
    worst: Sequence[Exhibit],
    failed: Mapping[int, Exhibit],
    class_names: Sequence[str],
    colors: Sequence[Sequence[int]],
    ignore_index: int,
) -> str:
    """The page as HTML.

    Args:
        title: What was scored.
        about: The scores of the data set.
        worst: The images with the lowest mean IoU, the lowest first.
        failed: For each class the image with most wrong pixels of it, missed and false ones together.
        class_names: K names.
        colors: K triples in [0, 255].
        ignore_index: The mask value that is not scored; hatched.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colors)] = np.asarray(colors, np.uint8)
    every = {exhibit.name: exhibit for exhibit in (*worst, *failed.values())}  # one that is shown twice is drawn once
    rows = {
        name: _row(name, cells(exhibit.image, exhibit.mask, exhibit.prediction, palette, ignore_index, SIDE))
        for name, exhibit in every.items()
    }
    lowest = [_article(e.name, describe(e.matrix, class_names), rows[e.name]) for e in worst]
    classes = [
        _article(f"{class_names[k]}: {e.name}", describe_class(e.matrix, k, class_names), rows[e.name]) for k, e in sorted(failed.items())
    ]
    colored = {name: f"rgb{tuple(int(c) for c in color)}" for name, color in zip(class_names, colors, strict=True)} | {
        "wrong": f"rgb{WRONG}"
    }
    legend = [f'<li><i style="background: {color}"></i>{escape(name)}</li>' for name, color in colored.items()]
    body = f"""<header><h1>{escape(title)}</h1><p>{escape(about)}</p>
<ul class="legend">{"".join(legend)}<li><i class="ignored"></i>ignored</li></ul></header>
<section><h2>The images with the lowest mean IoU</h2>
{chr(10).join(lowest)}
</section>
<section><h2>For each class the image with most wrong pixels of it</h2>
{chr(10).join(classes)}
</section>"""
    return web_page(title, CSS, body)


def describe(matrix: np.ndarray, class_names: Sequence[str]) -> str:
    """The scores of an image with something to score, and its class with most wrong pixels, in words."""
    hit, both = np.diagonal(matrix), matrix.sum(0) + matrix.sum(1)
    present = both > 0
    most = int(np.lexsort((hit, 2 * hit - both))[0])  # of two classes, which share their wrong pixels, the one with fewer right ones
    miou = (hit[present] / (both - hit)[present]).mean()
    means = f"mIoU {100 * miou:.1f} %, accuracy {100 * hit.sum() / matrix.sum():.1f} %"
    wrong = f"; most wrong pixels: {class_names[most]}, {describe_class(matrix, most, class_names)}" if hit.sum() < matrix.sum() else ""
    return means + wrong


def describe_class(matrix: np.ndarray, label: int, class_names: Sequence[str]) -> str:
    """What became of a class that the truth or the prediction of an image has, in words: how much is missed and false, and for what."""
    hit, truth, found = matrix[label, label], matrix[label].sum(), matrix[:, label].sum()
    told = [f"IoU {100 * hit / (truth + found - hit):.1f} %"]
    for pixels, others, what, how in (
        (truth - hit, matrix[label], f"of {truth:,} pixels missed", "taken for"),
        (found - hit, matrix[:, label], "false", "on"),
    ):
        if pixels:
            most = int(np.where(np.arange(len(others)) == label, -1, others).argmax())
            told.append(f"{pixels:,} {what}, {100 * others[most] / pixels:.0f} % {how} {class_names[most]}")
    return "; ".join(told)


def _article(title: str, about: str, row: str) -> str:
    return f"<article><h3>{escape(title)}</h3><p>{escape(about)}</p>{row}</article>"


def _row(name: str, pictures: Sequence[np.ndarray]) -> str:
    figures = (
        f"<figure>{_picture(picture, f'{name}: {column}')}<figcaption>{column}</figcaption></figure>"
        for picture, column in zip(pictures, COLUMNS, strict=True)
    )
    return f'<div class="row">{"".join(figures)}</div>'


def _picture(cell: np.ndarray, alt: str) -> str:
    file = BytesIO()
    Image.fromarray(cell).save(file, "JPEG", quality=88, subsampling=0)
    data = base64.b64encode(file.getvalue()).decode()
    height, width = cell.shape[:2]
    return f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{escape(alt)}">'


CSS = """
:root { --paper: #fff; --ink: #1c1d1f; --soft: #6b6f76; --rule: #d9dce1; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e8e9eb; --soft: #9ba1aa; --rule: #363b43; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem clamp(1rem, 3vw, 2.5rem) 4rem; max-width: 104rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; }
h1 { margin: 0; font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { margin: 2.2rem 0 .4rem; padding-top: .6rem; border-top: 1px solid var(--rule); font-size: 1.25rem; }
h3 { margin: 1.2rem 0 0; font-size: 1rem; overflow-wrap: anywhere; }
p, figcaption { margin: .1rem 0 .4rem; color: var(--soft); font-variant-numeric: tabular-nums; }
figcaption { font-size: .8rem; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .8rem 0 0; padding: 0; list-style: none; font-size: .9rem; }
.legend i { display: inline-block; width: .9em; height: .9em; margin-right: .4em; vertical-align: -.08em; outline: 1px solid var(--rule); }
.legend .ignored { background: repeating-linear-gradient(135deg, #464646 0 3px, #969696 3px 4px); }
.row { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .6rem; }
figure { margin: 0; } img { display: block; width: 100%; height: auto; max-width: 384px; }
article { break-inside: avoid; }
@media (max-width: 44rem) { .row { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
"""
