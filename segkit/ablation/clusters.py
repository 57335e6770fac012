"""Trials on many machines: SLURM through submitit, and a Ray cluster. Folders are the same on all of them, as on any cluster's shared disk.

What a cluster does to a job (time limits, preemption, dead nodes, a cancelled job) leaves an unfinished trial, never a wrong one: the
trial's commands get SIGTERM, save, and whoever starts the trial again goes on from there.
"""

import importlib
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segkit.ablation.trial import State, Trial, in_hand, note_failure, run_trial, state
from segkit.errors import RunFailed, SegkitError, unknown

log = logging.getLogger(__name__)
ROOT = str(Path(__file__).parents[2])  # where `segkit` is imported from, installed or not
WATCH_SECONDS = 1.0
CONNECT_SECONDS = 10.0
STOP_SECONDS = 60.0  # what a cluster gets to end its jobs; SLURM kills 30 s after the signal
TIMEOUTS = 100  # how often a job that its time limit has stopped is put into the queue again; each time it goes on where it was
SHARED = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "stderr_to_stdout")  # of submitit


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
            return _failed(trial, str(error))
        return _lost(trial, f"job {job.job_id} is {str(job.state).lower()}; log: {job.paths.stderr}")


class RayExecutor:
    """Tasks of a Ray cluster, one per trial; Ray chooses the nodes, and starts the trial again, on another node, where one dies.

    Args:
        slots: Tasks at a time; Ray's queue holds those that have no room.
        options: Of a Ray task (`num_cpus`, `num_gpus`, `memory`, `resources`, ...), and `address` of the cluster.
        gpu: Whether a trial can use a graphics card; where the cluster has any, it gets one.

    Raises:
        SegkitError: Ray is not installed, there is no cluster, or an option is wrong.
    """

    def __init__(self, slots: int, options: Mapping[str, Any], gpu: bool) -> None:
        self.ray = ray = library("ray")
        given = dict(options)
        address = given.pop("address", "auto")
        logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            if address != "auto":  # Ray itself would try for minutes
                host, port = str(address).rsplit(":", 1)
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            remedy = "start one with `ray start --head`, or give --cluster.address HOST:PORT"
            raise SegkitError(f"--executor ray: no cluster at {address!r} ({_first_line(error)}); {remedy}") from None
        if gpu and "num_gpus" not in given and ray.cluster_resources().get("GPU"):
            given["num_gpus"] = 1
        try:
            self.task = ray.remote(_ray_task(ROOT)).options(**given)
        except (TypeError, ValueError) as error:
            ray.shutdown()
            raise SegkitError(f"--cluster: {' '.join(str(error).split())}") from None
        self.slots, self.stopping = slots, False
        self.refs: dict[Future[State], Any] = {}

    def submit(self, trial: Trial) -> "Future[State]":
        """Hands a trial to Ray."""
        ref, future = self.task.remote(**asdict(trial)), Future[State]()

        def done(inner: "Future[Any]") -> None:
            try:
                future.set_result(self._outcome(inner, trial))
            except Exception as error:
                future.set_exception(error)

        self.refs[future] = ref
        ref.future().add_done_callback(done)
        return future

    def stop(self) -> None:
        """Cancels all tasks, which makes those that run save, and waits for them."""
        self.stopping = True
        left = {future: ref for future, ref in self.refs.items() if not future.done()}
        for ref in left.values():
            self.ray.cancel(ref)
        wait(left, timeout=STOP_SECONDS)
        self.ray.shutdown()

    def _outcome(self, inner: "Future[Any]", trial: Trial) -> State:
        error = inner.exception()
        if error is None:
            answer: State = inner.result()
            return answer
        if self.stopping or isinstance(error, self.ray.exceptions.TaskCancelledError):
            return state(trial)
        if isinstance(error, self.ray.exceptions.RayTaskError):
            return _failed(trial, str(error))
        return _lost(trial, _first_line(error))


def _ray_task(root: str) -> Callable[..., str]:
    """A function that Ray carries to the nodes by value, since they may have to be told where segkit is."""

    def trial(folder: str, config: dict[str, Any], split: str) -> str:
        import sys

        if root not in sys.path:
            sys.path.insert(0, root)
        from segkit.ablation.clusters import Work
        from segkit.ablation.trial import Trial

        return Work().run(Trial(folder, config, split), {})

    return trial


def library(name: str) -> Any:
    """An optional library.

    Raises:
        SegkitError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SegkitError(f'{name} is not installed; install it with: pip install "segkit[cluster]"') from None


def _failed(trial: Trial, trace: str) -> State:
    """A job that ended in an error of its own, such as a node on which segkit cannot be imported: a failed trial."""
    Path(trial.folder).mkdir(parents=True, exist_ok=True)
    note_failure(trial, 1, "job", [line.rstrip() for line in trace.splitlines() if line.strip("- \t")][-30:])
    return "failed"


def _lost(trial: Trial, cause: str) -> State:
    """A job that the cluster ended: the trial is as far as its folder says."""
    log.warning("%s was ended by the cluster and goes on at the next start: %s", Path(trial.folder).name, cause)
    return state(trial)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _last_line(error: BaseException) -> str:
    return next(reversed(str(error).strip().splitlines()), type(error).__name__)
