"""Three stand-ins: a made-up ablation on disk, commands that train in milliseconds, and real runs of a few seconds."""

import hashlib
import json
import sys
from dataclasses import asdict

import numpy as np
import pytest
import yaml

from segkit.ablation import trial as trials
from segkit.ablation.study import load_study
from segkit.ablation.trial import Trial
from segkit.cli.resuming import plain
from segkit.config import DataConfig, TrainConfig, TrainerConfig, WandbConfig

CLASSES = ("sky", "road", "car", "pole", "ghost")  # the last occurs nowhere
EFFECTS = {"transpose": 0.0, "bilinear": 0.03, "nearest": 0.0, "pixel_shuffle": -0.03}  # on the share of wrong pixels, as a gain
STAGES = ("decoder.0.upsample", "decoder.1.upsample")
CONFIG = plain(asdict(TrainConfig(decoder_channels=[32, 16])))


def sha(*words):
    return hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()


def counts(arm, gain, seed, images, pixels, noise):
    """Confusion matrices [N, K, K] of a run; the truth depends on nothing but the number of images."""
    truth = np.random.default_rng(images).multinomial(pixels, [0.45, 0.35, 0.15, 0.05, 0], images)
    rng = np.random.default_rng([seed, *arm.encode()])
    wrong = 0.16 - gain + noise * rng.normal(size=(1, 1)) + 0.02 * np.random.default_rng(seed).normal() + 0.05 * rng.random((images, 1))
    wrong = np.clip(wrong * [0.4, 0.8, 1.5, 3, 0], 0.01, 0.9)
    matrix = np.zeros((images, 5, 5), np.int64)
    for n in range(images):
        for k in range(4):
            spread = np.where(np.arange(5) == k, 1 - wrong[n, k], wrong[n, k] / 3)
            spread[4] = 0
            matrix[n, k] = rng.multinomial(truth[n, k], spread / spread.sum())
    return matrix


def iou(matrix):
    hit, both = np.diagonal(matrix), matrix.sum(0) + matrix.sum(1)
    return {name: float(h / (b - h)) if b else None for name, h, b in zip(CLASSES, hit, both, strict=True)}


def mean(values):
    values = [value for value in values.values() if value is not None]
    return sum(values) / len(values)


def write_run(folder, arm, gain, seed, config, images, noise, boundary, artefacts):
    evaluation = folder / "eval" / "test-last"
    evaluation.mkdir(parents=True)
    matrix = counts(arm, gain, seed, images, 4096, noise)
    band = counts(arm, gain - 0.15, seed, images, 400, noise)
    rng = np.random.default_rng([seed, 1, *arm.encode()])
    scores = {
        "split": "test",
        "code": sha("scoring"),
        "images": images,
        "miou": mean(iou(matrix.sum(0))),
        "iou": iou(matrix.sum(0)),
        "absent": ["ghost"],
    }
    scores |= {"accuracy": float(np.trace(matrix.sum(0)) / matrix.sum()), "mean_dice": 0.9}
    arrays = {"index": np.arange(images), "name": np.array([f"scene{i}" for i in range(images)])}
    arrays |= {"matrix": matrix, "classes": np.array(CLASSES)}
    if boundary:
        hit = np.diagonal(band, axis1=1, axis2=2)
        arrays |= {"boundary_intersection": hit, "boundary_union": band.sum(1) + band.sum(2) - hit}
        trimap = {str(r): scores["miou"] - 0.3 / r + 0.01 * rng.normal() for r in (1, 2, 4, 8, 16)}
        edges = iou(band.sum(0))
        scores["boundary"] = {"miou": mean(edges), "iou": edges, "bf": 0.7 + gain, "trimap": trimap}
    grid = {"transpose": 0.08, "pixel_shuffle": 0.04}.get(arm.split(",")[0], 0.0)
    if artefacts:
        periods = {str(s): grid / s + 0.001 * rng.random() for s in (2, 4, 8, 16, 32)}
        null = {str(s): 0.001 * rng.random() for s in (3, 5, 7)}
        scores["artefacts"] = {"ci_op": {s: grid * (1 + rng.random()) for s in STAGES}, "ci_net": periods, "null": null}
        frequency = np.linspace(0, 0.5, 65)
        peaks = sum(grid * np.exp(-(((frequency - f) / 0.006) ** 2)) for f in (0.5, 0.25))
        smooth = (0.9 + 0.2 * rng.random(65)) / (0.01 + frequency) ** 2
        np.savez(evaluation / "artefacts.npz", frequency=frequency, spectrum=smooth + 100 * peaks)
    np.savez(evaluation / "per_image.npz", **arrays)
    (evaluation / "metrics.json").write_text(json.dumps(scores))
    provenance = {"seed": seed, "step": 400, "initial": sha("initial", seed), "order": sha("order", seed), "batches": sha("batches", seed)}
    provenance |= {"schedule": sha("schedule", config["lr"]), "software": {"segkit": "0.2.0", "torch": "2.15.0"}, "code": sha("code")}
    provenance |= {"device": "A processor", "precision": "32-true", "deterministic": False, "processes": 1, "threads": 1}
    provenance["ci_op"] = dict.fromkeys(STAGES, 0.0)
    (folder / "provenance.json").write_text(json.dumps(provenance))
    (folder / "done.json").write_text(json.dumps({"seconds": 61.5, "evaluation_seconds": 4.0, "resumed": False}))


