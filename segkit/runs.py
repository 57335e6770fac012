"""The run folder `runs/<name>/<run id>/`: made, found, and searched for checkpoints. Standard library only."""

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from segkit.errors import SegkitError


def new_run_folder(root: str | Path, name: str, run_id: str | None = None) -> Path:
    """Make `<root>/<name>/<run id>/` with `checkpoints/` and `panels/` in it.

    Args:
        root: Folder of all runs.
        name: Name of the experiment.
        run_id: Name of the folder, which may exist but hold no run yet. Default: the time in UTC to the second and six random
            characters, so that runs sort by time and two that start together differ.

    Raises:
        SegkitError: A name is not one plain folder name, the folder holds a run, or it cannot be made.
    """
    for what, word in (("name", name), ("run_id", run_id)):
        if word is not None and (word in ("", "..") or Path(word).name != word):
            raise SegkitError(f"{what} {word!r} is a path; it is the name of one folder, without / or ..")
    while True:
        folder = Path(root) / name / (run_id or f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}")
        if (folder / "config.yaml").exists():
            raise SegkitError(f"--run_id {run_id}: {str(folder)!r} holds a run; go on with it by --resume, or give another id")
        try:
            folder.mkdir(parents=True, exist_ok=run_id is not None)  # else fails where it exists: this is what makes the id ours alone
        except FileExistsError:
            continue
        except OSError as error:
            raise cannot_write(folder, error) from None
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "panels").mkdir(exist_ok=True)
        return folder


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that whoever is killed meanwhile leaves the old one or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def cannot_write(folder: Path, error: OSError) -> SegkitError:
    """The error for a folder of results that cannot be made."""
    return SegkitError(f"cannot make the folder {str(folder)!r} ({error.strerror}); choose a place that you may write to")


def newest_run(root: str | Path) -> Path:
    """The run below `root` that saved a checkpoint last.

    Raises:
        SegkitError: No run below `root` has a `checkpoints/last.ckpt`.
    """
    saved = sorted(Path(root).glob("*/*/checkpoints/last.ckpt"), key=lambda path: (path.stat().st_mtime_ns, path))
    if not saved:
        raise SegkitError(f"no run with a checkpoint in {str(root)!r}; train one first: python scripts/train.py")
    return saved[-1].parents[1]


def find_checkpoint(path: str | Path, which: Literal["last", "best"] = "last") -> Path:
    """The checkpoint file that `path` means: itself, or the last or best one of a run folder.

    Raises:
        SegkitError: `path` is a URL, does not exist, or holds no such checkpoint.
    """
    if "://" in str(path):
        raise SegkitError(f"checkpoint {str(path)!r} is a URL; download it and give the file")
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise SegkitError(f"{str(path)!r} does not exist; give a run folder (runs/NAME/ID) or a .ckpt file")
    found = path / "checkpoints" / f"{which}.ckpt"
    if not found.is_file():
        raise SegkitError(f"no checkpoints/{which}.ckpt in {str(path)!r}; give a run folder (runs/NAME/ID) or a .ckpt file")
    return found
