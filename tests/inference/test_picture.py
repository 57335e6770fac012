import numpy as np
import pytest
import tifffile
from PIL import Image

from segkit.data.files import read_image
from segkit.errors import SegkitError
from segkit.inference import files
from segkit.inference.files import open_picture

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 31, 3), np.uint8)


def read(image, channels=3, white=255):
    with open_picture(image, channels, white) as picture:
        height = picture.size[0]
        whole = picture.read(0, height)
        np.testing.assert_array_equal(picture.read(height // 3, height // 2), whole[height // 3 : height // 2])
        assert whole.shape == (*picture.size, channels)
        return whole


def test_arrays_npy_files_and_images_are_the_same_picture(tmp_path):
    np.save(tmp_path / "a.npy", RGB)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    for image in (RGB, tmp_path / "a.npy", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(read(image), RGB)
    np.testing.assert_array_equal(read(RGB[..., 0], 1)[..., 0], RGB[..., 0])


def test_a_large_tiff_is_read_as_a_small_one_is(tmp_path, monkeypatch):
    rgba = RNG.integers(0, 256, (20, 31, 4), np.uint8)
    cases = {
        "rgb": (RGB, {"photometric": "rgb"}),
        "grey": (RGB[..., 0], {"photometric": "minisblack"}),
        "rgba": (rgba, {"photometric": "rgb", "extrasamples": ["unassalpha"], "compression": "zlib"}),
    }
    for name, (image, options) in cases.items():
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, image, **options)
        for channels in (1, 3):
            usual = read_image(path, channels)
            with monkeypatch.context() as patch:
                patch.setattr(files, "MAX_PIXELS", 100)
                np.testing.assert_array_equal(read(path, channels), usual)
    monkeypatch.setattr(files, "MAX_PIXELS", 100)
    five = RNG.integers(0, 256, (20, 31, 5), np.uint8)
    tifffile.imwrite(tmp_path / "five.tif", five, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(read(tmp_path / "five.tif", 5), five)
    with pytest.raises(SegkitError, match="five.tif has 5 channels that are no colours, the model takes 3"):
        read(tmp_path / "five.tif")


def test_four_bands_that_are_no_colours_are_not_taken_for_some(tmp_path, monkeypatch):
    path = tmp_path / "four.tif"  # red, green, blue, near infrared, say
    tifffile.imwrite(path, RNG.integers(0, 256, (20, 31, 4), np.uint8), photometric="minisblack", planarconfig="contig")
    for largest in (files.MAX_PIXELS, 100):
        monkeypatch.setattr(files, "MAX_PIXELS", largest)
        with pytest.raises(SegkitError, match=r"four\.tif.* (4 bands|4 channels that are no colours)"):
            read(path, 3)


def test_eight_bits_are_scaled_for_a_model_of_sixteen(tmp_path, monkeypatch):
    sixteen = RGB.astype(np.uint16) * 257
    np.testing.assert_array_equal(read(RGB, white=65535), sixteen)
    np.testing.assert_array_equal(read(sixteen, white=65535), sixteen)
    np.testing.assert_array_equal(read(sixteen.astype(">u2"), white=65535), sixteen)
    assert read(np.full((4, 4, 3), 255, np.uint8), white=65535).max() == 65535
    monkeypatch.setattr(files, "MAX_PIXELS", 100)
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb")
    np.testing.assert_array_equal(read(tmp_path / "a.tif", white=65535), sixteen)


@pytest.mark.parametrize(
    ("array", "channels", "message"),
    [
        (RGB.astype(np.float32), 3, r"the image has values of type float32; the model takes uint8$"),
        (RGB.astype(np.uint16), 3, "the image has 16 bits a channel, the model takes 8"),
        (RGB[..., 0], 3, r"the image has the shape \[20, 31\]; the model takes \[rows, columns, 3\]$"),
        (RGB, 1, r"the image has the shape \[20, 31, 3\]; the model takes \[rows, columns, 1\] or \[rows, columns\]$"),
        (RGB.transpose(2, 0, 1), 3, r"shape \[3, 20, 31\]"),
        (RGB.tolist(), 3, "an image is a file name or a numpy array, not of type list; numpy.asarray makes one of most"),
        (RGB[:0], 3, r"shape \[0, 31, 3\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(array, channels, message):
    with pytest.raises(SegkitError, match=message) as error:
        read(array, channels)
    assert "\n" not in str(error.value)


def test_npy_files_that_hold_no_picture_are_refused(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"no")
    with pytest.raises(SegkitError, match="cannot read .*a.npy"):
        read(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object))
    with pytest.raises(SegkitError, match="cannot read .*b.npy"):
        read(tmp_path / "b.npy")
    np.savez(tmp_path / "c.npz", RGB)
    (tmp_path / "c.npz").rename(tmp_path / "c.npy")
    with pytest.raises(SegkitError, match="cannot read .*c.npy: an archive"):
        read(tmp_path / "c.npy")
