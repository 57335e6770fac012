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


def test_sixteen_bits_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), RGB[..., 0].astype(np.uint16) * 200)
    cv2.imwrite(str(tmp_path / "rgb.png"), RGB.astype(np.uint16) * 200)
    cv2.imwrite(str(tmp_path / "rgb.tif"), RGB.astype(np.uint16) * 200)
    for name in ("grey.png", "rgb.png", "rgb.tif"):
        with pytest.raises(SegkitError, match=f"{name}.*8 bits"):
            read_image(tmp_path / name)


def test_masks_are_raw_labels_in_every_mode(tmp_path):
    Image.fromarray(LABELS).save(tmp_path / "l.png")
    palette = Image.fromarray(LABELS)
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 255, 255, 255])
    palette.save(tmp_path / "p.png")
    Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "i16.png")
    Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "i16.tif")
    for name in ("l.png", "p.png", "i16.png", "i16.tif"):
        mask = Labels().read(tmp_path / name)
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, LABELS), name
    Image.fromarray(LABELS > 1).save(tmp_path / "1.png")
    assert np.array_equal(Labels().read(tmp_path / "1.png"), LABELS > 1)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_masks_of_few_bits_are_not_stretched(tmp_path, bits):
    per_byte = 8 // bits
    packed = sum(LABELS[:, i::per_byte].astype(int) << (8 - bits * (i + 1)) for i in range(per_byte)).astype(np.uint8)
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    header = struct.pack(">IIBBBBB", 20, 12, bits, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "few.png").write_bytes(data)
    assert np.array_equal(Labels().read(tmp_path / "few.png"), LABELS)


def test_a_mask_is_lossless_one_channel_one_frame_and_small(tmp_path):
    grey = Image.fromarray(LABELS)
    grey.save(tmp_path / "lossy.jpg")
    grey.save(tmp_path / "lossy.tif", compression="jpeg")
    Image.fromarray(RGB).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([LABELS, LABELS])).save(tmp_path / "la.png")
    Image.fromarray(LABELS).save(tmp_path / "pages.tif", save_all=True, append_images=[grey])
    Image.fromarray(LABELS.astype(np.uint16) + 300).save(tmp_path / "big.png")
    reasons = {
        "lossy.jpg": "compression changes labels",
        "lossy.tif": "compression changes labels",
        "rgb.png": "not colours",
        "la.png": "one channel",
        "pages.tif": "2 frames",
        "big.png": "300, 301, 302, 303 ",
    }
    for name, reason in reasons.items():
        with pytest.raises(SegkitError, match=f"{name}.*{reason}") as caught:
            Labels().read(tmp_path / name)
        assert "\n" not in str(caught.value)


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


def test_missing_and_foreign_files(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(SegkitError, match=r"text.png: not an image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(SegkitError, match=r"gone.png"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(SegkitError, match=r"gone.png"):
        read_header(tmp_path / "gone.png")
