"""A process that is killed ends the others of its run, in training and amid a long validation, with a line and without an orphan."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed import DistBackendError, DistNetworkError, DistStoreError

from segkit.config import TrainerConfig
from segkit.errors import RunFailed, SegkitError
from segkit.peers import is_loss, together
from segkit.trainer import build_trainer, check_processes

ROOT = Path(__file__).parents[2]
WHEN = {
    "training": "--data.scenes_val 2 --trainer.max_steps 1000000 --trainer.val_every 1000000",
    "validation": "--data.scenes_val 100000 --trainer.max_steps 1000 --trainer.val_every 4",
}


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes below /proc")
@pytest.mark.parametrize(("victim", "when"), [
    ("second", "validation"),
    pytest.param("first", "validation", marks=pytest.mark.slow),
    pytest.param("first", "training", marks=pytest.mark.slow),
    pytest.param("second", "training", marks=pytest.mark.slow),
])  # fmt: skip
def test_a_killed_process_ends_the_other(lab, victim, when):
    words = [*lab.tiny, "--trainer.devices", "2", "--trainer.log_every", "1", "--name", "lost", *WHEN[when].split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    first = subprocess.Popen([sys.executable, str(ROOT / "scripts/train.py"), *words], **options)
    deadline = time.monotonic() + 120
    while not (tables := [*Path("runs").glob("lost/*/metrics.csv")]) or len(tables[0].read_text().splitlines()) <= 4:
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.1)
    time.sleep(1)  # into the validation
    (second,) = map(int, Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split())
    os.kill({"first": first.pid, "second": second}[victim], signal.SIGKILL)
    began = time.monotonic()
    _, errors = first.communicate(timeout=30)  # until both have closed it
    while running(second) and time.monotonic() < began + 30:
        time.sleep(0.1)
    assert not running(second)
    assert first.returncode == (1 if victim == "second" else -signal.SIGKILL)
    line = r"train\.py: error: another process of this run was lost \(.+\); go on with --resume runs/lost/[\w-]+\n"
    assert re.fullmatch(line, errors)
    print(f"the {victim} process killed in {when}: the other ended {time.monotonic() - began:.0f} s later: {errors.strip()}")


@pytest.mark.parametrize("error", [
    RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [10.0.0.2]:7881. This is"),
    RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 20000ms for recv operation"),
    RuntimeError("Application timeout caused pair closure"),
    DistBackendError("NCCL error: remote process exited or there was a network error: Connection reset by peer"),
    DistStoreError("wait timeout after 20000ms, keys: /default_pg/0//cpu//0/1"),
    DistNetworkError("The client socket has failed to connect to any network address of (host-a, 29400)."),
])  # fmt: skip
def test_an_error_of_the_connection_is_one_line(error):
    trainer = build_trainer(TrainerConfig(accelerator="cpu", devices=2))
    with pytest.raises(RunFailed, match=r"lost \((?!\[).*\); go on with --resume A") as failed, together(trainer, "go on with --resume A"):
        raise error
    assert len(str(failed.value).splitlines()) == 1


@pytest.mark.parametrize("error", [
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
    RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/device.cc:84] Unable to find address for: eth9"),
    DistBackendError("NCCL error: Duplicate GPU detected"),
    SegkitError("--data.root: no such folder"),
])  # fmt: skip
def test_other_errors_stay_what_they_are(error):
    assert not is_loss(error)
    trainer = build_trainer(TrainerConfig(accelerator="cpu", devices=2))
    with pytest.raises(type(error), match=re.escape(str(error))), together(trainer, ""):
        raise error


def test_a_port_that_is_taken_is_no_lost_process():
    said = "The server socket has failed to listen on any local network address. port: 29777, useIpv6: false, code: -98, name: EADDRINUSE"
    trainer = build_trainer(TrainerConfig(accelerator="cpu", devices=2))
    with pytest.raises(RunFailed, match="^port 29777, .*; set MASTER_PORT to one that is free$"), together(trainer, "A"):
        raise DistNetworkError(said)


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true"])
def test_every_strategy_waits_as_long_as_it_is_told_to(strategy):
    trainer = build_trainer(TrainerConfig(accelerator="cpu", devices=2, strategy=strategy, timeout=77))
    assert trainer.strategy._timeout.total_seconds() == 77


def test_a_strategy_that_is_not_there_is_one_line():
    with pytest.raises(SegkitError, match="--trainer: Lightning refuses these options: .*'ddpp'"):
        build_trainer(TrainerConfig(accelerator="cpu", devices=2, strategy="ddpp"))
    with pytest.raises(SegkitError, match="--trainer.timeout 0.5: give a number from 1"):
        TrainerConfig(timeout=0.5)


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2"])
def test_strategies_that_share_out_the_weights_are_refused(strategy):
    with pytest.raises(SegkitError, match=f"--trainer.strategy {strategy}: segkit needs whole tensors in every process; use ddp"):
        build_trainer(TrainerConfig(accelerator="cpu", devices=2, strategy=strategy))


@pytest.mark.parametrize("environment", [
    {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "SLURM_STEP_NUM_TASKS": "2"},  # srun starts two torchruns
    {"SLURM_STEP_NUM_TASKS": "4"},
])  # fmt: skip
def test_a_number_of_processes_that_the_launcher_did_not_start_is_one_line(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    line = "--trainer.devices 1, --trainer.num_nodes 2: they make 2 processes, but 4 were started; devices are those of one machine"
    with pytest.raises(SegkitError, match=line):
        check_processes(1, 2, 2)
    check_processes(2, 2, 4)
    with pytest.raises(SegkitError, match="they make 1 processes, but 4 were started"):  # four runs of their own, in one folder
        build_trainer(TrainerConfig(accelerator="cpu", devices=1))


def test_the_number_of_another_process_that_the_environment_has_left_is_one_line(monkeypatch):
    """Without the first process there is nobody who makes the run folder."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SegkitError, match=r"LOCAL_RANK=1 says .*, but --trainer\.devices 1 is one; unset LOCAL_RANK"):
        build_trainer(TrainerConfig(accelerator="cpu", devices=1))
    check_processes(2, 1, 2)
    monkeypatch.setenv("RANK", "0")
    check_processes(1, 1, 1)
