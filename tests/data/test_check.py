import numpy as np
import pytest
from PIL import Image

from segkit.config import DataConfig
from segkit.data import check
from segkit.data.check import SHOWN, check_sources, count_classes, count_labels
from segkit.data.open import open_sources
from segkit.data.threads import each
from segkit.errors import SegkitError


def sources(root):
    return open_sources(DataConfig(kind="folder", root=str(root)))


def test_a_clean_set_gives_counts_and_sizes(make_folder):
    root = make_folder(train=3, val=2, classes=2)
    Image.fromarray(np.full((9, 5, 3), 7, np.uint8)).save(root / "images/train/z.png")
    Image.fromarray(np.full((9, 5), 255, np.uint8)).save(root / "masks/train/z.png")
    opened = sources(root)
    found = check_sources(opened)
    assert list(found) == ["train", "val"]
    assert found["train"].sizes.tolist() == [[40, 48]] * 3 + [[9, 5]]
    masks = [opened["train"].read(i)[1] for i in range(4)]
    assert found["train"].counts.pixels.tolist() == [sum(int((m == k).sum()) for m in masks) for k in (0, 1)]
    assert found["train"].counts.present.tolist() == [3 * 40 * 48] * 2
    again = count_classes(opened["train"])
    assert np.array_equal(again.pixels, found["train"].counts.pixels)
    assert np.array_equal(again.present, found["train"].counts.present)


def test_everything_that_is_wrong_is_in_one_report(make_folder):
    root = make_folder(train=8, val=1)
    (root / "masks/train/train0.png").unlink()
    (root / "images/train/train1.png").unlink()
    (root / "images/train/train2.png").write_bytes(b"\x89PNG cut")
    Image.fromarray(np.zeros((48, 40), np.uint8)).save(root / "masks/train/train3.png")
    labels = np.zeros((40, 48), np.uint8)
    labels[0, :5], labels[1, :2], labels[2] = 3, 254, 255
    Image.fromarray(labels).save(root / "masks/train/train4.png")
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(root / "masks/train/train5.png", "JPEG")
    (root / "images/test").mkdir()
    with pytest.raises(SegkitError) as caught:
        check_sources(sources(root))
    report = str(caught.value)
    assert report.splitlines()[0].startswith("7 problems in the data (train 6, val 1, test 0 images)")
    for part in (
        "image without mask (1):\n    images/train/train0.png",
        "mask without image (1):\n    masks/train/train1.png",
        "train2.png: not an image",
        "train/train3: image 48 x 40, mask 40 x 48",
        "label that stands for no class (1):\n    train/train4: 3, 254 (7 pixels); there are 0 to 2, and 255 for ignored",
        "train5.png: JPEG compression changes labels",
        "    remedy: export the masks again as PNG; a JPEG cannot be mended",
        "split without an image that has a mask (1):\n    test",
    ):
        assert part in report, part


def test_an_image_turned_by_exif_must_have_a_turned_mask(make_folder):
    root = make_folder(train=1, val=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(root / "images/train/train0.png").save(root / "images/train/train0.png", exif=exif)
    with pytest.raises(SegkitError, match="train0: image 40 x 48, mask 48 x 40"):
        check_sources(sources(root))


def test_a_long_report_is_cut(make_folder):
    root = make_folder(train=50, val=1)
    for mask in (root / "masks/train").iterdir():
        Image.fromarray(np.full((40, 48), 9, np.uint8)).save(mask)
    (root / "masks/val/val0.png").unlink()
    with pytest.raises(SegkitError) as caught:
        check_sources(sources(root))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("52 problems")
    assert f"    and {50 - (SHOWN - 2)} more" in lines  # the two of other kinds are shown
    assert "    images/val/val0.png" in lines
    assert len(lines) < SHOWN + 12


def test_labels_are_counted_exactly_in_any_memory_layout_and_in_bands(monkeypatch):
    mask = np.random.default_rng(0).integers(0, 256, (37, 53), np.uint8)
    for view in (mask, mask.T, mask[::-1, ::2]):
        assert count_labels(view).tolist() == np.bincount(view.ravel(), minlength=256).tolist()
    monkeypatch.setattr(check, "EXACT", 530)  # ten rows at a time
    assert count_labels(mask).tolist() == np.bincount(mask.ravel(), minlength=256).tolist()


def test_results_come_in_order_from_any_number_of_threads():
    for length in (0, 1, 7, 8, 9, 50):
        for threads in (1, 3):
            assert list(each(lambda i: i * i, length, threads)) == [i * i for i in range(length)]
