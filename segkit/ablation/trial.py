"""One run of an ablation: the train command, then the eval command, in a folder of its own. Killed at any moment, it goes on from there.

What a trial folder says: `done.json` - trained and evaluated, whole; `failed.json` - a command ended in an error; neither - not finished.
The lock of a trial is held by its commands too: while any of them lives, orphaned or not, nobody else touches the folder.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import yaml

from segkit.errors import stopping_signals
from segkit.runs import checkpoints, write_whole

State = Literal["finished", "failed", "interrupted", "busy", "waiting"]
KEPT = {".lock", "log.txt", "attempts.json"}  # what a new start leaves in the folder
COMMAND = [sys.executable, "-m", "segkit.cli"]
STOPPED = {128 + number for number in stopping_signals(everywhere=True)}  # exit codes of a run that a signal has stopped
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}  # signals that a program gives itself


@dataclass(frozen=True)
class Trial:
    """One run, as plain values that any executor can carry to another machine.

    Args:
        folder: Of the run; a path that is the same wherever the run is executed.
        config: The complete configuration, nested plain values.
        split: Images to score.
    """

    folder: str
    config: dict[str, Any]
    split: str


def state(trial: Trial) -> State:
    """What the folder of a trial says; `busy` is known to those only who try to run it."""
    folder = Path(trial.folder)
    if (folder / "done.json").exists() and results_folder(trial).joinpath("metrics.json").exists():
        return "finished"
    if (folder / "failed.json").exists():
        return "failed"
    return "interrupted" if (folder / "config.yaml").exists() else "waiting"


def in_hand(trial: Trial) -> bool:
    """Whether a process, wherever it runs, holds the trial's lock."""
    path = Path(trial.folder) / ".lock"
    if not path.exists():
        return False
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def results_folder(trial: Trial) -> Path:
    """Where the evaluation of a trial lies."""
    return Path(trial.folder) / "eval" / f"{trial.split}-last"


def run_trial(
    trial: Trial, environment: Mapping[str, str] | None = None, started: Callable[["subprocess.Popen[bytes]"], None] | None = None
) -> State:
    """Trains and evaluates, going on where an earlier attempt stopped.

    Args:
        trial: The run.
        environment: Variables added to those of this process.
        started: Told of each command, so that it can be stopped.

    Returns:
        `finished`, `failed`, `interrupted` (a signal ended it), or `busy` (another process has it in hand).
    """
    folder = Path(trial.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "busy"
        if state(trial) == "finished":
            return "finished"
        (folder / "failed.json").unlink(missing_ok=True)
        for stage, words in _commands(trial):
            begin = time.monotonic()
            code = _command(words, folder / "log.txt", lock, environment or {}, started)
            _note(folder, {"stage": stage, "seconds": round(time.monotonic() - begin, 3), "code": code})
            if (code < 0 and -code not in CRASHES) or code in STOPPED:
                return "interrupted"
            if code:
                note_failure(trial, code, stage, _tail(folder / "log.txt"))
                return "failed"
            # a command that was stopped while it started; a training that was killed after its last step has no scores, and needs none
            left = folder / "checkpoints" / "last.ckpt" if stage == "training" else results_folder(trial) / "metrics.json"
            if not left.exists():
                return "interrupted"
        _write(folder / "done.json", _seconds(folder))
        return "finished"


def note_failure(trial: Trial, code: int, stage: str, log: Sequence[str]) -> None:
    """Writes `failed.json`: what failed, and the end of its log."""
    _write(Path(trial.folder) / "failed.json", {"code": code, "stage": stage, "message": log[-1] if log else "", "log": [*log]})


def _commands(trial: Trial) -> Iterator[tuple[str, list[str]]]:
    """What is left to do, step by step: train from the start or from the last checkpoint, then evaluate."""
    folder = Path(trial.folder)
    if not (folder / "metrics.json").exists():  # which training writes at its end
        if any(path.is_file() for path in checkpoints(folder)):
            yield "training", ["train", "--resume", str(folder)]
        else:
            _empty(folder)
            values = {**trial.config, "runs": str(folder.parents[1]), "name": folder.parent.name, "run_id": folder.name}
            (folder / "trial.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
            yield "training", ["train", "--config", str(folder / "trial.yaml")]
    accelerator = ["--accelerator", str(trial.config["trainer"]["accelerator"])]
    yield "evaluation", ["eval", str(folder), "--split", trial.split, "--images=0", "--boundary", "--artefacts", *accelerator]


def _note(folder: Path, attempt: dict[str, Any]) -> None:
    """Adds to `attempts.json` what a command took."""
    path = folder / "attempts.json"
    _write(path, [*_attempts(path), attempt])


def _attempts(path: Path) -> list[dict[str, Any]]:
    """What `_note` has written; nothing where it cannot be read, for it decides nothing."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return []
    known = values if isinstance(values, list) else []
    return [a for a in known if isinstance(a, dict) and isinstance(a.get("stage"), str) and isinstance(a.get("seconds"), int | float)]


def _seconds(folder: Path) -> dict[str, float]:
    """Seconds of all attempts by stage, but for those that died with the whole ablation."""
    attempts = _attempts(folder / "attempts.json")
    total = {stage: sum(a["seconds"] for a in attempts if a["stage"] == stage) for stage in ("training", "evaluation")}
    return {"seconds": round(total["training"], 3), "evaluation_seconds": round(total["evaluation"], 3)}


def python_path() -> str:
    """PYTHONPATH with which a process finds this segkit, installed or not, and all that ours finds."""
    return os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])


def _command(
    words: list[str],
    log: Path,
    lock: IO[str],
    environment: Mapping[str, str],
    started: Callable[["subprocess.Popen[bytes]"], None] | None,
) -> int:
    """Runs a command of segkit and waits for it; the lock goes along."""
    with log.open("ab") as file:
        file.write(f"$ {' '.join(words)}\n".encode())
        file.flush()
        process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "PYTHONPATH": python_path(), "COLUMNS": "120"},
            pass_fds=(lock.fileno(),),
            start_new_session=True,  # a Ctrl-C is for the ablation, which then stops its runs in order
        )
    if started:
        started(process)
    return process.wait()


def _empty(folder: Path) -> None:
    """Removes what an attempt without a checkpoint left."""
    for path in folder.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _tail(log: Path, lines: int = 30) -> list[str]:
    """The last lines of a log, the one that says why a command failed among them."""
    return [line.rstrip() for line in log.read_text(errors="replace").splitlines() if line.strip()][-lines:]


def _write(path: Path, values: object) -> None:
    write_whole(path, json.dumps(values, indent=2) + "\n")
