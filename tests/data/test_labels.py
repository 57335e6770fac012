"""What the values in mask files mean; files are written by Pillow, OpenCV or by hand, and labels are known before."""

import contextlib
import io
import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from segkit.config import DataConfig
from segkit.data.classes import Classes
from segkit.data.labels import FIXED_REMEDY, Labels, UnexpectedLabels, labels_of
from segkit.errors import SegkitError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 20, 3), np.uint8)
LABELS = RNG.integers(0, 4, (12, 20), np.uint8)
COLORS = np.array([[0, 0, 0], [128, 0, 0], [0, 0, 128], [1, 2, 3]], np.uint8)
CLASSES = Classes(("a", "b", "c", "d"), tuple(map(tuple, COLORS.tolist())))
TWO = Classes(("ground", "thing"), ((0, 0, 0), (255, 255, 255)))


def of(classes=CLASSES, **options):
    return labels_of(DataConfig(**options), classes)


def palette(labels=LABELS, colors=COLORS):
    picture = Image.fromarray(labels)
    picture.putpalette(colors.tobytes())
    return picture


def test_masks_are_raw_labels_in_every_mode(tmp_path):
    Image.fromarray(LABELS).save(tmp_path / "l.png")
    palette().save(tmp_path / "p.png")
    palette().save(tmp_path / "clear.png", transparency=1)
    Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "i16.png")
    Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "i16.tif")
    Image.fromarray(LABELS.astype(">u2")).save(tmp_path / "big-endian.tif")
    Image.fromarray(LABELS).save(tmp_path / "l.pgm")
    (tmp_path / "i16.pgm").write_bytes(b"P5\n20 12\n65535\n" + LABELS.astype(">u2").tobytes())
    (tmp_path / "white-is-0.tif").write_bytes(tiff(LABELS, photometric=0))
    for path in tmp_path.iterdir():
        mask = Labels().read(path)
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, LABELS), path.name
    Image.fromarray(LABELS > 1).save(tmp_path / "1.png")
    assert np.array_equal(Labels().read(tmp_path / "1.png"), LABELS > 1)
    assert Labels().read(tmp_path / "1.png").dtype == np.uint8


def tiff(values, photometric):
    """An uncompressed grey TIFF of 8 bits, by hand."""
    height, width = values.shape
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, photometric), (273, 8), (277, 1), (278, height), (279, values.size)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + values.size) + values.tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4)


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
    Image.fromarray(LABELS.astype(">u2") + 300).save(tmp_path / "big-endian.tif")
    Image.fromarray(LABELS.astype(np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "few.pgm").write_bytes(b"P5\n20 12\n3\n" + LABELS.tobytes())
    reasons = {
        "lossy.jpg": "compression changes labels",
        "lossy.tif": "compression changes labels",
        "rgb.png": "not colours.*--data.masks colors",
        "la.png": "one channel",
        "pages.tif": "2 frames",
        "big.png": "300, 301, 302, 303 .*--data.mapping",
        "big-endian.tif": "300, 301, 302, 303 ",
        "float.tif": "mode F is no label image",
        "few.pgm": "neither 255 nor 65535",
    }
    for name, reason in reasons.items():
        with pytest.raises(SegkitError, match=f"{name}.*{reason}") as caught:
            Labels().read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_png_never_becomes_a_label(tmp_path):
    for picture, labels in ((Image.fromarray(LABELS), Labels()), (Image.fromarray(COLORS[LABELS]), of(masks="colors"))):
        whole = io.BytesIO()
        picture.save(whole, "png")
        for place in range(8, len(whole.getvalue()) - 12):
            data = bytearray(whole.getvalue())
            data[place] ^= 16
            (tmp_path / "flipped.png").write_bytes(data)
            with contextlib.suppress(SegkitError):  # refused, or untouched where the bit meant nothing
                assert np.array_equal(labels.read(tmp_path / "flipped.png"), LABELS), place


def test_a_mapping_gives_ids_of_any_size_their_class(tmp_path):
    values = np.array([0, 7, 300, 65535], np.uint16)
    Image.fromarray(values[LABELS]).save(tmp_path / "m.png")
    labels = of(mapping={"0": 3, "7": 1, "300": 255, "65535": 0})
    assert np.array_equal(labels.read(tmp_path / "m.png"), np.array([3, 1, 255, 0])[LABELS])
    Image.fromarray(LABELS).save(tmp_path / "small.png")
    assert np.array_equal(of(mapping={0: 3, 1: 1, 2: 255, 3: 0}).read(tmp_path / "small.png"), np.array([3, 1, 255, 0])[LABELS])


def test_what_is_not_in_the_mapping_is_counted(tmp_path):
    Image.fromarray(LABELS).save(tmp_path / "m.png")
    with pytest.raises(UnexpectedLabels, match=r"m.png: 1, 3 \(\d+ pixels\) stand for no class; .*--data.mapping") as caught:
        of(mapping={"0": 0, "2": 1}).read(tmp_path / "m.png")
    assert caught.value.counts == {"1": (LABELS == 1).sum(), "3": (LABELS == 3).sum()}
    sent = pickle.loads(pickle.dumps(caught.value))
    assert (str(sent), sent.counts) == (str(caught.value), caught.value.counts)


def test_many_unexpected_values_are_one_line(tmp_path):
    Image.fromarray(np.arange(1000, 2000, dtype=np.uint16).reshape(25, 40)).save(tmp_path / "instances.png")
    with pytest.raises(UnexpectedLabels, match=r"1000, 1001, .*, 1007, \.\.\. \(1000 pixels\)") as caught:
        Labels().read(tmp_path / "instances.png")
    assert len(caught.value.counts) == 1000


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_binary_masks(tmp_path, suffix):
    thing = LABELS > 1
    Image.fromarray(thing * np.uint8(255)).save(tmp_path / f"grey.{suffix}")
    Image.fromarray(thing).save(tmp_path / f"bit.{suffix}")
    for path in tmp_path.iterdir():
        mask = of(TWO, masks="binary").read(path)
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, thing), path.name
    assert np.array_equal(of(TWO, mapping={"0": 1, "1": 0}).read(tmp_path / f"bit.{suffix}"), ~thing)


