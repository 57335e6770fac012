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


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs a command and turns a user's mistake into one line and exit code 2, a run that fails or is stopped into one line too."""
    numbers = stopping_signals()
    for number in numbers:  # until there is something to save, and a handler that does
        signal.signal(number, _leave)
    try:
        settle()
        main(sys.argv[1:])
    except SegkitError as error:
        sys.exit(_complain(error, 2))
    except RunFailed as error:
        sys.exit(_complain(error, 1))
    except RunStopped as stopped:
        sys.exit(_complain(stopped, 128 + stopped.signal_number))
    except BrokenPipeError:
        if not _unread():
            raise
        sys.exit(_broken_pipe())
    except OSError as error:
        if error.errno == errno.ENOMEM:
            sys.exit(_complain(_want(error), 1))
        where = f" {str(error.filename)!r}" if error.filename else ""
        if error.errno in FULL:
            line = f"cannot write{where} ({error.strerror}); make room, then go on: what is complete is kept"
        elif error.errno in LOST:
            line = f"the disk fails{where} ({error.strerror}); see to it, then go on: what is complete is kept"
        elif error.errno == errno.ENOENT and error.filename and not Path(error.filename).parent.is_dir():
            line = f"cannot use{where}: somebody has removed its folder"
        else:
            raise
        sys.exit(_complain(RunFailed(line), 1))
    except Exception as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in WANT):
            raise
        sys.exit(_complain(_want(error), 1))
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as leave:
        if isinstance(leave.__context__, BrokenPipeError):  # rich leaves without a word
            sys.exit(_broken_pipe())
        # Lightning answers a SIGTERM that reaches it, as in an evaluation, by an exit of its own with code 0
        sys.exit(leave.code if type(leave) is SystemExit else 128 + signal.SIGTERM)
    finally:
        for number in numbers:  # all is said and saved
            signal.signal(number, signal.SIG_DFL)


def _want(error: Exception) -> RunFailed:
    said = " ".join(str(error).split()) or "Python's own"
    return RunFailed(f"there is not enough memory ({said[:200]}); take smaller batches, crops or tiles, --recompute true, or fewer workers")


def _leave(number: int, frame: Any) -> NoReturn:
    """Says which signal it was, and cleans up on the way out, which no `except Exception` of a library hinders."""
    with suppress(OSError):  # a terminal that is closed
        sys.stderr.write(f"{Path(sys.argv[0]).name}: stopped by {signal.Signals(number).name}\n")
    sys.exit(128 + number)


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
