import hashlib
from collections import Counter

import pytest

from segkit.config import DataConfig
from segkit.data.open import open_sources
from segkit.data.splits import groups_of_names, refuse_split_options, split_by_group
from segkit.errors import SegkitError


def place(name):
    """Where a name lies in [0, 1), by the first 64 bits of its sha256; written out again."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 16**16


def shares(groups, val, test):
    counts = Counter(split_by_group(groups, val, test))
    return {split: counts[split] / len(groups) for split in ("train", "val", "test")}


def test_of_many_groups_the_split_is_where_the_hash_of_the_name_says():
    names = [f"scan{i}" for i in range(1000)]
    expected = ["test" if place(n) < 0.1 else "val" if place(n) < 0.3 else "train" for n in names]
    assert split_by_group(names, val_fraction=0.2, test_fraction=0.1) == expected
    assert 0.17 < shares(names, 0.2, 0.1)["val"] < 0.23  # binomial, deviation 0.0126


def test_more_images_and_another_order_move_none():
    names = [f"scan{i}" for i in range(300)]
    before = dict(zip(names, split_by_group(names, 0.2, 0.1), strict=True))
    more = [*(f"later{i}" for i in range(200)), *reversed(names)]
    after = dict(zip(more, split_by_group(more, 0.2, 0.1), strict=True))
    assert {name: after[name] for name in names} == before


def test_a_group_stays_together_and_its_size_counts():
    groups = [f"patient{i % 40}" for i in range(800)]
    chosen = split_by_group(groups, 0.2, 0.2)
    assert len(set(zip(groups, chosen, strict=True))) == 40
    for split in ("val", "test"):
        assert 0.1 <= chosen.count(split) / 800 <= 0.3


@pytest.mark.parametrize("count", [3, 4, 5, 7, 10, 20])
def test_of_few_groups_every_split_has_some_and_none_has_nearly_all(count):
    for world in range(50):
        groups = [f"{world}:{i}" for i in range(count)]
        found = shares(groups, 0.2, 0.2)
        assert min(found.values()) > 0
        for split in ("val", "test"):
            assert found[split] <= max(0.3, 1 / count) + 1e-9  # one and a half times 0.2, or a single group


def test_a_group_larger_than_a_split_should_be_trains():
    for world in range(20):
        groups = [*[f"{world}:large"] * 100, *(f"{world}:{i}" for i in range(20))]
        chosen = split_by_group(groups, 0.1, 0.0)
        assert chosen[0] == "train"
        assert 6 <= chosen.count("val") <= 18  # of 12 asked for
    assert sorted(set(split_by_group(["a"] * 100 + ["b"] * 60, 0.1, 0.0)[i] for i in (0, 100))) == ["train", "val"]
    assert split_by_group(["a"] * 100 + ["b"] * 60, 0.1, 0.0)[100] == "val"  # both too large: the smaller


def test_a_fraction_of_0_leaves_the_split_out():
    names = [str(i) for i in range(100)]
    assert set(split_by_group(names, 0.0, 0.0)) == {"train"}
    assert set(split_by_group(names, 0.0, 0.2)) == {"train", "test"}
    assert split_by_group([], 0.2, 0.2) == []
    assert split_by_group(["one"], 0.0, 0.0) == ["train"]


def test_fewer_groups_than_splits():
    with pytest.raises(SegkitError, match=r"2 splits of 5 images in 1 group \('walk'\).*finer --data.group"):
        split_by_group(["walk"] * 5, 0.2, 0.0)
    with pytest.raises(SegkitError, match="3 splits of 2 images in 2 groups"):
        split_by_group(["a", "b"], 0.2, 0.2)


def test_a_group_is_what_the_expression_matches_at_the_start():
    assert groups_of_names(["s1/cat_01", "s1/cat_02", "s2/cat_01"], None) == ["s1/cat_01", "s1/cat_02", "s2/cat_01"]
    assert groups_of_names(["cat_01", "cat_02", "dog"], "[^_]*") == ["cat", "cat", "dog"]
    assert groups_of_names(["s1/cat_01", "s2/cat_01"], "[^/]*") == ["s1", "s2"]
    assert groups_of_names(["p01a", "p01b", "x"], r"p\d+|.*") == ["p01", "p01", "x"]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("[a-", "--data.group \\[a-: no regular expression \\(unterminated"),
        (r"\d+", r"matches nothing at the start of 'cat_1' \(2 of 3 names\); widen it, or write '\\d\+\|\.\*'"),
        (r"\d*", "matches nothing at the start of 'cat_1'"),
    ],
)
def test_an_expression_that_says_nothing(expression, message):
    with pytest.raises(SegkitError, match=message):
        groups_of_names(["cat_1", "7", "dog"], expression)


@pytest.mark.parametrize("option", [{"group": ".*"}, {"val_fraction": 0.1}, {"test_fraction": 0.1}])
def test_what_makes_splits_is_refused_where_there_are_some(option):
    refuse_split_options(DataConfig(), "here")
    with pytest.raises(SegkitError, match=rf"--data.{next(iter(option))} .*: the data has splits, and .* leave it out"):
        refuse_split_options(DataConfig(**option), "the data has splits")


def test_nuclei_without_their_splits(shared, tmp_path):
    nuclei = shared / "data/nuclei"
    (tmp_path / "classes.txt").write_bytes((nuclei / "classes.txt").read_bytes())
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for file in (nuclei / kind).glob("*/*"):
            (tmp_path / kind / file.name).symlink_to(file)
    sources = open_sources(DataConfig(root=str(tmp_path)))
    found = {source.name(i): split for split, source in sources.items() for i in range(len(source))}
    assert found == {file.stem: "val" if place(file.stem) < 0.2 else "train" for file in (nuclei / "images").glob("*/*")}
    assert len(found) == 664
    image, mask = sources["val"].read(0)
    assert image.shape == (*mask.shape, 3)
    by_digit = open_sources(DataConfig(root=str(tmp_path), group="."))  # the names are hexadecimal
    digits = [{source.name(i)[0] for i in range(len(source))} for source in by_digit.values()]
    assert not digits[0] & digits[1]
    assert len(digits[0] | digits[1]) == 16