def test_binary_masks_hold_0_and_255_only(tmp_path):
    Image.fromarray(LABELS % 2).save(tmp_path / "ids.png")
    with pytest.raises(UnexpectedLabels, match=r"ids.png: 1 .*--data.masks ids"):
        of(TWO, masks="binary").read(tmp_path / "ids.png")
    with pytest.raises(SegkitError, match="4 classes; binary masks have two"):
        of(masks="binary")
    with pytest.raises(SegkitError, match="--data.mapping: --data.masks binary has one already"):
        of(TWO, masks="binary", mapping={"0": 0})


def test_colours_are_looked_up(tmp_path):
    picture = COLORS[LABELS]
    Image.fromarray(picture).save(tmp_path / "rgb.png")
    Image.fromarray(picture).save(tmp_path / "rgb.bmp")
    Image.fromarray(picture).save(tmp_path / "rgb.tif", compression="tiff_lzw")
    palette().save(tmp_path / "palette.png")
    palette().save(tmp_path / "palette.gif")
    palette(LABELS, np.vstack([COLORS, COLORS[:1]])).save(tmp_path / "unused-clear.png", transparency=4)
    Image.fromarray(np.dstack([picture, np.full_like(LABELS, 255)])).save(tmp_path / "rgba.png")
    for path in tmp_path.iterdir():
        mask = of(masks="colors").read(path)
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, LABELS), path.name
    Image.fromarray(LABELS * np.uint8(80)).save(tmp_path / "grey.png")
    greys = Classes(tuple("abcd"), tuple((80 * i,) * 3 for i in range(4)))
    assert np.array_equal(of(greys, masks="colors").read(tmp_path / "grey.png"), LABELS)


def test_red_comes_first(tmp_path):
    Image.new("RGB", (1, 1), (0xA0, 0xB0, 0xC0)).save(tmp_path / "m.png")
    with pytest.raises(UnexpectedLabels, match=r"#a0b0c0 \(1 pixels\) stand for no class; .*classes.txt") as caught:
        of(masks="colors").read(tmp_path / "m.png")
    assert caught.value.counts == {"#a0b0c0": 1}
    labels = of(masks="colors", mapping={"#A0B0C0": 255})
    assert labels.read(tmp_path / "m.png").tolist() == [[255]]


def test_what_is_no_picture_of_colours_is_refused(tmp_path):
    cut = np.dstack([COLORS[LABELS], np.where(LABELS == 2, 0, 255).astype(np.uint8)])
    Image.fromarray(cut).save(tmp_path / "clear.png")
    palette().save(tmp_path / "clear-palette.png", transparency=2)
    Image.fromarray(COLORS[LABELS]).save(tmp_path / "lossy.webp", quality=100)
    Image.fromarray(COLORS[LABELS]).convert("CMYK").save(tmp_path / "ink.tif")
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLORS[LABELS])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 12, 16, 2, 0, 0, 0))
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    clear = f"{(LABELS == 2).sum()} pixels are transparent"
    reasons = {
        "clear.png": clear,
        "clear-palette.png": clear,
        "lossy.webp": "compression changes labels",
        "ink.tif": "mode CMYK is no picture",
        "deep.png": "16 bits",
    }
    for name, reason in reasons.items():
        with pytest.raises(SegkitError, match=f"{name}.*{reason}") as caught:
            of(masks="colors").read(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("options", "reason"), [
    ({"masks": "colors", "mapping": {"7": 0}}, "--data.mapping 7: .*write '#rrggbb'"),
    ({"mapping": {"7": 0, "#ffffff": 1}}, "--data.mapping #ffffff: --data.masks ids has ids, not colours; use --data.masks colors"),
    ({"mapping": {"7": 4}}, "--data.mapping 7: 4: the data set has the classes 0 to 3, and 255 means ignore"),
    ({"mapping": {"65536": 0}}, "--data.mapping 65536: ids in mask files are 0 to 65535"),
])  # fmt: skip
def test_mappings_that_do_not_go_with_the_masks(options, reason):
    with pytest.raises(SegkitError, match=reason) as caught:
        of(**options)
    assert "\n" not in str(caught.value)


def test_two_classes_of_one_colour_cannot_be_told_apart():
    classes = Classes(("a", "b", "c"), ((1, 2, 3), (0, 0, 0), (1, 2, 3)))
    with pytest.raises(SegkitError, match="the classes 'a' and 'c' have one colour, #010203"):
        of(classes, masks="colors")
    of(classes)


def test_what_travels_to_a_loader_process_is_small(tmp_path):
    Image.fromarray(COLORS[LABELS]).save(tmp_path / "m.png")
    labels = of(masks="colors")
    labels.read(tmp_path / "m.png")
    sent = pickle.dumps(labels)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent).read(tmp_path / "m.png"), LABELS)


def test_a_fixed_data_set_has_its_own_remedy(tmp_path):
    Image.fromarray(LABELS).save(tmp_path / "m.png")
    labels = pickle.loads(pickle.dumps(Labels({1: 0}, remedy=FIXED_REMEDY)))
    with pytest.raises(UnexpectedLabels, match="stand for no class; the file is not as the authors .* made it: fetch it again$"):
        labels.read(tmp_path / "m.png")
