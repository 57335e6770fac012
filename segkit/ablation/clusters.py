"""Trials on many machines: what SLURM (`slurm_jobs.py`) and Ray (`ray_tasks.py`) have in common. Folders are the same on all machines,
as on any cluster's shared disk.

What a cluster does to a job (time limits, preemption, dead nodes, a cancelled job) leaves an unfinished trial, never a wrong one: the
trial's commands get SIGTERM, save, and whoever starts the trial again goes on from there.
"""

import importlib
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from segkit.ablation.trial import State, Trial, note_failure, run_trial, state
from segkit.errors import SegkitError

log = logging.getLogger(__name__)
ROOT = str(Path(__file__).parents[2])  # where `segkit` is imported from, installed or not
STOP_SECONDS = 60.0  # what a cluster gets to end its jobs; SLURM kills 30 s after the signal


class Work:
    """A trial in a process that a cluster has started and may signal: what arrives here is handed on to the command that is running."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = False

    def run(self, trial: Trial, environment: Mapping[str, str]) -> State:
        """Runs a trial, with SIGTERM and SIGINT handed on."""
        outcome: Future[State] = Future()

        def work() -> None:
            # SLURM tells every process of a job that its time is nearly up; commands inherit that they need not listen, or they would die
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
            try:
                outcome.set_result(run_trial(trial, environment, self._started))
            except BaseException as error:
                outcome.set_exception(error)

        before = {number: signal.signal(number, lambda *_: self.stop()) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self.thread = threading.Thread(target=work)
            self.thread.start()
            self.join()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return outcome.result()

    def stop(self) -> None:
        """Ends the running command, which saves, and lets none follow."""
        self.stopped = True
        if self.process and self.process.poll() is None:
            self.process.terminate()

    def join(self) -> None:
        """Waits without a lock, so that it may be interrupted by a signal whose handler waits too."""
        while self.thread and self.thread.is_alive():
            time.sleep(0.1)

    def _started(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        if self.stopped:
            process.terminate()


def library(name: str) -> Any:
    """An optional library.

    Raises:
        SegkitError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SegkitError(f'{name} is not installed; install it with: pip install "segkit[cluster]"') from None


def failed(trial: Trial, trace: str) -> State:
    """A job that ended in an error of its own, such as a node on which segkit cannot be imported: a failed trial."""
    Path(trial.folder).mkdir(parents=True, exist_ok=True)
    note_failure(trial, 1, "job", [line.rstrip() for line in trace.splitlines() if line.strip("- \t")][-30:])
    return "failed"


def lost(trial: Trial, cause: str) -> State:
    """A job that the cluster ended: the trial is as far as its folder says."""
    log.warning("%s was ended by the cluster and goes on at the next start: %s", Path(trial.folder).name, cause)
    return state(trial)


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its name."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
