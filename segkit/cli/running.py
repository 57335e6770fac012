"""How every command ends: what goes wrong becomes one line and an exit code. Standard library only."""

import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from segkit.cli.surroundings import settle
from segkit.errors import RunFailed, RunStopped, SegkitError, stopping_signals

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota, or the largest file that there may be
NO_MEMORY = re.compile("out of memory|allocate memory|not enough memory")  # CUDA, a CPU, a CPU of Windows


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
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f" {str(error.filename)!r}" if error.filename else ""
        sys.exit(_complain(RunFailed(f"cannot write{where} ({error.strerror}); make room, then go on: what is complete is kept"), 1))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not NO_MEMORY.search(str(error)):
            raise
        wanted = re.search(r"to allocate ([\d.]+ \w+)", str(error))
        what = f"out of memory{f': {wanted[1]} more were wanted' if wanted else ''}"
        sys.exit(_complain(RunFailed(f"{what}; train with a smaller --data.batch_size or --data.crop, or --recompute; others: --tile"), 1))
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as leave:  # Lightning answers a SIGTERM that reaches it, as in an evaluation, by an exit of its own with code 0
        sys.exit(leave.code if type(leave) is SystemExit else 128 + signal.SIGTERM)
    finally:
        for number in numbers:  # all is said and saved
            signal.signal(number, signal.SIG_DFL)


def _leave(number: int, frame: Any) -> NoReturn:
    """Says which signal it was, and cleans up on the way out, which no `except Exception` of a library hinders."""
    sys.stderr.write(f"{Path(sys.argv[0]).name}: stopped by {signal.Signals(number).name}\n")
    sys.exit(128 + number)


def _complain(error: Exception, code: int) -> int:
    if str(error):  # of several processes that are stopped, one says so
        sys.stderr.write(f"{Path(sys.argv[0]).name}: {'' if isinstance(error, RunStopped) else 'error: '}{error}\n")
    return code
