"""Images that a data set has twice, or nearly: inside a split they weigh double, between splits the scores lie."""

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from segkit.data.findings import Finding
from segkit.data.source import Source
from segkit.doctor.examine import SplitFacts
from segkit.doctor.hashing import near_pairs

NAMED = 6  # images of a group that are named

Place = tuple[str, int]


def duplicates(splits: Mapping[str, SplitFacts], sources: Mapping[str, Source], near: int) -> list[Finding]:
    """Exact and near duplicates inside and between splits, contradicting masks, and masks that several images share.

    Args:
        splits: The facts.
        sources: The same splits, for names.
        near: Largest number of differing bits of the perceptual hash; 0 leaves near duplicates out.
    """
    seen = {split: facts.usable & ~facts.flat for split, facts in splits.items()}
    places = [(split, int(index)) for split, which in seen.items() for index in np.flatnonzero(which)]
    if len(places) < 2:
        return []
    images, looks, masks, pixels = (
        np.concatenate([getattr(facts, name)[seen[split]] for split, facts in splits.items()])
        for name in ("image", "look", "mask", "pixels")
    )
    # 32 bits of checksum alone would meet by chance; with 64 of likeness, or with the pixels of every class, they do not
    same = _numbered(np.stack([images.astype(np.uint64), looks], axis=1))
    labels = _numbered(np.concatenate([masks[:, None].astype(np.int64), pixels], axis=1))
    labels[(pixels > 0).sum(axis=1) < 2] = -1 - np.arange(len(labels))[(pixels > 0).sum(axis=1) < 2]  # no wonder that they are alike
    findings: list[Finding] = []
    for group in _groups(same):
        found = [places[i] for i in group]
        for kind, members in _split_up(found):
            findings.append(_finding(kind, members, sources))
        if len({int(masks[i]) for i in group}) > 1:
            findings.append(_finding("contradiction", found, sources))
    for group in _groups(labels):
        if len({int(same[i]) for i in group}) > 1:
            findings.append(_finding("shared_mask", [places[i] for i in group], sources))
    return findings + (_near(places, looks, same, sources, near) if near else [])


def _near(places: list[Place], looks: np.ndarray, same: np.ndarray, sources: Mapping[str, Source], most: int) -> list[Finding]:
    pairs, bits = near_pairs(looks, most)
    different = same[pairs[:, 0]] != same[pairs[:, 1]]
    pairs, bits = pairs[different], bits[different]
    order = list(sources)
    number = np.array([order.index(split) for split, _ in places])
    crossing = number[pairs[:, 0]] != number[pairs[:, 1]]
    findings: list[Finding] = []
    seen: set[int] = set()
    for place in np.lexsort((*pairs[crossing].T, bits[crossing])):  # the most alike first
        first, second = sorted(pairs[crossing][place].tolist(), key=lambda i: number[i])
        if second not in seen:  # each image of the later split once, beside what it is most like
            seen.add(second)
            findings.append(_finding("near_leak", [places[first], places[second]], sources, f"{bits[crossing][place]} of 64 bits differ"))
    inside = pairs[~crossing]
    edges = coo_array((np.ones(len(inside), np.bool_), (inside[:, 0], inside[:, 1])), shape=(len(places), len(places)))
    for group in _groups(connected_components(edges, directed=False)[1]):
        findings.append(_finding("near_duplicate", [places[i] for i in group], sources))
    return findings


def _numbered(rows: np.ndarray) -> np.ndarray:
    """A number for every row that equal rows share."""
    return np.unique(rows, axis=0, return_inverse=True)[1].ravel()


def _groups(labels: np.ndarray) -> Iterator[list[int]]:
    """The places of every label that occurs more than once."""
    order = np.argsort(labels, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(group) > 1:
            yield group.tolist()


def _split_up(group: list[Place]) -> Iterator[tuple[str, list[Place]]]:
    """One finding for each pair of splits that share an image, and one for each split that has it twice."""
    members = {split: [place for place in group if place[0] == split] for split, _ in group}
    for first, second in combinations(members, 2):
        yield "leak", [members[first][0], members[second][0]]
    for inside in members.values():
        if len(inside) > 1:
            yield "duplicate", inside


def _finding(kind: str, places: list[Place], sources: Mapping[str, Source], more: str = "") -> Finding:
    names = [f"{split}/{sources[split].name(index)}" for split, index in places]
    what = f"{len(names)} images: " * (len(names) > 2) + ", ".join(names[:NAMED]) + ", ..." * (len(names) > NAMED)
    split = places[-1][0]
    return Finding(kind, split, f"{what}; {more}" if more else what, tuple(places))
