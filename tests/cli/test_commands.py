"""The commands as they are used: a run folder that holds the truth, exact resumption, every shipped configuration, several processes."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segkit.checkpoint import load_checkpoint
from segkit.cli import eval as evaluation
from segkit.cli import train as training
from segkit.errors import RunStopped, SegkitError
from segkit.runs import newest_run

ROOT = Path(__file__).parents[2]
TINY = "--decoder_channels [8,8] --data.batch_size 2 --data.crop 32 --data.scenes_size 48"
TINY += " --data.scenes_train 6 --data.scenes_val 3 --data.scenes_test 4"
TINY += " --trainer.accelerator cpu --trainer.devices 1 --wandb.mode disabled --wandb.panels 2"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder, as a new user has."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*words):
    training.main([*TINY.split(), *words])
    return newest_run("runs")


def weights(run, name="last"):
    return load_checkpoint(run / "checkpoints" / f"{name}.ckpt")


def test_a_run_leaves_all_that_the_run_folder_promises(folder, capsys):
    run = train("--trainer.max_steps", "5", "--trainer.val_every", "2", "--trainer.log_every", "1", "--upsample", "bilinear")
    out = capsys.readouterr().out
    for expected in (
        "operator",
        "bilinear",
        "parameters",
        "scenes: train 6, val 3, test 4 images",
        "run folder",
        f"eval.py {run}",
    ):
        assert expected in out
    assert run.parent.name == "scenes-unet-bilinear"
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert [p.name for p in sorted((run / "panels").iterdir())] == ["step_000002.png", "step_000004.png", "step_000005.png"]
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [int(r["step"]) for r in rows] == [1, 2, 3, 4, 5]
    assert all(float(r["train/loss"]) > 0 and float(r["train/grad_norm"]) > 0 and float(r["train/images_per_s"]) > 0 for r in rows)
    assert [bool(r["val/miou"]) for r in rows] == [False, True, False, True, True]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["step"] == 5
    assert metrics["miou"] == pytest.approx(float(rows[-1]["val/miou"]), rel=1e-6)
    assert f"{metrics['miou']:.4f}" in out
    per_image = np.load(run / "per_image.npz")
    assert per_image["matrix"].shape == (3, 6, 6)
    assert per_image["matrix"].sum() == 3 * 48 * 48
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["upsample"], config["trainer"]["max_steps"], config["data"]["crop"]) == ("bilinear", 5, 32)


def test_evaluation_needs_no_flag_and_repeats_the_number_that_training_printed(folder, capsys):
    run = train(
        "--trainer.max_steps", "3", "--decoder", "fcn8s", "--upsample", "pixel_shuffle", "--ema", "0.9", "--trainer.precision", "bf16-mixed"
    )
    trained = json.loads((run / "metrics.json").read_text())
    capsys.readouterr()
    evaluation.main(["--split", "val"])
    again = json.loads((run / "eval" / "val-last" / "metrics.json").read_text())
    assert (again["iou"], again["miou"], again["step"]) == (trained["iou"], trained["miou"], 3)
    assert f"{trained['miou']:.4f}" in capsys.readouterr().out
    evaluation.main([])
    test = json.loads((run / "eval" / "test-last" / "metrics.json").read_text())
    assert (test["split"], test["images"]) == ("test", 4)
    with Image.open(run / "eval" / "test-last" / "panel.png") as panel:
        assert panel.width > 100
    assert (run / "eval" / "test-last" / "gallery.html").stat().st_size > 10_000
    names = np.load(run / "eval" / "test-last" / "per_image.npz")["name"]
    assert len(set(names)) == 4


def test_evaluation_says_what_is_missing(folder):
    with pytest.raises(SegkitError, match="train one first: python scripts/train.py"):
        evaluation.main([])
    with pytest.raises(SegkitError, match="does not exist"):
        evaluation.main(["nowhere"])
    run = train("--trainer.max_steps", "1", "--data.scenes_test", "0")
    with pytest.raises(SegkitError, match="--split test: the data has train, val only"):
        evaluation.main([str(run), "--split", "test"])
    with pytest.raises(SegkitError, match=r"cannot write to the folder .*choose a place"):
        evaluation.main(["--out", str(run / "config.yaml" / "inside")])
    evaluation.main([str(run / "checkpoints" / "best.ckpt"), "--out", "here", "--images", "0"])
    assert {p.name for p in Path("here").iterdir()} == {"metrics.json", "per_image.npz", "per_image.csv", "confusion.png"}


def test_grey_images_of_several_sizes_from_files_and_evaluation_in_another_folder(folder, monkeypatch, caplog):
    rng = np.random.default_rng(0)
    data = folder / "data"
    for split in ("train", "val", "test"):
        for kind in ("images", "masks"):
            (data / kind / split).mkdir(parents=True)
        for i, size in enumerate([(97, 131), (40, 50), (97, 131)]):
            Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(data / f"images/{split}/{i}.png")
            Image.fromarray(rng.integers(0, 3, size, np.uint8)).save(data / f"masks/{split}/{i}.png")
    (data / "classes.txt").write_text("0 a\n1 b\n2 c\n")
    words = [
        "--data.kind",
        "folder",
        "--data.root",
        "data",
        "--in_channels",
        "1",
        "--trainer.max_steps",
        "1",
        "--data.eval_batch_size",
        "4",
    ]
    run = train(*words, "--wandb.mode", "offline").resolve()
    assert "do not match" not in caplog.text  # W&B's, on images of several sizes
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    evaluation.main([str(run), "--images", "2"])
    assert (run / "eval/test-last/panel.png").is_file()
    data.rename(folder / "moved")
    with pytest.raises(SegkitError, match="the data is not in .*data'; say where it is with --data_root"):
        evaluation.main([str(run)])
    evaluation.main([str(run), "--data_root", "../moved"])


def test_a_mistake_in_the_schedule_leaves_no_run_behind(folder):
    with pytest.raises(SegkitError, match="--warmup leaves 2 of 2 steps to the rise"):
        train("--trainer.max_steps", "2", "--warmup", "0.99")
    assert not (folder / "runs").exists()


def test_the_saved_configuration_starts_the_same_run(folder):
    run = train("--trainer.max_steps", "2", "--upsample", "[nearest,transpose]", "--dropout", "0.5")
    training.main(["--config", str(run / "config.yaml")])
    again = newest_run("runs")
    assert again != run
    for name, value in weights(run)["state_dict"].items():
        assert torch.equal(value, weights(again)["state_dict"][name])


@pytest.mark.parametrize(("accumulate", "ema", "workers"), [(1, 0.0, 0), (2, 0.9, 1)])
def test_a_resumed_run_ends_bit_identical(folder, accumulate, ema, workers):
    options = ["--schedule", "constant", "--warmup", "0", "--dropout", "0.3", "--ema", str(ema), "--trainer.accumulate", str(accumulate)]
    options += ["--trainer.val_every", "3", "--data.workers", str(workers), "--trainer.log_every", "1"]
    whole = train(*options, "--trainer.max_steps", "8", "--name", "whole")
    part = train(*options, "--trainer.max_steps", "5", "--name", "part")
    training.main(["--resume", str(part), "--trainer.max_steps", "8"])
    a, b = weights(whole), weights(part)
    assert a["global_step"] == b["global_step"] == 8
    for key in ("state_dict", *(["raw_state_dict"] if ema else [])):
        assert all(torch.equal(value, b[key][name]) for name, value in a[key].items())
    for name, state in a["optimizer_states"][0]["state"].items():
        assert all(torch.equal(value, b["optimizer_states"][0]["state"][name][key]) for key, value in state.items())
    columns = [[row["train/loss"] for row in csv.DictReader((run / "metrics.csv").read_text().splitlines())] for run in (whole, part)]
    assert columns[0] == columns[1]
    assert len(columns[0]) == 8


def test_resuming_cannot_change_the_experiment(folder, capsys):
    run = train("--trainer.max_steps", "2")
    with pytest.raises(SegkitError, match=r"--upsample nearest: the run was started with transpose"):
        training.main(["--upsample", "nearest", "--resume", str(run)])
    with pytest.raises(SegkitError, match=r"--data.crop 16: the run was started with 32"):
        training.main(["--resume", str(run), "--data.crop", "16"])
    training.main(["--resume", str(run)])
    assert "nothing left to do: the run is at step 2 of 2" in capsys.readouterr().out


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_run_and_resuming_ends_bit_identical(folder, monkeypatch, number, accumulate):
    from segkit.task import SegmentationTask

    options = ["--trainer.max_steps", "6", "--trainer.val_every", "6", "--trainer.log_every", "1", "--ema", "0.9"]
    options += ["--trainer.accumulate", str(accumulate)]
    whole = train(*options, "--name", "whole")
    step = SegmentationTask.training_step

    def interrupted(task, batch, batch_idx):
        if task.global_step == 2 and batch_idx % accumulate == 0:
            os.kill(os.getpid(), number)
        return step(task, batch, batch_idx)

    before = signal.getsignal(number)
    monkeypatch.setattr(SegmentationTask, "training_step", interrupted)
    with pytest.raises(RunStopped, match=rf"{number.name} at step 3; go on with --resume runs") as stopped:
        train(*options, "--name", "part")
    monkeypatch.setattr(SegmentationTask, "training_step", step)
    assert stopped.value.signal_number == number
    assert signal.getsignal(number) == before
    part = newest_run("runs")
    assert weights(part)["global_step"] == 3
    training.main(["--resume", str(part)])
    for key in ("state_dict", "raw_state_dict"):
        assert all(torch.equal(value, weights(part)[key][name]) for name, value in weights(whole)[key].items())
    digests = [weights(run)["SegmentationDataModule"] for run in (whole, part)]
    assert digests[0] == digests[1]  # each batch once, the one too that was loaded when the signal came
    losses = [[row["train/loss"] for row in csv.DictReader((run / "metrics.csv").read_text().splitlines())] for run in (whole, part)]
    assert losses[0] == losses[1]


def test_a_terminated_process_says_how_to_go_on(folder):
    words = [
        sys.executable,
        str(ROOT / "scripts/train.py"),
        *TINY.split(),
        "--trainer.max_steps",
        "100000",
        "--trainer.val_every",
        "100000",
    ]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(folder.glob("runs/*/*/metrics.csv")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert re.fullmatch(r"train.py: stopped by SIGTERM at step \d+; go on with --resume runs/\S+\n", errors)
    assert weights(newest_run(folder / "runs"))["global_step"] > 0


def test_a_run_that_goes_on_for_longer_remembers_its_new_budget(folder):
    run = train("--trainer.max_steps", "2")
    training.main(["--resume", str(run), "--trainer.max_steps", "3"])
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 3


def test_a_run_without_validation_does_not_claim_to_be_done_already(folder, capsys):
    train("--trainer.max_steps", "1", "--trainer.extra.limit_val_batches", "0")
    assert "no validation ran" in capsys.readouterr().out


def test_operators_see_the_same_start_and_the_same_batches(folder, monkeypatch):
    from segkit.models.fingerprint import initial_hash
    from segkit.task import SegmentationTask

    seen = {}

    def look(task, batch, batch_idx):
        shown = seen.setdefault(task.hparams["upsample"], [])
        shown += [initial_hash(task.model)] if not shown else []
        shown += [batch["image"].sum().item(), batch["index"].tolist(), torch.rand(()).item()]  # the last: what dropout would draw
        return begin(task, batch, batch_idx)

    begin = SegmentationTask.training_step
    monkeypatch.setattr(SegmentationTask, "training_step", look)
    for name in ("transpose", "pixel_shuffle", "bilinear"):
        train("--trainer.max_steps", "3", "--upsample", name)
    assert len(seen["transpose"]) == 1 + 3 * 3
    assert seen["transpose"] == seen["pixel_shuffle"] == seen["bilinear"]


def made_up(kind, root):
    """A small data set of the layout `kind` with labels that the layout allows."""
    rng = np.random.default_rng(0)

    def pair(image, mask, labels):
        for path in (image, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8)).save(image)
        Image.fromarray(rng.choice(labels, (70, 90)).astype(np.uint8)).save(mask)

    if kind == "voc":
        base, lists = root / "VOCdevkit/VOC2012", root / "VOCdevkit/VOC2012/ImageSets/Segmentation"
        lists.mkdir(parents=True)
        for split in ("train", "val"):
            names = [f"2007_{split}{i}" for i in range(3)]
            (lists / f"{split}.txt").write_text("\n".join(names))
            for name in names:
                pair(base / f"JPEGImages/{name}.jpg", base / f"SegmentationClass/{name}.png", [0, 5, 20, 255])
    elif kind == "pets":
        base = root / "oxford-iiit-pet"
        names = {"trainval": [f"Cat_{i}" for i in range(40)], "test": ["Dog_1", "Dog_2"]}
        for split, members in names.items():
            for name in members:
                pair(base / f"images/{name}.jpg", base / f"annotations/trimaps/{name}.png", [1, 2, 3])
            (base / f"annotations/{split}.txt").write_text("\n".join(f"{name} 1 1 1" for name in members))
    else:
        count = 11 if kind == "camvid" else 2
        (root / "classes.txt").write_text("".join(f"{k} class{k}\n" for k in range(count)))
        for split in ("train", "val", "test"):
            for i in range(3):
                pair(root / f"images/{split}/{i}.jpg", root / f"masks/{split}/{i}.png", [*range(count), *([255] if count > 2 else [])])
    return root


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_configuration_trains_and_evaluates(folder, config):
    kind = config.stem.split("_")[0]
    words = [
        "--config",
        str(config),
        "--trainer.max_steps",
        "2",
        "--trainer.val_every",
        "2",
        "--data.batch_size",
        "2",
        "--data.workers",
        "0",
    ]
    words += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.num_nodes", "1", "--data.crop", "64"]
    words += ["--wandb.mode", "disabled"]
    if "max_epochs" in config.read_text():
        words += ["--trainer.max_epochs", "null"]
    if kind == "scenes":
        words += ["--data.scenes_train", "4", "--data.scenes_val", "2", "--data.scenes_test", "2"]
    else:
        words += ["--data.root", str(made_up(kind, folder))]
    training.main(words)
    evaluation.main([])
    metrics = json.loads(next(newest_run("runs").glob("eval/*/metrics.json")).read_text())
    assert 0 <= metrics["miou"] <= 1


def test_real_camvid_for_a_few_steps(folder, shared):
    words = ["--config", str(ROOT / "configs/camvid_unet.yaml"), "--data.root", str(shared / "data/camvid"), "--trainer.max_steps", "2"]
    words += [
        "--encoder_weights",
        str(shared / "weights/tf_efficientnet_lite0.safetensors"),
        "--upsample",
        "pixel_shuffle",
        "--data.batch_size",
        "2",
    ]
    training.main(
        [
            *words,
            "--trainer.devices",
            "1",
            "--wandb.mode",
            "disabled",
            "--trainer.extra.limit_val_batches",
            "2",
            "--class_weights",
            "median_frequency",
        ]
    )
    task = weights(newest_run("runs"))["hyper_parameters"]
    assert task["mean"] == [0.5] * 3
    assert len(task["class_weights"]) == 11
    assert task["class_names"][2] == "pole"


def run_script(*words, cwd, timeout=240):
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=timeout, check=False)


def test_two_processes_train_and_leave_one_run(folder):
    done = run_script(
        ROOT / "scripts/train.py", *TINY.split(), "--trainer.devices", "2", "--trainer.max_steps", "2", "--upsample", "bilinear", cwd=folder
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 x cpu" in done.stdout
    assert done.stdout.count("validation after 2 steps") == 1
    assert done.stdout.count(f"python {ROOT / 'scripts/eval.py'} runs/") == 1
    assert len(list((folder / "runs").glob("*/*"))) == 1
    matrices = np.load(newest_run("runs") / "per_image.npz")["matrix"]
    assert (len(matrices), matrices.sum()) == (3, 3 * 48 * 48)
    evaluation.main(["--split", "val"])  # one process, the same weights, the same counts
    assert (np.load(newest_run("runs") / "eval/val-last/per_image.npz")["matrix"] == matrices).all()


RESUME = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from segkit.cli.train import main
options = {tiny!r}.split() + ["--trainer.devices", "2", "--trainer.accumulate", "2", "--trainer.val_every", "2", "--ema", "0.9"]
options += ["--schedule", "constant", "--warmup", "0", "--dropout", "0.3", "--data.batch_size", "1"]
main([*options, "--trainer.max_steps", "6", "--name", "whole"])
main([*options, "--trainer.max_steps", "4", "--name", "part"])
main(["--resume", str(next(Path("runs/part").iterdir())), "--trainer.max_steps", "6"])
"""


def test_two_processes_with_averaged_weights_resume_bit_identical(folder):
    (folder / "resume.py").write_text(RESUME.format(root=str(ROOT), tiny=TINY))
    done = run_script("resume.py", cwd=folder)
    assert done.returncode == 0, done.stderr
    whole, part = (weights(next(Path("runs", name).iterdir())) for name in ("whole", "part"))
    assert whole["global_step"] == part["global_step"] == 6
    for key in ("state_dict", "raw_state_dict"):
        assert all(torch.equal(value, part[key][name]) for name, value in whole[key].items())


@pytest.mark.parametrize("script", ["train", "eval"])
def test_a_users_mistake_is_one_line_and_exit_code_2(folder, script):
    done = run_script(ROOT / f"scripts/{script}.py", *(["--encoder", "resnet43"] if script == "train" else ["nowhere"]), cwd=folder)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert ("did you mean 'resnet34'" if script == "train" else "'nowhere' does not exist") in done.stderr
