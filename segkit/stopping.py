"""How a run ends before its time: at a signal, with all saved that it takes to go on to the bit."""

import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer

from segkit.errors import RunStopped, SegkitError, stopping_signals
from segkit.ranks import Ranks


class StopSignals(Callback):
    """Ends the run at SIGTERM (a scheduler that takes the machine back), SIGINT (Ctrl-C) or SIGHUP (a closed terminal, unless it was
    started with nohup), with `last.ckpt` saved.

    In a job of SLURM that is told to warn before its time is up (`sbatch --signal=USR1@90`), SIGUSR1 does the same and re-queues the job.

    The handler only takes a note. A run ends between two optimiser steps, or between two batches of a validation, which a resumed run
    does again from its start. Several processes ask each other there, over a Gloo group of their own and without waiting: what they
    agree on is what each knew when it last asked, so that all end at the same place. A second Ctrl-C ends the run at once.

    Args:
        folder: The run folder.
        timeout: Seconds that one process waits for another.
    """

    def __init__(self, folder: Path, timeout: float = 1800.0) -> None:
        self.folder, self.timeout = folder, timedelta(seconds=timeout)
        self.received = 0  # the signal's number
        self.interrupted = False  # SIGINT was among them
        self.step = -1
        self.before: dict[int, Any] = {}
        self.group: Any = None
        self.asked: tuple[Any, torch.Tensor] | None = None
        self.shared_batches = 0  # of a validation, those that every process has

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remember whose the signals are, before Lightning takes them."""
        self.before = {number: signal.getsignal(number) for number in stopping_signals()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over."""
        self.step = trainer.global_step
        if trainer.world_size > 1:
            self.group = dist.new_group(backend="gloo", timeout=self.timeout)
            steps = Ranks.all().gather(self.step)
            if len(set(steps)) > 1:
                raise SegkitError(f"the processes go on from different steps, {steps}: the run folder must lie where all machines see it")
        try:
            for number in self.before:
                signal.signal(number, self._note)
        except ValueError:  # not in the main thread, where signals never arrive
            self.before = {}

    def _note(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and self.interrupted:
            sys.stderr.write(f"stopped at once by a second SIGINT; go on from the last checkpoint with --resume {self.folder}\n")
            sys.exit(128 + number)
        self.interrupted = self.interrupted or number == signal.SIGINT
        self.received = self.received or number

    def _agreed(self) -> int:
        """The signal that had reached any process when all of them last asked; asks anew."""
        if self.group is None:
            return self.received
        number = self._answer()
        note = torch.tensor(self.received)
        self.asked = dist.all_reduce(note, dist.ReduceOp.MAX, self.group, async_op=True), note
        return number

    def _answer(self) -> int:
        """The answer to the last question; 0 where there was none."""
        if self.asked is None:
            return 0
        (work, note), self.asked = self.asked, None
        work.wait()
        return int(note)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save and leave, on all processes at the same step."""
        if trainer.global_step == self.step:  # a step that has begun is finished, or its batches would count twice in running statistics
            return
        self.step = trainer.global_step
        self._stop_if(self._agreed(), trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the batches that every process has: in the others nobody can be asked."""
        own = torch.tensor(sum(int(count) for count in trainer.num_val_batches))
        if self.group is not None:
            dist.all_reduce(own, dist.ReduceOp.MIN, self.group)
        self.shared_batches = int(own)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Save and leave, on all processes at the same batch."""
        if batch_idx < self.shared_batches:
            self._stop_if(self._agreed(), trainer)

    def _stop_if(self, number: int, trainer: Trainer) -> None:
        if not number:
            return
        trainer.save_checkpoint(self.folder / "checkpoints" / "last.ckpt", weights_only=False)
        line = f"stopped by {signal.Signals(number).name} at step {trainer.global_step}; go on with --resume {self.folder}"
        if number == signal.SIGUSR1 and trainer.is_global_zero:
            line = f"{line} ({requeue()})"
        raise RunStopped(line if trainer.is_global_zero else "", number)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave no question open."""
        self._answer()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before, self.group, self.asked = {}, None, None


def requeue() -> str:
    """Puts this job of SLURM back into the queue; says how that went."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    assert re.fullmatch(r"[\w-]+", job), job
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"job {job} could not be re-queued: {error}"
    return f"re-queued as job {job}" if done.returncode == 0 else f"job {job} could not be re-queued: {done.stderr.strip()}"
