"""One job on two hosts, and one of SLURM, by the lines of the README: what one host computes, whatever happens to cable and processes."""

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
NAMES = ("host-a", "host-b")
ADDRESSES = ("10.99.7.1", "10.99.7.2")
README = (ROOT / "README.md").read_text(encoding="utf-8")
TORCHRUN, SBATCH = (shlex.split(re.search(rf"^{name} .*", README, re.MULTILINE)[0]) for name in ("torchrun", "sbatch"))
# what makes the experiment of the page small, and fit for a CPU
SMALL = """--encoder plain --decoder_channels [8,8] --data.batch_size 2 --data.crop 32 --data.workers 0 --ema 0.9 --dropout 0.2 --name small
--trainer.max_epochs null --trainer.max_steps 400 --trainer.val_every 100 --trainer.log_every 5 --trainer.accelerator cpu
--trainer.extra.sync_batchnorm false --wandb.mode disabled --wandb.panels 0"""
TIMEOUT = 20  # seconds


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Hosts:
    """As a context: makes the namespaces, and ends what runs in them and removes them at the end.

    Each namespace is a host with its own name, which `/etc/hosts` resolves to its own address, as in a cluster.
    """

    def __init__(self):
        self.spaces = [f"segkit-{os.getpid()}-{name}" for name in NAMES]
        self.processes = []

    def __enter__(self):
        names = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in zip(NAMES, ADDRESSES, strict=True))
        try:
            for space in self.spaces:
                ip("netns", "add", space)
                (Path("/etc/netns") / space).mkdir(parents=True)
                (Path("/etc/netns") / space / "hosts").write_text(names)  # `ip netns exec` shows it as /etc/hosts
            ip("link", "add", "eth0", "netns", self.spaces[0], "type", "veth", "peer", "name", "eth0", "netns", self.spaces[1])
            for space, address in zip(self.spaces, ADDRESSES, strict=True):
                ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
                ip("-n", space, "link", "set", "lo", "up")
                ip("-n", space, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for space in self.spaces:
            for pid in self.pids(space):  # workers outlive an agent that is killed
                os.kill(pid, 9)
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
            shutil.rmtree(Path("/etc/netns") / space, ignore_errors=True)

    def pids(self, space):
        listed = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False)
        return [int(pid) for pid in listed.stdout.split()]

    def cable(self, state):
        """`up` or `down`."""
        ip("-n", self.spaces[1], "link", "set", "eth0", state)

    def start(self, command, cwd):
        """The same command on both but for N, the host's number; what they print goes to `host-a.txt` and `host-b.txt`."""
        started = []
        for number, (space, name) in enumerate(zip(self.spaces, NAMES, strict=True)):
            inside = ["ip", "netns", "exec", space, "unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
            with (cwd / f"{name}.txt").open("w") as file:
                words = [*inside, *(str(number) if word == "N" else word for word in command)]
                started.append(subprocess.Popen(words, cwd=cwd, stdout=file, stderr=subprocess.STDOUT))
        self.processes += started
        return started


@pytest.fixture
def hosts():
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("iproute2 and util-linux are not installed")
    try:
        ip("netns", "add", f"segkit-{os.getpid()}-try")
        ip("netns", "del", f"segkit-{os.getpid()}-try")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not permitted here: {error.stderr.strip()}")
    with Hosts() as made:
        yield made


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The root of a data set of 12 training and 5 validation images."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (root / "classes.txt").write_text("0 a\n1 b\n2 c\n")
    for split, count in (("train", 12), ("val", 5)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            mask = rng.integers(0, 3, (48, 48), np.uint8)
            Image.fromarray(mask).save(root / f"masks/{split}/{i}.png")
            Image.fromarray(np.stack([mask * 80] * 3, -1) + rng.integers(0, 90, (48, 48, 3), np.uint8)).save(
                root / f"images/{split}/{i}.png"
            )
    return root


@pytest.fixture(scope="module")
def one_host(tmp_path_factory, data):
    """The run of two processes on one host that all others must equal."""
    folder = tmp_path_factory.mktemp("one")
    words = [sys.executable, str(ROOT / "scripts/train.py"), "--config", str(ROOT / "configs/multi_node.yaml"), "--data.root", str(data)]
    words += [*SMALL.split(), "--trainer.devices", "2", "--trainer.num_nodes", "1", "--run_id", "one"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return fingerprint(folder / "runs/small/one")


def fingerprint(run):
    """sha256 of every tensor of the last checkpoint, and of the confusion matrices of all images."""
    state = load_checkpoint(run / "checkpoints/last.ckpt")
    assert state["global_step"] == 400
    tensors = {f"{key}.{name}": value.numpy() for key in ("state_dict", "raw_state_dict") for name, value in state[key].items()}
    for index, slots in state["optimizer_states"][0]["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value.numpy() for name, value in slots.items()}
    tensors["matrices"] = np.load(run / "per_image.npz")["matrix"]
    assert tensors["matrices"].shape == (5, 3, 3)
    return {name: hashlib.sha256(value.tobytes()).hexdigest() for name, value in tensors.items()}


def fill(words, **places):
    """Words of the page with its places in capitals filled in, and the program and paths of this test."""
    words = [
        sys.executable if word == "python" else str(ROOT / word) if word.startswith(("scripts/", "configs/")) else word for word in words
    ]
    return [str(places.get(word, word)) for word in words]


def start(hosts, folder, data):
    """The line of the page, with one process on each host."""
    words = fill(TORCHRUN[1:], HOST="host-a", DIR=data, ID="run")
    words[words.index("--nproc_per_node") + 1] = "1"
    return hosts.start([sys.executable, "-m", "torch.distributed.run", *words, *SMALL.split(), "--trainer.timeout", str(TIMEOUT)], folder)


def wait_for_step(run, step, processes):
    """Until the run has logged `step`."""
    table, deadline = run / "metrics.csv", time.monotonic() + 120
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        rows = table.read_text().splitlines() if table.exists() else []
        steps = [int(row.split(",")[0]) for row in rows[1:] if row.split(",")[0].isdigit()]
        if steps and max(steps) >= step:
            return
        time.sleep(0.05)
    raise AssertionError(f"no step {step} in two minutes")


def ends(processes, seconds):
    """Exit codes, and how long it took."""
    began = time.monotonic()
    codes = [process.wait(timeout=max(began + seconds - time.monotonic(), 0.1)) for process in processes]
    return codes, time.monotonic() - began


def lines(folder):
    """What segkit itself says on each host."""
    return [re.findall(r"^train\.py: .*$", (folder / f"{name}.txt").read_text(), re.MULTILINE) for name in NAMES]


def said(folder):
    return "".join(f"--- {name}\n{(folder / f'{name}.txt').read_text()[-3000:]}" for name in NAMES)


def test_two_hosts_compute_what_one_host_computes(hosts, data, one_host, tmp_path):
    codes, _ = ends(start(hosts, tmp_path, data), 300)
    assert codes == [0, 0], said(tmp_path)
    assert [path.name for path in (tmp_path / "runs/small").iterdir()] == ["run"]  # one run folder
    assert fingerprint(tmp_path / "runs/small/run") == one_host
    print(f"two hosts: {len(one_host)} of {len(one_host)} tensors equal")


def test_a_cut_cable_ends_both_hosts_and_the_resumed_run_ends_bit_identical(hosts, data, one_host, tmp_path):
    run = tmp_path / "runs/small/run"
    processes = start(hosts, tmp_path, data)
    wait_for_step(run, 130, processes)
    hosts.cable("down")
    codes, seconds = ends(processes, TIMEOUT + 40)  # the rest is for torchrun's own end
    assert codes == [1, 1], said(tmp_path)
    for found in lines(tmp_path):
        assert len(found) == 1
        assert re.fullmatch(r"train\.py: error: another process of this run was lost \(.+\); go on with --resume runs/small/run", found[0])
    assert 100 <= load_checkpoint(run / "checkpoints/last.ckpt")["global_step"] < 400
    hosts.cable("up")
    codes, _ = ends(start(hosts, tmp_path, data), 300)  # the same line
    assert codes == [0, 0], said(tmp_path)
    assert fingerprint(run) == one_host
    print(f"both hosts ended {seconds:.0f} s after the cut; {len(one_host)} of {len(one_host)} tensors equal after going on")


def test_a_killed_worker_ends_the_other_host(hosts, data, tmp_path):
    processes = start(hosts, tmp_path, data)
    wait_for_step(tmp_path / "runs/small/run", 20, processes)
    agent = processes[1].pid  # ip, unshare and sh have become it
    worker = int(Path(f"/proc/{agent}/task/{agent}/children").read_text().split()[0])
    os.kill(worker, signal.SIGKILL)
    codes, seconds = ends(processes, 30)
    assert codes == [1, 1], said(tmp_path)
    said_by_first, said_by_killed = lines(tmp_path)
    assert len(said_by_first) == 1
    assert "another process of this run was lost (" in said_by_first[0]
    assert said_by_killed == []
    print(f"both hosts ended {seconds:.0f} s after the kill")


def test_a_slurm_job_computes_what_one_host_computes(data, one_host, tmp_path):
    if not all(map(shutil.which, ("sbatch", "srun", "sinfo"))):
        pytest.skip("there is no SLURM here")
    if "idle" not in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False).stdout:
        pytest.skip("no SLURM node is idle")
    words = fill(SBATCH)
    del words[words.index("--gpus-per-node") : words.index("--gpus-per-node") + 2]
    words[words.index("--nodes") + 1], words[words.index("--ntasks-per-node") + 1] = "1", "2"
    inner = shlex.join([*fill(shlex.split(words[-1]), DIR=data), *SMALL.split(), "--trainer.devices", "2", "--trainer.num_nodes", "1"])
    words[-1] = inner.replace("'$SLURM_JOB_ID'", "$SLURM_JOB_ID")  # which is for the job's own shell
    done = subprocess.run([*words, "--wait", "--output", "job.txt"], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, (tmp_path / "job.txt").read_text()
    (run,) = (tmp_path / "runs/small").iterdir()
    assert run.name == re.search(r"Submitted batch job (\d+)", done.stdout)[1]
    assert fingerprint(run) == one_host
    print(f"SLURM, two tasks: {len(one_host)} of {len(one_host)} tensors equal")
