"""Trials on clusters, for real: submitit's executor of local jobs, and a Ray cluster of two nodes on this machine."""

import json
import time
from pathlib import Path

import pytest

from segkit.ablation.clusters import RayExecutor, SubmititExecutor


def wait_for(happens, *futures):
    """Wait until something is true, or a job has ended too early."""
    deadline = time.monotonic() + 120
    while not happens():
        assert time.monotonic() < deadline
        assert not any(future.done() for future in futures), [future.result() for future in futures]
        time.sleep(0.1)


def one_finishes_and_one_is_stopped(executor, make_trials):
    """Run a short trial and a long one side by side and stop when the short one is through; returns both."""
    (short,), (_, long) = make_trials(1), make_trials(2, steps=100_000)
    finishing, going_on = executor.submit(short), executor.submit(long)
    assert finishing.result(timeout=120) == "finished"
    assert json.loads((Path(short.folder) / "eval/test-last/metrics.json").read_text())["images"] == 2
    wait_for((Path(long.folder) / "metrics.csv").exists, going_on)
    executor.stop()
    assert going_on.result(timeout=0) == "interrupted"
    assert (Path(long.folder) / "checkpoints/last.ckpt").is_file()
    assert "stopped by SIGTERM" in (Path(long.folder) / "log.txt").read_text()
    return short, long


def test_submitit_runs_trials_and_stops_them(tmp_path, make_trials):
    executor = SubmititExecutor(tmp_path / "ablation" / "jobs", 2, {"cluster": "local", "cpus_per_task": 1})
    one_finishes_and_one_is_stopped(executor, make_trials)


@pytest.fixture
def ray_cluster(monkeypatch):
    """Two nodes with a core each, told apart by the threads that they set; nothing of them is left behind."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    nodes = [{"num_cpus": 1, "object_store_memory": 80 * 2**20, "env_vars": {"OMP_NUM_THREADS": n}} for n in ("1", "2")]
    cluster = Cluster(initialize_head=True, head_node_args={**nodes[0], "include_dashboard": False})
    try:
        cluster.add_node(**nodes[1])
        yield cluster
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()


def test_a_ray_cluster_runs_trials_on_two_nodes_and_stops_them(ray_cluster, make_trials):
    executor = RayExecutor(2, {"address": ray_cluster.address}, gpu=False)
    trials = one_finishes_and_one_is_stopped(executor, make_trials)
    threads = {json.loads((Path(trial.folder) / "provenance.json").read_text())["threads"] for trial in trials}
    assert threads == {1, 2}
