"""The one exception that means "the input is wrong, not the program"."""

import difflib
import os
import re
import signal
from collections.abc import Iterable

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """A text as a terminal or a page can show it: names of files, and what strangers call theirs, may hold signs that steer a terminal."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def is_name(text: str) -> bool:
    """Whether a text can be a name: one line, without signs that steer a terminal."""
    return printable(text) == text and not {"\n", "\t"} & set(text)


class SegkitError(ValueError):
    """A user's mistake, in one line: the offending value, the rule, and the remedy.

    The command line prints it as it is and exits with code 2; everything else that is raised is a bug and keeps its traceback.
    """


def unknown(kind: str, name: object, choices: Iterable[str], most: int = 12) -> SegkitError:
    """The error for a name that is not one of `choices`: names the nearest one, or lists them.

    Args:
        kind: What the name stands for, such as "operator".
        name: What was given.
        choices: The valid names.
        most: A longer list is cut to the nearest names.
    """
    choices = sorted(choices)
    near = difflib.get_close_matches(str(name), choices, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    listed = choices if len(choices) <= most else []
    known = f"; choose from {', '.join(listed)}" if listed else ""
    return SegkitError(f"unknown {kind} {name!r}{hint}{known}")


class RunStopped(RuntimeError):
    """A run that a signal stopped and that has saved all it needs to go on; one line, exit code 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def stopping_signals(everywhere: bool = False) -> list[signal.Signals]:
    """The signals that end a command early: not SIGHUP where nohup has it ignored, SIGUSR1 in a job of SLURM only.

    Args:
        everywhere: Those of any command, here or not.
    """
    told = [getattr(signal, name) for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name)]  # Windows has none
    if not everywhere:
        heard = {"SIGHUP": told and signal.getsignal(told[0]) != signal.SIG_IGN, "SIGUSR1": "SLURM_JOB_ID" in os.environ}
        told = [number for number in told if heard[number.name]]
    return [signal.SIGTERM, signal.SIGINT, *told]


class RunFailed(RuntimeError):
    """A run that cannot go on though its input was right, such as a diverged training; one line, exit code 1."""
