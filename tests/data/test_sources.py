import pickle

import numpy as np
import pytest
from PIL import Image

from segkit.config import DataConfig
from segkit.data.open import open_sources
from segkit.errors import SegkitError

RNG = np.random.default_rng(1)


def image(path, size=(10, 14)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).save(path)


def mask(path, labels, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels)
    if palette:
        picture.putpalette(RNG.integers(0, 256, 768, np.uint8).tobytes())
    picture.save(path)


def test_folder_pairs_by_name_and_reports_the_rest(make_folder):
    root = make_folder(train=3, val=1)
    image(root / "images/train/lonely.jpg")
    mask(root / "masks/train/sub/orphan.png", np.zeros((10, 14), np.uint8))
    image(root / "images/train/sub/deep.jpeg")
    mask(root / "masks/train/sub/deep.png", np.ones((10, 14), np.uint8))
    image(root / "images/train/train0.JPG")
    image(root / "images/train/.hidden.jpg")
    (root / "images/train/notes.txt").write_text("not an image")
    sources = open_sources(DataConfig(kind="folder", root=str(root)))
    assert list(sources) == ["train", "val"]
    train = sources["train"]
    assert [train.name(i) for i in range(len(train))] == ["sub/deep", "train0", "train1", "train2"]
    assert train.classes.names == ("class0", "class1", "class2")
    assert sorted(p.replace("\\", "/") for p in train.problems) == [
        "image without mask: images/train/lonely.jpg",
        "mask without image: masks/train/sub/orphan.png",
        "two files of one name: images/train/train0.JPG, images/train/train0.png",
    ]
    pixels, labels = train.read(0)
    assert pixels.shape == (10, 14, 3)
    assert (labels == 1).all()
    assert train.size(0) == (10, 14)
    assert np.array_equal(pickle.loads(pickle.dumps(train)).read(0)[0], pixels)


def test_folder_with_a_test_split_only_opens(make_folder):
    assert list(open_sources(DataConfig(kind="folder", root=str(make_folder(train=0, val=0, test=2))))) == ["test"]


def test_grey_sources(make_folder):
    for config in (DataConfig(kind="folder", root=str(make_folder())), DataConfig()):
        pixels, _ = open_sources(config, in_channels=1)["train"].read(0)
        assert pixels.shape[2] == 1


def test_voc(tmp_path):
    base = tmp_path / "VOCdevkit/VOC2012"
    labels = np.array([[0, 20], [255, 5]], np.uint8).repeat(5, 0).repeat(7, 1)
    for split, name in (("train", "2007_000001"), ("val", "2007_000002")):
        image(base / f"JPEGImages/{name}.jpg")
        mask(base / f"SegmentationClass/{name}.png", labels, palette=True)
        (base / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (base / f"ImageSets/Segmentation/{split}.txt").write_text(name + "\n")
    sources = open_sources(DataConfig(kind="voc", root=str(tmp_path)))
    assert list(sources) == ["train", "val"]
    assert np.array_equal(sources["val"].read(0)[1], labels)
    assert sources["val"].name(0) == "2007_000002"
    classes = sources["val"].classes
    assert (len(classes), classes.names[15], classes.colors[15]) == (21, "person", (192, 128, 128))


def test_pets(tmp_path):
    base = tmp_path / "oxford-iiit-pet"
    names = [f"Breed_{i}" for i in range(200)]
    (base / "annotations").mkdir(parents=True)
    (base / "annotations/trainval.txt").write_text("#Image CLASS-ID\n" + "".join(f"{n} 1 1 1\n" for n in names))
    (base / "annotations/test.txt").write_text("Other_1 1 1 1\nbad 1 1 1\n")
    image(base / "images/Other_1.jpg")
    mask(base / "annotations/trimaps/Other_1.png", np.array([[1, 2, 3]], np.uint8))
    image(base / "images/bad.jpg")
    mask(base / "annotations/trimaps/bad.png", np.array([[0, 2, 3]], np.uint8))
    sources = open_sources(DataConfig(kind="pets", root=str(tmp_path)))
    parts = {s: {source.name(i) for i in range(len(source))} for s, source in sources.items()}
    assert parts["train"] | parts["val"] == set(names)
    assert not parts["train"] & parts["val"]
    assert 8 <= len(parts["val"]) <= 36  # a tenth of 200, within 4 standard deviations
    assert sources["test"].read(0)[1].tolist() == [[0, 1, 2]]
    with pytest.raises(SegkitError, match=r"bad.png: 0 \(1 pixels\)"):
        sources["test"].read(1)
    again = open_sources(DataConfig(kind="pets", root=str(tmp_path)))["val"]
    assert {again.name(i) for i in range(len(again))} == parts["val"]


@pytest.mark.parametrize("kind", ["folder", "voc", "pets"])
def test_what_is_missing_is_one_line(tmp_path, kind):
    for root, reason in ((None, "--data.root"), (str(tmp_path / "nowhere"), "--data.root .*nowhere"), (str(tmp_path), "train")):
        with pytest.raises(SegkitError, match=reason) as caught:
            open_sources(DataConfig(kind=kind, root=root))
        assert "\n" not in str(caught.value)


def test_folder_without_classes(make_folder):
    root = make_folder()
    (root / "classes.txt").unlink()
    with pytest.raises(SegkitError, match=r"classes.txt"):
        open_sources(DataConfig(kind="folder", root=str(root)))


def test_channels():
    with pytest.raises(SegkitError, match="--in_channels 4"):
        open_sources(DataConfig(), in_channels=4)
