"""TIFF of many bands and 16 bits; tifffile writes the files, and what is in them is known before."""

import contextlib
import io
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from segkit.data.files import read_header, read_image
from segkit.data.labels import Labels
from segkit.errors import SegkitError

RNG = np.random.default_rng(0)
BANDS = RNG.integers(0, 65536, (37, 53, 5), np.uint16)
LAYOUTS = {
    "last": lambda a: (a, {"planarconfig": "contig"}),
    "first": lambda a: (a.transpose(2, 0, 1), {"planarconfig": "separate"}),
    "pages": lambda a: (a.transpose(2, 0, 1), {}),
}


def write(path, pixels, **options):
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack", "metadata": None, **options})
    return path


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("how", [
    {}, {"tile": (16, 32)}, {"rowsperstrip": 7, "compression": "zlib"}, {"rowsperstrip": 7, "compression": "zlib", "predictor": True},
    {"byteorder": ">"}, {"bigtiff": True},
], ids=str)  # fmt: skip
def test_bands_come_back_however_they_lie(tmp_path, layout, how, bits):
    if "predictor" in how:
        pytest.importorskip("imagecodecs")
    expected = BANDS if bits == 16 else (BANDS >> 8).astype(np.uint8)
    stored, options = LAYOUTS[layout](expected)
    path = write(tmp_path / "a.tif", stored, **options, **how)
    image = read_image(path, 5, bits)
    assert image.dtype == expected.dtype
    assert np.array_equal(image, expected)
    header = read_header(path)
    assert (header.size, header.format, header.bands, header.bits, header.mode) == ((37, 53), "TIFF", 5, bits, f"uint{bits}")
    if bits == 8:
        assert np.array_equal(read_image(path, 5, 16), expected.astype(int) * 257)
    else:
        with pytest.raises(SegkitError, match=r"a.tif: 16 bits per channel; .*--data.bits 16"):
            read_image(path, 5)


