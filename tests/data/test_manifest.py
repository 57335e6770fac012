import hashlib
import pickle

import numpy as np
import pytest
from PIL import Image

from segkit.config import DataConfig
from segkit.data.check import check_sources
from segkit.data.module import SegmentationDataModule
from segkit.data.open import open_sources
from segkit.data.source import FilePairs
from segkit.errors import SegkitError


@pytest.fixture
def root(tmp_path):
    """Six pairs, scan0 to scan5, image i all of grey 10 i and mask i all of class i % 2, and no manifest."""
    root = tmp_path / "data set"
    for kind in ("pictures", "labels"):
        (root / kind).mkdir(parents=True)
    for i in range(6):
        Image.fromarray(np.full((4, 5, 3), 10 * i, np.uint8)).save(root / f"pictures/scan{i}.png")
        Image.fromarray(np.full((4, 5), i % 2, np.uint8)).save(root / f"labels/scan{i}.png")
    (root / "classes.txt").write_text("0 ground\n1 thing\n")
    return root


def row(i, *more):
    return ",".join([f"pictures/scan{i}.png", f"labels/scan{i}.png", *more])


def write(root, *lines, name="manifest.csv", end="\n", encoding="utf-8"):
    (root / name).write_bytes((end.join(lines) + end).encode(encoding))


def opened(root, **options):
    return open_sources(DataConfig(kind="manifest", root=str(root), **options))


def problems(root, **options):
    return [problem for source in opened(root, **options).values() for problem in source.problems]


def names(source):
    return [source.name(i) for i in range(len(source))]


FULL = ("image,mask,split", row(0, "train"), row(1, "val"), row(2, "train"), row(3, "test"))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_of_the_splits_that_they_name(root, end, encoding):
    write(root, *FULL, end=end, encoding=encoding)
    sources = opened(root)
    assert {split: names(source) for split, source in sources.items()} == {
        "train": ["pictures/scan0", "pictures/scan2"],
        "val": ["pictures/scan1"],
        "test": ["pictures/scan3"],
    }
    assert list(sources) == ["train", "val", "test"]
    assert sources["train"].classes.names == ("ground", "thing")
    image, mask = sources["test"].read(0)
    assert (image == 30).all()
    assert image.shape == (4, 5, 3)
    assert (mask == 1).all()
    assert sources["test"].paths(0) == (str(root / "pictures/scan3.png"), str(root / "labels/scan3.png"))
    assert not any(source.problems for source in sources.values())


def test_quotes_blanks_empty_lines_and_further_columns(root):
    (root / "pictures/a, b.png").write_bytes((root / "pictures/scan4.png").read_bytes())
    lines = ['"mask", image ,site,"split"', "", '"labels/scan4.png","pictures/a, b.png","say ""x""",val', ",,,"]
    write(root, *lines, "labels/scan1.png ,  pictures/./scan1.png,x, train ")
    sources = opened(root)
    assert names(sources["val"]) == ["pictures/a, b"]
    assert (sources["val"].read(0)[0] == 40).all()
    assert names(sources["train"]) == ["pictures/scan1"]


def test_another_file_name_and_masks_of_another_kind(root):
    write(root, "image,mask,split", row(1, "train"), name="mine.csv")
    assert (opened(root, manifest="mine.csv", mapping={"1": 255})["train"].read(0)[1] == 255).all()
    with pytest.raises(SegkitError, match=r"manifest.csv is missing; say --data.manifest mine.csv, which is there, or write one"):
        opened(root)


