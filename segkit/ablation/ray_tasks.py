"""Trials as tasks of a Ray cluster."""

import logging
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import asdict
from typing import Any

from segkit.ablation.clusters import ROOT, STOP_SECONDS, failed, first_line, library, lost
from segkit.ablation.trial import State, Trial, state
from segkit.errors import SegkitError

CONNECT_SECONDS = 10.0


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
            raise SegkitError(f"--executor ray: no cluster at {address!r} ({first_line(error)}); {remedy}") from None
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
            return failed(trial, str(error))
        return lost(trial, first_line(error))


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
