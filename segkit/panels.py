"""Pictures of predictions: image | truth | prediction | errors, a row per image, with a legend. Drawn with Pillow alone, in milliseconds.

Shape legend: N images, H W rows and columns, K classes. Images are uint8 [H, W, 3], masks and predictions uint8 [H, W].
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLUMNS = ("image", "truth", "prediction", "errors")
GAP, TEXT = 12, 20  # pixels between cells; letter size
INK, PALE, PAPER = (32, 32, 32), (110, 110, 110), (255, 255, 255)
WRONG = (214, 39, 40)


def viewable(image: np.ndarray) -> np.ndarray:
    """An image uint8 or uint16 [H, W, C] of any number of channels as uint8 [H, W, 3] to look at.

    The first three channels of more are red, green and blue; the first of fewer is grey. 16 bits are stretched, all channels alike: the
    darkest hundredth becomes black and the brightest white, for few sensors use the whole range.
    """
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    if shown.dtype != np.uint8:
        step = math.ceil(max(shown.shape) / 1024)  # percentiles from a million pixels
        low, high = np.percentile(shown[::step, ::step], (1, 99))
        shown = np.clip((shown - np.float32(low)) * np.float32(255 / max(high - low, 1)) + 0.5, 0, 255).astype(np.uint8)
    return shown if shown.shape[2] == 3 else shown.repeat(3, axis=2)


def draw_panels(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    class_names: Sequence[str],
    colors: Sequence[Sequence[int]],
    ignore_index: int,
    titles: Sequence[str],
    side: int = 512,
) -> np.ndarray:
    """Rows of image, truth, prediction and errors (wrong pixels red on the greyed image), and a legend of the classes present.

    Ignored pixels are hatched in truth, prediction and errors alike. Images of different sizes are made similarly large: a small one is
    enlarged by a whole factor without smoothing, a large one is averaged down, colours and all, so that a thin wire fades but never breaks.

    Args:
        images: N images; each may have its own size.
        masks: N masks.
        predictions: N label maps.
        class_names: K names.
        colors: K triples in [0, 255].
        ignore_index: The mask value that is not scored.
        titles: N titles, one above each row.
        side: Longest side of one picture, in pixels.

    Returns:
        uint8 [H, W, 3].
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colors)] = np.asarray(colors, np.uint8)
    rows = [cells(*row, palette, ignore_index, side) for row in zip(images, masks, predictions, strict=True)]
    width = max(row[0].shape[1] for row in rows)
    line = TEXT + GAP
    total = GAP + len(COLUMNS) * (width + GAP)
    present = sorted({int(label) for labels in (*masks, *predictions) for label in np.unique(labels)} - {ignore_index})
    entries = [(class_names[label], palette[label]) for label in present]
    if any((mask == ignore_index).any() for mask in masks):
        entries.append(("ignored", None))
    entries.append(("wrong", np.array(WRONG)))

    places, legend_height = _flow([name for name, _ in entries], total)
    top = GAP + line
    sheet = Image.new("RGB", (total, top + sum(line + row[0].shape[0] + GAP for row in rows) + GAP + legend_height + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(COLUMNS):
        draw.text((GAP + column * (width + GAP) + width / 2, GAP + TEXT / 2), name, INK, _font(TEXT), anchor="mm")
    for row, title in zip(rows, titles, strict=True):
        draw.text((GAP, top + TEXT / 2), title, PALE, _font(TEXT - 3), anchor="lm")
        for column, cell in enumerate(row):
            left = GAP + column * (width + GAP) + (width - cell.shape[1]) // 2
            sheet.paste(Image.fromarray(cell), (left, top + TEXT + GAP // 2))
        top += line + row[0].shape[0] + GAP
    top += GAP
    for (name, color), (x, y) in zip(entries, places, strict=True):
        swatch = _hatch(TEXT, TEXT) if color is None else np.broadcast_to(color.astype(np.uint8), (TEXT, TEXT, 3)).copy()
        sheet.paste(Image.fromarray(swatch), (x, top + y))
        draw.rectangle((x, top + y, x + TEXT - 1, top + y + TEXT - 1), outline=PALE)
        draw.text((x + TEXT + 6, top + y + TEXT / 2), name, INK, _font(TEXT - 2), anchor="lm")
    return np.asarray(sheet)


def cells(
    image: np.ndarray, mask: np.ndarray, prediction: np.ndarray, palette: np.ndarray, ignore_index: int, side: int
) -> list[np.ndarray]:
    """The four pictures of a row, `COLUMNS`, uint8 `[h, w, 3]` of one size, as large as `side` allows.

    Args:
        image: uint8 `[H, W, 3]`.
        mask: The truth.
        prediction: The label map.
        palette: uint8 `[256, 3]`: the colour of every label.
        ignore_index: The mask value that is not scored; hatched.
        side: Longest side of a picture in pixels.
    """
    height, width = mask.shape
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor))) if factor < 1 else (width * int(factor), height * int(factor))

    method = Image.Resampling.BOX if factor < 1 else Image.Resampling.NEAREST

    grey = 0.45 * image.mean(axis=2, keepdims=True) + 0.55 * 255
    errors = np.where((prediction != mask)[..., None], np.array(WRONG), grey).astype(np.uint8)
    pictures = [np.asarray(Image.fromarray(cell).resize(size, method)) for cell in (image, palette[mask], palette[prediction], errors)]
    ignored = np.asarray(Image.fromarray(mask == ignore_index).resize(size, Image.Resampling.NEAREST))[..., None]
    return [pictures[0], *(np.where(ignored, _hatch(*picture.shape[:2]), picture) for picture in pictures[1:])]


def _hatch(height: int, width: int) -> np.ndarray:
    """Dark grey with lighter diagonal lines, uint8 [height, width, 3]."""
    lines = (np.add.outer(np.arange(height), np.arange(width)) % 8 < 2)[..., None]
    return np.where(lines, np.uint8(150), np.uint8(70)).repeat(3, axis=2)


def _flow(names: Sequence[str], width: int) -> tuple[list[tuple[int, int]], int]:
    """Where each legend entry starts, in lines no longer than `width`, and the height of them all."""
    places, x, y = [], GAP, 0
    for name in names:
        need = TEXT + 6 + round(_font(TEXT - 2).getlength(name)) + 2 * GAP
        if x > GAP and x + need > width:
            x, y = GAP, y + TEXT + GAP
        places.append((x, y))
        x += need
    return places, y + TEXT


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
