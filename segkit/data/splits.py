"""Splits for data that names none: by the hash of a name, so that they are the same on every machine and hold as the data grows."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from segkit.config import DataConfig
from segkit.errors import SegkitError

_SLACK = 0.5  # of the share that was asked for


def split_by_group(groups: Sequence[str], val_fraction: float, test_fraction: float) -> list[str]:
    """The split of every image.

    A group's sha256 places it in [0, 1): below `test_fraction` it is test, then for a length of `val_fraction` val, else train. So its
    split depends on its own name alone, and no image moves from train to val because others were added: a network is not scored on what
    it was trained on. Shares come out near the fractions where there are many groups. Where there are few, luck could leave a split empty
    or let it take nearly everything: a border whose split would get less than half or more than one and a half times the images asked for
    moves, in the order of the hashes, until it does not, and a group that is larger than that stays in train. With every image its own
    group and a fraction of 0.2 that touches one set in 120 of 100 images, and one in 3000 of 200.

    Args:
        groups: The group of every image; all of its images come into one split.
        val_fraction: Share of the images for val; 0: no such split.
        test_fraction: Share of the images for test; 0: no such split.

    Raises:
        SegkitError: There are fewer groups than splits.
    """
    if not groups:
        return []
    sizes = Counter(groups)
    wanted = {"test": test_fraction, "val": val_fraction}
    parts = 1 + sum(share > 0 for share in wanted.values())
    if len(sizes) < parts:
        names = ", ".join(repr(group) for group in sizes)
        raise SegkitError(
            f"{parts} splits of {len(groups)} images in {len(sizes)} group{'s' * (len(sizes) > 1)} ({names}): every split needs a group; "
            "add images, choose a finer --data.group, or set --data.val_fraction or --data.test_fraction to 0"
        )
    left = sorted(sizes, key=lambda group: (_place(group), group))
    split_of: dict[str, str] = {}
    border = 0.0
    for split, share in wanted.items():
        border += share
        if share > 0:
            parts -= 1  # the splits still to come, each of which needs a group
            taken = _held_out(left, sizes, border, share * len(groups))[: len(left) - parts]
            split_of |= dict.fromkeys(taken, split)
            left = [group for group in left if group not in split_of]
    return [split_of.get(group, "train") for group in groups]


def _place(group: str) -> float:
    return int.from_bytes(hashlib.sha256(group.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64


def _held_out(left: Sequence[str], sizes: Counter[str], border: float, images: float) -> list[str]:
    """Those of the groups, at least one, that a split gets which reaches up to `border` and should have about so many images."""
    fitting = [group for group in left if sizes[group] <= (1 + _SLACK) * images] or [min(left, key=lambda group: sizes[group])]
    count = sum(_place(group) < border for group in fitting)
    total = sum(sizes[group] for group in fitting[:count])
    while total > (1 + _SLACK) * images and count > 1:
        count -= 1
        total -= sizes[fitting[count]]
    while total < (1 - _SLACK) * images and count < len(fitting):
        total += sizes[fitting[count]]
        count += 1
    return fitting[:count]


def groups_of_names(names: Sequence[str], expression: str | None) -> list[str]:
    """What a regular expression matches at the start of every name; without one, the names.

    Raises:
        SegkitError: It is no regular expression, or matches nothing at the start of some name. To make it optional is to say so: with
            `|.*` at its end a name that nothing else matches is a group of its own.
    """
    if expression is None:
        return list(names)
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise SegkitError(f"--data.group {expression}: no regular expression ({error}); such as [^_]* for what comes before a _") from None
    found = [match[0] if (match := pattern.match(name)) else "" for name in names]
    if lost := [name for name, group in zip(names, found, strict=True) if not group]:
        raise SegkitError(
            f"--data.group {expression}: matches nothing at the start of {lost[0]!r} ({len(lost)} of {len(names)} names); "
            f"widen it, or write '{expression}|.*' to make such an image a group of its own"
        )
    return found


def refuse_split_options(config: DataConfig, where: str) -> None:
    """The options that make splits do nothing where there are splits.

    Raises:
        SegkitError: One of them is given.
    """
    default = DataConfig()
    for name in ("group", "val_fraction", "test_fraction"):
        if (value := getattr(config, name)) != getattr(default, name):
            raise SegkitError(f"--data.{name} {value}: {where}, and the option makes splits where there are none; leave it out")
