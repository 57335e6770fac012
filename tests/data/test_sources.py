import pickle

import numpy as np
import pytest
from PIL import Image

from segkit.config import DataConfig
from segkit.data.check import check_sources
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


def test_an_image_beside_the_splits_is_told_of(make_folder):
    root = make_folder()
    image(root / "images/beside.jpg")
    (root / "images/notes.txt").write_text("not an image")
    assert [source.problems for source in folder(root).values()] == [("image outside train, val, test: images/beside.jpg",), ()]


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


@pytest.fixture
def flat(tmp_path):
    """Images and masks in no split: ten of each of the patients a, b, c, d, e, named PATIENT_NUMBER, the patient's letter in the mask."""
    for k, patient in enumerate("abcde"):
        for i in range(10):
            image(tmp_path / f"images/{patient}_{i}.png")
            mask(tmp_path / f"masks/{patient}_{i}.png", np.full((10, 14), k, np.uint8))
    (tmp_path / "classes.txt").write_text("".join(f"{k} {patient}\n" for k, patient in enumerate("abcde")))
    return tmp_path


def folder(root, **options):
    return open_sources(DataConfig(kind="folder", root=str(root), **options))


def test_a_folder_without_splits_gets_some(flat):
    sources = folder(flat)
    found = {split: {source.name(i) for i in range(len(source))} for split, source in sources.items()}
    assert list(found) == ["train", "val"]
    assert found["train"] | found["val"] == {f"{p}_{i}" for p in "abcde" for i in range(10)}
    assert not found["train"] & found["val"]
    assert 5 <= len(found["val"]) <= 15
    for i in range(len(sources["val"])):  # the pairs are still pairs
        assert (sources["val"].read(i)[1] == "abcde".index(sources["val"].name(i)[0])).all()
    for i in range(50, 60):
        image(flat / f"images/f_{i}.png")
        mask(flat / f"masks/f_{i}.png", np.zeros((10, 14), np.uint8))
    later = {split: {source.name(i) for i in range(len(source))} for split, source in folder(flat).items()}
    assert found["val"] <= later["val"]
    assert found["train"] <= later["train"]


def test_groups_of_a_folder_stay_together(flat):
    sources = folder(flat, group="[^_]*", test_fraction=0.2)
    patients = {split: {source.name(i)[0] for i in range(len(source))} for split, source in sources.items()}
    assert [len(patients[split]) for split in ("train", "val", "test")] == [3, 1, 1]
    assert set.union(*patients.values()) == set("abcde")
    assert sum(map(len, sources.values())) == 50
    assert list(folder(flat, val_fraction=0)) == ["train"]


def test_what_is_wrong_with_a_folder_without_splits_is_told_once(flat):
    image(flat / "images/lonely.jpg")
    problems = [source.problems for source in folder(flat).values()]
    assert problems == [("image without mask: images/lonely.jpg",), ()]
    for file in (flat / "masks").iterdir():
        file.unlink()
    empty = folder(flat)
    assert {split: len(source) for split, source in empty.items()} == {"train": 0, "val": 0}
    with pytest.raises(SegkitError, match="53 problems in the data"):  # and neither split has an image
        check_sources(empty)


@pytest.mark.parametrize(("name", "right"), [("validation", "val"), ("Train", "train"), ("testing", "test")])
def test_a_split_of_another_name_is_not_passed_over(make_folder, name, right):
    root = make_folder()
    (root / "images" / name).mkdir()
    with pytest.raises(SegkitError, match=rf"images/{name}: splits are called .* rename it, .* to {right}"):
        folder(root)


@pytest.mark.parametrize(("kind", "rule"), [("images", "put images there"), ("masks", "put masks, each .* as its image, there")])
def test_a_folder_without_images_or_masks(flat, kind, rule):
    (flat / kind).rename(flat / "elsewhere")
    with pytest.raises(SegkitError, match=f"{kind} is missing; {rule}"):
        folder(flat)


def test_masks_of_other_names_are_one_mistake(make_folder):
    root = make_folder(train=2, val=1)
    for path in [*(root / "masks").rglob("*.png")]:
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    with pytest.raises(
        SegkitError, match=r"no mask .* as images/train/train0.png and masks/train/train0_mask.png show; .*manifest"
    ) as caught:
        folder(root)
    assert "\n" not in str(caught.value)


def test_splits_and_what_makes_them_do_not_go_together(make_folder):
    root = make_folder()
    with pytest.raises(SegkitError, match="--data.group a: .* has folders train, val or test"):
        folder(root, group="a")


@pytest.mark.parametrize(
    ("sign", "kind"),
    [
        ("VOCdevkit", "voc"),
        ("oxford-iiit-pet", "pets"),
        ("leftImg8bit", "cityscapes"),
        ("ADEChallengeData2016", "ade20k"),
        ("images/val2017", "cocostuff"),
    ],
)
def test_a_folder_of_another_kind_is_recognised(tmp_path, sign, kind):
    (tmp_path / sign).mkdir(parents=True)
    with pytest.raises(SegkitError, match=rf"has {sign}, as data of another kind; say --data.kind {kind}$"):
        open_sources(DataConfig(root=str(tmp_path)))


