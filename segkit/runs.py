"""The run folder `runs/<name>/<run id>/`: made, found, and searched for checkpoints. Standard library only."""

import contextlib
import os
import secrets
import sys
import tempfile
import time
import weakref
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from segkit.errors import SegkitError, is_name


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
        if word is not None and (word in ("", "..") or Path(word).name != word or not is_name(word)):
            raise SegkitError(f"{what} {word!r} is no name of one folder; give one without /, .. or control characters")
    while True:
        folder = Path(root) / name / (run_id or f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}")
        try:
            if holds_run(folder):
                raise SegkitError(f"--run_id {run_id}: {str(folder)!r} holds a run; go on with it by --resume, or give another id")
            folder.mkdir(parents=True, exist_ok=run_id is not None)  # else fails where it exists: this is what makes the id ours alone
        except FileExistsError as error:
            if run_id is not None:
                raise cannot_write(folder, error) from None
            continue
        except OSError as error:
            raise cannot_write(folder, error) from None
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "panels").mkdir(exist_ok=True)
        return folder


LEASE_SECONDS = 120  # after which a file server forgets the lock of a machine that is gone; SLURM starts the job again before that


class RunLock:
    """Keeps other processes from training in a run folder as long as this object lives, and its process.

    Two would write one `last.ckpt` and one `metrics.csv`. The lock is one of POSIX, which a loader process that outlives a killed run does
    not inherit; a file system without locks is trusted.

    Args:
        folder: The run folder.

    Raises:
        SegkitError: Another process has it.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        path = folder / ".train.lock"
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:  # of another user, whose folder this one may write to
            return
        weakref.finalize(self, os.close, file)
        patience = time.monotonic() + (LEASE_SECONDS if "SLURM_RESTART_COUNT" in os.environ else 0)
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= patience:
                    rule = f"{str(folder)!r} is being trained by another process"
                    raise SegkitError(f"{rule}; wait for its end or stop it (where there is none: delete {path})") from None
                time.sleep(1)
            except OSError:
                return


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that whoever is killed meanwhile leaves the old one or the new one.

    Raises:
        OSError: It cannot be written; the error names it, and nothing of it is left behind.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def make_folder(folder: Path) -> None:
    """Makes a folder for results, or sees that the one that is there can be written to; asked before the work, not after it.

    Raises:
        SegkitError: It cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise cannot_write(folder, error) from None


def cannot_write(folder: Path, error: OSError) -> SegkitError:
    """The error for a folder of results that cannot be made."""
    return SegkitError(f"cannot write to the folder {str(folder)!r} ({error.strerror}); choose a place that you may write to")


def newest_run(root: str | Path) -> Path:
    """The run below `root` that saved a checkpoint last.

    Raises:
        SegkitError: No run below `root` has saved one.
    """
    saved = [path for name in ("last", "previous") for path in Path(root).glob(f"*/*/checkpoints/{name}.ckpt")]
    saved.sort(key=lambda path: (path.stat().st_mtime_ns, path))
    if not saved:
        raise SegkitError(f"no run with a checkpoint in {str(root)!r}; train one first: python scripts/train.py")
    return saved[-1].parents[1]


def checkpoints(folder: Path) -> tuple[Path, ...]:
    """The checkpoints that a run folder may hold and that a run can go on from, the newest first."""
    return tuple(folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous", "best"))


def holds_run(folder: Path) -> bool:
    """Whether a run has begun there."""
    return any(path.exists() for path in (folder / "config.yaml", *checkpoints(folder)))


def previous(checkpoint: Path) -> Path:
    """What `last.ckpt` was before it was saved anew."""
    return checkpoint.with_name("previous.ckpt")


def damage(path: str | Path) -> str | None:
    """What is wrong with a checkpoint file, or None. It is a zip archive, whose records carry checksums that torch does not look at.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if (there := Path(path)).exists() and not there.is_file():  # the one has no end, the other never begins
        return "a folder, pipe or device, no file"
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            size, claimed = Path(path).stat().st_size, sum(record.file_size for record in records)
            if claimed > size or any(record.compress_type != zipfile.ZIP_STORED for record in records):
                return f"its records are packed, {size} bytes for {claimed}; torch.save packs none"  # or lie on one another: a trap
            broken = archive.testzip()
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive fails in many ways
        return str(error) or type(error).__name__
    return f"the checksum of its record {broken!r} is wrong" if broken else None


def find_checkpoint(path: str | Path, which: Literal["last", "best"] = "last", resuming: bool = False) -> Path:
    """The checkpoint file that `path` means: itself, or the last or best one of a run folder.

    Where the last one is damaged or missing, it is the one before, and a line on stderr says so; a run that goes on takes the best one
    where that is all there is.

    Raises:
        SegkitError: `path` is a URL, does not exist, or holds no such checkpoint that is sound.
    """
    if "://" in str(path):
        raise SegkitError(f"checkpoint {str(path)!r} is a URL; download it and give the file")
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise SegkitError(f"{str(path)!r} does not exist; give a run folder (runs/NAME/ID) or a .ckpt file")
    wanted = path / "checkpoints" / f"{which}.ckpt"
    faults: list[str] = []
    candidates = (wanted,) if which == "best" else checkpoints(path) if resuming else checkpoints(path)[:2]
    for found in candidates:
        try:
            fault = damage(found)
        except FileNotFoundError:
            faults += [f"checkpoint {str(found)!r} is missing"] if found == wanted and any(c.exists() for c in candidates) else []
            continue
        if fault is None:
            if faults and os.environ.get("LOCAL_RANK", "0") == "0":
                which_one = "an earlier one" if found.stem == "best" else "the one before"
                sys.stderr.write(f"{faults[0]}; going on with {found.name}, {which_one}\n")
            return found
        faults.append(f"checkpoint {str(found)!r} is damaged ({fault})")
    if faults:
        raise SegkitError(f"{faults[0]}, and there is no sound one before it; take it from a copy, or train again")
    raise SegkitError(f"no checkpoints/{which}.ckpt in {str(path)!r}; give a run folder (runs/NAME/ID) or a .ckpt file")


def resumable(folder: Path) -> Path | None:
    """The checkpoint from which the run of a folder goes on: the last sound one, or None where none was saved yet.

    A damaged `last.ckpt` gets another name, or the next save would keep it as the one before.

    Raises:
        SegkitError: Checkpoints were saved, and none is sound.
    """
    last = folder / "checkpoints" / "last.ckpt"
    if not any(path.exists() for path in checkpoints(folder)):
        return None
    found = find_checkpoint(folder, resuming=True)
    if found != last:
        with contextlib.suppress(FileNotFoundError):  # missing, or another process was quicker
            os.replace(last, last.with_name("damaged.ckpt"))
    return found
