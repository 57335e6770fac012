"""TIFFs: rows as tifffile decodes the whole, masks that lie where their image lies."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from segkit.errors import SegkitError
from segkit.inference.tiff import TiffRows, nodata, place, write_mask

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (101, 130, 3), np.uint8)
GREY16 = RNG.integers(0, 65536, (101, 130), np.uint16)
BANDS = RNG.integers(0, 256, (5, 101, 130), np.uint8)
GEO = [
    (33550, "d", 3, (0.5, 0.5, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 431000.0, 5412000.0, 0.0), True),
    (34735, "H", 8, (1, 1, 0, 1, 3072, 0, 1, 32632), True),
    (34736, "d", 2, (6378137.0, 298.257223563), True),
    (34737, "s", 0, "WGS 84 / UTM zone 32N|", True),
]
METADATA = '<GDALMetadata>\n  <Item name="AREA_OR_POINT">Area</Item>\n'
METADATA += '  <Item name="DESCRIPTION" sample="0" role="description">red</Item>\n</GDALMetadata>'


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (RGB, {"photometric": "rgb"}),
        (RGB, {"photometric": "rgb", "tile": (32, 48), "compression": "zlib", "predictor": True}),
        (RGB, {"photometric": "rgb", "tile": (32, 32)}),
        (RGB, {"photometric": "rgb", "rowsperstrip": 7, "compression": "lzw"}),
        (RGB, {"photometric": "rgb", "rowsperstrip": 7}),
        (RGB.transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate", "rowsperstrip": 9, "compression": "zlib"}),
        (GREY16, {"photometric": "minisblack", "byteorder": ">"}),
        (GREY16, {"photometric": "minisblack", "byteorder": ">", "tile": (16, 16), "compression": "zlib"}),
        (BANDS, {"photometric": "minisblack", "planarconfig": "separate"}),
        (BANDS, {"photometric": "minisblack", "planarconfig": "separate", "tile": (32, 32), "compression": "zlib", "bigtiff": True}),
        (BANDS, {"photometric": "minisblack"}),  # a page each
    ],
)
def test_rows_are_those_of_the_whole_picture(tmp_path, image, options):
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    whole = tifffile.imread(tmp_path / "a.tif")
    if whole.ndim == 2:
        whole = whole[..., None]
    elif whole.shape[1:] == (101, 130):  # bands first
        whole = whole.transpose(1, 2, 0)
    rows = TiffRows(tmp_path / "a.tif")
    assert (rows.size, rows.channels) == ((101, 130), whole.shape[2])
    for start, stop in ((0, 101), (0, 1), (5, 77), (31, 33), (100, 101)):
        got = rows.read(start, stop)
        assert got.dtype == image.dtype
        np.testing.assert_array_equal(got, whole[start:stop])
    rows.close()


def test_only_the_segments_of_the_wanted_rows_are_read(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.tile(RGB, (10, 2, 1)), photometric="rgb", tile=(64, 64), compression="zlib")
    rows, decoded = TiffRows(tmp_path / "a.tif"), []
    decode = rows.pages[0].decode
    monkeypatch.setattr(type(rows.pages[0]), "decode", property(lambda page: lambda *a, **k: decoded.append(a[1]) or decode(*a, **k)))
    rows.read(100, 200)  # rows of tiles 1 to 3, five tiles each
    assert decoded == list(range(5, 20))
    rows.close()


def test_overviews_and_masks_are_no_bands(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(RGB, photometric="rgb")
        file.write(RGB[::2, ::2], photometric="rgb", subfiletype=1)
        file.write(RGB[..., 0] > 99, photometric="minisblack", subfiletype=4)
    rows = TiffRows(tmp_path / "a.tif")
    assert rows.channels == 3
    np.testing.assert_array_equal(rows.read(0, 101), RGB)
    rows.close()


@pytest.mark.parametrize(
    ("image", "options", "reason"),
    [
        (RGB[..., 0], {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}, "colours stored as PALETTE"),
        (RGB[..., 0].astype(np.float32), {}, "values of type float32"),
        (RGB, {"photometric": "rgb", "extratags": [(274, "H", 1, 6, True)]}, "orientation 6"),
    ],
)
def test_what_cannot_be_streamed_is_refused_with_its_reason(tmp_path, image, options, reason):
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    with pytest.raises(SegkitError, match=rf"a.tif: {reason}"):
        TiffRows(tmp_path / "a.tif")


def test_a_file_cut_off_behind_its_header_is_not_black_from_there_on(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path) as file:
        last = file.pages.first.dataoffsets[-1]
    path.write_bytes(path.read_bytes()[:last])
    with pytest.raises(SegkitError, match=r"cannot read .*a\.tif: truncated; replace or remove the file"):
        TiffRows(path)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0" + b"\0" * 50)
    with pytest.raises(SegkitError, match="cannot read .*a.tif"):
        TiffRows(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", RGB, photometric="rgb", compression="zlib", rowsperstrip=20)
    data = bytearray((tmp_path / "b.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        offset = file.pages[0].dataoffsets[1]
    data[offset : offset + 40] = b"\xff" * 40
    (tmp_path / "b.tif").write_bytes(data)
    rows = TiffRows(tmp_path / "b.tif")
    np.testing.assert_array_equal(rows.read(0, 20), RGB[:20])
    with pytest.raises(SegkitError, match="cannot read rows 10 to 30 of .*b.tif"):
        rows.read(10, 30)
    rows.close()


@pytest.mark.parametrize("heights", [(700,), (300, 1, 399), (256, 256, 188), (1,) * 3, (256, 256)])
def test_a_mask_comes_back_with_its_palette_in_tiles_whatever_its_bands(tmp_path, heights):
    mask = RNG.integers(0, 3, (sum(heights), 300), np.uint8)
    ends = np.cumsum(heights)
    finished = []

    def bands():
        yield from (mask[end - height : end] for end, height in zip(ends, heights, strict=True))
        finished.append(True)

    write_mask(tmp_path / "m.tif", bands(), mask.shape, [(1, 2, 3), (40, 50, 60), (255, 0, 9)])
    assert finished  # what is to be done behind the last band is done
    with Image.open(tmp_path / "m.tif") as image:  # another library
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), mask)
        assert image.getpalette()[:9] == [1, 2, 3, 40, 50, 60, 255, 0, 9]
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        page = file.pages[0]
        assert (page.tile, page.compression.name) == ((256, 256), "ADOBE_DEFLATE")


def test_a_mask_lies_where_its_image_lies(tmp_path):
    tags = [*GEO, (42112, "s", 0, METADATA, True), (42113, "s", 0, "0", True)]
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", extratags=tags, resolution=(300.0, 150.0), resolutionunit=3, metadata=None)
    assert nodata(tmp_path / "a.tif") == 0
    write_mask(tmp_path / "m.tif", [RGB[..., 0]], RGB.shape[:2], [(0, 0, 0)], hole=255, **place(tmp_path / "a.tif"))
    with tifffile.TiffFile(tmp_path / "a.tif") as a, tifffile.TiffFile(tmp_path / "m.tif") as m:
        before, after = a.pages[0].tags, m.pages[0].tags
        for code, *_ in GEO:
            assert (after[code].value, after[code].dtype, after[code].count) == (before[code].value, before[code].dtype, before[code].count)
        for code in (282, 283, 296):
            assert after[code].value == before[code].value
        assert "AREA_OR_POINT" in after[42112].value
        assert "red" not in after[42112].value  # a band of the image, none of the mask
        assert after[42113].value == "255"
        assert m.geotiff_metadata == a.geotiff_metadata
    write_mask(tmp_path / "n.tif", [RGB[..., 0]], RGB.shape[:2], [(0, 0, 0)])
    assert nodata(tmp_path / "n.tif") is None