def test_a_folder_with_a_manifest_is_recognised_unless_it_has_splits(flat, make_folder):
    (flat / "manifest.csv").write_text("image,mask\n")
    with pytest.raises(SegkitError, match="has manifest.csv, which lists images; say --data.kind manifest"):
        folder(flat)
    make_folder()
    assert list(folder(flat)) == ["train", "val"]


def test_ade20k_itself_given_as_a_folder(tmp_path):
    for part in ("images", "annotations"):
        (tmp_path / "ADEChallengeData2016" / part / "training").mkdir(parents=True)
    with pytest.raises(SegkitError, match=rf"say --data.kind ade20k --data.root {tmp_path}$"):
        folder(tmp_path / "ADEChallengeData2016")


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("folder", r"put images in {root}/images, masks of the same names in {root}/masks"),
        ("manifest", r"write {root}/manifest.csv with the columns image,mask,split"),
        ("voc", r"python scripts/train.py --data.kind voc --data.root {root} --data.download true"),
        ("pets", r"python scripts/train.py --data.kind pets --data.root {root} --data.download true"),
        ("cityscapes", r"https://www.cityscapes-dataset.com, .* unzip -o '\*_trainvaltest.zip' -d {root}"),
        ("ade20k", r"curl -LO http://\S+/ADEChallengeData2016.zip && unzip ADEChallengeData2016.zip -d {root}"),
        ("cocostuff", r"curl .*/zips/{{train,val}}2017.zip .* unzip stuffthingmaps_trainval2017.zip -d {root}/annotations"),
        ("shards", r"python scripts/check_data.py --data.root FOLDER --to_shards {root}"),
    ],
)
def test_a_first_use_without_data_says_in_one_line_how_to_get_it(tmp_path, kind, command):
    cases = [(None, "--data.root DIR", "DIR"), (str(tmp_path / "now here"), "no such folder", f"'{tmp_path / 'now here'}'")]
    if kind not in ("folder", "manifest", "shards"):
        cases.append((str(tmp_path), "is missing", str(tmp_path)))
    for root, reason, shown in cases:
        with pytest.raises(SegkitError, match=rf"(?=.*{reason}).*{command.format(root=shown)}") as caught:
            open_sources(DataConfig(kind=kind, root=root))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "inner"), [("voc", "VOCdevkit"), ("voc", "VOCdevkit/VOC2012"), ("pets", "oxford-iiit-pet"), ("ade20k", "ADEChallengeData2016")]
)
def test_the_folder_inside_the_folder_is_recognised(tmp_path, kind, inner):
    (tmp_path / inner).mkdir(parents=True)
    with pytest.raises(SegkitError, match=rf"give the folder that {inner.split('/')[0]} lies in: --data.root {tmp_path}$"):
        open_sources(DataConfig(kind=kind, root=str(tmp_path / inner)))


def test_folder_without_classes(make_folder):
    root = make_folder()
    (root / "classes.txt").unlink()
    with pytest.raises(SegkitError, match=r"classes.txt"):
        open_sources(DataConfig(kind="folder", root=str(root)))


@pytest.mark.parametrize("kind", ["scenes", "voc", "pets", "cityscapes", "ade20k", "cocostuff"])
def test_data_in_colour_can_be_made_grey_and_nothing_else(kind):
    with pytest.raises(SegkitError, match=f"--in_channels 4: the images of {kind} have 3 channels"):
        open_sources(DataConfig(kind=kind, root="anywhere"), in_channels=4)


def test_ones_own_images_may_have_any_channels(flat):
    (flat / "list.csv").write_text("image,mask\nimages/a_0.png,masks/a_0.png\n")
    for options in ({"kind": "folder"}, {"kind": "manifest", "manifest": "list.csv", "val_fraction": 0}):
        source = open_sources(DataConfig(root=str(flat), **options), in_channels=5)["train"]
        assert source.reading.channels == 5


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("voc", {"masks": "binary"}),
        ("cityscapes", {"mapping": {"1": 0}}),
        ("scenes", {"masks": "colors"}),
        ("pets", {"group": "a"}),
        ("shards", {"val_fraction": 0.1}),
        ("scenes", {"test_fraction": 0.1}),
        ("folder", {"manifest": "mine.csv"}),
        ("scenes", {"bits": 16}),
        ("shards", {"mapping": {"1": 0}}),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(tmp_path, kind, option):
    name = next(iter(option))
    with pytest.raises(SegkitError, match=rf"--data.{name} .*: is for --data.kind .*, not {kind}; leave it out"):
        open_sources(DataConfig(kind=kind, root=str(tmp_path), **option))


def test_the_command_line_says_how_many_images_each_split_got(flat):
    from segkit.data.module import SegmentationDataModule

    data = SegmentationDataModule(DataConfig(root=str(flat), group="[^_]*", test_fraction=0.2))
    assert str(data) == f"folder in {flat}: train 30, val 10, test 10 images, 5 classes"
