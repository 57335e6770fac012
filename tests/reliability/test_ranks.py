"""Several processes compute what one would: the objective of their whole batch, the same training, the same counts, the same stop."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm

from segkit.config import TrainerConfig
from segkit.errors import SegkitError
from segkit.losses import LOSSES, SMOOTHABLE, WEIGHTABLE, build_loss
from segkit.task import SegmentationTask
from segkit.trainer import build_trainer

ROOT = Path(__file__).parents[2]
K = 5


def run_script(folder, text, *words, timeout=300):
    """Runs a Python script in `folder`, on one thread a process."""
    (folder / "script.py").write_text(text)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "script.py", *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment, timeout=timeout, check=False)


GROUP = """
import os, sys, tempfile
import torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from segkit.losses import build_loss
from segkit.ranks import Ranks
from segkit.task import SegmentationTask

def work(rank, world, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    torch.set_num_threads(1)
    results = []
    for case in torch.load(f"{folder}/cases.pt"):
        loss = build_loss(case["loss"], num_classes=5, **case["options"])
        network = nn.Conv2d(3, 5, 1).double()
        network.load_state_dict(case["network"])
        image, target = case["parts"][rank]
        shared = DistributedDataParallel(network)
        logits = shared(image)
        logits.retain_grad()
        value = loss(logits, target, Ranks.all())
        value.backward()
        results.append((value.detach(), loss(logits, target).detach(), logits.grad / world, [p.grad for p in network.parameters()]))
    torch.save(results, f"{folder}/results-{rank}.pt")
    torch.manual_seed(rank)
    task = SegmentationTask(["a", "b"], [[0] * 3] * 2, [0.5] * 3, [0.5] * 3, decoder_channels=[8, 8])
    statistics = [buffer for buffer in task.model.buffers() if buffer.is_floating_point()]
    seen = []
    for buffer in statistics:
        buffer.copy_(torch.rand_like(buffer) * 10 ** torch.randint(-6, 7, buffer.shape))
    for _ in range(3):
        seen.append(torch.cat([buffer.flatten() for buffer in statistics]))
        task._share_statistics()
    torch.save(seen, f"{folder}/statistics-{rank}.pt")
    dist.destroy_process_group()

if __name__ == "__main__":
    torch.multiprocessing.start_processes(work, (int(sys.argv[1]), os.getcwd()), nprocs=int(sys.argv[1]), start_method="fork")
"""


def parts(layout, seed):
    """Images and labels of each process, as float64 `[B, 3, H, W]` and int64 `[B, H, W]`; `layout` has their size and ignored share."""
    rng = np.random.default_rng(seed)
    made = []
    for rank, (size, ignored) in enumerate(layout):
        target = rng.choice([0, 1, 3] if rank else [0, 4], size)  # classes that one process alone has
        target[rng.random(size) < ignored] = 255
        made.append((torch.from_numpy(rng.normal(0, 2, (size[0], 3, *size[1:]))), torch.from_numpy(target)))
    return made


def line(image, target):
    """All pixels side by side: no objective asks where a pixel is."""
    return image.transpose(0, 1).reshape(1, len(image[0]), 1, -1), target.reshape(1, 1, -1)


LAYOUTS = {  # of the first process, the second, a third
    "unequal ignored areas": [((2, 5, 7), 0.0), ((2, 5, 7), 0.8), ((2, 5, 7), 0.4)],
    "one process has nothing": [((2, 5, 7), 0.2), ((2, 5, 7), 1.0), ((2, 5, 7), 0.5)],
    "the first one has nothing": [((2, 5, 7), 1.0), ((2, 5, 7), 0.5), ((2, 5, 7), 0.9)],
    "nobody has anything": [((2, 3, 3), 1.0)] * 3,
    "unequal sizes": [((2, 5, 7), 0.1), ((3, 4, 4), 0.6), ((1, 6, 2), 0.9)],
}


def cases(world, seeds):
    """Every objective, with and without its options, on every layout."""
    every = [(name, {}) for name in LOSSES]
    every += [(name, {"class_weights": [0.5, 1.0, 0.25, 2.0, 4.0]}) for name in WEIGHTABLE]
    every += [(name, {"label_smoothing": 0.1, "class_weights": [0.5, 1.0, 0.25, 2.0, 4.0]}) for name in SMOOTHABLE]
    for seed in range(seeds):
        torch.manual_seed(seed)
        network = torch.nn.Conv2d(3, K, 1).double().state_dict()
        for label, layout in LAYOUTS.items():
            for name, options in every:
                yield {"label": label, "loss": name, "options": options, "network": network, "parts": parts(layout[:world], seed)}


@pytest.mark.parametrize(("world", "seeds"), [
    (3, 1),
    pytest.param(2, 20, marks=pytest.mark.slow),
    pytest.param(3, 20, marks=pytest.mark.slow),
])  # fmt: skip
def test_the_objective_of_several_processes_is_that_of_their_whole_batch(tmp_path, world, seeds):
    every = list(cases(world, seeds))
    torch.save(every, tmp_path / "cases.pt")
    done = run_script(tmp_path, GROUP, world)
    assert (done.returncode, done.stderr) == (0, "")
    results = list(zip(*(torch.load(tmp_path / f"results-{rank}.pt") for rank in range(world)), strict=True))
    means_of_means = 0
    for case, ranks in zip(every, results, strict=True):
        network = torch.nn.Conv2d(3, K, 1).double()
        network.load_state_dict(case["network"])
        image, target = (torch.cat(x, -1) for x in zip(*(line(*part) for part in case["parts"]), strict=True))
        logits = network(image)
        logits.retain_grad()
        value = build_loss(case["loss"], num_classes=K, **case["options"])(logits, target)
        value.backward()
        close = {"rtol": 1e-10, "atol": 1e-14, "msg": lambda text, case=case: f"{case['label']}, {case['loss']} {case['options']}: {text}"}
        for found, _, _, gradients in ranks:
            torch.testing.assert_close(found, value.detach(), **close)
            assert found == ranks[0][0]
            torch.testing.assert_close(gradients, [p.grad for p in network.parameters()], **close)
        own = torch.cat([line(gradient, target)[0] for (_, _, gradient, _), (_, target) in zip(ranks, case["parts"], strict=True)], -1)
        torch.testing.assert_close(own, logits.grad, **close)
        means_of_means += abs(sum(local for _, local, _, _ in ranks) / world - value.item()) < 1e-6
    print(f"{len(every)} of {len(every)} objectives of {world} processes equal that of the whole batch; {means_of_means} means of means do")
    statistics = [torch.load(tmp_path / f"statistics-{rank}.pt") for rank in range(world)]
    mean = torch.stack([seen[0].double() for seen in statistics]).mean(0).float()
    for _, once, twice in statistics:  # equal everywhere, and of equal values the mean is the value, to the bit
        torch.testing.assert_close(once, mean, rtol=1e-7, atol=0)
        assert torch.equal(once, statistics[0][1])
        assert torch.equal(twice, once)
    assert means_of_means <= sum(case["label"] == "nobody has anything" for case in every)


TOGETHER = """
import json, sys
from pathlib import Path
import torch
from torch import nn
import pytorch_lightning as pl
from segkit.checkpoint import load_checkpoint, save_checkpoint
from segkit.cli.eval import main as evaluate
from segkit.cli.train import main as train
from segkit.config import DataConfig, TrainerConfig
from segkit.data.module import SegmentationDataModule
from segkit.errors import SegkitError
from segkit.losses import LOSSES
from segkit.results import gather_per_image
from segkit.task import SegmentationTask
from segkit.trainer import build_trainer

devices, data = int(sys.argv[1]), {"kind": "folder", "root": "data", "crop": 32, "check": False}
torch.set_num_threads(1)


class Watch(pl.Callback):  # losses by step; batch norms as they are in evaluation
    def __init__(self, frozen):
        self.losses, self.frozen = [], frozen

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        for module in task.modules():
            if isinstance(module, nn.BatchNorm2d) and self.frozen:
                module.eval()

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        self.losses.append(trainer.callback_metrics["train/loss"].item())


def fit(loss, norm, accumulate=1, wide=True, optimizer="sgd", deep_supervision=0.0):
    module = SegmentationDataModule(DataConfig(**data, batch_size=8 // devices), seed=3)
    torch.manual_seed(0)
    task = SegmentationTask(
        module.classes.names, module.classes.colors, [0.5] * 3, [0.25] * 3, loss=loss, optimizer=optimizer,
        decoder_channels=[8, 8, 8] if deep_supervision else [8, 8], deep_supervision=deep_supervision,
        norm="group" if norm == "group" else "batch", lr=0.05 if optimizer == "sgd" else 1e-3, schedule="constant", warmup=0.0,
    )
    task = task.double() if wide else task
    trainer = build_trainer(TrainerConfig(accelerator="cpu", devices=devices, accumulate=accumulate, val_every=5), max_steps=5)
    watch = Watch(norm == "frozen")
    trainer.callbacks.append(watch)
    trainer.fit(task, module)
    return watch.losses, trainer.callback_metrics["train/grad_norm"].item(), task.state_dict(), trainer


results = {"trained": {}, "counted": {}, "scored": {}, "refused": []}
if devices == 1:  # the run that is evaluated
    train("--decoder_channels [8,8] --data.crop 32 --data.scenes_size 48 --data.scenes_train 4 --data.scenes_val 9 --data.batch_size 2 "
          "--trainer.accelerator cpu --trainer.devices 1 --trainer.max_steps 2 --wandb.mode disabled --run_id one".split())
    state = load_checkpoint(next(Path("runs").glob("*/one/checkpoints/last.ckpt")))
    for images in range(1, 10):
        state["config"]["data"]["scenes_val"] = images
        save_checkpoint(state, f"{images}.ckpt")
cases = [(loss, "group") for loss in LOSSES] + [("ce_dice", "frozen"), ("ce_dice", "group", 2), ("ce_dice", "frozen", 1, False, "adamw"),
         ("ce_dice", "group", 1, False, "adamw"), ("lovasz", "group", 2), ("ce_dice", "group", 1, True, "sgd", 0.4), ("ce", "batch")]
for case in cases:
    *found, trainer = fit(*case)
    results["trained"][case] = found
rank = trainer.global_rank
for images in range(1, 10):
    module = SegmentationDataModule(DataConfig(scenes_size=48, scenes_val=images))
    torch.manual_seed(0)
    task = SegmentationTask(module.classes.names, module.classes.colors, [0.5] * 3, [0.5] * 3, decoder_channels=[4, 4])
    trainer = build_trainer(TrainerConfig(accelerator="cpu", devices=devices))
    try:
        module.prepare(devices)
        trainer.validate(task, module, verbose=False)
        indices, matrices = gather_per_image(task)
        results["counted"][images] = indices.tolist(), matrices.tolist(), task.validation_scores.miou
        words = f"{images}.ckpt --out {devices}-{images} --split val --devices {devices} --accelerator cpu --images 0"
        evaluate(words.split())
    except SegkitError as error:
        results["refused"].append(str(error))
torch.save(results, f"results-{devices}-{rank}.pt")
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The same work of one process and of two: `(folder, results of one, results of the two)`."""
    folder = tmp_path_factory.mktemp("together")
    rng = np.random.default_rng(5)
    (folder / "data").mkdir()
    (folder / "data/classes.txt").write_text("".join(f"{k} class{k}\n" for k in range(3)))
    for split, count in (("train", 16), ("val", 2)):
        for kind in ("images", "masks"):
            (folder / "data" / kind / split).mkdir(parents=True)
        for i in range(count):
            mask = rng.integers(0, 3, (40, 40)).astype(np.uint8)
            mask[rng.random((40, 40)) < i / 12] = 255  # the last ones are ignored whole
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"data/images/{split}/{i:02d}.png")
            Image.fromarray(mask).save(folder / f"data/masks/{split}/{i:02d}.png")
    for devices in (1, 2):
        done = run_script(folder, TOGETHER, devices)
        assert (done.returncode, done.stderr) == (0, "")
    one, *two = (torch.load(folder / f"results-{name}.pt", weights_only=False) for name in ("1-0", "2-0", "2-1"))
    return folder, one, two


def test_two_batches_of_four_train_as_one_of_eight(together):
    """For the default of each process its own statistics, batch norm is another network; what it takes to be the same is tested below."""
    _, one, two = together
    for case, (losses, norm, weights) in one["trained"].items():
        if case[1] == "batch":
            continue
        close = {"rtol": 1e-12, "atol": 1e-14} if len(case) < 4 or case[3] else {"rtol": 1e-4, "atol": 1e-5}  # float64, float32
        for losses_of_rank, norm_of_rank, weights_of_rank in (results["trained"][case] for results in two):
            assert losses_of_rank == pytest.approx(losses, rel=close["rtol"])
            assert norm_of_rank == pytest.approx(norm, rel=close["rtol"])
            for name, weight in weights.items():
                torch.testing.assert_close(
                    weights_of_rank[name], weight, **close, msg=lambda text, case=case, name=name: f"{case} {name}: {text}"
                )
        assert len(set(losses)) == len(losses) == 5 * (case[2] if len(case) > 2 else 1)
    ours, theirs = (results["trained"]["ce", "batch"][2] for results in (one, two[0]))
    assert not all(torch.allclose(weight, theirs[name], rtol=1e-3) for name, weight in ours.items())


def test_one_process_and_two_count_every_image_once(together):
    folder, one, two = together
    assert list(one["counted"]) == list(range(1, 10))
    assert not one["refused"]
    for results in two:
        assert set(results["refused"]) == {"1 val images for 2 devices; every device needs one: add images or use 1 devices"}
        assert results["counted"] == {images: found for images, found in one["counted"].items() if images > 1}
    assert not (folder / "2-1").exists()
    for images in range(2, 10):
        alone, shared = (np.load(folder / f"{devices}-{images}/per_image.npz") for devices in (1, 2))
        assert set(alone) == set(shared)
        assert all(np.array_equal(alone[key], shared[key]) for key in alone)
        assert alone["matrix"].sum() == images * 48 * 48


SYNCHRONISED = """
import os, sys
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm
from segkit.ranks import Ranks
from segkit.task import SegmentationTask

def work(rank, world, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{world}", rank=rank, world_size=world)
    torch.manual_seed(0)
    task = SegmentationTask(["a", "b", "c"], [[0] * 3] * 3, [0.5] * 3, [0.25] * 3, decoder_channels=[8, 8], channels_last=False)
    task = TorchSyncBatchNorm().apply(task).cuda().double()
    network = DistributedDataParallel(task.model, broadcast_buffers=False)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    losses = []
    for image, mask, bounds in torch.load(f"{folder}/batches.pt"):
        own = slice(*bounds[rank : rank + 2]) if world > 1 else slice(None)
        optimizer.zero_grad()
        loss = task.loss(network(task.normalize(image[own].cuda())), mask[own].cuda(), Ranks.all())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    torch.save((losses, {name: value.cpu() for name, value in task.state_dict().items()}), f"{folder}/{world}-{rank}.pt")
    dist.destroy_process_group()

if __name__ == "__main__":
    torch.multiprocessing.spawn(work, (int(sys.argv[1]), os.getcwd()), nprocs=int(sys.argv[1]))
"""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: torch synchronises batch norms on GPUs only")
def test_synchronised_batch_norms_train_two_parts_of_a_batch_as_one(tmp_path):
    """Mean and variance over the pixels of all processes, weighted by their number, are those of the whole batch; parts may differ in size.

    Two processes share one GPU, so that one is enough for the proof.
    """
    rng = np.random.default_rng(0)
    batches = []
    for border in (4, 4, 1, 6, 4):
        mask = rng.integers(0, 3, (8, 24, 24))
        mask[rng.random((8, 24, 24)) < np.linspace(0, 0.9, 8)[:, None, None]] = 255
        batches.append((torch.from_numpy(rng.integers(0, 256, (8, 3, 24, 24), np.uint8)), torch.from_numpy(mask), [0, border, 8]))
    torch.save(batches, tmp_path / "batches.pt")
    for world in (1, 2):
        done = run_script(tmp_path, SYNCHRONISED, world)
        assert done.returncode == 0, done.stderr
    (losses, weights), *two = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    for losses_of_rank, weights_of_rank in two:
        assert losses_of_rank == pytest.approx(losses, rel=1e-10)
        for name, value in weights.items():
            torch.testing.assert_close(weights_of_rank[name], value, rtol=1e-8, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


def test_synchronised_batch_norms_are_one_option_for_gpus_and_leave_the_checkpoint_as_it_is():
    with pytest.raises(SegkitError, match=r"--trainer\.extra\.sync_batchnorm .* on GPUs only; .*--norm group"):
        build_trainer(TrainerConfig(accelerator="cpu", devices=2, extra={"sync_batchnorm": True}))
    build_trainer(TrainerConfig(accelerator="cpu", devices=1, extra={"sync_batchnorm": True}))  # where it has nothing to do
    plain, other = (SegmentationTask(["a", "b"], [[0] * 3] * 2, [0.5] * 3, [0.5] * 3, decoder_channels=[8, 8]) for _ in range(2))
    synchronised = TorchSyncBatchNorm().apply(other)
    norms = [module for module in plain.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert sum(isinstance(module, torch.nn.SyncBatchNorm) for module in synchronised.modules()) == len(norms) > 5
    plain.load_state_dict(synchronised.state_dict())
    image = torch.randint(0, 256, (1, 3, 20, 20), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(plain.eval()(image), synchronised.eval()(image))