def test_without_splits_groups_stay_together_and_the_rest_follows_the_hash(root):
    write(root, "image,mask,patient", *(row(i, "ab"[i // 3]) for i in range(6)))
    sources = opened(root, group="patient")
    assert list(sources) == ["train", "val"]
    found = {frozenset(n[-1] for n in names(source)) for source in sources.values()}
    assert found == {frozenset("012"), frozenset("345")}
    alone = opened(root)
    assert sorted(names(alone["train"]) + names(alone["val"])) == [f"pictures/scan{i}" for i in range(6)]
    assert 1 <= len(alone["val"]) <= 2  # near a fifth of 6
    assert list(opened(root, val_fraction=0)) == ["train"]
    assert list(opened(root, val_fraction=0.3, test_fraction=0.3)) == ["train", "val", "test"]
    with pytest.raises(SegkitError, match="--data.group doctor: manifest.csv has no such column, only image, mask, patient"):
        opened(root, group="doctor")
    write(root, "image,mask,patient", row(0, "a"), row(1, ""))
    with pytest.raises(SegkitError, match="--data.group patient: the column is empty in line 3"):
        opened(root, group="patient")


def test_what_makes_splits_is_refused_beside_a_column_split(root):
    write(root, *FULL)
    with pytest.raises(SegkitError, match=r"--data.val_fraction 0.1: manifest.csv has the column split.*leave it out"):
        opened(root, val_fraction=0.1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((row(0, "train"), row(1, "val")), r"line 1: no column image among 'pictures/scan0.png', .*the first line names the columns"),
        (("image,label", row(0)), r"line 1: no column mask among 'image', 'label'"),
        (("image;mask;split", "a.png;b.png;train"), "its columns are parted by semicolons; save it with commas"),
        (('"image"\t"mask"', "a.png\tb.png"), "its columns are parted by tabs"),
        (("image,mask,image", row(0, "x")), "two columns 'image'"),
        (("image,mask", 'a.png,"b.png'), "line 2: unexpected end of data; a cell with a comma or a quote"),
        (("", ""), "is empty; write one with the columns"),
    ],
)
def test_a_file_that_is_no_manifest_is_one_line(root, lines, message):
    write(root, *lines)
    with pytest.raises(SegkitError, match=message) as caught:
        opened(root)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(root / "manifest.csv"))


def test_other_encodings(root):
    (root / "manifest.csv").write_bytes("image,mask\nföto.png,b.png\n".encode("latin-1"))
    with pytest.raises(SegkitError, match="is not UTF-8; save it as CSV in UTF-8"):
        opened(root)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("pictures/gone.png,labels/scan1.png,train", "file that does not exist: pictures/gone.png (line 3)"),
        ("pictures,labels/scan1.png,train", "file that does not exist: pictures (line 3)"),
        (row(0, "val"), "image listed twice: pictures/scan0.png (lines 2 and 3)"),
        ("pictures/../a.png,labels/scan1.png,train", "path that leaves the data set's folder: pictures/../a.png (line 3)"),
        ("/etc/passwd,labels/scan1.png,train", "path that leaves the data set's folder: /etc/passwd (line 3)"),
        ("pictures/scan1.png,way/out.png,train", "path that leaves the data set's folder: way/out.png (line 3)"),
        ("pictures/scan1.png,out.png,train", "path that leaves the data set's folder: out.png (line 3)"),
        ("pictures/same.png,labels/scan0.png,train", "image listed twice: pictures/same.png (lines 2 and 3)"),
        ("pictures/scan0.bmp,labels/scan1.png,train", "two files of one name: pictures/scan0.png, pictures/scan0.bmp (line 3)"),
        (row(1, "validation"), "split that is none of train, val and test: 'validation' (line 3)"),
        (row(1, ""), "empty cell: split (line 3)"),
        (",labels/scan1.png,train", "empty cell: image (line 3)"),
        (row(1), "row of another length: manifest.csv, line 3: 2 cells, 3 columns"),
        (row(1, "train", "x"), "row of another length: manifest.csv, line 3: 4 cells, 3 columns"),
    ],
)
def test_a_row_that_cannot_be_used_is_left_out_and_told(root, tmp_path, line, problem):
    (tmp_path / "outside").mkdir()
    (root / "way").symlink_to(tmp_path / "outside")
    for target in (tmp_path / "outside/out.png", tmp_path / "elsewhere.png"):
        target.write_bytes((root / "labels/scan1.png").read_bytes())
    (root / "out.png").symlink_to(tmp_path / "elsewhere.png")
    (root / "pictures/scan0.bmp").write_bytes(b"another")
    (root / "pictures/same.png").symlink_to(root / "pictures/scan0.png")
    write(root, "image,mask,split", row(0, "train"), line, row(2, "val"))
    assert problems(root) == [problem]
    assert [names(source) for source in opened(root).values()] == [["pictures/scan0"], ["pictures/scan2"]]
    with pytest.raises(SegkitError, match="1 problem in the data"):
        check_sources(opened(root))


def test_links_that_stay_inside_and_a_root_that_is_a_link(root, tmp_path):
    (root / "alias").symlink_to(root / "pictures")
    (tmp_path / "link").symlink_to(root)
    write(root, "image,mask,split", "alias/scan0.png,labels/scan0.png,train", row(1, "val"))
    assert problems(tmp_path / "link") == []


def test_a_manifest_of_which_no_row_can_be_used_still_tells_why(root):
    write(root, "image,mask,split", *(row(i, "validation") for i in range(3)))
    assert len(problems(root)) == 3
    with pytest.raises(SegkitError, match="5 problems in the data"):  # train and val have no image
        check_sources(opened(root))
    write(root, "image,mask,split")
    with pytest.raises(SegkitError, match=r"manifest.csv has no row below its first line"):
        opened(root)


@pytest.mark.parametrize("lost", [row(1, "validation"), "gone.png,labels/scan1.png,val"])
def test_a_split_whose_rows_cannot_be_used_is_not_called_missing(root, lost):
    write(root, "image,mask,split", row(0, "train"), lost)
    data = SegmentationDataModule(DataConfig(kind="manifest", root=str(root)))
    with pytest.raises(SegkitError, match=r"2 problems in the data \(train 1, val 0 images\)"):
        data.prepare()


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_hashes_are_compared_and_a_changed_file_is_found_by_the_check(root):
    right = [(digest(root / f"pictures/scan{i}.png"), digest(root / f"labels/scan{i}.png")) for i in range(3)]
    columns = "image,mask,split,sha256,mask_sha256"
    write(root, columns, row(0, "train", right[0][0].upper(), ""), row(1, "val", "", ""), row(2, "val", *right[2]))
    sources = opened(root)
    check_sources(sources)
    copied = pickle.loads(pickle.dumps(sources["val"]))
    assert (copied.read(1)[0] == 20).all()
    assert copied.size(1) == (4, 5)
    (root / "labels/scan2.png").write_bytes((root / "labels/scan1.png").read_bytes())  # a valid mask, but not the one that was listed
    told = rf"labels/scan2.png: its sha256 is {right[1][1][:12]}\.\.\., the manifest says {right[2][1][:12]}"
    with pytest.raises(SegkitError, match=told):
        check_sources(opened(root))
    (root / "pictures/scan2.png").unlink()
    with pytest.raises(SegkitError, match=r"cannot read .*scan2.png: no such file"):
        sources["val"].read(1)


def test_hashes_that_are_none_are_a_finding_and_without_hashes_nothing_is_compared(root):
    write(root, "image,mask,split,sha256", row(0, "train", "abc"), row(1, "val", ""))
    assert problems(root) == ["sha256 that is no hash: sha256 'abc' (line 2)"]
    write(root, *FULL)
    assert isinstance(opened(root)["train"], FilePairs)
