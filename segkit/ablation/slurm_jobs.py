"""Trials as jobs of SLURM, through submitit."""

import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from segkit.ablation.clusters import ROOT, STOP_SECONDS, Work, failed, library, lost
from segkit.ablation.trial import State, Trial, in_hand, state
from segkit.errors import RunFailed, SegkitError, unknown

WATCH_SECONDS = 1.0
TIMEOUTS = 100  # how often a job that its time limit has stopped is put into the queue again; each time it goes on where it was
SHARED = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "stderr_to_stdout")  # of submitit


class SlurmJob:
    """What submitit calls on a node, and asks for a checkpoint when the time limit is near; then it puts the job into the queue again."""

    def __init__(self) -> None:
        self.work = Work()

    def __call__(self, trial: Trial, environment: Mapping[str, str]) -> State:
        """Runs the trial."""
        outcome = self.work.run(trial, environment)
        if self.work.stopped and outcome == "interrupted":
            sys.exit(128 + signal.SIGTERM)  # no result, so that a job that SLURM preempts and starts again counts as one that goes on
        return outcome

    def checkpoint(self, trial: Trial, environment: Mapping[str, str]) -> Any:
        """Ends the run so that it can go on, and says with what."""
        from submitit.helpers import DelayedSubmission

        self.work.stop()
        self.work.join()
        return DelayedSubmission(SlurmJob(), trial, environment)


class SubmititExecutor:
    """Jobs of a SLURM cluster, one per trial.

    Args:
        folder: For what submitit writes: job scripts, logs, results. The same path on all nodes.
        slots: Jobs in the queue at a time.
        parameters: Of `submitit.AutoExecutor`; those of SLURM with or without their prefix, as `partition`. `cluster="local"` runs jobs
            as processes of this machine, to try things without a cluster.

    Raises:
        SegkitError: submitit is not installed, there is no SLURM, or a parameter is wrong.
    """

    def __init__(self, folder: Path, slots: int, parameters: Mapping[str, Any]) -> None:
        submitit = library("submitit")
        logging.getLogger("submitit").setLevel(logging.CRITICAL)  # its log goes to the terminal
        defaults = {"name": folder.parent.name, "timeout_min": 12 * 60, "cpus_per_task": 2}
        given = {**defaults, **parameters}
        cluster = given.pop("cluster", "slurm")
        if cluster not in ("slurm", "local"):
            raise unknown("--cluster.cluster", cluster, ("slurm", "local"))
        for name in ("nodes", "tasks_per_node"):
            if given.get(name, 1) != 1:
                raise SegkitError(f"--cluster.{name} {given[name]}: a run is one task of one node; more cards: --cluster.gpus_per_node")
        path = os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])
        python = shlex.join(["env", f"PYTHONPATH={path}", sys.executable])
        try:
            self.engine = submitit.AutoExecutor(
                folder, cluster=cluster, slurm_python=python, slurm_max_num_timeout=TIMEOUTS, local_python=python
            )
        except RuntimeError as error:
            remedy = "start on a login node, or try it here with --cluster.cluster local"
            raise SegkitError(f"--executor slurm: {str(error).rstrip('.?')}; {remedy}") from None
        prefixed = {k if k in SHARED or k.startswith(("slurm_", "local_")) else f"{cluster}_{k}": v for k, v in given.items()}
        try:
            self.engine.update_parameters(**prefixed)
        except NameError as error:
            valid = {*SHARED, *(name for names in re.findall(r"Valid arguments: (.*)", str(error)) for name in names.split(", "))}
            stray = next(name for name in parameters if name.removeprefix(f"{cluster}_") not in {*valid, "cluster"})
            raise unknown("option --cluster.", stray, valid, most=99) from None
        except (AssertionError, TypeError, ValueError) as error:
            raise SegkitError(f"--cluster: {' '.join(str(error).split())}") from None
        # Lightning takes a job for one of its own, with a task per card, unless it is interactive
        self.environment = {"SLURM_JOB_NAME": "interactive", "OMP_NUM_THREADS": str(given["cpus_per_task"])}
        self.slots, self.local, self.stopping = slots, cluster == "local", False
        self.jobs: dict[Future[State], tuple[Any, Trial]] = {}
        self.lock = threading.Lock()
        self.watcher: threading.Thread | None = None

    def submit(self, trial: Trial) -> "Future[State]":
        """Puts a job into the queue."""
        from submitit.core.utils import FailedJobError

        try:
            job = self.engine.submit(SlurmJob(), trial, self.environment)
        except (FailedJobError, OSError, subprocess.SubprocessError) as error:
            raise RunFailed(f"SLURM does not take a job: {_last_line(error)}; correct --cluster.NAME and start again") from error
        future: Future[State] = Future()
        with self.lock:
            self.jobs[future] = job, trial
            if not self.watcher:
                self.watcher = threading.Thread(target=self._watch, daemon=True)
                self.watcher.start()
        return future

    def stop(self) -> None:
        """Cancels all jobs, which makes those that run save, and waits for them."""
        self.stopping = True
        with self.lock:
            jobs = dict(self.jobs)
        for job, _ in jobs.values():
            if self.local:  # submitit would kill it a second after an interrupt
                if not job.done():
                    os.kill(int(job.job_id), signal.SIGTERM)
            else:
                job.cancel(check=False)
        wait(jobs, timeout=STOP_SECONDS)

    def _watch(self) -> None:
        """Asks for the jobs' states until the program ends."""
        while True:
            time.sleep(WATCH_SECONDS)
            with self.lock:
                jobs = dict(self.jobs)
            for future, (job, trial) in jobs.items():
                try:
                    if self.stopping:  # then the lock tells sooner than SLURM's accounts, and where there are none
                        if in_hand(trial):
                            continue
                        future.set_result(state(trial))
                    elif job.done():
                        future.set_result(self._outcome(job, trial))
                    else:
                        continue
                except Exception as error:
                    future.set_exception(error)
                with self.lock:
                    del self.jobs[future]

    def _outcome(self, job: Any, trial: Trial) -> State:
        error = job.exception()  # waits for a result that a slow disk may still withhold
        if error is None:
            answer: State = job.result()
            return answer
        if type(error).__name__ == "FailedJobError" and "UncompletedJobError" not in str(error):
            return failed(trial, str(error))
        return lost(trial, f"job {job.job_id} is {str(job.state).lower()}; log: {job.paths.stderr}")


def _last_line(error: BaseException) -> str:
    return next(reversed(str(error).strip().splitlines()), type(error).__name__)
