"""TIFFs larger than memory: rows read where they are wanted, masks written band by band, and what says where on Earth they lie.

Shapes: H W rows and columns, C channels, n rows of a band.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segkit.data.opening import damaged
from segkit.data.tiff import Stack, check_segments
from segkit.errors import SegkitError
from segkit.inference.bands import Bytes

# ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams
GEO = (33550, 33922, 34264, 34735, 34736, 34737)
GDAL_METADATA, GDAL_NODATA = 42112, 42113
PHOTOMETRIC = {"MINISBLACK", "RGB", "YCBCR"}  # whose decoded values are the picture's
TILE = 256  # side of a tile of the masks that are written


class TiffRows:
    """Rows of a TIFF, of which no more is read than they need: strips or tiles of any compression, or plain pixels.

    The bands of a picture are the samples of a page or, of one sample each, its pages; overviews and masks that the file holds too are left
    out. A compressed page of one single strip is decoded whole.

    Args:
        path: The file.

    Raises:
        SegkitError: It cannot be read, or its colours need a conversion that is not made while streaming.
    """

    def __init__(self, path: str | Path) -> None:
        import tifffile

        self.path = path
        try:
            self.file = tifffile.TiffFile(path)
        except Exception as error:  # what a decoder raises for damaged bytes has no common type
            raise SegkitError(f"cannot read {path}: {error}; replace or remove the file") from None
        try:
            self._look()
        except SegkitError:
            self.file.close()
            raise
        except Exception as error:  # any tag may hold anything
            self.file.close()
            raise damaged(path, error) from None

    def _look(self) -> None:
        found: list[Any] = list(self.file.pages)
        pages = self.pages = [page for page in found if not page.is_reduced and not page.is_mask]
        if not pages:
            raise SegkitError(f"cannot read {self.path}: no picture in it; replace or remove the file")
        first = pages[0]
        self.size: tuple[int, int] = (first.imagelength, first.imagewidth)
        self.samples: int = first.samplesperpixel
        self.channels = self.samples * len(pages)
        self.dtype: np.dtype[Any] = np.dtype(first.dtype)
        stack = Stack(tuple(pages), True)
        self.model = "RGB" if (first.photometric.name, self.channels) == ("YCBCR", 3) else stack.model
        turned = first.tags.get(274)
        problem = None
        if len(pages) > 1 and (self.samples > 1 or any(page.shape != first.shape or page.dtype != first.dtype for page in pages)):
            problem = f"{len(pages)} pages that are no bands of one picture"
        elif first.photometric.name not in PHOTOMETRIC:
            problem = f"colours stored as {first.photometric.name}"
        elif turned is not None and turned.value != 1:
            problem = f"orientation {turned.value}"
        elif first.imagedepth > 1 or self.dtype not in (np.uint8, np.uint16):
            problem = f"values of type {self.dtype}"
        if problem:
            raise SegkitError(
                f"{self.path}: {problem}, in a file too large to be converted whole; store it as plain RGB or bands, 8 or 16 bits"
            )
        try:  # else what is missing would be black
            for page in pages:
                check_segments(page)
        except ValueError as error:
            raise SegkitError(f"cannot read {self.path}: {error}; replace or remove the file") from None

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`, uint8 or uint16 [n, W, C].

        Raises:
            SegkitError: The file is damaged or its compression unknown.
        """
        out = np.zeros((stop - start, self.size[1], self.channels), self.dtype)
        try:
            for i, page in enumerate(self.pages):
                self._read_page(page, start, stop, out[..., i * self.samples : (i + 1) * self.samples])
        except Exception as error:
            raise SegkitError(f"cannot read rows {start} to {stop} of {self.path}: {error}; replace or remove the file") from None
        return out

    def _read_page(self, page: Any, start: int, stop: int, out: np.ndarray) -> None:
        handle, width = page.parent.filehandle, self.size[1]
        planes = self.samples if page.planarconfig == 2 and self.samples > 1 else 1
        per_plane = self.samples // planes
        if page.is_memmappable:  # plain pixels in one piece; read, not mapped, so that what was read does not stay in memory
            stored = np.dtype(page.parent.byteorder + self.dtype.char)
            for plane in range(planes):
                for top in range(start, stop, 64):  # few at a time: what is read is copied
                    count = min(64, stop - top)
                    handle.seek(page.dataoffsets[0] + (plane * self.size[0] + top) * width * per_plane * stored.itemsize)
                    values = np.frombuffer(handle.read(count * width * per_plane * stored.itemsize), stored)
                    part = out[top - start : top - start + count, :, plane * per_plane : (plane + 1) * per_plane]
                    part[...] = values.reshape(count, width, per_plane)
            return
        length, across = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, self.size[0]), width)
        down, along = -(-self.size[0] // length), -(-width // across)
        for plane in range(planes):
            for r in range(start // length, -(-stop // length)):
                for c in range(along):
                    index = (plane * down + r) * along + c
                    handle.seek(page.dataoffsets[index])
                    data = handle.read(page.databytecounts[index])
                    segment = page.decode(data, index, jpegtables=page.jpegtables)[0] if data else None
                    if segment is None:  # sparse files leave out what is 0
                        continue
                    top, left = r * length, c * across
                    a, b = max(start - top, 0), min(stop - top, segment.shape[1])
                    part = segment[0, a:b, : width - left]
                    out[top + a - start : top + b - start, left : left + part.shape[1], plane * per_plane : (plane + 1) * per_plane] = part

    def close(self) -> None:
        """Closes the file."""
        self.file.close()


def nodata(path: str | Path, dtype: np.dtype[Any] | None = None) -> float | None:
    """The value that, in all bands, means that a pixel was not recorded (GDAL's tag), or None.

    Args:
        path: The file.
        dtype: What its pixels were read as: values of 8 bits are scaled to uint16 by 257.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags.get(GDAL_NODATA)
        scale = 257 if dtype == np.uint16 and file.pages.first.dtype == np.uint8 else 1
    try:
        return None if tag is None else scale * float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


def place(path: str | Path) -> dict[str, Any]:
    """What a TIFF says about where its pixels lie, as arguments of `write_mask`: GeoTIFF's tags, GDAL's metadata, the resolution.

    Of GDAL's metadata what describes single bands (names, statistics) is left out: the mask's only band is another. Its `GDAL_NODATA`, a
    value of the image, is not copied either: in a mask it would hide a class.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        tags = file.pages.first.tags
        extra = [(code, tags[code].dtype, tags[code].count, tags[code].value, True) for code in GEO if code in tags]
        if GDAL_METADATA in tags:
            text = re.sub(r"\s*<Item\b[^>]*\bsample=.*?</Item>", "", str(tags[GDAL_METADATA].value), flags=re.DOTALL)
            if "<Item" in text:
                extra.append((GDAL_METADATA, 2, 0, text, True))
        out: dict[str, Any] = {"extratags": extra}
        found = [tags[code].value for code in (282, 283) if code in tags]
        if len(found) == 2 and all(isinstance(value, tuple) and all(value) for value in found):  # numerators and denominators
            out |= {"resolution": tuple(found), "resolutionunit": tags[296].value if 296 in tags else 2}
    return out


def write_mask(
    path: str | Path,
    bands: Iterable[Bytes],
    size: tuple[int, int],
    colors: Sequence[Sequence[int]],
    *,
    extratags: Sequence[Any] = (),
    hole: int | None = None,
    **more: Any,
) -> None:
    """Writes labels as a TIFF of deflated tiles with a palette, while they come: memory holds one band and one row of tiles.

    Args:
        path: The file.
        bands: Rows of labels, uint8 [n, W], from top to bottom.
        size: Rows and columns of all of them.
        colors: Colour of each class.
        extratags: Further tags.
        hole: Label of pixels without a prediction, which GDAL's nodata tag then names.
        more: Other arguments of `tifffile.imwrite`.
    """
    import tifffile

    palette = np.zeros((3, 256), np.uint16)
    palette[:, : len(colors)] = np.asarray(colors, np.uint16).T * 257
    tags = [*extratags, *([(GDAL_NODATA, 2, 0, str(hole), True)] if hole is not None else [])]
    bands = iter(bands)
    tifffile.imwrite(
        path,
        _tiles(bands, size[1]),
        shape=size,
        dtype=np.uint8,
        tile=(TILE, TILE),
        compression="zlib",
        photometric="palette",
        colormap=palette,
        extratags=tags,
        bigtiff=size[0] * size[1] >= 2**31,
        metadata=None,
        software="segkit",
        maxworkers=1,
        **more,
    )
    assert next(bands, None) is None  # by which they do what they have to do behind the last one, too


def _tiles(bands: Iterable[Bytes], width: int) -> Iterator[Bytes]:
    """Labels in tiles, from left to right and from top to bottom, those at the right and the bottom filled up with 0."""
    rest = np.zeros((0, width), np.uint8)
    for band in bands:
        rest = np.concatenate([rest, band])
        while len(rest) >= TILE:
            yield from _cut(rest[:TILE])
            rest = rest[TILE:]
    if len(rest):
        yield from _cut(rest)


def _cut(rows: Bytes) -> Iterator[Bytes]:
    for left in range(0, rows.shape[1], TILE):
        tile = np.zeros((TILE, TILE), np.uint8)
        part = rows[:, left : left + TILE]
        tile[: part.shape[0], : part.shape[1]] = part
        yield tile
