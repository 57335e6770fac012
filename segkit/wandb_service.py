"""wandb's own process, which does its uploads: it is waited for so long and no longer, then ended."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ASKED_SECONDS = 1.0  # for the process to end by itself when it is asked to, and for what wandb does when it has


def end_service() -> None:
    """Ends wandb's own process, for which the end of this one waits as long as a server hangs; what it was told is in its file already."""
    for status in Path("/proc").glob("[0-9]*/stat"):  # where there is none, the end takes the time that W&B is given
        with contextlib.suppress(OSError, ValueError):  # a process that has gone meanwhile
            name, _, parent = _process(status)
            if name == "wandb-core" and parent == os.getpid():
                _end(status)
    with contextlib.suppress(TimeoutError):
        within(ASKED_SECONDS, forget_service)
    os.environ.pop("WANDB_SERVICE", None)  # wandb leaves it where it was interrupted, and a later run would look for the process there


def _end(status: Path) -> None:
    """Asks a child to end, and kills it where it has not after `ASKED_SECONDS`: wandb's may wait for the server's answer first."""
    child, start = int(status.parent.name), time.monotonic()
    os.kill(child, signal.SIGTERM)
    while _process(status)[1] not in "ZX":  # ended, and not waited for yet: that is wandb's to do
        if time.monotonic() - start > ASKED_SECONDS:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.02)


def _process(status: Path) -> tuple[str, str, int]:
    """Name, state and parent's id of a process, of its `/proc/<id>/stat`."""
    name, _, fields = status.read_text().rpartition(")")
    state, parent, *_ = fields.split()
    return name.partition("(")[2], state, int(parent)


def forget_service() -> None:
    """Waits for wandb's process; one that has died would say so again at the end of this one."""
    if wandb := sys.modules.get("wandb"):
        with contextlib.suppress(Exception, SystemExit):  # it leaves with the exit code of that process
            wandb.teardown()


def within(seconds: float, call: Callable[[], Any]) -> None:
    """Calls what may wait for a server, and waits for it no longer than this.

    Raises:
        TimeoutError: It is not done yet. Whatever else it raises comes through too.
    """
    raised: list[BaseException] = []

    def work() -> None:
        try:
            call()
        except BaseException as error:  # for the caller to see
            raised.append(error)

    thread = threading.Thread(target=work, name="tracking", daemon=True)  # the end of the process does not wait for it
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s")
    if raised:
        raise raised[0]
