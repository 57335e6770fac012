import contextlib
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from segkit.data.files import read_header, read_image
from segkit.data.labels import Labels
from segkit.errors import SegkitError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 20, 3), np.uint8)
LABELS = RNG.integers(0, 4, (12, 20), np.uint8)


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_colour_images_come_back_exactly(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}"), RGB)
    assert read_header(tmp_path / f"a.{suffix}").size == (12, 20)


def test_jpeg_equals_opencv(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", quality=95)
    assert np.array_equal(read_image(tmp_path / "a.jpg"), cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1])


def test_grey_palette_and_transparent_images_become_rgb(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(RGB[..., :1], 3, 2))
    Image.fromarray(np.dstack([RGB, LABELS])).save(tmp_path / "rgba.png")
    assert np.array_equal(read_image(tmp_path / "rgba.png"), RGB)
    palette = Image.fromarray(LABELS)
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(
        read_image(tmp_path / "palette.png"), np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]])[LABELS]
    )


def test_one_channel(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png", 1), RGB[..., :1])
    Image.fromarray(RGB).save(tmp_path / "a.png")
    grey = read_image(tmp_path / "a.png", 1)
    assert grey.shape == (12, 20, 1)
    assert np.abs(grey[..., 0] - RGB @ [0.299, 0.587, 0.114]).max() <= 1  # ITU-R 601


@pytest.mark.parametrize(("orientation", "turned"), [(1, RGB), (3, RGB[::-1, ::-1]), (6, np.rot90(RGB, -1)), (8, np.rot90(RGB))])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_turns_the_image(tmp_path, orientation, turned, suffix):
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}", **oriented(orientation), **options)
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == turned.shape
    assert np.abs(image.astype(int) - turned).mean() < 3
    assert read_header(tmp_path / f"a.{suffix}").size == turned.shape[:2]


DEEP = RNG.integers(0, 65536, (12, 20, 4), np.uint16)


def write_deep(folder):
    """Files of 16 bits and what is in them."""
    files = {"grey.png": DEEP[..., :1], "rgb.png": DEEP[..., :3], "rgba.png": DEEP, "grey.tif": DEEP[..., :1], "rgb.tif": DEEP[..., :3]}
    for name, pixels in files.items():
        cv2.imwrite(str(folder / name), pixels[..., [2, 1, 0, 3][: pixels.shape[2]]] if pixels.shape[2] > 1 else pixels)
    (folder / "grey.pgm").write_bytes(b"P5\n20 12\n65535\n" + DEEP[..., 0].astype(">u2").tobytes())
    return {**files, "grey.pgm": DEEP[..., :1]}


def test_sixteen_bits_are_kept_to_the_last(tmp_path):
    for name, pixels in write_deep(tmp_path).items():
        image = read_image(tmp_path / name, pixels.shape[2], bits=16)
        assert image.dtype == np.uint16
        assert np.array_equal(image, pixels), name
        header = read_header(tmp_path / name)
        assert (header.size, header.bands, header.bits) == ((12, 20), pixels.shape[2], 16)


def test_colours_of_sixteen_bits_become_grey_and_grey_becomes_colours(tmp_path):
    for name, pixels in write_deep(tmp_path).items():
        grey, rgb = (read_image(tmp_path / name, channels, bits=16) for channels in (1, 3))
        if pixels.shape[2] == 1:
            assert np.array_equal(grey, pixels)
            assert np.array_equal(rgb, np.repeat(pixels, 3, 2))
        else:
            assert np.abs(grey[..., 0] - pixels[..., :3] @ np.array([0.299, 0.587, 0.114])).max() <= 2  # ITU-R 601
            assert np.array_equal(rgb, pixels[..., :3])


def test_sixteen_bits_are_refused_where_eight_are_wanted(tmp_path):
    for name, pixels in write_deep(tmp_path).items():
        with pytest.raises(SegkitError, match=f"{name}: 16 bits .*--data.bits 16"):
            read_image(tmp_path / name, pixels.shape[2])


