import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from segkit.data.damage import damage
from segkit.data.files import read_image
from segkit.data.findings import KINDS, Finding, listed
from segkit.data.labels import Labels
from segkit.errors import SegkitError


def claim(path, side, padding=0):
    """A PNG whose header promises side x side pixels that it does not hold."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(b"0"), b"IEND")
    parts = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + bytes(padding))
    return path


def kind(path, mask=False, **reading):
    """What reading refuses, and why."""
    with pytest.raises(SegkitError) as caught:
        Labels().read(path) if mask else read_image(path, **reading)
    return damage(path, mask, caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_a_file_of_which_the_end_is_missing_is_truncated(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-300])
    assert kind(path) == "truncated"


def test_kinds_of_damage(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (9, 9), np.uint8)
    path = tmp_path / "a.png"
    assert kind(path, mask=True) == "missing"
    path.write_bytes(b"")
    assert kind(path, mask=True) == "empty"
    path.write_bytes(b"hello")
    assert kind(path, mask=True) == "unreadable"
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    assert kind(path) == "deep_image"
    Image.fromarray(grey).save(path, "JPEG")
    assert kind(path, mask=True) == "lossy_mask"
    Image.fromarray(np.stack([grey] * 4, axis=2)).save(path)
    assert kind(path, mask=True) == "color_mask"
    assert kind(path, channels=5) == "channels"
    Image.fromarray(grey).save(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 1
    path.write_bytes(data)
    assert kind(path, mask=True) == "damaged"


def test_kinds_of_tiff(tmp_path):
    path, bands = tmp_path / "a.tif", np.random.default_rng(0).integers(0, 65536, (9, 8, 5), np.uint16)
    tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="contig")
    assert kind(path, channels=5, bits=8) == "deep_image"
    assert kind(path, channels=3, bits=16) == "channels"
    tifffile.imwrite(path, bands.astype(np.float32), photometric="minisblack", planarconfig="contig")
    assert kind(path, channels=5, bits=16) == "refused"
    tifffile.imwrite(path, np.zeros((2, 9, 8), np.uint8), photometric="minisblack")
    assert kind(path, mask=True) == "frames"
    tifffile.imwrite(path, bands.astype(np.uint8), photometric="minisblack", planarconfig="contig")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[tag].overwrite(9000)
    assert kind(path, channels=5) == "bomb"


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_000, 12_000, 30_000])  # below Pillow's limits, between them, above both
def test_a_bomb_is_told_from_a_large_picture_by_its_bytes(tmp_path, side):
    assert kind(claim(tmp_path / "small.png", side)) == "bomb"
    assert kind(claim(tmp_path / "large.png", side, padding=10**6)) == "too_large"


def test_every_kind_says_what_it_does_and_what_to_do():
    assert len({kind.title for kind in KINDS.values()}) == len(KINDS)
    for kind in KINDS.values():
        assert kind.why.endswith(".")
        assert kind.remedy
        assert not kind.remedy.endswith(".")


def test_a_listing_is_understood_by_its_words():
    assert listed("val", "image without mask: images/val/a: b.jpg") == Finding("no_mask", "val", "images/val/a: b.jpg")
    assert listed("val", "line 7: no such column") == Finding("listing", "val", "line 7: no such column")