@pytest.fixture(scope="session")
def write_study():
    """Writes an ablation below a folder and returns its own folder, runs/ablations/small."""

    def write(
        root, effects=EFFECTS, seeds=6, images=24, noise=0.004, margin=0.01, unfinished=(), failed=(), aa=False, boundary=True,
        artefacts=True, costs=True, axes=None, settings=None, match="native", split="test",
    ):  # fmt: skip
        folder = root / "runs" / "ablations" / "small"
        folder.mkdir(parents=True)
        baseline = next(iter(effects))
        named = [(name, gain, False) for name, gain in effects.items()] + ([(f"{baseline} (A/A)", effects[baseline], True)] if aa else [])
        arms, measured = [], {}
        for place, (name, gain, again) in enumerate(named):
            own = (settings or {}).get(name, {"upsample": name.removesuffix(" (A/A)")})
            config = {**CONFIG, **{key: value for key, value in own.items() if "." not in key}}
            trials = {seed: sha(name, seed)[:16] for seed in range(seeds)}
            for seed, trial in trials.items():
                run = root / "runs" / "trials" / trial
                if (name, seed) in failed:
                    run.mkdir(parents=True)
                    lines = ["$ train --config trial.yaml", "the loss is nan at step 7 <again>; lower --lr"]
                    failure = {"code": 1, "stage": "training", "message": lines[-1], "log": lines}
                    (run / "failed.json").write_text(json.dumps(failure))
                elif (name, seed) not in unfinished:
                    write_run(run, name, gain, seed + seeds * again, config, images, noise, boundary, artefacts)
            arms.append({"name": name, "settings": own, "config": config, "trials": trials, "aa": again})
            measured[name] = {
                "parameters": 1_940_000 + 300_000 * place, "operator_parameters": 300_000 * (place + 1), "macs": 10**9 * (place + 1),
                "operator_macs": 10**8 * (place + 1), "latency_ms": 20.0 + 3 * place, "latency_iqr_ms": [19.5 + place, 21.0 + 3 * place],
                "memory_mib": 410.0 + place, "image": [128, 128], "device": "A processor", "threads": 1,
            }  # fmt: skip
        plan = {
            "name": "small", "segkit": "0.2.0", "commit": "0123abcd" * 5, "axes": axes or {"upsample": list(effects)},
            "baseline": baseline, "margin": margin, "match": match, "split": split, "checkpoint": "last", "seeds": list(range(seeds)),
            "aa": aa, "trials": "../../trials",
            "data": {"fingerprint": sha("data"), "description": "scenes: train 600, val 60, test 24 images, 5 classes"}, "arms": arms,
        }  # fmt: skip
        (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
        if costs:
            (folder / "costs.json").write_text(json.dumps(measured))
        return folder

    return write


@pytest.fixture(scope="session")
def finished(tmp_path_factory, write_study):
    """A study of four arms, six seeds and an A/A arm, all finished."""
    return load_study(write_study(tmp_path_factory.mktemp("finished"), aa=True))


@pytest.fixture(scope="session")
def whole(tmp_path_factory, write_study, predict):
    """A study with an A/A arm and a failed run, and its report with everything in it."""
    from segkit.ablation.report import write_report

    study = load_study(write_study(tmp_path_factory.mktemp("whole"), aa=True, failed=[("nearest", 2)]))
    return study, write_report(study, study.folder, predict)


@pytest.fixture
def alter():
    """Changes values of a run's provenance on disk; None removes one."""

    def change(study, arm, seed, **values):
        path = study.arm(arm).runs[seed].folder / "provenance.json"
        told = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps({key: value for key, value in told.items() if value is not None}))

    return change