def test_eight_bits_scale_up_so_that_black_and_white_stay(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", bits=16)
    assert image.dtype == np.uint16
    assert np.array_equal(image / 65535, RGB / 255)


def test_portable_pixmaps_of_sixteen_bits_are_never_read_as_eight(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6\n20 12\n65535\n" + DEEP[..., :3].astype(">u2").tobytes())
    (tmp_path / "b.pgm").write_bytes(b"P5\n20 12\n1023\n" + (DEEP[..., 0] % 1024).astype(">u2").tobytes())
    for name in ("a.ppm", "b.pgm"):
        with pytest.raises(SegkitError, match=f"{name}: 16 bits per channel"):
            read_image(tmp_path / name)
    with pytest.raises(SegkitError, match=r"a.ppm: PPM with colours of 16 bits, .*; store it as PNG or TIFF$"):
        read_image(tmp_path / "a.ppm", bits=16)
    scaled = np.round(DEEP[..., :1] % 1024 / 1023 * 65535)  # the file says that 1023 is white
    assert np.array_equal(read_image(tmp_path / "b.pgm", 1, bits=16), scaled)


def test_grey_with_alpha_of_sixteen_bits(tmp_path):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in DEEP[..., :2])
    (tmp_path / "la.png").write_bytes(png(struct.pack(">IIBBBBB", 20, 12, 16, 4, 0, 0, 0), rows))
    assert np.array_equal(read_image(tmp_path / "la.png", 2, bits=16), DEEP[..., :2])
    assert np.array_equal(read_image(tmp_path / "la.png", 1, bits=16), DEEP[..., :1])
    assert np.array_equal(read_image(tmp_path / "la.png", 3, bits=16), np.repeat(DEEP[..., :1], 3, 2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sixteen_bits_are_turned_as_eight_are(tmp_path, orientation):
    exif = oriented(orientation)["exif"].tobytes().removeprefix(b"Exif\0\0")
    for bits, values in ((8, RGB), (16, RGB * np.uint16(257))):
        rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in values)
        chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
        (tmp_path / f"{bits}.png").write_bytes(png(struct.pack(">IIBBBBB", 20, 12, bits, 2, 0, 0, 0), rows, chunk))
    eight, sixteen = read_image(tmp_path / "8.png"), read_image(tmp_path / "16.png", bits=16)
    assert np.array_equal(eight * np.uint16(257), sixteen)
    assert read_header(tmp_path / "16.png").size == sixteen.shape[:2] == ((20, 12) if orientation >= 5 else (12, 20))


def png(header, rows, extra=b""):
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def test_a_png_of_sixteen_bits_that_lacks_rows_is_refused(tmp_path):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in DEEP[:5, :, :3])  # checksums hold, seven rows are missing
    (tmp_path / "short.png").write_bytes(png(struct.pack(">IIBBBBB", 20, 12, 16, 2, 0, 0, 0), rows))
    with pytest.raises(SegkitError, match="cannot read .*short.png"):
        read_image(tmp_path / "short.png", bits=16)


def test_printers_colours_are_as_opencv_shows_them(tmp_path):
    ink = cv2.GaussianBlur(RNG.integers(0, 256, (32, 48, 4), np.uint8), (0, 0), 4)
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)  # with Adobe's marker, and inverted as Adobe has it
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1]).max() <= 3
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.tif")
    light = 255 - ink.astype(float)
    expected = light[..., :3] * light[..., 3:] / 255
    assert np.abs(read_image(tmp_path / "a.tif") - expected).max() <= 1
    assert np.abs(read_image(tmp_path / "a.tif", 1)[..., 0] - expected @ [0.299, 0.587, 0.114]).max() <= 2
    assert np.array_equal(read_image(tmp_path / "a.tif", 4), ink)


def test_transparency_is_a_channel_for_who_wants_it(tmp_path):
    Image.fromarray(np.dstack([RGB, LABELS])).save(tmp_path / "rgba.png")
    assert np.array_equal(read_image(tmp_path / "rgba.png", 4), np.dstack([RGB, LABELS]))
    Image.fromarray(RGB[..., :2].copy(), "LA").save(tmp_path / "la.png")
    assert np.array_equal(read_image(tmp_path / "la.png", 2), RGB[..., :2])
    assert np.array_equal(read_image(tmp_path / "la.png", 1), RGB[..., :1])


@pytest.mark.parametrize(("channels", "file", "bands"), [(4, RGB, 3), (2, RGB, 3), (4, RGB[..., 0], 1), (5, np.dstack([RGB, LABELS]), 4)])
def test_channels_that_are_not_there_are_named(tmp_path, channels, file, bands):
    Image.fromarray(file).save(tmp_path / "a.png")
    with pytest.raises(SegkitError, match=rf"a.png: {bands} bands? .*--in_channels {channels}; give --in_channels {bands},"):
        read_image(tmp_path / "a.png", channels)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.97])
def test_truncated_files_name_themselves(tmp_path, kind, share):
    whole = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(whole, {"jpg": "jpeg", "tif": "tiff"}.get(kind, kind))
    (tmp_path / f"cut.{kind}").write_bytes(whole.getvalue()[: int(len(whole.getvalue()) * share)])
    with pytest.raises(SegkitError, match=f"cut.{kind}"):
        read_image(tmp_path / f"cut.{kind}")


def test_a_flipped_bit_in_a_png_never_becomes_a_label(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(LABELS).save(whole, "png")
    for place in range(8, len(whole.getvalue()) - 12):
        data = bytearray(whole.getvalue())
        data[place] ^= 16
        (tmp_path / "flipped.png").write_bytes(data)
        with contextlib.suppress(SegkitError):  # refused, or untouched where the bit meant nothing
            assert np.array_equal(Labels().read(tmp_path / "flipped.png"), LABELS), place


@pytest.mark.parametrize("side", [9000, 12000, 60000])
def test_a_small_file_that_claims_a_huge_picture_is_refused_from_its_header(tmp_path, side):
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )
    for read in (read_image, Labels().read, read_header):
        with pytest.raises(SegkitError, match=r"bomb.png.*tiles"):
            read(tmp_path / "bomb.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_an_orientation_that_means_nothing_turns_nothing(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}", **oriented(9))
    assert read_header(tmp_path / f"a.{suffix}").size == read_image(tmp_path / f"a.{suffix}").shape[:2] == (12, 20)


def test_missing_and_foreign_files(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(SegkitError, match=r"text.png: not an image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(SegkitError, match=r"gone.png"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(SegkitError, match=r"gone.png"):
        read_header(tmp_path / "gone.png")
