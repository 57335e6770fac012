"""Promise 10: without any network the commands work, or say in one line and at once what they lack."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from segkit.errors import SegkitError
from segkit.models import encoders

ROOT = Path(__file__).parents[2]
TRAIN = """--decoder_channels [8,8] --data.batch_size 2 --data.crop 32 --data.scenes_size 48 --data.scenes_train 6 --data.scenes_val 3
--data.scenes_test 2 --trainer.accelerator cpu --trainer.devices 1 --wandb.panels 1 --trainer.max_steps 2"""
SMALL = "mobilenetv3_small_050"  # timm's


@pytest.fixture(scope="module")
def nowhere():
    """What a command begins with to run where there is no network, not even a loopback."""
    for words in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            return words
    return pytest.skip("no network namespace can be made here")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The cache of the hub's client, empty, and its server a port at which nobody listens."""
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


def put_weights(hub):
    """Puts weights of SMALL into the cache, as a download leaves them; returns them."""
    import timm
    from safetensors.torch import save_file

    weights = timm.create_model(SMALL, pretrained=False).state_dict()
    repository = hub / f"models--{timm.get_pretrained_cfg(SMALL).hf_hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save_file(weights, snapshot / "model.safetensors")
    return weights


@pytest.mark.parametrize("name", ["resnet18", SMALL, f"tu-{SMALL}"])
def test_weights_that_are_not_there_are_an_error_at_once(hub, name):
    encoders.network_name(name)  # imports
    start = time.monotonic()
    with pytest.raises(SegkitError, match=rf"'{name}': the weights are not in the local cache, and there is no network .*local .safeten"):
        encoders.check_weights(name, "imagenet")
    assert time.monotonic() - start < 5


def test_a_hub_that_never_answers_is_no_network(hub, monkeypatch):
    from huggingface_hub import constants

    encoders.network_name(SMALL)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(SegkitError, match=r"there is no network \(http://127.0.0.1:\d+ does not answer\)"):
            encoders.check_weights(SMALL, "imagenet")
        assert time.monotonic() - start < 5
    assert not constants.HF_HUB_OFFLINE


def test_weights_in_the_cache_need_no_network(hub):
    weights = put_weights(hub)
    encoders.check_weights(SMALL, "imagenet")
    built = encoders.build_encoder(SMALL, weights="imagenet").network.state_dict()
    same = [torch.equal(value, weights[name.removeprefix("model.")]) for name, value in built.items()]
    assert len(same) > 50
    assert all(same)


def environment(folder):
    (folder / "home").mkdir(exist_ok=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "HF_"))}
    return env | {"HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_commands_work_without_a_network(tmp_path, nowhere, make_folder):
    make_folder()
    commands = {
        "train.py": [*TRAIN.split(), "--run_id", "one"],
        "eval.py": ["--images", "1"],
        "predict.py": ["runs/scenes-unet-transpose/one", "images/val", "--out", "predicted"],
        "export.py": ["--out", "exported.onnx"],
        "check_data.py": ["--data.root", "."],
        "visualize.py": ["features", "runs/scenes-unet-transpose/one", "--out", "seen.png"],
    }
    for script, words in commands.items():
        start = time.monotonic()
        command = [*nowhere, sys.executable, str(ROOT / "scripts" / script), *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False)
        print(f"{script}: exit {done.returncode} in {time.monotonic() - start:.1f} s", done.stderr.strip()[-300:])
        assert done.returncode == 0, done.stdout + done.stderr
        assert "offline; sync with: wandb sync" in done.stdout or script != "train.py"


# prints, for each command line that it is given, the seconds that the command took once all is imported, its exit code, and its errors
PROGRAM = """
import contextlib, io, json, sys, time
import pytorch_lightning, rich.console, torchvision.datasets
from segkit import preflight, callbacks, tracking, trainer
from segkit.cli import train
from segkit.cli.running import run
from segkit.data import module
from segkit.models.encoders import network_name
network_name("resnet18")
for words in json.loads(sys.argv[1]):
    sys.argv, errors, start, code = ["train.py", *words], io.StringIO(), time.monotonic(), 0
    with contextlib.redirect_stderr(errors):
        try:
            run(train.main)
        except SystemExit as leave:
            code = leave.code
    print("CASE", json.dumps([time.monotonic() - start, code, errors.getvalue()]))
"""


@pytest.mark.slow
def test_what_needs_the_network_says_so_at_once_and_what_is_cached_does_not(tmp_path, nowhere):
    put_weights(tmp_path / "home/.cache/huggingface/hub")
    deep = [*TRAIN.split(), "--decoder_channels", "[8,8,8,8]", "--encoder_weights", "imagenet"]
    pets = [*TRAIN.split(), "--data.kind", "pets", "--data.root", "pets", "--data.download", "true"]
    cases = {
        "resnet18": (
            [*deep, "--encoder", "resnet18"],
            2,
            "encoder_weights='imagenet' for 'resnet18': the weights are not in the local cache",
        ),
        "timm": (
            [*deep, "--encoder", "tu-resnet10t"],
            2,
            "'tu-resnet10t': the weights are not in the local cache, and there is no network",
        ),
        "pets": (pets, 2, "--data.download: pets could not be fetched into"),
        "cached": ([*deep, "--encoder", SMALL], 0, ""),
    }
    command = [*nowhere, sys.executable, "-c", PROGRAM, json.dumps([words for words, _, _ in cases.values()])]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False)
    told = [json.loads(line.removeprefix("CASE ")) for line in done.stdout.splitlines() if line.startswith("CASE ")]
    assert len(told) == len(cases), done.stdout + done.stderr
    for (name, (_, wanted, words)), (seconds, code, errors) in zip(cases.items(), told, strict=True):
        print(f"{name}: exit {code} in {seconds:.2f} s beyond the imports: {errors.strip()}")
        assert code == wanted, errors
        assert words in errors
        if not wanted:
            assert errors == ""
        else:
            assert errors.count("\n") == 1
            assert seconds < 5
