from collections import Counter
from types import SimpleNamespace

import numpy as np

from segkit.doctor.duplicates import duplicates
from segkit.doctor.examine import SplitFacts


def facts(rows, classes=2):
    """Facts of images given as (checksum, hash, checksum of the mask)."""
    n = len(rows)
    image, look, mask = (np.array(column) for column in zip(*rows, strict=True))
    zeros = np.zeros(n)
    return SplitFacts(
        usable=np.ones(n, bool),
        sizes=np.full((n, 2), 9, np.int32),
        pixels=np.stack([np.full(n, 40)] * classes, axis=1),
        ignored=zeros.astype(np.int64),
        mean=zeros[:, None],
        square=zeros[:, None],
        look=look.astype(np.uint64),
        image=image.astype(np.uint32),
        mask=mask.astype(np.uint32),
        flat=zeros.astype(bool),
        grey=zeros.astype(bool),
        bits=zeros.astype(np.uint16),
    )


def run(near=4, **splits):
    sources = {split: SimpleNamespace(name=lambda i, split=split: f"{split[0]}{i}") for split in splits}
    found = duplicates({split: facts(rows) for split, rows in splits.items()}, sources, near)
    return [(finding.kind, finding.what) for finding in found]


FAR = [0x0F0F << 16 * k for k in range(4)]  # 16 bits from one another
APART = 0xFFFF00000000FFFF


def test_equal_images_leak_between_splits_and_weigh_double_inside_one():
    found = run(train=[(1, FAR[0], 1), (2, FAR[1], 2), (1, FAR[0], 1)], val=[(1, FAR[0], 1), (3, FAR[2], 3)])
    assert found == [("leak", "train/t0, val/v0"), ("duplicate", "train/t0, train/t2")]


def test_equal_checksums_of_different_looking_images_are_no_duplicates():
    assert run(train=[(1, FAR[0], 1), (1, FAR[1], 2)]) == []


def test_masks_of_equal_and_of_different_images():
    assert run(train=[(1, FAR[0], 1), (1, FAR[0], 2)]) == [
        ("duplicate", "train/t0, train/t1"),
        ("contradiction", "train/t0, train/t1"),
    ]
    assert run(train=[(1, FAR[0], 7)], test=[(2, FAR[1], 7)]) == [("shared_mask", "train/t0, test/t0")]


def test_of_near_images_each_of_the_later_split_is_named_once_beside_the_most_alike():
    base = FAR[0]
    found = run(train=[(1, base ^ 0b111, 1), (2, base ^ 0b1, 2)], test=[(3, base, 3), (4, base ^ 0b11000, 4)], val=[(5, APART, 5)])
    assert found == [
        ("near_leak", "train/t1, test/t0; 1 of 64 bits differ"),
        ("near_leak", "train/t1, test/t1; 3 of 64 bits differ"),
        ("near_duplicate", "train/t0, train/t1"),
        ("near_duplicate", "test/t0, test/t1"),
    ]
    assert run(near=0, train=[(1, base, 1), (2, base ^ 1, 2)]) == []


def test_a_video_is_one_group():
    frames = [(k, FAR[0] ^ ((1 << k) - 1), k) for k in range(1, 20)]  # each one bit from the next, the last far from the first
    found = run(train=frames)
    assert [kind for kind, _ in found] == ["near_duplicate"]
    assert found[0][1].startswith("19 images: train/t0, train/t1, ")
    assert Counter(run(near=1, train=frames[::2]))["near_duplicate"] == 0


def test_one_image_has_no_double():
    assert run(train=[(1, FAR[0], 1)]) == []
