"""What the runs of an ablation have left in files, which strangers may have written: held to the kinds that a report counts on."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segkit.errors import SegkitError


class Each(NamedTuple):
    """An object whose names all match `names` and whose values are all of `kind`."""

    kind: Any
    names: str = ".*"


class _Misfit(ValueError):
    """A file that can be read and is not what segkit writes."""


NUMBER = int | float | None
NUMBERS = Each(NUMBER)
BY_RADIUS = Each(NUMBER, r"\d{1,6}")  # pixels, or periods
DONE = {"seconds": NUMBER}
FAILED = {"log": list}
PROVENANCE = {
    **dict.fromkeys(("initial", "order", "batches", "schedule", "code", "device", "precision"), str | None),
    **dict.fromkeys(("seed", "processes", "threads", "step"), int),
    "software": Each(str),
    "deterministic": bool,
    "ci_op": NUMBERS,
    "earlier": list,
}
SCORES = {
    **dict.fromkeys(("miou", "accuracy", "mean_dice"), NUMBER),
    "images": int,
    "code": str | None,
    "iou": NUMBERS,
    "boundary": {"miou": NUMBER, "iou": NUMBERS, "bf": NUMBER, "trimap": BY_RADIUS},
    "artefacts": {"ci_op": NUMBERS, "ci_net": BY_RADIUS, "null": BY_RADIUS},
}
COST = {
    **dict.fromkeys(("parameters", "operator_parameters", "macs", "operator_macs", "latency_ms", "step_ms", "memory_mib"), NUMBER),
    **{name: [NUMBER] for name in ("latency_iqr_ms", "image", "batch")},
    **dict.fromkeys(("device", "precision"), str | None),
    "threads": int,
}
COSTS = Each(COST)
# columns of `per_image.npz` and `artefacts.npz`: kinds of numpy's types, and lengths: N images, K classes, F frequencies
COLUMNS = {
    "index": ("iu", "N"),
    "name": ("U", "N"),
    "classes": ("U", "K"),
    "matrix": ("iu", "NKK"),
    "boundary_intersection": ("iu", "NK"),
    "boundary_union": ("iu", "NK"),
    "frequency": ("f", "F"),
    "spectrum": ("f", "F"),
}
LENGTHS = {"N": "index", "K": "classes", "F": "frequency"}
AGAIN = "delete the run's folder to do it again"


def read_record(path: Path, kind: Any, remedy: str = AGAIN) -> dict[str, Any]:
    """The object in a file; empty where there is none.

    Args:
        path: A JSON file.
        kind: A type, an `Each`, `[kind]` for a list, or kinds by name; other names may hold anything.
        remedy: What the user can do about a file that is broken.

    Raises:
        SegkitError: It cannot be read, or something in it is of another kind.
    """
    try:
        _no_pipe(path)
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or not fits(values, kind):
            raise _Misfit("not what segkit writes")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise broken(path, error, remedy) from error
    return values


def _no_pipe(path: Path) -> None:
    if path.exists() and not path.is_file():  # reading it might never end
        raise _Misfit("a pipe or folder")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind, as `read_record` takes it."""
    if isinstance(kind, Each):
        return isinstance(value, dict) and all(re.fullmatch(kind.names, k, re.DOTALL) and fits(v, kind.kind) for k, v in value.items())
    if isinstance(kind, list):
        return isinstance(value, list) and all(fits(v, kind[0]) for v in value)
    if isinstance(kind, Mapping):
        return isinstance(value, dict) and all(fits(value[name], of) for name, of in kind.items() if name in value)
    return isinstance(value, kind) and not (isinstance(value, float) and not math.isfinite(value))  # segkit writes null for those


def read_columns(path: Path, *names: str, remedy: str = AGAIN) -> dict[str, np.ndarray]:
    """Those of the named `COLUMNS` that an archive has; none where there is no archive.

    Raises:
        SegkitError: The archive is damaged, holds objects, or its columns do not fit together.
    """
    try:
        _no_pipe(path)
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in names if name in file}
            letters = {letter for name in columns for letter in COLUMNS[name][1]}
            sizes = {letter: len(file[LENGTHS[letter]]) for letter in letters}
        for name, column in columns.items():
            kinds, shape = COLUMNS[name]
            if column.dtype.kind not in kinds or column.shape != tuple(sizes[letter] for letter in shape):
                raise _Misfit(f"{name} is {column.dtype} {list(column.shape)}")
            if "i" in kinds and column.size and column.min() < 0:
                raise _Misfit(f"{name} has counts below 0")
    except FileNotFoundError:
        return {}
    except Exception as error:  # numpy reports a broken archive in a dozen ways
        raise broken(path, error, remedy) from error
    return columns


def broken(path: Path, error: Exception, remedy: str = AGAIN) -> SegkitError:
    """The error for a file of a run that is not what segkit writes."""
    reason = error if isinstance(error, _Misfit) else type(error).__name__  # numpy's own words advise to run the code in the file
    return SegkitError(f"{str(path)!r} cannot be read ({reason}); {remedy}")
