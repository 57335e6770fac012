"""Several processes, on one machine or many, share the images of one folder: each claims an image by a file before it predicts it.

A claim is made by `O_CREAT | O_EXCL`, which one process alone can win, on network file systems too. It names its owner, who touches it
every half minute. A claim is stale, and may be taken over, when its owner has died (the same machine, where that can be seen) or has not
touched it for ten minutes (another machine). Standard library only.
"""

import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BEAT = 30.0  # seconds between two signs of life
SILENCE = 600.0  # seconds without one after which another machine's process counts as dead


class Claims:
    """The claims of this process in one folder.

    Args:
        folder: Where claim files lie; made here, and removed by `close` when it is empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.owner = {"machine": machine(), "pid": os.getpid(), "started": started(os.getpid())}
        self.held: set[Path] = set()
        self._closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Whether `name` is this process's inside the block; the claim is given back behind it, whatever happens."""
        path = self.folder / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:24]}.claim"
        mine = self._make(path) or self._take_over(path)
        try:
            yield mine
        finally:
            if mine:
                self._give_back(path)

    def close(self) -> None:
        """Ends the signs of life and removes the folder, if no other process has a claim in it."""
        self._closed.set()
        for path in list(self.held):
            self._give_back(path)
        with suppress(OSError):
            if not any(self.folder.glob("*.claim")):
                (self.folder / "lock").unlink(missing_ok=True)
                self.folder.rmdir()

    def _make(self, path: Path) -> bool:
        while True:
            try:
                file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                break
            except FileExistsError:
                return False
            except FileNotFoundError:  # another process has just removed the folder
                self.folder.mkdir(parents=True, exist_ok=True)
        self.held.add(path)
        with os.fdopen(file, "w") as stream:
            json.dump(self.owner, stream)
        return True

    def _take_over(self, path: Path) -> bool:
        """Replaces a stale claim; the lock keeps two processes from removing each other's new one."""
        import fcntl

        if not stale(path):
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if stale(path):  # still, now that nobody else can take it over
                path.unlink(missing_ok=True)
            return self._make(path)

    def _give_back(self, path: Path) -> None:
        self.held.discard(path)
        if _read(path) == self.owner:  # not after others took us for dead
            path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._closed.wait(BEAT):
            for path in list(self.held):
                with suppress(OSError):
                    os.utime(path)


def stale(path: Path) -> bool:
    """Whether the owner of a claim has died, as far as can be seen from here; False where there is no claim."""
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    owner = _read(path)
    if owner.get("machine") == machine():
        return bool(started(int(owner["pid"])) != owner["started"])
    return age > SILENCE  # also where the owner died before it wrote its name


def machine() -> str:
    """What tells machines, boots and containers apart: within one, a process's number says whether it lives."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def started(pid: int) -> str | None:
    """When a process of this machine started, in a form to compare, since numbers are used again; None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return None if fields[0] == "Z" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)  # no /proc: macOS
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"


def _read(path: Path) -> dict[str, Any]:
    try:
        owner = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    whole = isinstance(owner, dict) and {"machine", "pid", "started"} <= owner.keys() and isinstance(owner["pid"], int)
    return owner if whole else {}
