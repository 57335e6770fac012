"""Axes of an ablation: options with several values, on the command line or in a file."""

import itertools
import json
from collections.abc import Sequence
from typing import Any, get_args, get_origin

from segkit.cli.parsing import Parser, options
from segkit.config import TrainConfig
from segkit.errors import SegkitError

# arms are compared on the same images, seed by seed; where a run lies and who watches it is no difference
NO_AXIS = {"name", "runs", "run_id", "seed", "in_channels", "data.workers", "data.check"}
NO_AXIS |= {f"data.{name}" for name in ("kind", "root", "manifest", "download", "masks", "mapping", "bits", "cache", "cache_folder")}
NO_AXIS |= {f"data.{name}" for name in ("val_fraction", "test_fraction", "group")}


def split_axes(args: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Takes the axes out of a command line: every training option with several words after it.

    The value of an option that is a list by nature, such as `--decoder_channels`, is written in brackets where it is one of several.
    """
    kinds = dict(options(TrainConfig))
    rest: list[str] = []
    axes: dict[str, list[str]] = {}
    words = list(args)
    while words:
        word = words.pop(0)
        following = list(itertools.takewhile(lambda w: not w.startswith("--"), words))
        name = word.removeprefix("--")
        several = len(following) > 1 and (not _list_by_nature(kinds.get(name)) or following[0].startswith("["))
        if word.startswith("--") and name in kinds and several:
            axes[name] = following
            words = words[len(following) :]
        else:
            rest.append(word)
    return rest, axes


def _list_by_nature(kind: Any) -> bool:
    """Whether an option's value, where it has one, is always a list."""
    parts = [part for part in get_args(kind) if part is not type(None)] if get_origin(kind) not in (list, tuple) else [kind]
    return bool(parts) and all(get_origin(part) in (list, tuple) for part in parts)


def parse_values(name: str, values: Any) -> list[Any]:
    """The values of an axis as the train command understands them.

    Raises:
        SegkitError: The option is none, or none that arms can differ in.
    """
    if name in NO_AXIS or name.startswith("wandb."):
        raise SegkitError(f"--{name} cannot be an axis: arms are compared on the same data and the same seeds; give it one value")
    if not isinstance(values, list):
        raise SegkitError(f"axis {name}: {values!r}; give a list of values")
    parser = Parser(TrainConfig, "", file=False)
    parsed = []
    for value in values:
        read: Any = parser.read([f"--{name}={value if isinstance(value, str) else json.dumps(value)}"])
        for part in name.split("."):
            read = read[part]
        parsed.append(read)
    return parsed
