import hashlib
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import webdataset
from PIL import Image

from segkit.config import DataConfig
from segkit.data.module import SegmentationDataModule
from segkit.data.open import open_sources
from segkit.data.randomness import permutation
from segkit.data.scenes import Scenes
from segkit.data.shards import INDEX, open_shards, write_shards
from segkit.errors import SegkitError


@pytest.fixture
def written(make_folder, tmp_path):
    """A folder data set and the same as shards of three images or so."""
    root = make_folder(train=14, val=3)
    config = DataConfig(kind="folder", root=str(root), mapping={"0": 2, "1": 255, "2": 0})
    sources = open_sources(config)
    counted = []
    write_shards(sources, tmp_path / "shards", 20_000, counted.append)
    assert sum(counted) == 17
    return sources, tmp_path / "shards"


def opened(folder, channels=3, **options):
    return open_shards(folder, DataConfig(kind="shards", root=str(folder), **options), channels)


def by_name(source):
    return {source.name(index): source.read(index) for index in range(len(source))}


def test_shards_hold_the_data_set_with_the_labels_it_had(written):
    sources, folder = written
    splits = opened(folder)
    assert list(splits) == ["train", "val"]
    for split, shards in splits.items():
        assert shards.classes == sources[split].classes
        assert max(shards.blocks) < 5 or split == "val"
        files, read = by_name(sources[split]), by_name(shards)
        assert files.keys() == read.keys()
        for name, (image, mask) in files.items():
            assert np.array_equal(read[name][0], image)
            assert np.array_equal(read[name][1], mask)
        assert all(shards.size(i) == (40, 48) for i in range(len(shards)))
    assert [splits["val"].name(i) for i in range(3)] == ["val0", "val1", "val2"]
    assert [splits["train"].name(i) for i in range(14)] != sorted(splits["train"].name(i) for i in range(14))
    assert sum(splits["train"].blocks) == 14


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves it to the garbage collector
def test_webdataset_reads_the_shards_and_finds_the_bytes_of_the_files(written):
    sources, folder = written
    files = {sources["train"].name(i): (sources["train"].paths(i)[0], sources["train"].read(i)[1]) for i in range(14)}
    shards = sorted(str(path) for path in folder.glob("train-*.tar"))
    found = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(shards) > 3
    assert sorted(sample["__key__"] for sample in found) == sorted(files)
    for sample in found:
        path, mask = files[sample["__key__"]]
        with open(path, "rb") as file:
            assert sample["image.png"] == file.read()
        (folder / "mask.png").write_bytes(sample["mask.png"])
        assert np.array_equal(np.array(Image.open(folder / "mask.png")), mask)
    index = json.loads((folder / INDEX).read_text())
    for shard in index["splits"]["train"]["shards"]:
        assert hashlib.sha256((folder / shard["file"]).read_bytes()).hexdigest() == shard["sha256"]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves it to the garbage collector
def test_names_with_dots_slashes_blanks_and_other_scripts(tmp_path):
    (tmp_path / "classes.txt").write_text("0 a\n1 b\n")
    names = ["sub/deep.er", "sub/deep", "größe 1", "x" * 120]
    for kind in ("images", "masks"):
        (tmp_path / kind / "train/sub").mkdir(parents=True)
        for number, name in enumerate(names):
            Image.fromarray(np.full((4, 5), number % 2, np.uint8)).save(tmp_path / f"{kind}/train/{name}.png")
    sources = open_sources(DataConfig(kind="folder", root=str(tmp_path)))
    write_shards(sources, tmp_path / "shards", 10**6)
    train = opened(tmp_path / "shards")["train"]
    assert sorted(train.name(i) for i in range(4)) == sorted(names)
    keys = [sample["__key__"] for sample in webdataset.WebDataset(str(tmp_path / "shards/train-000000.tar"), shardshuffle=False)]
    assert len(set(keys)) == 4
    assert "sub/deep%2Eer" in keys


def test_bands_and_bits_come_through(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "classes.txt").write_text("0 a\n1 b\n")
    images = rng.integers(0, 65536, (2, 6, 7, 5)).astype(np.uint16)
    for kind in ("images", "masks"):
        (tmp_path / kind / "val").mkdir(parents=True)
    for number, image in enumerate(images):
        tifffile.imwrite(tmp_path / f"images/val/{number}.tif", image, photometric="minisblack", planarconfig="contig")
        Image.fromarray(np.zeros((6, 7), np.uint8)).save(tmp_path / f"masks/val/{number}.png")
    write_shards(open_sources(DataConfig(kind="folder", root=str(tmp_path), bits=16), 5), tmp_path / "shards", 10**6)
    val = opened(tmp_path / "shards", 5, bits=16)["val"]
    assert all(np.array_equal(val.read(i)[0], images[i]) for i in range(2))
    with pytest.raises(SegkitError, match=r"--in_channels 3: the images in .* have 5; give --in_channels 5"):
        opened(tmp_path / "shards", 3, bits=16)
    with pytest.raises(SegkitError, match=r"--data.bits 8: .* have 16 bits per channel; give --data.bits 16"):
        opened(tmp_path / "shards", 5)


def test_scenes_have_no_files_and_become_png(tmp_path):
    for channels in (1, 3):
        source = Scenes("val", 3, 32, 0, channels)
        write_shards({"val": source}, tmp_path / str(channels), 10**6)
        val = opened(tmp_path / str(channels), channels)["val"]
        for index in range(3):
            assert all(np.array_equal(a, b) for a, b in zip(val.read(index), source.read(index), strict=True))


