import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from segkit.config import DataConfig
from segkit.data.cache import Cached
from segkit.data.check import count_classes
from segkit.data.dataset import EvalDataset, LoadingError, TrainDataset
from segkit.data.digest import StreamDigest
from segkit.data.module import SegmentationDataModule
from segkit.data.scenes import Scenes
from segkit.data.transforms import TrainTransform
from segkit.errors import SegkitError

SMALL = {"crop": 32, "scenes_size": 48, "scenes_train": 10, "scenes_val": 5, "scenes_test": 3, "batch_size": 4}


def module(steps=6, done=0, rank=0, world=1, accumulate=1, seed=0, **options):
    data = SegmentationDataModule(DataConfig(**{**SMALL, **options}), seed)
    data.trainer = SimpleNamespace(
        max_steps=steps, global_step=done, global_rank=rank, world_size=world, accumulate_grad_batches=accumulate
    )
    return data


def digests(loader):
    return [hashlib.sha256(b["image"].numpy().tobytes() + b["mask"].numpy().tobytes()).hexdigest() for b in loader]


def test_batches_are_bytes_until_the_device():
    batch = next(iter(module().train_dataloader()))
    assert (batch["image"].dtype, batch["image"].shape) == (torch.uint8, (4, 3, 32, 32))
    assert (batch["mask"].dtype, batch["mask"].shape) == (torch.uint8, (4, 32, 32))
    assert batch["index"].dtype == torch.int64


def test_epochs_show_an_image_differently_and_repeat():
    data = TrainDataset(Scenes("train", 4, 48), TrainTransform(DataConfig(crop=32)), seed=3)
    views = [data[epoch, 2]["image"] for epoch in range(5)]
    assert len({v.numpy().tobytes() for v in views}) == 5
    assert torch.equal(data[3, 2]["image"], views[3])
    other = TrainDataset(data.source, data.transform, seed=4)
    assert not torch.equal(other[3, 2]["image"], views[3])


def test_evaluation_shows_images_as_they_are():
    source = Scenes("val", 3, 48)
    sample = EvalDataset(source)[1]
    image, mask = source.read(1)
    assert np.array_equal(sample["image"].numpy(), image.transpose(2, 0, 1))
    assert np.array_equal(sample["mask"].numpy(), mask)
    assert sample["index"] == 1


def test_workers_change_nothing():
    alone = digests(module().train_dataloader())
    assert len(set(alone)) == 6
    for workers in (1, 2):
        assert digests(module(workers=workers).train_dataloader()) == alone
    assert digests(module(seed=1).train_dataloader()) != alone


def test_spawned_workers_change_nothing_either(make_folder):
    options = {"kind": "folder", "root": str(make_folder()), "check": False}
    loader = module(workers=1, steps=2, cache="ram", **options).train_dataloader()  # whose memory they share
    loader.multiprocessing_context = "spawn"
    assert digests(loader) == digests(module(steps=2, **options).train_dataloader())


def test_resumption_goes_on_where_the_run_was():
    whole = digests(module(steps=5, accumulate=2).train_dataloader())
    assert len(whole) == 10
    assert digests(module(steps=5, accumulate=2, done=3).train_dataloader()) == whole[6:]


