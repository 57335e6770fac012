"""What the masks of the splits are made of, and whether the splits are of one kind. Shape legend: `N` images, `K` classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segkit.config import Masks
from segkit.data.findings import Finding
from segkit.doctor.examine import SplitFacts

DIVISIONS = 999  # random divisions of the images that a split is compared with
CHANCE = 0.01  # share of them that may differ as much
LEAST = 0.05  # of the pixels: a smaller difference is not reported, however sure it is
Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Drift:
    """How far a split's classes are from those of train.

    Args:
        split: Which split.
        distance: Total variation: the share of labelled pixels that would have to change their class, 0 to 1.
        chance: Share of random divisions of the same images, of the same lengths, that differ at least as much.
        most: The class whose share changes most.
        shares: Its share of the labelled pixels in train and in the split.
    """

    split: str
    distance: float
    chance: float
    most: str
    shares: tuple[float, float]


def shares(pixels: np.ndarray) -> Numbers:
    """Each class's share of the labelled pixels, float64 [K], from the pixels of every image, int64 [N, K]."""
    total = pixels.sum(axis=0, dtype=np.float64)
    return np.asarray(total / max(total.sum(), 1))


def drift(train: np.ndarray, other: np.ndarray, split: str, names: Sequence[str], seed: int = 0) -> Drift:
    """Compare the classes of a split with those of train by a permutation test over images (Good 2005), since pixels are no sample.

    Frames of a video resemble their neighbours, so that chance is larger than it says: `LEAST` is for them.

    Args:
        train: Pixels of every class of every image, int64 [N, K].
        other: The same of the split.
        split: Its name.
        names: K names.
        seed: Decides the random divisions.
    """
    pooled, count = np.concatenate([train, other]).astype(np.float64), len(train)
    total, rng = pooled.sum(axis=0), np.random.default_rng(seed)

    def distance(first: Numbers) -> float:
        second = total - first
        return float(np.abs(first / max(first.sum(), 1) - second / max(second.sum(), 1)).sum() / 2)

    found = distance(pooled[:count].sum(axis=0))
    smaller = min(count, len(other))
    as_far = sum(distance(pooled[rng.choice(len(pooled), smaller, replace=False)].sum(axis=0)) >= found for _ in range(DIVISIONS))
    before, now = shares(train), shares(other)
    most = int(np.abs(now - before).argmax())
    return Drift(split, found, (1 + as_far) / (1 + DIVISIONS), names[most], (float(before[most]), float(now[most])))


def drifts(splits: Mapping[str, SplitFacts], names: Sequence[str]) -> list[Drift]:
    """The drift of every other split from train."""
    usable = {split: facts.pixels[facts.usable] for split, facts in splits.items()}
    usable = {split: pixels for split, pixels in usable.items() if pixels.sum()}
    if "train" not in usable:
        return []
    return [drift(usable["train"], pixels, split, names) for split, pixels in usable.items() if split != "train"]


def class_findings(splits: Mapping[str, SplitFacts], names: Sequence[str], found: Sequence[Drift], masks: Masks) -> list[Finding]:
    """Classes that are missing somewhere, masks that say nothing, and splits that are of another kind than train."""
    pixels = {split: facts.pixels[facts.usable].sum(axis=0) for split, facts in splits.items() if facts.usable.any()}
    if not pixels:
        return []
    total = np.sum(list(pixels.values()), axis=0)
    ignored = sum(int(facts.ignored.sum()) for facts in splits.values())
    mixed = any(((facts.pixels[:, 0] > 0) & (facts.ignored > 0)).any() for facts in splits.values())
    if masks == "ids" and len(names) > 1 and ignored and mixed and not total[1:].any():
        return [Finding("binary", "", f"{total[0]} pixels are 0 and {ignored} are 255; no other value occurs")]
    findings = [Finding("never", "", names[k]) for k in np.flatnonzero(total == 0).tolist()]
    train = pixels.get("train")
    for split, counts in pixels.items():
        if train is not None and split != "train":
            findings += [Finding("unlearnt", split, f"{split}: {names[k]}") for k in np.flatnonzero((counts > 0) & (train == 0)).tolist()]
            findings += [Finding("unscored", split, f"{split}: {names[k]}") for k in np.flatnonzero((counts == 0) & (train > 0)).tolist()]
    for one in found:
        if one.distance >= LEAST and one.chance <= CHANCE:
            change = f"{one.most} {one.shares[0]:.1%} of train, {one.shares[1]:.1%} of {one.split}"
            chance = f"of {DIVISIONS} random divisions {one.chance:.1%} differ as much"
            findings.append(Finding("drift", one.split, f"{one.split}: {one.distance:.1%} of the pixels, most of all {change}; {chance}"))
    return findings