@pytest.mark.parametrize("compression", ["lzw", "packbits", "zstd", "lzma"])
def test_other_compressions(tmp_path, compression):
    pytest.importorskip("imagecodecs")
    path = write(tmp_path / "a.tif", BANDS, planarconfig="contig", compression=compression)
    assert np.array_equal(read_image(path, 5, 16), BANDS)


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_few_bands_that_are_no_colours_are_not_taken_for_some(tmp_path, samples):
    for bits, bands in ((16, BANDS[..., :samples]), (8, (BANDS[..., :samples] >> 8).astype(np.uint8))):
        path = write(tmp_path / "a.tif", bands[..., 0] if samples == 1 else bands, **({"planarconfig": "contig"} if samples > 1 else {}))
        assert np.array_equal(read_image(path, samples, bits), bands)
        for other in {1, 3} - {samples}:
            if samples > 1:
                with pytest.raises(SegkitError, match=f"{samples} bands .*--in_channels {other}; give --in_channels {samples},"):
                    read_image(path, other, bits)


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_with_a_fourth_band_are_rgb_only_if_that_says_it_is_alpha(tmp_path, bits):
    pixels = BANDS[..., :4] if bits == 16 else (BANDS[..., :4] >> 8).astype(np.uint8)
    alpha = write(tmp_path / "alpha.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(read_image(alpha, 3, bits), pixels[..., :3])
    assert np.array_equal(read_image(alpha, 4, bits), pixels)
    infrared = write(tmp_path / "infrared.tif", pixels, photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(read_image(infrared, 4, bits), pixels)
    with pytest.raises(SegkitError, match=r"infrared.tif: 4 bands .*--in_channels 4"):
        read_image(infrared, 3, bits)


@pytest.mark.parametrize("bits", [8, 16])
def test_white_may_be_0(tmp_path, bits):
    grey = BANDS[..., :1] if bits == 16 else (BANDS[..., :1] >> 8).astype(np.uint8)
    path = write(tmp_path / "a.tif", grey[..., 0], photometric="miniswhite")
    assert np.array_equal(read_image(path, 1, bits), 2**bits - 1 - grey)


def test_printers_colours_of_sixteen_bits(tmp_path):
    path = write(tmp_path / "a.tif", BANDS[..., :4], photometric="separated")
    light = 1 - BANDS[..., :4] / 65535
    rgb = 65535 * light[..., :3] * light[..., 3:]
    assert np.abs(read_image(path, 3, 16) - rgb).max() <= 0.5
    assert np.abs(read_image(path, 1, 16)[..., 0] - rgb @ [0.299, 0.587, 0.114]).max() <= 2
    assert np.array_equal(read_image(path, 4, 16), BANDS[..., :4])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_tag_turns_bands_as_it_turns_colours(tmp_path, orientation):
    tag = [(274, "H", 1, orientation, True)]
    eight = write(tmp_path / "8.tif", (BANDS[..., :3] >> 8).astype(np.uint8), photometric="rgb", extratags=tag)
    turned = np.asarray(Image.open(eight))  # Pillow turns it
    five = write(tmp_path / "5.tif", BANDS, planarconfig="contig", extratags=tag)
    assert np.array_equal(read_image(eight), turned)
    assert np.array_equal(read_image(five, 5, 16)[..., :3] >> 8, turned)
    for path in (eight, five):
        header = read_header(path)
        assert (header.size, header.orientation) == (turned.shape[:2], orientation)


def test_overviews_and_transparency_masks_are_passed_over(tmp_path):
    colours = (BANDS[..., :3] >> 8).astype(np.uint8)
    for path, first, options in (
        (tmp_path / "8.tif", colours, {"photometric": "rgb"}),
        (tmp_path / "5.tif", BANDS, {"photometric": "minisblack", "planarconfig": "contig"}),
    ):
        with tifffile.TiffWriter(path) as file:
            file.write(first, metadata=None, **options)
            file.write(first[::2, ::2].copy(), metadata=None, subfiletype=1, **options)
            file.write(np.zeros((37, 53), bool), metadata=None, subfiletype=4, photometric="minisblack")
        bits = 8 * first.dtype.itemsize
        assert np.array_equal(read_image(path, first.shape[2], bits), first)
        assert read_header(path).bands == first.shape[2]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_thumbnail_may_come_first(tmp_path, bits):
    colours = BANDS[..., :3] if bits == 16 else (BANDS[..., :3] >> 8).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(colours[::4, ::4].copy(), metadata=None, subfiletype=1, photometric="rgb")
        file.write(colours, metadata=None, photometric="rgb")
    assert np.array_equal(read_image(tmp_path / "a.tif", 3, bits), colours)
    assert np.abs(read_image(tmp_path / "a.tif", 1, bits)[..., 0] - colours @ np.array([0.299, 0.587, 0.114])).max() <= 2


def test_pages_are_bands_of_one_size_and_type(tmp_path):
    for second in (BANDS[:20, :, 1], BANDS[..., 1].astype(np.uint8)):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(BANDS[..., 0], metadata=None, photometric="minisblack")
            file.write(second, metadata=None, photometric="minisblack")
        with pytest.raises(SegkitError, match=r"a.tif: 2 pages of different sizes or types"):
            read_image(tmp_path / "a.tif", 2, 16)
    path = write(tmp_path / "b.tif", BANDS[..., :3].transpose(2, 0, 1))
    assert np.array_equal(read_image(path, 3, 16), BANDS[..., :3])
    with pytest.raises(SegkitError, match="3 bands .*--in_channels 1; give --in_channels 3"):
        read_image(path, 1, 16)


@pytest.mark.parametrize("kind", ["float32", "float16", "int16", "int8", "uint32", "complex64"])
@pytest.mark.parametrize("bands", [1, 5])
def test_what_is_not_counted_from_0_in_8_or_16_bits_is_refused(tmp_path, kind, bands):
    values = np.ones((9, 9, bands), kind)
    path = write(tmp_path / "a.tif", values[..., 0] if bands == 1 else values, **({"planarconfig": "contig"} if bands > 1 else {}))
    for bits in (8, 16):
        with pytest.raises(SegkitError, match=f"a.tif: {kind} values; .*convert it") as caught:
            read_image(path, bands, bits)
        assert "\n" not in str(caught.value)
    assert read_header(path).mode == kind
    assert read_header(path).bits == 8 * values.itemsize


def test_colours_of_the_laboratory_are_refused(tmp_path):
    Image.new("LAB", (8, 8)).save(tmp_path / "a.tif")
    with pytest.raises(SegkitError, match=r"a.tif: .*CIELAB"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("how", [{}, {"tile": (16, 16)}, {"compression": "zlib", "rowsperstrip": 5}], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_truncated_file_names_itself(tmp_path, layout, how):
    stored, options = LAYOUTS[layout](BANDS)
    whole = write(tmp_path / "whole.tif", stored, **options, **how).read_bytes()
    for share in np.linspace(0, 0.99, 23):
        (tmp_path / "cut.tif").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(SegkitError, match=r"cut.tif") as caught:
            read_image(tmp_path / "cut.tif", 5, 16)
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on tags that make no sense
def test_a_damaged_header_is_an_error_or_an_image_of_the_size_it_claims(tmp_path):
    stored = BANDS[:16, :16]
    whole = [
        write(tmp_path / "whole.tif", stored, planarconfig="contig", **how).read_bytes()
        for how in ({}, {"tile": (16, 16), "compression": "zlib"})
    ]
    for data in whole:
        for place in [*range(400), *range(len(data) - 200, len(data))]:
            broken = bytearray(data)
            broken[place] ^= RNG.integers(1, 256)
            (tmp_path / "broken.tif").write_bytes(broken)
            with contextlib.suppress(SegkitError):  # anything else that is raised fails the test
                size = read_header(tmp_path / "broken.tif").size
                assert read_image(tmp_path / "broken.tif", 5, 16).shape == (*size, 5)


def test_strips_that_are_not_listed_never_become_pixels(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(BANDS[..., 0], metadata=None, compression="zlib", rowsperstrip=8)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages[0].tags[273].overwrite(file.pages[0].tags[273].value[:2])
    with pytest.raises(SegkitError, match=r"a.tif: 2 of 5 strips or tiles"):
        read_image(tmp_path / "a.tif", 1, 16)


@pytest.mark.parametrize("bands", [1, 5])
def test_a_small_file_that_claims_a_huge_picture_is_refused_from_its_header(tmp_path, bands):
    memory = io.BytesIO()
    with tifffile.TiffWriter(memory, bigtiff=True) as file:
        shape = (16, 16) if bands == 1 else (16, 16, bands)
        file.write(np.zeros(shape, np.uint16), metadata=None, photometric="minisblack", **({"planarconfig": "contig"} if bands > 1 else {}))
    memory.seek(0)
    with tifffile.TiffFile(memory, mode="r+b") as file:
        for tag in (256, 257):
            file.pages[0].tags[tag].overwrite(60000)
        (tmp_path / "bomb.tif").write_bytes(memory.getvalue())
    for read in (lambda path: read_image(path, bands, 16), read_header, *([Labels().read] if bands == 1 else [])):
        with pytest.raises(SegkitError, match=r"bomb.tif.*tiles"):
            read(tmp_path / "bomb.tif")


def test_images_of_eight_bits_need_pillow_and_numpy_only(tmp_path):
    for name in ("a.png", "a.jpg", "a.tif"):
        Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / name)
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(tmp_path / "deep.png")
    write(tmp_path / "deep.tif", BANDS)
    script = """if True:
        import sys
        sys.modules |= dict.fromkeys(("cv2", "tifffile", "torch", "imagecodecs"))  # each import of these fails
        from segkit.data.files import read_header, read_image
        from segkit.errors import SegkitError
        for name in ("a.png", "a.jpg", "a.tif"):
            assert read_image(name).shape == (4, 5, 3) == (*read_header(name).size, 3)
        assert read_image("deep.png", 1, 16).shape == (4, 5, 1)
        try:
            read_image("deep.tif", 5, 16)
        except SegkitError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": ":".join(map(str, sys.path))}
    )
    assert done.stderr == ""
    assert done.stdout == "cannot read deep.tif: many bands, pages or 16 bits in a TIFF need tifffile; pip install tifffile\n"
