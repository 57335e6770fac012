"""Runs the trials of an ablation, several at a time, in any order that the machine allows."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Protocol

from segkit.ablation.trial import State, Trial, run_trial, state
from segkit.errors import RunFailed, RunStopped, stopping_signals

POLL_SECONDS = 1.0


class Executor(Protocol):
    """What runs trials: an existing engine behind `submit`."""

    slots: int

    def submit(self, trial: Trial) -> "Future[State]":
        """Starts a trial as soon as there is room."""
        ...

    def stop(self) -> None:
        """Ends all trials so that they can go on later, and waits for them."""
        ...


def visible_gpus() -> list[str]:
    """The graphics cards of this machine that this process may use."""
    import torch

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return chosen.split(",")[:count] if chosen else [str(i) for i in range(count)]


def slot_threads(slots: int) -> int:
    """Threads of a run in each of so many slots of this machine: its share of the cores, or what OMP_NUM_THREADS says."""
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(said) if said.isdecimal() and int(said) else max(1, len(os.sched_getaffinity(0)) // slots)


class LocalExecutor:
    """Processes of this machine, one at a time in each slot: a slot is a graphics card, or a share of the processor's cores.

    Args:
        gpus: Identifiers of the graphics cards, as CUDA_VISIBLE_DEVICES takes them; none: the slots are the processor's.
        slots: Runs at a time; several share a graphics card where there are more slots than cards.
    """

    def __init__(self, gpus: Sequence[str], slots: int) -> None:
        self.slots = slots
        threads = str(slot_threads(slots))
        self.free = [{"OMP_NUM_THREADS": threads, **({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {})} for i in range(slots)]
        self.pool = ThreadPoolExecutor(slots)
        self.lock, self.running, self.stopping = threading.Lock(), set[subprocess.Popen[bytes]](), False

    def submit(self, trial: Trial) -> "Future[State]":
        """Starts a trial as soon as there is room."""
        return self.pool.submit(self._run, trial)

    def _run(self, trial: Trial) -> State:
        with self.lock:
            slot = self.free.pop()
        try:
            return "interrupted" if self.stopping else run_trial(trial, slot, self._started)
        finally:
            with self.lock:
                self.free.append(slot)

    def _started(self, process: "subprocess.Popen[bytes]") -> None:
        with self.lock:
            self.running = {p for p in self.running if p.poll() is None} | {process}
        if self.stopping:
            process.terminate()

    def stop(self) -> None:
        """Ends all trials by SIGTERM, which makes them save, and waits for them."""
        with self.lock:
            self.stopping, running = True, list(self.running)
        for process in running:
            process.terminate()
        self.pool.shutdown(wait=True, cancel_futures=True)


def run_all(executor: Executor, trials: Sequence[Trial], retry_failed: bool, changed: Callable[[Mapping[str, State]], None]) -> None:
    """Runs what is not finished; each state that changes is told.

    A trial that another process has in hand is waited for. One that a signal ended is not started again before the next call.

    Args:
        executor: Who runs them.
        trials: In the order of their start.
        retry_failed: Start failed ones too.
        changed: Told the state of every trial, by folder, now and whenever something may have changed.

    Raises:
        RunStopped: One of `stopping_signals`; all trials have saved what they need to go on.
    """
    states: dict[str, Any] = {trial.folder: state(trial) for trial in trials}
    first = {trial.folder: trial for trial in trials}
    left = [t for t in first.values() if states[t.folder] != "finished" and (retry_failed or states[t.folder] != "failed")]
    states |= {t.folder: "waiting" for t in left}
    futures: dict[Future[State], Trial] = {}
    with _signals() as received:
        changed(states)
        busy: list[Trial] = []
        while (left or futures or busy) and not received:
            while left and len(futures) < executor.slots and not received:
                trial = left.pop(0)
                if not retry_failed and state(trial) == "failed":  # meanwhile, in the hands of another ablation
                    states[trial.folder] = "failed"
                    continue
                futures[_submit(executor, trial)] = trial
                states[trial.folder] = "running"
            changed(states)
            done = wait(futures, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED).done if futures else set()
            for future in done:
                trial = futures.pop(future)
                states[trial.folder] = outcome = future.result()
                if outcome == "busy":
                    busy.append(trial)
            if not futures and not left and busy:
                time.sleep(POLL_SECONDS)
                left, busy = busy, []
            changed(states)
        if received:
            executor.stop()
            name = signal.Signals(received[0]).name
            raise RunStopped(f"stopped by {name}; start the same command again to go on, finished runs are kept", received[0])


def _submit(executor: Executor, trial: Trial) -> "Future[State]":
    """Starts a trial; where a cluster takes no more of them, those that it has are ended in order."""
    try:
        return executor.submit(trial)
    except RunFailed:
        executor.stop()
        raise


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects what ends a command early instead of dying of it; a second SIGINT interrupts at once."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        before = {number: signal.signal(number, note) for number in stopping_signals()}
    except ValueError:  # not in the main thread, where signals never arrive
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
