"""The one pass over a data set: every pair is decoded once, and a few numbers of it are kept.

Shape legend: `N` images of a split, `H W` rows and columns, `C` channels, `K` classes. All that is computed beside the decoding works on
whole buffers, outside the interpreter's lock, and costs a quarter of it or less.
"""

import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from PIL import Image

from segkit.config import IGNORE_INDEX
from segkit.data.check import listing, look
from segkit.data.files import Header, Pixels, read_header
from segkit.data.findings import Finding
from segkit.data.source import Array, Source
from segkit.data.threads import each
from segkit.doctor.hashing import SIDE, perceptual_hashes
from segkit.errors import SegkitError

FLAT = 1.0  # standard deviation, in 255ths, below which an image shows nothing
GRID = 128  # so many rows and columns, evenly spread, stand for a larger image where statistics and likeness are asked for
UPRIGHT = (0, 1)  # EXIF orientations: none given, and upright


@dataclass(frozen=True)
class SplitFacts:
    """What is known of the N images of a split; rows of pairs that cannot be used are 0, and `usable` is false there.

    Args:
        usable: bool [N].
        sizes: Rows and columns as read, int32 [N, 2]; known of some pairs that cannot be used, too.
        pixels: Pixels of every class, int64 [N, K].
        ignored: Ignored pixels, int64 [N].
        mean: Mean of every channel in [0, 1], of a large image over 128 x 128 of its pixels, float64 [N, C].
        square: Mean of the squares, likewise, float64 [N, C].
        look: Perceptual hash of the image, uint64 [N].
        image: Checksum of the image's pixels, uint32 [N].
        mask: Checksum of the mask's pixels, uint32 [N].
        flat: The image shows nothing, bool [N].
        grey: All channels are equal, likewise, bool [N].
        bits: Values used, or-ed together over the image, uint16 [N].
    """

    usable: np.ndarray[Any, np.dtype[np.bool_]]
    sizes: np.ndarray[Any, np.dtype[np.int32]]
    pixels: np.ndarray[Any, np.dtype[np.int64]]
    ignored: np.ndarray[Any, np.dtype[np.int64]]
    mean: np.ndarray[Any, np.dtype[np.float64]]
    square: np.ndarray[Any, np.dtype[np.float64]]
    look: np.ndarray[Any, np.dtype[np.uint64]]
    image: np.ndarray[Any, np.dtype[np.uint32]]
    mask: np.ndarray[Any, np.dtype[np.uint32]]
    flat: np.ndarray[Any, np.dtype[np.bool_]]
    grey: np.ndarray[Any, np.dtype[np.bool_]]
    bits: np.ndarray[Any, np.dtype[np.uint16]]


@dataclass(frozen=True)
class Examination:
    """What one pass over a data set found out.

    Args:
        splits: The facts of every split.
        findings: What is wrong with single pairs, and with the listing.
        seconds: How long the pass took.
    """

    splits: Mapping[str, SplitFacts]
    findings: tuple[Finding, ...]
    seconds: float


def examine(sources: Mapping[str, Source], progress: Callable[[], object] = lambda: None, threads: int | None = None) -> Examination:
    """Look at every pair once.

    Args:
        sources: The splits by name.
        progress: Called after each pair, in the order of the pairs.
        threads: How many read; default: one per core.
    """
    began, findings, splits = time.perf_counter(), listing(sources), {}
    own = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the threads are ours
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # which reading makes a finding of
            for split, source in sources.items():

                def one(index: int, split: str = split, source: Source = source) -> tuple[dict[str, Any], list[Finding]]:
                    return _pair(split, source, index)

                rows = []
                for facts, found in each(one, len(source), threads):
                    rows.append(facts)
                    findings += found
                    progress()
                splits[split] = _stack(rows, len(source.classes))
    finally:
        cv2.setNumThreads(own)
    return Examination(splits, tuple(findings), time.perf_counter() - began)


