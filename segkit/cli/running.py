"""How every command ends: what goes wrong becomes one line and an exit code. Standard library only."""

import errno
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from segkit.cli.surroundings import settle
from segkit.errors import RunFailed, RunStopped, SegkitError, printable, stopping_signals

LOST = (errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV)  # a disk that fails, or is taken away
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota, or the largest file that there may be
WANT = ("allocate memory", "not enough memory", "out of memory", "Insufficient memory")  # what torch, on any device, and OpenCV say of it


class Leaving(SystemExit):
    """A signal where there is nothing to save: all cleans up on the way out, which no `except Exception` of a library hinders."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs a command and turns a user's mistake into one line and exit code 2, a run that fails or is stopped into one line too."""
    numbers = stopping_signals()
    heard: list[int] = []

    def leave(number: int, frame: Any) -> NoReturn:
        heard.append(number)
        raise Leaving(number)

    for number in numbers:  # until there is something to save, and a handler that does
        signal.signal(number, leave)
    try:
        settle()
        main(sys.argv[1:])
    except BaseException as error:
        if heard and not isinstance(error, RunStopped):  # whatever a library that was interrupted has made of it
            sys.exit(_end(RunStopped(f"stopped by {signal.Signals(heard[0]).name}", heard[0])))
        code = _end(error)
        if code is None:
            raise
        sys.exit(code)
    finally:
        for number in numbers:  # all is said and saved
            signal.signal(number, signal.SIG_DFL)


def _end(error: BaseException) -> Any:
    """Says in a line why a command ends; its exit code, None for a bug, which keeps its traceback."""
    match error:
        case SegkitError():
            return _complain(error, 2)
        case RunFailed():
            return _complain(error, 1)
        case RunStopped():
            return _complain(error, 128 + error.signal_number)
        case BrokenPipeError():
            return _broken_pipe() if _unread() else None
        case OSError() if error.errno != errno.ENOMEM:
            line = _of_the_disk(error)
            return line and _complain(RunFailed(line), 1)
        case KeyboardInterrupt():
            return 128 + signal.SIGINT
        case SystemExit():
            if isinstance(error.__context__, BrokenPipeError):  # rich leaves without a word
                return _broken_pipe()
            # Lightning answers a SIGTERM that reaches it, as in an evaluation, by an exit of its own with code 0
            return error.code or 0 if type(error) is SystemExit else 128 + signal.SIGTERM
    if isinstance(error, MemoryError | OSError) or any(words in str(error) for words in WANT):
        return _complain(_want(error), 1)
    return None


def _of_the_disk(error: OSError) -> str | None:
    """What is the matter with a disk and not with the program."""
    where = f" {str(error.filename)!r}" if error.filename else ""
    if error.errno in FULL:
        return f"cannot write{where} ({error.strerror}); make room, then go on: what is complete is kept"
    if error.errno in LOST:
        return f"the disk fails{where} ({error.strerror}); see to it, then go on: what is complete is kept"
    if error.errno == errno.ENOENT and error.filename and not Path(error.filename).parent.is_dir():
        return f"cannot use{where}: somebody has removed its folder"
    return None


def _want(error: BaseException) -> RunFailed:
    said = " ".join(str(error).split()) or "Python's own"
    return RunFailed(f"there is not enough memory ({said[:200]}); take smaller batches, crops or tiles, --recompute true, or fewer workers")


def _unread() -> bool:
    """Whether standard output is the pipe that is broken, where the system can tell."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def _broken_pipe() -> int:
    """Says why the command ends, and leaves nothing that is still to be written, which would fail again."""
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())
    return _complain(RunFailed("the output is read no longer, so the command ends here; what is complete is kept"), 1)


def _complain(error: Exception, code: int) -> int:
    with suppress(OSError):
        if str(error):  # of several processes that are stopped, one says so
            sys.stderr.write(f"{Path(sys.argv[0]).name}: {'' if isinstance(error, RunStopped) else 'error: '}{printable(str(error))}\n")
    return code
