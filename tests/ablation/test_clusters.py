"""Trials on clusters, for real: submitit's executor of local jobs, and a Ray cluster of two nodes on this machine."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from segkit.ablation.clusters import Work
from segkit.ablation.ray_tasks import RayExecutor
from segkit.ablation.slurm_jobs import SlurmJob, SubmititExecutor
from segkit.errors import RunFailed, SegkitError


def wait_for(happens, *futures):
    """Wait until something is true, or a job has ended too early."""
    deadline = time.monotonic() + 240
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

    threads = [{"OMP_NUM_THREADS": n, "OMP_WAIT_POLICY": "PASSIVE"} for n in ("1", "2")]  # passive: waiting threads leave others the cores
    nodes = [{"num_cpus": 1, "object_store_memory": 80 * 2**20, "env_vars": variables} for variables in threads]
    cluster = Cluster(initialize_head=True, head_node_args={**nodes[0], "include_dashboard": False})
    try:
        cluster.second = cluster.add_node(**nodes[1])
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


def read(path):
    """What is in a file of /proc; nothing where its process has ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
def test_a_trial_whose_node_dies_goes_on_elsewhere(ray_cluster, make_trials):
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(ray_cluster.second.node_id, soft=True)
    executor = RayExecutor(2, {"address": ray_cluster.address, "scheduling_strategy": there}, gpu=False)
    _, trial = make_trials(2, steps=400)
    trial.config["trainer"]["val_every"] = 40
    future = executor.submit(trial)
    folder = Path(trial.folder)
    wait_for((folder / "checkpoints/last.ckpt").exists, future)
    assert json.loads((folder / "provenance.json").read_text())["threads"] == 2
    commands = {int(path.parent.name): path for path in Path("/proc").glob("[0-9]*/cmdline")}
    training = next(pid for pid, path in commands.items() if str(folder).encode() in read(path))
    worker = int(Path(f"/proc/{training}/stat").read_text().rsplit(") ", 1)[1].split()[1])
    assert read(commands[worker]).startswith(b"ray::")
    ray_cluster.remove_node(ray_cluster.second, allow_graceful=False)
    for pid in (worker, training):  # on a machine that dies nothing goes on
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert future.result(timeout=240) == "finished"
    assert "$ train --resume" in (folder / "log.txt").read_text()
    executor.stop()


def test_a_library_that_is_missing_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SegkitError, match=r'submitit is not installed; install it with: pip install "segkit\[cluster\]"'):
        SubmititExecutor(tmp_path / "jobs", 1, {})
    with pytest.raises(SegkitError, match="ray is not installed"):
        RayExecutor(1, {}, gpu=False)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """SLURM's commands as far as a submission needs them; `sbatch` keeps the script and refuses."""
    commands = tmp_path / "bin"
    commands.mkdir()
    texts = {"srun": "exit 0", "sbatch": 'cat "$1" > "${0%/*}/job.sh"; echo "invalid partition specified: moon" >&2; exit 1'}
    for name, text in texts.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    return commands


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus_per_nod": 1}, "--cluster. 'gpus_per_nod'; did you mean 'gpus_per_node'.*; choose from account, .*timeout_min"),
        ({"slurm_partitions": "gpu"}, "--cluster. 'slurm_partitions'; .*, partition, "),
        ({"timeout_min": "an hour"}, '--cluster: Parameter "timeout_min" expected type .*an hour'),
        ({"tasks_per_node": 2}, "--cluster.tasks_per_node 2: a run is one task of one node"),
        ({"cluster": "pbs"}, "unknown --cluster.cluster 'pbs'; choose from local, slurm"),
    ],
)
def test_a_wrong_parameter_of_slurm_is_one_line(tmp_path, slurm, options, message):
    with pytest.raises(SegkitError, match=message) as caught:
        SubmititExecutor(tmp_path / "jobs", 1, options)
    assert "\n" not in str(caught.value)


def test_what_slurm_is_asked_for_and_that_it_refuses(tmp_path, slurm, make_trials):
    options = {"partition": "moon", "gpus_per_node": 1, "slurm_qos": "night", "timeout_min": 90}
    executor = SubmititExecutor(tmp_path / "operators" / "jobs", 1, options)
    with pytest.raises(RunFailed, match="SLURM does not take a job: .*invalid partition specified: moon; correct --cluster.NAME"):
        executor.submit(make_trials(1)[0])
    script = (slurm / "job.sh").read_text().splitlines()
    asked = {"partition=moon", "gpus-per-node=1", "qos=night", "time=90", "cpus-per-task=2", "job-name=operators", "signal=USR2@90"}
    assert {f"#SBATCH --{line}" for line in asked} <= set(script)
    (command,) = [line for line in script if line.startswith("srun ")]
    assert f"env PYTHONPATH={Path(__file__).parents[2]}" in command


def test_without_slurm_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SegkitError, match="--executor slurm: .*srun.*; start on a login node, or try it here with --cluster.cluster local"):
        SubmititExecutor(tmp_path / "jobs", 1, {})


def test_no_ray_cluster_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SegkitError, match=rf"--executor ray: no cluster at '127.0.0.1:{port}' \(.*refused\); start one with `ray start"):
        RayExecutor(1, {"address": f"127.0.0.1:{port}"}, gpu=False)


SLEEP = """
import signal, sys, time

def save(*_):
    print("saved", flush=True)
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def sleeping(monkeypatch, make_trials):
    """A trial whose only command waits for SIGTERM, and a function that waits for the command."""
    popen = subprocess.Popen
    monkeypatch.setattr("segkit.ablation.trial.subprocess.Popen", lambda words, **options: popen([sys.executable, "-c", SLEEP], **options))
    (trial,) = make_trials(1)
    log = Path(trial.folder) / "log.txt"
    return trial, lambda: wait_for(lambda: log.exists() and "ready" in log.read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_job_is_handed_on(sleeping, number):
    trial, begun = sleeping
    threading.Thread(target=lambda: (begun(), os.kill(os.getpid(), number))).start()
    before = signal.getsignal(number)
    assert Work().run(trial, {}) == "interrupted"
    assert signal.getsignal(number) is before


def test_a_job_that_slurm_takes_back_leaves_no_result(sleeping):
    trial, begun = sleeping
    threading.Thread(target=lambda: (begun(), os.kill(os.getpid(), signal.SIGTERM))).start()
    with pytest.raises(SystemExit, match="143"):
        SlurmJob()(trial, {})


def test_a_checkpoint_ends_the_command_and_says_how_to_go_on(sleeping):
    trial, begun = sleeping
    job, again = SlurmJob(), []

    def time_is_nearly_up():
        begun()
        job.work.process.send_signal(signal.SIGUSR2)  # which SLURM sends to all processes of the job
        again.append(job.checkpoint(trial, {"A": "1"}))

    threading.Thread(target=time_is_nearly_up).start()
    with pytest.raises(SystemExit):
        job(trial, {})
    wait_for(lambda: again)
    assert (type(again[0].function), again[0].args) == (SlurmJob, (trial, {"A": "1"}))
    assert "saved" in (Path(trial.folder) / "log.txt").read_text()
