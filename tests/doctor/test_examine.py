import numpy as np
import pytest
from PIL import Image

from segkit.config import DataConfig
from segkit.data.open import open_sources
from segkit.doctor.advice import statistics
from segkit.doctor.examine import _grey, _moments, _reduced, _sample, examine
from segkit.doctor.images import image_findings


def sources(root, channels=3):
    return open_sources(DataConfig(root=str(root)), channels)


def test_facts_are_those_of_a_plain_loop(make_folder):
    root = make_folder(train=5, val=3, size=(40, 48))
    labels = np.zeros((40, 48), np.uint8)
    labels[:4] = 255
    Image.fromarray(labels).save(root / "masks/train/train0.png")
    opened, calls = sources(root), []
    seen = examine(opened, lambda: calls.append(1), threads=2)
    assert len(calls) == 8
    for split, source in opened.items():
        facts = seen.splits[split]
        pairs = [source.read(i) for i in range(len(source))]
        assert facts.usable.all()
        assert facts.sizes.tolist() == [[40, 48]] * len(pairs)
        assert facts.pixels.tolist() == [[int((mask == k).sum()) for k in range(3)] for _, mask in pairs]
        assert facts.ignored.tolist() == [int((mask == 255).sum()) for _, mask in pairs]
        mean, deviation = statistics(facts)
        everything = np.stack([image for image, _ in pairs]) / 255
        assert mean == pytest.approx(everything.mean(axis=(0, 1, 2)), abs=1e-9)
        assert deviation == pytest.approx(everything.std(axis=(0, 1, 2)), abs=1e-9)
        assert len(set(facts.image.tolist())) == len(pairs)
    assert seen.findings == ()


def test_a_sample_of_the_pixels_stands_for_a_large_image(tmp_path, make_folder):
    root, rng = make_folder(train=0, val=1), np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((700, 900), Image.Resampling.BICUBIC)
    smooth.save(root / "images/val/val0.png")
    Image.fromarray(np.eye(900, 700, dtype=np.uint8)).save(root / "masks/val/val0.png")
    facts = examine(sources(root)).splits["val"]
    mean, deviation = statistics(facts)
    assert mean == pytest.approx(np.asarray(smooth).mean(axis=(0, 1)) / 255, abs=0.003)
    assert deviation == pytest.approx(np.asarray(smooth).std(axis=(0, 1)) / 255, abs=0.003)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_any_number_of_channels_and_both_depths(channels, kind):
    image = np.random.default_rng(channels).integers(0, np.iinfo(kind).max, (50, 61, channels), kind)
    assert np.array_equal(_sample(image), image)
    assert np.array_equal(_sample(image.repeat(6, 0).repeat(4, 1))[:2, :2], image[:1, :1].repeat(2, 0).repeat(2, 1))
    mean, deviation = _moments(image)
    assert mean == pytest.approx(image.mean(axis=(0, 1), dtype=np.float64))
    assert deviation == pytest.approx(image.std(axis=(0, 1), dtype=np.float64))
    small = _reduced(image)
    assert small.shape == (32, 32)
    assert small.dtype == np.uint8
    assert _grey(image) == (channels == 1)
    assert _grey(np.repeat(image[..., :1], channels, axis=2))


def test_a_single_coloured_pixel_makes_a_picture_colour():
    image = np.full((33, 35, 3), 80, np.uint8)
    assert _grey(image)
    image[17, 19, 2] += 1
    assert not _grey(image)


class Deep:
    """A split of 16-bit images that use the lower 12 bits."""

    classes = None
    problems = ()

    def __init__(self, classes, shift=0):
        self.classes, self.shift = classes, shift

    def __len__(self):
        return 3

    def name(self, index):
        return str(index)

    def paths(self, index):
        return None

    def read(self, index):
        rng = np.random.default_rng(index)
        return rng.integers(0, 4096, (40, 40, 1), np.uint16) << self.shift, rng.integers(0, 2, (40, 40), np.uint8)


@pytest.mark.parametrize(("shift", "said"), [(0, "bits 0 to 11 of 0 to 15 are used: 12 of 16"), (4, "bits 4 to 15")])
def test_sixteen_bits_of_which_twelve_are_used(make_folder, shift, said):
    classes = sources(make_folder(classes=2))["train"].classes
    deep = {"train": Deep(classes, shift), "val": Deep(classes, shift)}
    seen = examine(deep)
    assert seen.splits["train"].mean == pytest.approx(np.full((3, 1), 2047.5 * 2**shift / 65535), rel=0.05)
    found = image_findings(seen.splits, deep, DataConfig(bits=16, crop=32))
    assert [finding.kind for finding in found] == ["unused_bits"]
    assert said in found[0].what


def test_grey_images_in_colour_and_a_channel_that_says_nothing(make_folder):
    root = make_folder()
    for file in root.glob("images/*/*.png"):
        with Image.open(file) as image:
            grey = np.asarray(image)[..., 0]
        Image.fromarray(np.stack([grey] * 3, axis=2)).save(file)
    opened = sources(root)
    assert [f.kind for f in image_findings(examine(opened).splits, opened, DataConfig(crop=32))] == ["grey"]
    for file in root.glob("images/*/*.png"):
        with Image.open(file) as image:
            pixels = np.array(image)
        pixels[..., 2] = 255
        Image.fromarray(pixels).save(file)
    found = image_findings(examine(opened).splits, opened, DataConfig(crop=32))
    assert [(f.kind, f.what) for f in found] == [("dead_channel", "channel 2 of 0 to 2")]


def test_a_quarter_turn_shows_in_the_size_and_others_do_not(make_folder):
    root = make_folder(train=4, val=1)
    for place, orientation in enumerate((6, 8, 3, 6)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        with Image.open(root / f"images/train/train{place}.png") as image:
            image.save(root / f"images/train/train{place}.png", exif=exif)
    with Image.open(root / "masks/train/train0.png") as mask:
        mask.transpose(Image.Transpose.ROTATE_270).save(root / "masks/train/train0.png")
    with Image.open(root / "masks/train/train3.png") as mask:
        mask.resize((20, 20)).save(root / "masks/train/train3.png")
    seen = examine(sources(root))
    assert [finding.kind for finding in seen.findings] == ["turned", "half_turned", "turned_unsure", "size"]
