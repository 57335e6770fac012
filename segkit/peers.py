"""Processes that work as one: where one of them is lost, the others end too, at once and with a line that says so."""

import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.distributed import DistBackendError, DistNetworkError, DistStoreError

from segkit.errors import RunFailed

GRACE = 5.0  # seconds for what the processes say to each other to arrive first, and for a process to say itself why it ends
STARTED_BY = "SEGKIT_STARTED_BY"  # environment variable: id of the process that starts the others of its machine
# what Gloo, which has no exceptions of its own, and torch's key-value store say where the other end is gone
GONE = re.compile(
    r"connection (closed|reset|refused|was likely closed)|timed out|timeout|broken pipe|pair closure"
    r"|no route to host|network is (unreachable|down)|host is down|connection abort",
    re.IGNORECASE,
)
TAKEN = re.compile(r"failed to listen on any local network address.*port: (\d+)", re.DOTALL)
LOADER = "DataLoader worker (pid"  # what torch says of one that has ended begins so


@contextmanager
def together(trainer: pl.Trainer, remedy: str) -> Iterator[None]:
    """What several processes compute together: none waits for one that is gone.

    An error of the connection to another process becomes one line. So does the end of a process of this machine, which a process that is
    busy by itself, as in a long validation, would learn of only when they next exchange something, and the end of a loader process, such
    as one that the system has killed because memory ran out. Lightning kills the first process where another one of its machine fails, at
    once and without a word, and leaves the others where the first one is killed; this takes its place.

    Args:
        trainer: What they train or validate by.
        remedy: What the user can do then.

    Raises:
        RunFailed: The connection to another process broke, stayed silent for `--trainer.timeout`, or has no port; a loader process ended.
    """
    try:
        with _watched(trainer, remedy) if trainer.world_size > 1 else nullcontext():
            yield
    except Exception as error:
        if reason := lost_loader(error):
            raise RunFailed(f"a loader process was lost ({reason}); {remedy}, with fewer workers where memory runs out") from error
        if taken := TAKEN.search(str(error)):
            raise RunFailed(f"port {taken[1]}, by which the processes meet, is taken; set MASTER_PORT to one that is free") from error
        if lost := next(filter(is_loss, _chain(error)), None):
            raise RunFailed(_line(first_sentence(lost), remedy)) from error
        raise


def lost_loader(error: BaseException) -> str | None:
    """What an exception says of a loader process that has ended, or None.

    It may break the pipe first, and be noticed in the clean-up, or while something else goes wrong.
    """
    for cause in _chain(error):
        if str(cause).startswith(LOADER):
            return first_sentence(cause).removeprefix("DataLoader ")
    for cause in _chain(error):
        frames = [frame for frame, _ in traceback.walk_tb(cause.__traceback__)]
        if isinstance(cause, EOFError | OSError) and frames and frames[-1].f_globals.get("__name__") == "multiprocessing.connection":
            return "its pipe is broken"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def _watched(trainer: pl.Trainer, remedy: str) -> Iterator[None]:
    over = threading.Event()
    parent = int(os.environ.setdefault(STARTED_BY, str(os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else os.getpid())))
    watch = threading.Thread(target=_watch, args=(trainer.strategy.launcher, parent, remedy, over), daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        if parent == os.getpid():
            os.environ.pop(STARTED_BY)


def is_loss(error: BaseException) -> bool:
    """Whether an exception says that another process cannot be reached any more."""
    if isinstance(error, DistNetworkError | DistStoreError):
        return True
    text = str(error)
    of_torch = isinstance(error, DistBackendError) or "gloo" in text or "pair closure" in text  # which Gloo says without its name
    return of_torch and GONE.search(text) is not None


def first_sentence(error: BaseException) -> str:
    """What an exception of torch says first, without the place in its sources."""
    return re.sub(r"^\[(\S+\.cc:\d+|c10d)\]\s*", "", str(error).strip().splitlines()[0]).split(". ")[0].rstrip(".")


def _line(reason: str, remedy: str) -> str:
    return f"another process of this run was lost ({reason}); {remedy}"


def _watch(launcher: Any, parent: int, remedy: str, over: threading.Event) -> None:
    """Ends this process where one that it started, or that started it, is gone and nothing else has ended it since."""
    children: list[Any] = []
    while not over.wait(0.2):
        if not children and any(thread.name == "child-process-observer" for thread in threading.enumerate()):
            children = list(launcher.procs)
            shared, launcher.procs = launcher.procs, children
            shared.clear()  # Lightning's own watch has nothing left to watch
        failed = [child for child in children or getattr(launcher, "procs", []) if child.poll()]
        if failed or parent not in (os.getpid(), os.getppid()):
            if over.wait(GRACE):
                return
            what = f"process {failed[0].pid} ended with code {failed[0].returncode}" if failed else f"process {parent} ended"
            sys.stderr.write(f"{Path(sys.argv[0]).name}: error: {_line(what, remedy)}\n")
            sys.stderr.flush()
            os._exit(1)  # the main thread may be anywhere, such as in a call that waits for the process that is gone
