"""Public data sets on small trees of exactly their layout; the tables below are written down from what their authors publish."""

import numpy as np
import pytest
from PIL import Image

from segkit.config import DataConfig
from segkit.data.ade20k import COUNT
from segkit.data.labels import UnexpectedLabels
from segkit.data.open import open_sources
from segkit.errors import SegkitError


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def pair(image, mask, labels):
    labels = np.asarray(labels, np.uint8)
    save(image, np.zeros((*labels.shape, 3)))
    save(mask, labels)


def opened(kind, root):
    return open_sources(DataConfig(kind=kind, root=str(root)))


def names(source):
    return [source.name(i) for i in range(len(source))]


def cityscapes(root, split, city, number, labels):
    stem = f"{city}_{number:06d}_000019"
    pair(root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png", root / f"gtFine/{split}/{city}/{stem}_gtFine_labelIds.png", labels)
    for other in ("color", "instanceIds"):
        save(root / f"gtFine/{split}/{city}/{stem}_gtFine_{other}.png", np.zeros((2, 2)))
    (root / f"gtFine/{split}/{city}/{stem}_gtFine_polygons.json").write_text("{}")


def test_cityscapes(tmp_path):
    ids = np.arange(34).reshape(2, 17)
    cityscapes(tmp_path, "train", "aachen", 0, ids)
    cityscapes(tmp_path, "train", "zurich", 3, ids)
    cityscapes(tmp_path, "val", "lindau", 1, np.full((2, 2), 34))
    cityscapes(tmp_path, "test", "berlin", 0, np.full((2, 2), 3))
    (tmp_path / "README").write_text("from the archive")
    sources = opened("cityscapes", tmp_path)
    assert {split: names(source) for split, source in sources.items()} == {
        "train": ["aachen/aachen_000000_000019", "zurich/zurich_000003_000019"],
        "val": ["lindau/lindau_000001_000019"],
    }
    assert not any(source.problems for source in sources.values())
    _, mask = sources["train"].read(1)
    train_ids = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15}
    train_ids |= {31: 16, 32: 17, 33: 18}
    assert mask.tolist() == [[train_ids.get(k, 255) for k in row] for row in ids.tolist()]
    classes = sources["train"].classes
    assert (len(classes), classes.names[5], classes.names[18]) == (19, "pole", "bicycle")
    assert (classes.colors[0], classes.colors[13]) == ((128, 64, 128), (0, 0, 142))
    with pytest.raises(UnexpectedLabels, match=r"34 \(4 pixels\)"):
        sources["val"].read(0)
    (tmp_path / "gtFine/val/lindau/lindau_000001_000019_gtFine_labelIds.png").unlink()
    image = "leftImg8bit/val/lindau/lindau_000001_000019_leftImg8bit.png"
    assert opened("cityscapes", tmp_path)["val"].problems == (f"image without mask: {image}",)


def test_cityscapes_without_labels_or_without_the_val_images(tmp_path):
    cityscapes(tmp_path, "train", "aachen", 0, [[7]])
    assert list(opened("cityscapes", tmp_path)) == ["train"]
    (tmp_path / "gtFine").rename(tmp_path / "gtCoarse")
    with pytest.raises(SegkitError, match=r"gtFine is missing; register at https://www.cityscapes-dataset.com"):
        opened("cityscapes", tmp_path)


WORDS = ["wall", "building, edifice", "sky", "floor, flooring", "bed ", *(f"thing{k}, object" for k in range(6, 151))]


def ade20k(root, words=WORDS):
    base = root / "ADEChallengeData2016"
    for folder, labels in (("training", [[0, 1, 2, 150]]), ("validation", [[151, 0, 0, 0]])):
        name = f"ADE_{folder[:5]}_00000001"
        pair(base / f"images/{folder}/{name}.jpg", base / f"annotations/{folder}/{name}.png", labels)
    lines = [f"{k} \t0.1\t1\t1\t{word}" for k, word in enumerate(words, 1)]
    (base / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *lines]) + "\n")
    return base


def test_ade20k(tmp_path):
    base = ade20k(tmp_path)
    sources = opened("ade20k", tmp_path)
    assert {split: names(source) for split, source in sources.items()} == {"train": ["ADE_train_00000001"], "val": ["ADE_valid_00000001"]}
    assert sources["train"].read(0)[1].tolist() == [[255, 0, 1, 149]]
    classes = sources["train"].classes
    assert (len(classes), classes.names[:5], classes.names[149]) == (COUNT, ("wall", "building", "sky", "floor", "bed"), "thing150")
    assert len(set(classes.colors)) == 150
    with pytest.raises(UnexpectedLabels, match="151"):
        sources["val"].read(0)
    ade20k(tmp_path, WORDS[:-1])
    with pytest.raises(SegkitError, match=r"objectInfo150.txt does not name the classes 1 to 150"):
        opened("ade20k", tmp_path)
    (base / "objectInfo150.txt").unlink()
    with pytest.raises(SegkitError, match=r"objectInfo150.txt is missing; get it with: "):
        opened("ade20k", tmp_path)


ABSENT = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91]  # COCO's numbers of the things that nobody outlined


@pytest.mark.parametrize("folder", ["annotations", "stuffthingmaps"])
def test_cocostuff(tmp_path, folder):
    ids = [number - 1 for number in range(1, 183) if number not in ABSENT]
    pair(tmp_path / "images/train2017/000000000009.jpg", tmp_path / folder / "train2017/000000000009.png", [[*ids, 255]])
    pair(tmp_path / "images/val2017/000000000139.jpg", tmp_path / folder / "val2017/000000000139.png", [[0, 11]])
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations/instances_val2017.json").write_text("{}")
    sources = opened("cocostuff", tmp_path)
    assert {split: names(source) for split, source in sources.items()} == {"train": ["000000000009"], "val": ["000000000139"]}
    assert sources["train"].read(0)[1].tolist() == [[*range(171), 255]]
    classes = sources["train"].classes
    by_number = dict(zip([n + 1 for n in ids], classes.names, strict=True))
    known = {1: "person", 13: "stop sign", 24: "zebra", 44: "bottle", 67: "dining table", 70: "toilet", 90: "toothbrush", 92: "banner"}
    known |= {110: "desk-stuff", 128: "house", 149: "road", 157: "sky-other", 169: "tree", 182: "wood"}
    assert {number: by_number[number] for number in known} == known
    with pytest.raises(UnexpectedLabels, match=r"11 \(1 pixels\)"):  # 12, street sign, less one
        sources["val"].read(0)


def test_cocostuff_with_one_split_or_without_maps(tmp_path):
    pair(tmp_path / "images/val2017/1.jpg", tmp_path / "annotations/val2017/1.png", [[0]])
    assert list(opened("cocostuff", tmp_path)) == ["val"]
    (tmp_path / "annotations/val2017").rename(tmp_path / "maps")
    with pytest.raises(SegkitError, match=r"train2017 is missing; get it with: mkdir"):
        opened("cocostuff", tmp_path)