def _pair(split: str, source: Source, index: int) -> tuple[dict[str, Any], list[Finding]]:
    seen, place, files = look(split, source, index), ((split, index),), source.paths(index)
    image, mask, labels = seen.image, seen.mask, seen.histogram
    picture = _header(files[0]) if image is not None and files else None
    turned = picture is not None and picture.orientation not in UPRIGHT
    upright = turned and files is not None and (header := _header(files[1])) is not None and header.orientation in UPRIGHT
    if seen.finding:
        found = seen.finding
        if found.kind == "size" and image is not None and mask is not None and upright and mask.shape == image.shape[1::-1]:
            found = replace(found, kind="half_turned")  # it fits the image as it is stored, not as it is meant to be looked at
        return {"sizes": image.shape[:2]} if image is not None else {}, [found]
    assert image is not None
    assert mask is not None
    name, classes, white = f"{split}/{source.name(index)}", len(source.classes), np.iinfo(image.dtype).max
    findings: list[Finding] = []

    def note(kind: str, what: str = name) -> None:
        findings.append(Finding(kind, split, what, place))

    if labels[IGNORE_INDEX] == mask.size:
        note("all_ignored")
    elif np.count_nonzero(labels) == 1:
        note("constant", f"{name}: {source.classes.names[int(labels.argmax())]}")
    if picture is not None:
        if turned:  # a quarter turn of a picture that is not square shows in its size; other turns do not
            unsure = upright and (picture.orientation < 5 or mask.shape[0] == mask.shape[1])
            note("turned_unsure" if unsure else "turned", f"{name}: orientation {picture.orientation}")
        if picture.mode in ("RGBA", "LA", "PA") and image.shape[2] in (1, 3):
            note("alpha")
        if picture.mode == "CMYK":
            note("cmyk")
    sample = _sample(image)
    grey = _grey(sample)
    mean, deviation = _moments(sample)
    flat = bool((deviation < FLAT / 255 * white).all()) and bool((_moments(image)[1] < FLAT / 255 * white).all())
    if flat:
        note("flat")
    facts = {
        "usable": True,
        "sizes": mask.shape,
        "pixels": labels[:classes].copy(),
        "ignored": labels[IGNORE_INDEX],
        "mean": mean / white,
        "square": (deviation**2 + mean**2) / white**2,
        "small": _reduced(sample),
        "image": _checksum(image),
        "mask": _checksum(mask),
        "flat": flat,
        "grey": grey,
        "bits": np.bitwise_or.reduce(image, axis=None) if image.dtype == np.uint16 else 255,
    }
    return facts, findings


def _header(file: str) -> Header | None:
    try:
        return read_header(file)
    except SegkitError:  # what is read by other means, such as TIFF of many bands
        return None


def _checksum(pixels: Pixels) -> int:
    return zlib.crc32(np.ascontiguousarray(pixels).data)


def _sample(image: Pixels) -> Pixels:
    """At most GRID x GRID pixels of the image, evenly spread."""
    size = (min(GRID, image.shape[1]), min(GRID, image.shape[0]))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)).reshape(size[1], size[0], -1)


def _moments(image: Pixels) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Mean and standard deviation of every channel, float64 [C]."""
    planes = [image[..., first : first + 4] for first in range(0, image.shape[2], 4)]  # OpenCV takes four channels at once
    parts = [cv2.meanStdDev(np.ascontiguousarray(plane)) for plane in planes]
    mean, deviation = (np.concatenate([part[i].ravel() for part in parts]) for i in (0, 1))
    return mean, deviation


def _reduced(image: Pixels) -> Array:
    """Averages of the image's grey over a grid, uint8 [SIDE, SIDE]."""
    grey = image[..., :1] if image.shape[2] < 3 else cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(np.ascontiguousarray(grey), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small >> 8 if small.dtype == np.uint16 else small, np.uint8)


def _grey(image: Pixels) -> bool:
    """Whether all channels are equal."""
    return np.array_equal(image, cv2.merge([cv2.extractChannel(image, 0)] * image.shape[2]).reshape(image.shape))


def _stack(rows: list[dict[str, Any]], classes: int) -> SplitFacts:
    channels = max((len(row["mean"]) for row in rows if row.get("usable")), default=1)

    def column(name: str, kind: type, *shape: int) -> Any:
        values: Any = np.zeros((len(rows), *shape), kind)
        for place, row in enumerate(rows):
            if name in row:
                values[place] = row[name]
        return values

    return SplitFacts(
        usable=column("usable", np.bool_),
        sizes=column("sizes", np.int32, 2),
        pixels=column("pixels", np.int64, classes),
        ignored=column("ignored", np.int64),
        mean=column("mean", np.float64, channels),
        square=column("square", np.float64, channels),
        look=perceptual_hashes(column("small", np.uint8, SIDE, SIDE)),
        image=column("image", np.uint32),
        mask=column("mask", np.uint32),
        flat=column("flat", np.bool_),
        grey=column("grey", np.bool_),
        bits=column("bits", np.uint16),
    )
