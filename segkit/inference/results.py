"""What a prediction leaves on disk: masks, overlays, probabilities, each whole or not at all, and a note of what made them.

Shapes: K classes, H W rows and columns, n rows of a band.
"""

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from segkit.config import IGNORE_INDEX
from segkit.data.opening import damaged
from segkit.errors import SegkitError
from segkit.inference.bands import Band, Bytes
from segkit.inference.files import Picture
from segkit.inference.inputs import Job, results
from segkit.panels import viewable

NOTE = "predictions.json"
TIMES = ("since", "first")
OVERLAY_SIDE = 4096  # pixels; a larger image is shown by every second, third, ... pixel


@dataclass(frozen=True)
class Folder:
    """A folder of results.

    Args:
        path: Where.
        colors: Colour of each class.
        overlays: Write the image under its prediction too.
        probabilities: Write the probability of every class too.
        since: Results that are older, by the file system's clock, are none of this model's.
        first: What is older than that was not predicted at all.
    """

    path: Path
    colors: Sequence[Sequence[int]]
    overlays: bool
    probabilities: bool
    since: float
    first: float = 0.0

    def refuse_others(self, jobs: Iterable[Job]) -> None:
        """Raises a SegkitError where a result would replace a file that is no earlier prediction, such as a mask drawn by hand."""
        for job in jobs:
            for file in self.files(job):
                with suppress(FileNotFoundError, NotADirectoryError):
                    if file.lstat().st_mtime < self.first:
                        raise SegkitError(f"--out {self.path}: {file} is there and no prediction; give another folder, or --overwrite")

    def files(self, job: Job) -> list[Path]:
        """What is written for an image; the mask comes last, when the others are there."""
        extra = [f"{job.name}.overlay.jpg"] * self.overlays + [f"{job.name}.probabilities.npy"] * self.probabilities
        return [self.path / name for name in (*extra, results(job))]

    def finished(self, job: Job) -> bool:
        """Whether all results of an image are there."""
        try:
            return all(file.stat().st_mtime >= self.since for file in self.files(job))
        except FileNotFoundError:
            return False

    def write(self, job: Job, picture: Picture, bands: Iterable[Band], advance: Callable[[int], None]) -> None:
        """Writes the results of an image while its bands come.

        The mask of a TIFF lies where the image lies, by its tags; where the image names a value for pixels that were not recorded (GDAL's
        nodata), these are 255 in the mask, which names that in turn, and have no probabilities.

        Args:
            job: The image.
            picture: Its pixels.
            bands: Its prediction.
            advance: Told the number of finished rows.
        """
        mask = self.files(job)[-1]
        mask.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:

            def temporary(final: Path) -> Path:
                for left in final.parent.glob(f".{escape(final.stem)}.*.tmp{final.suffix}"):  # by a killed process: the claim is ours
                    left.unlink(missing_ok=True)
                path = final.with_name(f".{final.stem}.{os.getpid()}.tmp{final.suffix}")
                stack.callback(path.unlink, missing_ok=True)
                return path

            paths = {final: temporary(final) for final in self.files(job)}
            more: dict[str, Any] = {}
            hole: float | None = None
            if mask.suffix == ".tif":
                more, hole = _tiff_tags(job.image, picture)
            bands = bands if hole is None else _without_holes(bands, picture, hole)
            for final, path in paths.items():
                if final.name.endswith(".overlay.jpg"):
                    bands = _overlay(path, bands, picture, self.colors)
                elif final.name.endswith(".probabilities.npy"):
                    bands = _probabilities(path, bands, (len(self.colors), *picture.size), stack)
            rows = _labels(bands, advance)
            if mask.suffix == ".tif":
                from segkit.inference.tiff import write_mask

                try:
                    write_mask(paths[mask], rows, picture.size, self.colors, hole=None if hole is None else IGNORE_INDEX, **more)
                except (TypeError, ValueError, LookupError, ArithmeticError, struct.error) as error:  # tags that are none, and were copied
                    if isinstance(error, SegkitError):
                        raise
                    raise damaged(job.image, error) from None
            elif mask.suffix == ".npy":
                with paths[mask].open("wb") as file:
                    _header(file, picture.size)
                    for band in rows:
                        file.write(band.tobytes())
            else:
                save_png(paths[mask], np.concatenate(list(rows)), self.colors)
            for final, path in paths.items():
                os.replace(path, final)


def save_png(path: Path, labels: Bytes, colors: Sequence[Sequence[int]]) -> None:
    """Labels uint8 [H, W] as a PNG whose palette has the classes' colours; Pillow stores palette images without filters, read fastest."""
    image = Image.fromarray(labels)
    image.putpalette(_palette(colors).tobytes())
    image.save(path)