def test_damage_is_one_line(written):
    _, folder = written
    shards = opened(folder)["train"]
    place = int(shards._places[0, 0, 0])
    path = folder / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[place + 60] ^= 1
    path.write_bytes(data)
    with pytest.raises(SegkitError, match=rf"train-000000.tar: {shards.name(0)} is damaged; copy the shard again"):
        opened(folder)["train"].read(0)
    assert opened(folder)["train"].read(1)
    path.write_bytes(data[:-1000])
    with pytest.raises(SegkitError, match=r"1 of \d+ shards are missing or cut short, such as train-000000.tar; copy them again"):
        opened(folder)
    path.unlink()
    with pytest.raises(SegkitError, match=r"cannot read .*train-000000.tar: No such file or directory"):
        shards.read(0)
    with pytest.raises(SegkitError, match="1 of"):
        opened(folder)
    (folder / INDEX).write_text((folder / INDEX).read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(SegkitError, match="format 9, of another version"):
        opened(folder)
    for content in ("", "{}", '{"format": 1, "classes": 3}'):
        (folder / INDEX).write_text(content)
        with pytest.raises(SegkitError, match="no index of shards") as caught:
            opened(folder)
        assert "\n" not in str(caught.value)
    (folder / INDEX).unlink()
    with pytest.raises(SegkitError, match=r"no index of shards \(No such file or directory\); .*--to_shards"):
        opened(folder)


def test_what_cannot_be_written_leaves_no_data_set(make_folder, tmp_path, monkeypatch):
    root = make_folder(train=4)
    sources = open_sources(DataConfig(kind="folder", root=str(root)))
    bad = root / "images/train/train2.png"
    bad.write_bytes(bad.read_bytes()[:500])
    with pytest.raises(SegkitError, match=r"train2.png"):
        write_shards(sources, tmp_path / "shards", 10**6)
    assert not (tmp_path / "shards" / INDEX).exists()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(bad)
    with pytest.raises(SegkitError, match="train2: the mask has another size"):
        write_shards(sources, tmp_path / "shards", 10**6)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "webdataset", None)
        with pytest.raises(SegkitError, match=r'pip install "segkit\[stream\]"$'):
            write_shards({"val": sources["val"]}, tmp_path / "shards", 10**6)
    write_shards({"val": sources["val"]}, tmp_path / "shards", 10**6)
    with pytest.raises(SegkitError, match="holds shards already"):
        write_shards({"val": sources["val"]}, tmp_path / "shards", 10**6)


def test_equal_data_gives_equal_shards(written, tmp_path):
    sources, folder = written
    write_shards(sources, tmp_path / "again", 20_000)
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("blocks", [[5], [3, 3, 2], [4] * 11 + [1], [1] * 9])
def test_every_image_once_an_epoch_and_few_shards_at_a_time(blocks):
    length, shard = sum(blocks), np.repeat(np.arange(len(blocks)), blocks)
    orders = [permutation(length, 3, epoch, blocks) for epoch in range(6)]
    assert all(sorted(order) == list(range(length)) for order in orders)
    assert np.array_equal(orders[2], permutation(length, 3, 2, blocks))
    assert length < 3 or len({tuple(order) for order in orders}) == 6
    for order in orders:
        visits = shard[order]
        first = {s: int(np.flatnonzero(visits == s)[0]) for s in set(visits)}
        last = {s: int(np.flatnonzero(visits == s)[-1]) for s in set(visits)}
        for place in range(length):
            assert sum(first[s] <= place <= last[s] for s in first) <= 4
    if len(blocks) == 12:  # the images of four shards are mixed, not one shard after the other
        assert any((np.diff(shard[order[:16]]) != 0).sum() > 6 for order in orders)


def module(folder, steps=9, done=0, rank=0, world=1, **options):
    data = SegmentationDataModule(DataConfig(kind="shards", root=str(folder), crop=32, batch_size=3, check=False, **options), 5)
    data.trainer = SimpleNamespace(max_steps=steps, global_step=done, global_rank=rank, world_size=world, accumulate_grad_batches=1)
    return data


def digests(loader):
    return [hashlib.sha256(batch["image"].numpy().tobytes() + batch["mask"].numpy().tobytes()).hexdigest() for batch in loader]


def test_training_from_shards_sees_every_image_once_an_epoch_and_resumes_anywhere(written, tmp_path):
    _, folder = written
    order = [index for batch in module(folder, steps=14).train_dataloader() for index in batch["index"].tolist()]
    for epoch in range(3):
        assert sorted(order[14 * epoch : 14 * epoch + 14]) == list(range(14))
    blocks = opened(folder)["train"].blocks
    assert len(blocks) > 4
    assert order == [index for epoch in range(3) for index in permutation(14, 5, epoch, blocks)]
    whole = digests(module(folder).train_dataloader())
    assert len(set(whole)) == 9
    assert digests(module(folder, workers=2).train_dataloader()) == whole
    for done in range(9):
        assert digests(module(folder, done=done).train_dataloader()) == whole[done:]
    options = {"cache": "disk", "cache_folder": str(tmp_path / "cache")}
    assert digests(module(folder, **options).train_dataloader()) == whole
    ranks = [[b["index"].tolist() for b in module(folder, steps=5, rank=r, world=2).train_dataloader()] for r in (0, 1)]
    assert [i for pair in zip(*ranks, strict=True) for part in pair for i in part] == order[:30]
    shutil.rmtree(folder)
