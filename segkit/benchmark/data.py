"""Reading and augmenting image files, beside a data set as it is usually written: Pillow, albumentations, float tensors.

Shapes: H W rows/columns.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from segkit.benchmark.bench import Bench
from segkit.benchmark.photographs import write_photographs
from segkit.benchmark.report import Results, Row
from segkit.config import IGNORE_INDEX, DataConfig
from segkit.data.cache import cached
from segkit.data.dataset import TrainDataset
from segkit.data.folder import open_folder
from segkit.data.module import begin_worker
from segkit.data.sampler import StepBatchSampler
from segkit.data.source import Source
from segkit.data.transforms import TrainTransform

COUNT, BATCH = 64, 8
PEER = "PIL + albumentations"


def measure(bench: Bench) -> Results:
    """Times whole passes over a folder, one after another and with loader processes where they are asked for."""
    if bench.config.root is not None:
        return _measure(bench, Path(bench.config.root))
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), bench.config.images or COUNT, bench.config.seed)
        return _measure(bench, Path(folder))


def _measure(bench: Bench, root: Path) -> Results:
    config = DataConfig(kind="folder", root=str(root), cache="ram")
    source = open_folder(root, config)["train"]
    count = min(len(source), bench.config.images or max(len(source), 1)) // BATCH * BATCH or len(source)
    kept = cached("train", source, config, 3)
    paths = [source.paths(index) or ("", "") for index in range(count)]
    plain = Plain(paths, config)
    calls: dict[str, Callable[[], object]] = {
        "segkit": _passes(_loader(source, config, count, 0)),
        "segkit, --data.cache ram": _passes(_loader(kept, config, count, 0)),
        PEER: _passes(DataLoader(plain, BATCH)),
        "decode cv2": lambda: [decode_cv2(*pair) for pair in paths],
        "decode PIL": lambda: [decode_pil(*pair) for pair in paths],
    }
    workers = bench.config.workers
    if workers:
        calls[f"segkit, {workers} workers"] = _passes(_loader(source, config, count, workers))
        calls[f"{PEER}, {workers} workers"] = _passes(DataLoader(plain, BATCH, num_workers=workers, persistent_workers=True))
    rates = {name: [count / value for value in values] for name, values in bench.time(calls, warm=1, wall=True).items()}
    limit = [max(pair) for pair in zip(rates["decode cv2"], rates["decode PIL"], strict=True)]

    def row(name: str, ours: str, theirs: Sequence[float], peer: str, goal: float | None) -> Row:
        return Row(name, rates[ours], "images/s", theirs, peer, goal=goal, better="higher")

    rows = [
        row("folder of files", "segkit", rates[PEER], PEER, 1.8),
        row("share of the decode limit", "segkit", limit, "decoding alone, the faster of cv2 and PIL", 0.6),
        row("--data.cache ram", "segkit, --data.cache ram", rates[PEER], PEER, 5.0),
    ]
    if workers:
        rows.append(row(f"{workers} workers", f"segkit, {workers} workers", rates[f"{PEER}, {workers} workers"], PEER, None))
    sizes = [sum(os.path.getsize(pair[kind]) for pair in paths) / count / 1000 for kind in (0, 1)]
    height, width = source.size(0)
    about = f"{count} images of {width} x {height}, {sizes[0]:.0f} kB each, masks of {sizes[1]:.1f} kB"
    notes = [f"{about}; crops of {config.crop}, batches of {BATCH}"]
    return Results("data", "images read, augmented and gathered into batches, per second", rows, notes)


def _loader(source: Source, config: DataConfig, count: int, workers: int) -> DataLoader[Any]:
    """One pass as training makes it: the sampler's order, the augmentation's own random numbers."""
    sampler = StepBatchSampler(len(source), min(BATCH, count), max(count // BATCH, 1), 0)
    sharing = torch.multiprocessing.get_sharing_strategy()  # type: ignore[no-untyped-call]
    return DataLoader(
        TrainDataset(source, TrainTransform(config), 0),
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_Begin(sharing),
    )


class _Begin:
    """Starts a loader process as training does."""

    def __init__(self, sharing: str) -> None:
        self.sharing = sharing

    def __call__(self, worker: int) -> None:
        begin_worker(worker, self.sharing)


def _passes(loader: DataLoader[Any]) -> Callable[[], None]:
    def once() -> None:
        for _ in loader:
            pass

    return once


class Plain(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The usual data set: Pillow decodes, albumentations augments as segkit's defaults do, tensors are float32 and int64.

    Args:
        paths: Image and mask of every pair.
        config: What to augment by.
    """

    def __init__(self, paths: Sequence[tuple[str, str]], config: DataConfig) -> None:
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
        import albumentations as A
        from albumentations.pytorch import ToTensorV2

        c = config
        jitter = {name: getattr(c, name) for name in ("brightness", "contrast", "saturation", "hue")}
        self.paths = list(paths)
        self.transform = A.Compose(
            [
                A.RandomScale((c.scale[0] - 1, c.scale[1] - 1), p=1.0),
                A.PadIfNeeded(c.crop, c.crop, fill=0, fill_mask=IGNORE_INDEX),
                A.RandomCrop(c.crop, c.crop),
                A.HorizontalFlip(p=c.hflip),
                A.ColorJitter(**jitter, p=c.jitter),
                A.Normalize(),
                ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = decode_pil(*self.paths[index])
        made = self.transform(image=image, mask=mask)
        return made["image"], made["mask"].long()


def decode_pil(image: str, mask: str) -> tuple[np.ndarray, np.ndarray]:
    """Image `[H, W, 3]` and mask `[H, W]` by Pillow."""
    with Image.open(image) as picture, Image.open(mask) as labels:
        return np.array(picture.convert("RGB")), np.array(labels)


def decode_cv2(image: str, mask: str) -> tuple[Any, Any]:
    """The same by OpenCV, in its order of colours."""
    return cv2.imread(image, cv2.IMREAD_COLOR), cv2.imread(mask, cv2.IMREAD_UNCHANGED)