def open_folder(
    path: Path,
    made_by: Mapping[str, Any],
    colors: Sequence[Sequence[int]],
    *,
    overlays: bool = False,
    probabilities: bool = False,
    overwrite: bool = False,
    jobs: Sequence[Job] = (),
) -> Folder:
    """Makes a folder of results, or goes on with one.

    Args:
        path: The folder.
        made_by: All that decides the predictions, plain values; kept in `predictions.json`.
        colors: As in `Folder`.
        overlays: As in `Folder`.
        probabilities: As in `Folder`.
        overwrite: Results that are there already count for nothing.
        jobs: The images to predict.

    Raises:
        SegkitError: It holds predictions of another model or with other options, or other files in their place, or cannot be made.
    """
    note = path / NOTE
    made_by = json.loads(json.dumps(made_by))
    if not overwrite and not note.exists():  # before a note is left there
        Folder(path, colors, overlays, probabilities, math.inf, math.inf).refuse_others(jobs)
    try:
        path.mkdir(parents=True, exist_ok=True)
        there = None if overwrite or not note.exists() else json.loads(note.read_text())
        if there is not None and not all(isinstance(there.get(name, 0.0 if name == "first" else None), int | float) for name in TIMES):
            raise ValueError
        if there is None:
            temporary = path / f".{NOTE}.{os.getpid()}.tmp"
            try:
                temporary.touch()  # the file system's clock, by which results will be compared
                since = temporary.stat().st_mtime
                there = {"since": since, "first": 0.0 if overwrite else since, **made_by}
                temporary.write_text(json.dumps(there, indent=1) + "\n")
                os.replace(temporary, note)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise SegkitError(f"--out {path}: cannot write there ({error.strerror}); choose another folder") from None
    except (ValueError, AttributeError, RecursionError):
        raise SegkitError(f"--out {path}: {NOTE} in it is damaged; give another folder, or --overwrite") from None
    if different := [name for name in made_by if there.get(name) != made_by[name]]:
        name = different[0]
        what = "another model" if name == "model" else f"{name} {there.get(name)}, not {made_by[name]}"
        raise SegkitError(f"--out {path}: holds predictions of {what}; give another folder, or --overwrite to predict again")
    folder = Folder(path, colors, overlays, probabilities, there["since"], there.get("first", 0.0))
    folder.refuse_others(jobs)
    return folder


def _labels(bands: Iterable[Band], advance: Callable[[int], None]) -> Iterator[Bytes]:
    for band in bands:
        yield band.labels
        advance(band.top + len(band.labels))


def _tiff_tags(image: Path, picture: Picture) -> tuple[dict[str, Any], float | None]:
    try:
        from segkit.inference.tiff import nodata, place

        return place(image), nodata(image, picture.read(0, 1).dtype)
    except ImportError:
        raise SegkitError(
            f"{image}: the place of a TIFF is kept by tifffile, which is not installed: pip install tifffile imagecodecs"
        ) from None
    except Exception as error:  # any tag may hold anything
        raise damaged(image, error) from None


def _without_holes(bands: Iterable[Band], picture: Picture, value: float) -> Iterator[Band]:
    for band in bands:
        hole = (picture.read(band.top, band.top + len(band.labels)) == value).all(axis=2)
        probabilities = None if band.probabilities is None else np.where(hole, np.uint8(0), band.probabilities)
        yield Band(band.top, np.where(hole, np.uint8(IGNORE_INDEX), band.labels), probabilities)


def _overlay(path: Path, bands: Iterable[Band], picture: Picture, colors: Sequence[Sequence[int]]) -> Iterator[Band]:
    step = -(-max(picture.size) // OVERLAY_SIDE)
    palette, images, maps = _palette(colors), [], []
    for band in bands:
        rows = slice(-band.top % step, None, step)
        images.append(picture.read(band.top, band.top + len(band.labels))[rows, ::step, :3].copy())
        maps.append(band.labels[rows, ::step].copy())
        yield band
    shown, labels = viewable(np.concatenate(images)), np.concatenate(maps)
    images.clear()
    for top in range(0, len(shown), 256):  # a few rows at a time: what is mixed is wider
        part, classes = shown[top : top + 256], labels[top : top + 256]
        mixed = (part.astype(np.uint16) + palette[classes] + 1) // 2
        painted = palette[classes].any(axis=2) & (classes != IGNORE_INDEX)  # a black class, the background of most, would only darken
        shown[top : top + 256] = np.where(painted[..., None], mixed, part)
    Image.fromarray(shown).save(path, quality=90)


def _probabilities(path: Path, bands: Iterable[Band], shape: tuple[int, int, int], stack: ExitStack) -> Iterator[Band]:
    file = stack.enter_context(path.open("wb"))
    _header(file, shape)
    begin, (classes, height, width) = file.tell(), shape
    for band in bands:
        assert band.probabilities is not None
        for k in range(classes):
            file.seek(begin + (k * height + band.top) * width)
            file.write(band.probabilities[k].tobytes())
        yield band
    file.flush()


def _header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """The beginning of a `.npy` file of uint8: written by hand, since what is written to a memory map stays in memory for long."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _palette(colors: Sequence[Sequence[int]]) -> Bytes:
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colors)] = np.asarray(colors, np.uint8)
    return palette
