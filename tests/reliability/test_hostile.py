"""Files that were made to do harm: none of them runs code, writes or reads elsewhere, or fills memory; the answer is one line.

Every file here that could run code would create the canary. `serve` runs the commands, each as a process.
"""

import json
import os
import pickle
import random
import shutil
import struct
import subprocess
import warnings
import zipfile

import numpy as np
import pytest
import torch

import segkit
from segkit.checkpoint import load_checkpoint
from segkit.errors import SegkitError
from segkit.export.weights import load_safetensors
from segkit.models import UNet
from segkit.task import SegmentationTask

TINY = """--decoder_channels [8,8] --data.batch_size 2 --data.crop 32 --data.scenes_size 48 --data.scenes_train 2 --data.scenes_val 2
--data.scenes_test 0 --data.workers 0 --trainer.accelerator cpu --trainer.max_steps 1 --wandb.mode disabled --wandb.panels 0"""
MIB = 350  # that a command may take beside what it takes anyhow


class Runs:
    """What a pickle turns into a call."""

    def __init__(self, function, *words):
        self.call = function, words

    def __reduce__(self):
        return self.call


def hostile_checkpoints(folder, canary):
    """Files that run code where they are unpickled, or are no checkpoint."""
    payloads = {
        "system": Runs(os.system, f"touch {canary}"),
        "exec": Runs(exec, f"open({str(canary)!r}, 'w')"),
        "popen": Runs(subprocess.Popen, ["touch", str(canary)]),
        "numpy": Runs(np.load, str(folder / "exec-plain.ckpt"), None, True),
        "torch": Runs(torch.load, str(folder / "exec-plain.ckpt"), "cpu"),
    }
    for name, payload in payloads.items():
        inside = {"state_dict": {"a": torch.zeros(2), "b": payload}, "hyper_parameters": {"class_names": payload}, "global_step": 1}
        torch.save(inside, folder / f"{name}.ckpt")
        torch.save(inside, folder / f"{name}-legacy.ckpt", _use_new_zipfile_serialization=False)
        (folder / f"{name}-plain.ckpt").write_bytes(pickle.dumps(payload))
    np.save(folder / "objects.npy", np.array([payloads["exec"]], dtype=object), allow_pickle=True)
    (folder / "objects.npy").rename(folder / "objects.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is on its way out
        torch.jit.script(torch.nn.ReLU()).save(str(folder / "script.ckpt"))
    (folder / "yaml.ckpt").write_text(f"!!python/object/apply:os.system ['touch {canary}']")
    (folder / "empty.ckpt").write_bytes(b"")
    (folder / "zeros.ckpt").write_bytes(bytes(1000))
    (folder / "noise.ckpt").write_bytes(random.Random(0).randbytes(1000))
    with zipfile.ZipFile(folder / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as record:
        for _ in range(400):
            record.write(bytes(2**20))
    return sorted(folder.glob("*.ckpt"))


def commands(checkpoint, lair):
    """The ways in which a checkpoint gets to be read."""
    run = checkpoint.with_suffix("") / "run"  # of which it is every checkpoint
    if not run.exists():
        shutil.copytree(lair / "runs/a/b", run)
        for name in ("last", "best"):
            shutil.copy(checkpoint, run / f"checkpoints/{name}.ckpt")
        shutil.copy(checkpoint, checkpoint.with_suffix(".pt"))
    return [
        ("eval", checkpoint),
        ("predict", checkpoint, lair / "a.png"),
        ("export", checkpoint),
        ("visualize", "features", checkpoint),
        ("visualize", "operator", "--checkpoint", checkpoint),
        ("train", "--resume", run, "--trainer.max_steps", 2),
        ("train", *TINY.split(), "--encoder", "resnet18", "--encoder_weights", checkpoint.with_suffix(".pt")),
        ("eval", run, lair / "runs/a/b"),
    ]


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_checkpoint_runs_code(lair, serve, tmp_path, every):
    canary, usual = tmp_path / "canary", serve("python", "pass", cwd=tmp_path).mib
    checkpoints = hostile_checkpoints(tmp_path, canary)
    assert len(checkpoints) == 22
    asked = 0
    for place, checkpoint in enumerate(checkpoints):
        ways = commands(checkpoint, lair)
        for way in ways if every else [ways[place % len(ways)]]:
            done = serve(*way, cwd=tmp_path)
            said = done.refused()
            assert checkpoint.stem in said
            assert done.mib < usual + MIB
            asked += 1
    assert not canary.exists()
    pickle.loads((tmp_path / "system-plain.ckpt").read_bytes())
    assert canary.exists()  # it would have sung
    print(f"{asked} of {asked} readings of {len(checkpoints)} hostile checkpoints: one line, exit code 2, no canary")


def test_no_checkpoint_runs_code_in_python(tmp_path):
    canary = tmp_path / "canary"
    for checkpoint in hostile_checkpoints(tmp_path, canary):
        for load in (segkit.load, SegmentationTask.load, load_checkpoint):
            with pytest.raises(SegkitError) as error:
                load(checkpoint)
            assert "\n" not in str(error.value)
    for address in ("http://127.0.0.1:9/a.ckpt", "file:///etc/passwd", "s3://bucket/a.ckpt", "https://127.0.0.1:9/a.ckpt?x=/a.ckpt"):
        for load in (segkit.load, SegmentationTask.load):
            with pytest.raises(SegkitError, match="is a URL; download it and give the file"):
                load(address)
    assert not canary.exists()


def test_no_garbage_is_taken_for_safetensors(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    files = [b"", b"\xff" * 8, struct.pack("<Q", 2**60) + b"{", struct.pack("<Q", 5) + b"{{{{{", struct.pack("<Q", len(header)) + header]
    files += [struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 99999) + b"[" * 99999, pickle.dumps(Runs(os.system, "true"))]
    for content in files:
        (tmp_path / "a.safetensors").write_bytes(content)
        with pytest.raises(SegkitError, match=r"^cannot read the weights|has no card of segkit") as error:
            load_safetensors(tmp_path / "a.safetensors")
        assert "\n" not in str(error.value)
        with pytest.raises(SegkitError, match="cannot be read") as error:
            UNet(2, "resnet18", str(tmp_path / "a.safetensors"))
        assert "\n" not in str(error.value)
    values = {"task": {"class_names": ["a"], "encoder": "resnet18", "encoder_weights": "imagenet"}, "step": 1}
    torch_free = {"segkit": json.dumps(values)}
    from safetensors.torch import save

    (tmp_path / "a.safetensors").write_bytes(save({"a": torch.zeros(1)}, torch_free))
    with pytest.raises(SegkitError, match="does not fit this version"):
        load_safetensors(tmp_path / "a.safetensors")


VALUES = [None, -1, 0, 10**7, 10**30, float("inf"), float("nan"), "x", "x" * 10**5, "", [], {}, ["a"], [[1]], [10**6] * 2, True, b"x"]
VALUES += [torch.zeros(2), "../../x", "\0"]


@pytest.mark.parametrize(("step", "each"), [(4, 1), pytest.param(1, 4, marks=pytest.mark.slow)])
def test_a_checkpoint_of_plain_values_that_lie_is_one_line(lair, serve, tmp_path, step, each):
    """Every value of the network's description, and of the run's, replaced by others."""
    whole, chance, usual = (
        load_checkpoint(lair / "runs/a/b/checkpoints/last.ckpt"),
        random.Random(each),
        serve("python", "pass", cwd=lair).mib,
    )
    places = [("hyper_parameters", name) for name in whole["hyper_parameters"]] + [("config", name) for name in whole["config"]]
    places += [("config", room, name) for room in ("data", "trainer", "wandb") for name in whole["config"][room]]
    places += [(name,) for name in whole if name != "pytorch-lightning_version"]
    codes = []
    for *rooms, name in places[::step]:
        for value in chance.sample(VALUES, each):
            room = changed = pickle.loads(pickle.dumps(whole))
            for inner in rooms:
                room = room[inner]
            room[name] = value
            torch.save(changed, tmp_path / "a.ckpt")
            words = ["predict", tmp_path / "a.ckpt", lair / "a.png", "--overwrite", "--device", "cpu"]
            if "config" in rooms or len(codes) % 3 == 0:
                words = ["eval", tmp_path / "a.ckpt", "--split", "val", "--images", 0, "--accelerator", "cpu"]
            done = serve(*words, cwd=tmp_path)
            if done.code:
                done.refused()
            assert done.mib < usual + MIB
            codes.append(done.code)
    print(f"{len(codes)} checkpoints with a value that lies: {codes.count(2)} refused in one line, {codes.count(0)} do not need it")
    assert codes.count(2) > len(codes) / 4


def training_states(whole):
    """What a run that is gone on with takes from its checkpoint, changed; as changes of a copy by name."""
    name, weight = next(iter(whole["state_dict"].items()))
    index = next(iter(whole["optimizer_states"][0]["state"]))

    def weights(value, part="state_dict"):
        return lambda state: state[part].update({name: value})

    def moment(value):
        return lambda state: state["optimizer_states"][0]["state"][index].update(exp_avg=value)

    def group(**values):
        return lambda state: state["optimizer_states"][0]["param_groups"][0].update(values)

    def replace(**values):
        return lambda state: state.update(values)

    tensors = {
        "meta": torch.empty_like(weight, device="meta"),
        "sparse": weight.to_sparse(),
        "double": weight.double(),
        "complex": weight.to(torch.complex64),
        "small": torch.zeros(3),
        "none": None,
        "huge": torch.zeros(1).expand(10**12),
    }
    yield from ((f"weights {what}", weights(value)) for what, value in tensors.items())
    yield from ((f"raw weights {what}", weights(value, "raw_state_dict")) for what, value in tensors.items())
    moments = tensors | {"one number for all": torch.zeros(1).expand(weight.shape), "whole numbers": weight.int()}
    yield from ((f"moment {what}", moment(value)) for what, value in moments.items() if what != "double")
    yield from {
        "no optimiser": replace(optimizer_states=[]),
        "a number for it": replace(optimizer_states=5),
        "other groups": lambda state: state["optimizer_states"][0].update(param_groups=[]),
        "other parameters": group(params=[0]),
        "betas": group(betas=5),
        "capturable": group(capturable=True),
        "lr": group(lr="x"),
        "no moment": lambda state: state["optimizer_states"][0]["state"][index].pop("exp_avg"),
        "step": replace(global_step="x"),
        "step below 0": replace(global_step=-1),
        "schedule": replace(lr_schedulers=[{"last_epoch": "x"}]),
        "callbacks": replace(callbacks=5),
        "data": replace(SegmentationDataModule={"x": 5}),
    }.items()


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_goes_on_from_no_state_that_lies(serve, tmp_path, every):
    """A fused update of the optimiser does not look at shapes: with a small tensor it wrote beyond it."""
    words = [*TINY.split(), "--ema", 0.9, "--name", "a", "--run_id", "b"]
    assert serve("train", *words, cwd=tmp_path).code == 0
    last = tmp_path / "runs/a/b/checkpoints/last.ckpt"
    whole = load_checkpoint(last)
    refused = list(training_states(whole))
    for name, change in refused if every else refused[::4]:
        state = pickle.loads(pickle.dumps(whole))
        change(state)
        torch.save(state, last)
        last.with_name("previous.ckpt").unlink(missing_ok=True)
        done = serve("train", "--resume", tmp_path / "runs/a/b", "--trainer.max_steps", 2, cwd=tmp_path)
        assert str(last) in done.refused(), name
    torch.save(whole, last)
    assert serve("train", "--resume", tmp_path / "runs/a/b", "--trainer.max_steps", 2, cwd=tmp_path).code == 0
    print(f"{len(refused)} of {len(refused)} states of a training that lie: one line, exit code 2")


def test_counts_that_lie_are_counted_again(lair, serve, tmp_path):
    runs = [tmp_path / name for name in "xy"]
    for run in runs:
        shutil.copytree(lair / "runs/a/b", run)
    words = ["eval", *runs, "--split", "val", "--accelerator", "cpu", "--images", 0]
    assert serve(*words, cwd=tmp_path).code == 0
    path = runs[0] / "eval/val-last/per_image.npz"
    with np.load(path) as file:
        whole = dict(file)
    hostile = np.array([Runs(os.system, f"touch {tmp_path / 'canary'}")] * 3, dtype=object)
    for changed in (
        {"name": hostile},
        {"matrix": np.zeros(3)},
        {"matrix": whole["matrix"] * np.nan},
        {"classes": whole["classes"][:1]},
        None,
    ):
        path.unlink()
        if changed is None:
            os.mkfifo(path)
        else:
            np.savez(path, **whole | changed)
        done = serve(*words, cwd=tmp_path, limit=30)
        assert (done.code, done.err) == (0, ""), changed
        with np.load(path) as file:
            assert (file["matrix"] == whole["matrix"]).all()
    assert not (tmp_path / "canary").exists()


BEYOND = [
    "--data.batch_size 1000000000",
    "--data.scenes_train 1000000000",
    "--data.scenes_val 99999999999999999999999",
    "--data.scale [1e-9,1e-9]",
    "--data.scale [1,1e9]",
    "--trainer.accumulate 1000000000",
    "--trainer.max_steps 99999999999999999999999",
    "--decoder_channels [1000000000,8]",
    "--decoder_channels [8,8,8,8,8,8,8,8,8,8,8,8,8]",
    "--upsample_width [1000000000,1]",
]


@pytest.mark.parametrize("words", BEYOND)
def test_a_number_beyond_reason_is_one_line_and_takes_no_memory(serve, tmp_path, words):
    done = serve("train", *TINY.split(), *words.split(), cwd=tmp_path, memory=3000)
    assert f"error: {words.split()[0]} " in done.refused()


def test_want_of_memory_is_one_line(serve, tmp_path):
    for words in ("--data.batch_size 20000 --data.crop 512", "--decoder_channels [16384,16384]"):
        done = serve("train", *TINY.split(), *words.split(), cwd=tmp_path, memory=1500)
        assert "there is not enough memory (" in done.refused(code=1), words


def repeated(anchor, rest):
    """Ten levels of nine aliases each: 1 KB, and 3 10^9 values."""
    levels = [f"{anchor}0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"{anchor}{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    return "\n".join([*levels, rest, ""])


def hostile_yaml(canary):
    """Configurations that would run code or never end."""
    call = f"{{class_path: subprocess.Popen, init_args: {{args: [touch, {canary}]}}}}"
    yield from (
        call,
        f"data: {call}",
        f"encoder: {call}",
        f"upsample: [{call}]",
        f"wandb: {{tags: [{call}]}}",
        f"data: {{mapping: {call}}}",
    )
    yield from (f"trainer: {{extra: {{{name}: {call}}}}}" for name in ("profiler", "detect_anomaly", "min_steps"))
    yield f"trainer: {{extra: {{callbacks: [{call}]}}}}"
    for tag in ("object/apply:os.system", "object/new:subprocess.Popen", "object/apply:builtins.exec"):
        yield f"name: !!python/{tag} ['touch {canary}']"
    yield from ("name: !!python/name:os.system", "name: !!python/module:this", f"!!python/object/apply:os.system ['touch {canary}']")
    yield from (
        repeated("k", ""),
        repeated("k", "name: *a9"),
        "trainer:\n extra:\n" + repeated("  k", ""),
        "a: &a [*a]",
        "data: &d {mapping: *d}",
    )
    yield from ("name: " + "[" * 100_000 + "]" * 100_000, "name: " + "{a: " * 2000 + "1" + "}" * 2000, "seed: " + "9" * 5000)
    yield from (
        "seed: 0x" + "f" * 5000,
        'name: "a\\0b"',
        "name: a\x07",
        "x" * 10**6 + ": 1",
        "# " + "x" * 2**21,
        "- 1",
        "5",
        "a: 1\n---\nb: 2",
    )
    yield from (
        "? [a]\n: 1",
        "null: 1",
        "2020-13-45: 1",
        "wandb: {tags: [2020-13-45]}\nname: [",
        "lr: .nan",
        "run_id: ../../x",
        "name: ../x",
    )


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_configuration_runs_code_or_has_no_end(lair, serve, tmp_path, every):
    canary, run, asked = tmp_path / "canary", tmp_path / "run", 0
    shutil.copytree(lair / "runs/a/b", run)
    plans = tmp_path / "plans"
    plans.mkdir()
    file = tmp_path / "a.yaml"
    for number, text in enumerate(hostile_yaml(canary)):
        file.write_text(text)
        shutil.copy(file, run / "config.yaml")
        shutil.copy(file, plans / "plan.yaml")
        ways = [
            ("train", *TINY.split(), "--config", file),
            ("train", "--resume", run),
            ("ablate", "report", plans),
            ("ablate", "--config", file, "--upsample", "nearest", "bilinear", "--data.kind", "folder", "--data.root", "nowhere"),
        ]
        for place, way in enumerate(ways):
            if not every and place not in (0, 1 + number % 3):
                continue
            done = serve(*way, cwd=tmp_path, limit=30, memory=4000)
            assert done.seconds < 15, (text[:80], way)
            done.refused()
            asked += 1
    assert not canary.exists()
    assert not (tmp_path.parent / "x").exists()
    print(f"{asked} of {asked} readings of {number + 1} hostile configurations: one line, exit code 2, no canary")
