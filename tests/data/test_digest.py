"""What a run was trained on and from which files, as hashes."""

import hashlib

import pytest
import torch

from segkit.config import DataConfig
from segkit.data.digest import StreamDigest
from segkit.data.fingerprint import fingerprint
from segkit.errors import SegkitError


def batch(start=0, index=(0, 1)):
    values = torch.arange(start, start + 24, dtype=torch.uint8)
    return {"image": values.view(2, 3, 2, 2), "mask": values[:8].view(2, 2, 2), "index": torch.tensor(index)}


def test_the_chains_are_sha256_link_by_link():
    stream = StreamDigest()
    stream.update(batch())
    stream.update(batch(5, (1, 0)))
    order = pixels = b""
    for start, index in ((0, (0, 1)), (5, (1, 0))):
        order = hashlib.sha256(order + torch.tensor(index).numpy().tobytes()).hexdigest().encode()
        pixels = hashlib.sha256(pixels + bytes(range(start, start + 24)) + bytes(range(start, start + 8))).hexdigest().encode()
    assert stream.state_dict() == {"order": order.decode(), "batches": pixels.decode()}


def test_order_and_pixels_are_told_apart():
    streams = [StreamDigest() for _ in range(3)]
    for stream, content in zip(streams, (batch(), batch(1), batch(index=(1, 0))), strict=True):
        stream.update(content)
    first, pixels, order = (s.state_dict() for s in streams)
    assert first["order"] == pixels["order"] != order["order"]
    assert first["batches"] == order["batches"] != pixels["batches"]


def test_a_chain_goes_on_where_it_was():
    whole, part, rest = StreamDigest(), StreamDigest(), StreamDigest()
    for stream, parts in ((whole, (0, 1)), (part, (0,))):
        for start in parts:
            stream.update(batch(start))
    rest.load_state_dict(part.state_dict())
    rest.update(batch(1))
    assert rest.state_dict() == whole.state_dict()


def test_batches_of_a_step_that_is_not_done_are_left_out():
    stream = StreamDigest()
    for step, start in ((0, 0), (0, 1), (1, 2), (1, 3)):
        stream.update(batch(start), step)
    done, seen = stream.state_dict(1), stream.state_dict(2)
    assert seen == stream.state_dict() != done
    resumed = StreamDigest()
    resumed.load_state_dict(done)
    for start in (2, 3):
        resumed.update(batch(start), 1)
    assert resumed.state_dict(2) == seen
    assert resumed.state_dict(1) == done


def test_the_fingerprint_is_that_of_names_and_contents_wherever_they_lie(make_folder, tmp_path):
    root = make_folder()
    config = DataConfig(kind="folder", root=str(root))
    first = fingerprint(config)
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    there = DataConfig(kind="folder", root=str(moved), crop=64)
    assert fingerprint(there) == first
    (moved / "classes.txt").write_text((moved / "classes.txt").read_text().replace("class1", "pole"))
    assert (changed := fingerprint(there)) != first
    (moved / "images/train/train0.png").rename(moved / "images/train/train9.png")
    assert fingerprint(there) not in (first, changed)


def test_further_files_count_and_scenes_have_none(tmp_path):
    scenes = DataConfig()
    assert fingerprint(scenes) == fingerprint(DataConfig(scenes_seed=3), [None, "imagenet"])
    (tmp_path / "w").write_text("1")
    one = fingerprint(scenes, [str(tmp_path / "w")])
    (tmp_path / "w").write_text("2")
    assert len({one, fingerprint(scenes, [str(tmp_path / "w")]), fingerprint(scenes)}) == 3


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SegkitError, match="no such folder"):
        fingerprint(DataConfig(kind="folder", root=str(tmp_path / "none")))


def test_files_behind_links_count_and_what_a_file_browser_leaves_does_not(make_folder, tmp_path_factory):
    root, elsewhere = make_folder(), tmp_path_factory.mktemp("elsewhere") / "train"
    config = DataConfig(kind="folder", root=str(root))
    first = fingerprint(config)
    (root / "images/train").rename(elsewhere)
    (root / "images/train").symlink_to(elsewhere)
    (root / "images/.DS_Store").write_text("seen")
    assert fingerprint(config) == first
    (elsewhere / "train0.png").write_text("another image")
    assert fingerprint(config) != first


def test_reports_and_caches_beside_the_images_do_not_count(make_folder):
    root = make_folder()
    config = DataConfig(kind="folder", root=str(root))
    first = fingerprint(config)
    for path in ("data-report/report.json", "cache/images.bin", "README.md", "images/unused.png"):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text("x")
    assert fingerprint(config) == first


def test_of_a_manifest_the_files_it_lists_count_and_their_splits(make_folder):
    root = make_folder(train=4, val=0)
    config = DataConfig(kind="manifest", root=str(root))

    def write(last, *more):
        rows = [f"images/train/train{i}.png,masks/train/train{i}.png,{split}" for i, split in enumerate(("train", "val", last))]
        (root / "manifest.csv").write_text("\n".join(["image,mask,split", *rows, *more]))
        return fingerprint(config)

    first = write("train")
    assert write("train", "", ",,") == first
    assert write("val") != first
    assert write("train", "images/train/train3.png,masks/train/train3.png,val") != first
    assert write("train") == first
    (root / "images/train/train3.png").write_text("not listed")
    assert fingerprint(config) == first
    (root / "masks/train/train0.png").write_text("listed")
    assert fingerprint(config) != first


def test_of_shards_the_index_counts(tmp_path):
    config = DataConfig(kind="shards", root=str(tmp_path))
    with pytest.raises(SegkitError, match=r"shards.json cannot be read"):
        fingerprint(config)
    (tmp_path / "shards.json").write_text("sha256 of train-000000.tar")
    first = fingerprint(config)
    (tmp_path / "report.json").write_text("{}")
    assert fingerprint(config) == first
    (tmp_path / "shards.json").write_text("another sha256")
    assert fingerprint(config) != first