def test_two_ranks_see_the_steps_of_one():
    alone = [b["index"].tolist() for b in module(batch_size=8).train_dataloader()]
    ranks = [[b["index"].tolist() for b in module(rank=r, world=2).train_dataloader()] for r in (0, 1)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == alone


def test_steps_per_epoch():
    assert module().steps_per_epoch() == 3
    assert module().steps_per_epoch(world=2) == 2
    assert module().steps_per_epoch(world=2, accumulate=2) == 1


def test_evaluation_loaders_share_the_images_out(make_folder):
    data = module()
    assert [b["index"].tolist() for b in data.eval_dataloader("test", 1, 2)] == [[1]]
    assert [b["index"].tolist() for b in data.val_dataloader()] == [[0], [1], [2], [3], [4]]
    for check in (True, False):
        files = module(kind="folder", root=str(make_folder()), eval_batch_size=4, check=check)
        assert [b["image"].shape for b in files.val_dataloader()] == [(2, 3, 40, 48)]


def test_what_a_run_cannot_start_with_is_one_line(make_folder):
    with pytest.raises(SegkitError, match="5 val images for 6 devices"):
        module(world=6).val_dataloader()
    with pytest.raises(SegkitError, match=r"--data\.scenes_val"):
        module(scenes_val=0).prepare()
    with pytest.raises(SegkitError, match="images/val"):
        module(kind="folder", root=str(make_folder(val=0))).prepare()
    (make_folder() / "manifest.csv").write_text("image,mask,split\nimages/train/train0.png,masks/train/train0.png,train\n")
    with pytest.raises(SegkitError, match="no split val, only train; write val in the column split"):
        module(kind="manifest", root=str(make_folder())).prepare()
    with pytest.raises(SegkitError, match=r"--data\.batch_size 0"):
        module(batch_size=0)
    with pytest.raises(SegkitError, match="no split val"):
        module(scenes_val=0).eval_dataloader("val")


def test_prepare_checks_files_and_keeps_what_it_saw(make_folder):
    root = make_folder()
    data = module(kind="folder", root=str(root))
    data.prepare()
    assert data.classes.names == ("class0", "class1", "class2")
    assert np.array_equal(data.class_pixels().pixels, count_classes(data.sources["train"]).pixels)
    unread = module(kind="folder", root=str(root), check=False)
    unread.prepare()
    assert unread.summaries == {}
    assert np.array_equal(unread.class_pixels().pixels, data.class_pixels().pixels)
    (root / "images/val/val0.png").write_bytes(b"")
    unread = module(kind="folder", root=str(root), check=False)
    unread.prepare()
    with pytest.raises(SegkitError, match=r"val0.png"):
        module(kind="folder", root=str(root)).prepare()
    (root / "masks/val/val0.png").unlink()
    incomplete = module(kind="folder", root=str(root), check=False)
    for start in (incomplete.prepare, incomplete.val_dataloader):
        with pytest.raises(SegkitError, match="image without mask"):
            start()


def test_a_pass_over_the_data_draws_nothing_from_the_global_stream():
    before = torch.get_rng_state()
    list(module(steps=1).train_dataloader())
    list(module().val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_scenes_count_their_pixels():
    counts = module(scenes_train=3).class_pixels()
    assert counts.pixels.sum() == 3 * 48 * 48
    assert len(counts.pixels) == 6


def test_an_empty_split_is_a_finding_of_the_check_not_a_lack_of_devices(make_folder):
    root = make_folder(val=1)
    for path in root.glob("*/val/*"):
        path.unlink()
    with pytest.raises(SegkitError, match=r"split without an image that has a mask \(1\):\n    val"):
        SegmentationDataModule(DataConfig(kind="folder", root=str(root))).prepare()


@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_changes_no_batch(cache, workers, make_folder, tmp_path):
    options = {"kind": "folder", "root": str(make_folder(train=6)), "rotate": 20.0, "cache_folder": str(tmp_path / "cache")}
    plain, kept = module(**options), module(**options, cache=cache, workers=workers)
    assert digests(kept.train_dataloader()) == digests(plain.train_dataloader())
    assert digests(kept.val_dataloader()) == digests(plain.val_dataloader())
    assert isinstance(kept.train_dataloader().dataset.source, Cached)


def test_a_cache_is_announced_and_only_for_training(make_folder, monkeypatch):
    options = {"kind": "folder", "root": str(make_folder(test=2)), "cache": "ram"}
    data = module(**options)
    data.prepare()
    assert str(data).endswith(", cached in memory: 0 MiB")
    next(iter(data.eval_dataloader("test")))
    assert not data._caches
    scored = module(**options)
    scored.prepare(splits=("test",))
    assert "cached" not in str(scored)
    on_disk = module(**{**options, "cache": "disk"})
    on_disk.prepare(2)
    assert str(on_disk).endswith(", cached on disk")
    with pytest.raises(SegkitError, match=r"--data.cache ram: 2 devices would each keep a copy; use --data.cache disk"):
        module(**options).prepare(2)
    monkeypatch.setattr("segkit.data.cache.available_memory", lambda: 1000)
    with pytest.raises(SegkitError, match="the decoded train and val images take 0 MiB"):
        module(**options).prepare()


def test_rare_crops_are_decided_by_seed_epoch_and_image_alone(make_folder):
    options = {"kind": "folder", "root": str(make_folder(train=6, size=(90, 70))), "rotate": 20.0}
    rare = digests(module(rare_crops=0.5, **options).train_dataloader())
    assert digests(module(rare_crops=0.5, workers=2, **options).train_dataloader()) == rare
    assert digests(module(rare_crops=0.5, check=False, **options).train_dataloader()) == rare
    assert digests(module(rare_crops=0.5, done=2, **options).train_dataloader()) == rare[2:]
    assert not set(digests(module(**options).train_dataloader())) & set(rare)


def test_rare_crops_count_once_on_the_first_rank(make_folder):
    options = {"kind": "folder", "root": str(make_folder()), "rare_crops": 0.5}
    alone = module(**options)
    counts = alone.class_pixels().pixels
    assert np.array_equal(alone.train_dataloader().dataset.transform.rare.weights, 1 / counts)
    sent = []

    def broadcast(value):
        sent.append(value)
        return counts

    for rank in (0, 1):
        data = module(rank=rank, world=2, **options)
        data.trainer.strategy = SimpleNamespace(broadcast=broadcast)
        assert np.array_equal(data.train_dataloader().dataset.transform.rare.weights, 1 / counts)
    assert np.array_equal(sent[0], counts)
    assert sent[1] is None
    assert "summaries" not in data.__dict__  # the second rank read nothing


def test_without_rare_crops_no_class_is_counted(make_folder, monkeypatch):
    data = module(kind="folder", root=str(make_folder()))
    monkeypatch.setattr(data, "class_pixels", None)
    assert data.train_dataloader().dataset.transform.rare is None


def test_sixteen_bits_reach_the_batch(monkeypatch):
    class Deep(Scenes):
        def read(self, index):
            image, mask = super().read(index)
            return image.astype(np.uint16) * 257, mask

    monkeypatch.setattr("segkit.data.module.open_sources", lambda config, channels: {"train": Deep("train", 6, 48)})
    batches = list(module(steps=2, workers=2, bits=16).train_dataloader())
    assert batches[0]["image"].dtype == torch.uint16
    assert batches[0]["image"].numpy().max() > 255
    assert digests(batches) == digests(module(steps=2, bits=16).train_dataloader())
    digest = StreamDigest()
    digest.update(batches[0])
    assert digest.batches


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_cannot_be_loaded_is_one_line_from_any_process(make_folder, workers):
    root = make_folder(train=1, val=1)
    options = {"kind": "folder", "root": str(root), "workers": workers, "batch_size": 1, "crop": 16}
    (root / "images/train/train0.png").write_bytes(b"no picture")
    with pytest.raises(LoadingError) as error:
        next(iter(module(**options).train_dataloader()))
    assert str(error.value) == f"cannot read {root}/images/train/train0.png: not an image; replace or remove the file"
    Image.fromarray(np.full((40, 48), 1000, np.uint16)).save(root / "masks/val/val0.png")
    with pytest.raises(LoadingError, match=r"^\S+val0.png: 1000 \(1920 pixels\) stand for no class; [^\n]+$"):
        next(iter(module(**options).val_dataloader()))