@pytest.fixture(scope="session")
def predict():
    from segkit.ablation.pictures import Prediction

    """Stands in for the trained networks: discs as the truth, and predictions that are off by a pixel or two, each arm in its way."""

    def say(folder, index):
        y, x = np.mgrid[:96, :128]
        mask = np.zeros((96, 128), np.uint8)
        mask[60:] = 1
        rng = np.random.default_rng(index)
        for k in (2, 2, 3, 3):
            cy, cx, r = rng.integers(10, 90), rng.integers(10, 118), rng.integers(6, 22)
            mask[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = k
        mask[:2] = 255
        palette = np.array([[70, 130, 180], [128, 64, 128], [0, 0, 142], [220, 220, 0], [255, 0, 0]], np.uint8)
        image = palette[np.minimum(mask, 4)] // 2 + rng.integers(0, 90, (96, 128, 3)).astype(np.uint8)
        own = np.random.default_rng(list(folder.name.encode()))
        coarse = np.where(mask == 255, 0, mask)[:: own.integers(1, 4), :: own.integers(1, 4)]
        rows, columns = (np.arange(n) * m // n for n, m in zip(mask.shape, coarse.shape, strict=True))
        return Prediction(image, mask, coarse[np.ix_(rows, columns)], palette.tolist())

    return say


STUB = """
import json, os, sys, time
from pathlib import Path
import yaml

command, *words = sys.argv[1:]
if command == "train":
    if words[0] == "--config":
        config = yaml.safe_load(Path(words[1]).read_text())
        folder, step = Path(config["runs"]) / config["name"] / config["run_id"], 0
        assert not (folder / "config.yaml").exists()
        (folder / "config.yaml").write_text(Path(words[1]).read_text())
        (folder / "checkpoints").mkdir()
    else:
        folder = Path(words[1])
        config = yaml.safe_load((folder / "config.yaml").read_text())
        step = int((folder / "checkpoints/last.ckpt").read_text())
    print("training", config["seed"], "from", step, flush=True)
    while step < 5:
        step += 1
        time.sleep(config.get("pause", 0))
        if config.get("fail") == step and not Path(config["repaired"]).exists():
            sys.exit("train.py: error: no luck")
        (folder / "checkpoints/.tmp").write_text(str(step))
        os.replace(folder / "checkpoints/.tmp", folder / "checkpoints/last.ckpt")
        with (folder / "steps.txt").open("a") as file:
            file.write(f"{step} ")
    (folder / "metrics.json").write_text("{}")
else:
    folder = Path(words[0])
    assert "--boundary" in words and "--artefacts" in words
    results = folder / "eval" / f"{words[words.index('--split') + 1]}-last"
    results.mkdir(parents=True)
    (results / "metrics.json").write_text(json.dumps({"steps": (folder / "steps.txt").read_text()}))
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """The stand-in's file, in place of the commands."""
    path = tmp_path / "stub.py"
    path.write_text(STUB)
    monkeypatch.setattr(trials, "COMMAND", [sys.executable, str(path)])
    return path


@pytest.fixture
def make_trial(tmp_path, stub):
    """Trials by name; options: `pause` in seconds a step, `fail`, the step that ends in an error until the file `repaired` exists."""

    def make(name="a", seed=0, split="test", **options):
        config = {"seed": seed, "trainer": {"accelerator": "cpu"}, "repaired": str(tmp_path / "repaired"), **options}
        return Trial(str(tmp_path / "runs" / "trials" / name), config, split)

    return make


@pytest.fixture
def make_trials(tmp_path):
    """Make trials that differ in their seed: real ones, with a training of two steps unless told otherwise."""

    def make(count=2, steps=2, **options):
        data = DataConfig(batch_size=2, crop=32, scenes_size=48, scenes_train=4, scenes_val=2, scenes_test=2)
        trainer = TrainerConfig(max_steps=steps, val_every=steps, accelerator="cpu", devices=1)
        base = {"decoder_channels": [4, 4], "data": data, "trainer": trainer, "wandb": WandbConfig(mode="disabled", panels=0)}
        configs = [plain(asdict(TrainConfig(**{**base, "seed": seed, **options}))) for seed in range(count)]
        return [Trial(str(tmp_path / "runs" / "trials" / f"trial{seed}"), config, "test") for seed, config in enumerate(configs)]

    return make
