"""Evaluations as they are asked for: other ways to score, single images, and several runs side by side."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from segkit.cli import eval as evaluation
from segkit.cli import train as training
from segkit.cli.scoring import folder_name, open_evaluation
from segkit.config import EvalConfig
from segkit.errors import SegkitError
from segkit.inference import infer
from segkit.metrics import confusion_matrices, labels
from segkit.results import image_scores
from segkit.runs import newest_run
from segkit.task import SegmentationTask

ROOT = Path(__file__).parents[2]
TINY = "--decoder_channels [8,8] --data.batch_size 2 --data.crop 32 --data.scenes_size 48 --data.scenes_train 6 --data.scenes_val 3"
TINY += " --data.scenes_test 5 --trainer.accelerator cpu --trainer.devices 1 --wandb.mode disabled --wandb.panels 0 --trainer.max_steps 4"
QUICK = ["--images", "0", "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three runs that are never written to, two of them on the same data."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for run_id, words in (("a", []), ("b", ["--upsample", "bilinear"]), ("c", ["--data.scenes_seed", "1"])):
            training.main([*TINY.split(), "--name", "x", "--run_id", run_id, *words])
    return folder


@pytest.fixture
def runs(trained, tmp_path, monkeypatch):
    """Copies of them, in the working folder."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return {name: Path("runs/x") / name for name in "abc"}


def read(folder):
    return json.loads((folder / "metrics.json").read_text()), dict(np.load(folder / "per_image.npz"))


@pytest.mark.parametrize(
    ("options", "folder", "how"),
    [
        (["--tta", "hflip", "vflip"], "test-last-tta-hflip-vflip", {"tta": ("hflip", "vflip")}),
        (["--tta_scales", "0.5", "1", "--tile", "32"], "test-last-scales-0.5-1-tile32", {"scales": (0.5, 1), "tile": 32}),
        (["--tile", "32", "--overlap", "0.5"], "test-last-tile32x0.5", {"tile": 32, "overlap": 0.5}),
    ],
)
def test_other_ways_to_score_lie_beside_the_plain_results(runs, options, folder, how):
    evaluation.main([str(runs["a"]), *QUICK, *options])
    metrics, columns = read(runs["a"] / "eval" / folder)
    told = {"tile": None, "overlap": 0.25, "tta": [], "scales": [1.0], "precision": "32-true", "batch_size": 1}
    assert metrics["inference"] == told | {name: list(value) if isinstance(value, tuple) else value for name, value in how.items()}
    opened = open_evaluation(EvalConfig(), runs["a"] / "checkpoints/last.ckpt")
    task, source, plain = opened.task, opened.data.sources["test"], []
    for i in range(5):
        image, mask = source.read(i)
        batch, truth = torch.from_numpy(image.transpose(2, 0, 1).copy())[None], torch.from_numpy(mask)[None]
        with torch.inference_mode():
            scored = infer(task, batch, **how)
            plain.append(confusion_matrices(labels(task(batch)), truth, 6))
        assert columns["matrix"][i].tolist() == confusion_matrices(labels(scored), truth, 6)[0].tolist()
    assert (columns["matrix"] != torch.cat(plain).numpy()).any()
    assert not (runs["a"] / "eval/test-last").exists()


def test_names_of_results():
    last = Path("runs/x/a/checkpoints/best.ckpt")
    assert folder_name(EvalConfig(), "val", last) == folder_name(EvalConfig(overlap=0.5), "val", last) == "val-best"
    assert (
        folder_name(EvalConfig(tta=["hflip"], tta_scales=[0.75, 1], tile=512), "test", last) == "test-best-tta-hflip-scales-0.75-1-tile512"
    )


def test_the_table_of_images_says_what_the_matrices_say(runs):
    evaluation.main([str(runs["a"]), *QUICK, "--boundary"])
    folder = runs["a"] / "eval/test-last"
    _, columns = read(folder)
    found = image_scores(columns["matrix"])
    with (folder / "per_image.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == columns["name"].tolist()
    assert {(row["rows"], row["columns"], row["file"]) for row in rows} == {("48", "48", "")}  # scenes have no files
    assert [float(row["miou"]) for row in rows] == found.miou.tolist()
    assert [float(row["accuracy"]) for row in rows] == found.accuracy.tolist()
    for k, name in enumerate(columns["classes"]):
        told = [row[f"iou/{name}"] for row in rows]
        assert [float(x) if x else -1 for x in told] == np.nan_to_num(found.iou[:, k], nan=-1).tolist()
    assert [float(row["bf"]) for row in rows] == columns["bf"].tolist()
    intersection, union = columns["boundary_intersection"], columns["boundary_union"]
    with np.errstate(invalid="ignore"):
        assert [float(row["boundary_miou"]) for row in rows] == pytest.approx(np.nanmean(intersection / union, 1))


def test_what_an_earlier_evaluation_left_does_not_stay(runs):
    folder = runs["a"] / "eval/test-last"
    evaluation.main([str(runs["a"]), "--accelerator", "cpu", "--calibration", "--artefacts"])
    assert {p.name for p in folder.iterdir()} == {
        "metrics.json", "per_image.npz", "per_image.csv", "confusion.png", "panel.png", "gallery.html", "artefacts.npz",
        "calibration.npz", "reliability.png", "reliability.pdf",
    }  # fmt: skip
    evaluation.main([str(runs["a"]), *QUICK])
    assert {p.name for p in folder.iterdir()} == {"metrics.json", "per_image.npz", "per_image.csv", "confusion.png"}


def test_runs_are_scored_once_and_compared_image_by_image(runs, capsys):
    words = [str(runs["a"]), str(runs["b"]), *QUICK, "--resamples", "300"]
    evaluation.main([*words, "--boundary"])
    said = capsys.readouterr().out
    assert said.count("results  ") == 2
    assert "not what training again would" in " ".join(said.split())
    folders = [runs[name] / "eval/test-last" for name in "ab"]
    (first, ours), (second, theirs) = (read(folder) for folder in folders)
    with (folders[0] / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["x/a"] * 9 + ["x/b"] * 9
    names = ["miou", "accuracy", *(f"iou/{name}" for name in first["iou"]), "boundary_miou"]
    assert [row["score"] for row in rows] == names * 2
    for values, part in ((first, rows[:9]), (second, rows[9:])):
        expected = [values["miou"], values["accuracy"], *values["iou"].values(), values["boundary"]["miou"]]
        assert [float(row["value"]) for row in part] == pytest.approx(expected, rel=1e-12)
    assert {row["difference"] + row["low"] + row["high"] for row in rows[:9]} == {""}
    assert [float(r["difference"]) for r in rows[9:]] == pytest.approx(
        [float(b["value"]) - float(a["value"]) for a, b in zip(rows[:9], rows[9:], strict=True)]
    )
    assert all(float(row["low"]) <= float(row["high"]) for row in rows[9:])
    # accuracy: the same images drawn for both, by hand
    rng = np.random.default_rng(np.random.SeedSequence(0).spawn(3)[0])
    drawn = rng.integers(5, size=(300, 5))
    accuracy = [np.trace(m["matrix"][drawn].sum(1), axis1=1, axis2=2) / m["matrix"][drawn].sum((1, 2, 3)) for m in (ours, theirs)]
    assert [float(rows[10][x]) for x in ("low", "high")] == pytest.approx(np.percentile(accuracy[1] - accuracy[0], [2.5, 97.5]).tolist())
    told = json.loads((folders[0] / "comparison.json").read_text())
    assert (told["images"], told["resamples"], told["level"]) == (5, 300, 0.95)
    assert [run["weights"] == values["weights"] for run, values in zip(told["runs"], (first, second), strict=True)] == [True, True]
    assert told["runs"][1]["scores"]["accuracy"]["low"] == float(rows[10]["low"])
    assert set(told["runs"][0]["scores"]["miou"]) == {"value"}

    before = [(folder / "metrics.json").stat().st_mtime_ns for folder in folders]
    evaluation.main([*words, "--out", "here"])  # nothing is scored that is there already, though it says more than is asked for
    assert "results  " not in capsys.readouterr().out
    assert [(folder / "metrics.json").stat().st_mtime_ns for folder in folders] == before
    assert {p.name for p in Path("here").iterdir()} == {"comparison.csv", "comparison.json"}
    evaluation.main([*words, "--calibration"])  # which is not there
    assert capsys.readouterr().out.count("results  ") == 2


def test_what_has_changed_is_scored_again(runs, capsys):
    words = [str(runs["a"]), str(runs["b"]), *QUICK, "--resamples", "100"]
    evaluation.main(words)
    shutil.copy(runs["b"] / "checkpoints/last.ckpt", runs["a"] / "checkpoints/last.ckpt")
    path = runs["b"] / "eval/test-last/metrics.json"
    path.write_text(path.read_text().replace('"code": "', '"code": "0'))  # as another version would have scored it
    capsys.readouterr()
    evaluation.main(words)
    assert capsys.readouterr().out.count("results  ") == 2
    with (runs["a"] / "eval/test-last/comparison.csv").open(newline="") as file:
        assert {float(row["difference"]) for row in csv.DictReader(file) if row["difference"]} == {0}
    capsys.readouterr()
    evaluation.main(words)
    assert "results  " not in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(runs):
    with pytest.raises(SegkitError, match="last.ckpt is given twice; give each run once"):
        evaluation.main([str(runs["a"]), str(runs["a"] / "checkpoints/last.ckpt"), *QUICK])
    with pytest.raises(SegkitError, match="a/eval/test-last and runs/x/c/eval/test-last were scored on different masks: compare runs on"):
        evaluation.main([str(runs["a"]), str(runs["c"]), *QUICK])
    training.main([*TINY.split(), "--name", "x", "--run_id", "d", "--data.scenes_test", "4"])
    shutil.rmtree(runs["a"] / "eval")
    with pytest.raises(SegkitError, match="a/checkpoints/last.ckpt and runs/x/d/checkpoints/last.ckpt have different images: compare runs"):
        evaluation.main([str(runs["a"]), "runs/x/d", *QUICK])
    assert not (runs["a"] / "eval").exists()  # nothing was scored in vain
    evaluation.main([str(runs["a"]), *QUICK])
    from segkit.cli.compare import refuse_differences

    _, columns = read(runs["a"] / "eval/test-last")
    for what, other in (("images", {"name": columns["name"][::-1]}), ("classes", {"classes": columns["classes"][::-1]})):
        with pytest.raises(SegkitError, match=f"on different {what}: compare"):
            refuse_differences(columns, columns | other, Path("a"), Path("b"))


def test_a_table_fits_its_terminal(runs):
    from segkit.cli.compare import Compared, tables

    values = np.array([[0.5, np.nan], [0.625, 0.25], [0.25, np.nan], [0.5, np.nan]])
    intervals = np.stack([np.stack([values - 0.75, values + 0.5], -1)[..., i] for i in (0, 1)], -1)
    found = Compared(["miou", "iou/a long name"], values, intervals, 7)
    assert [len(drawn.columns) for drawn in tables(found, 200)] == [8]
    narrow = list(tables(found, 60))
    assert [[column.header for column in drawn.columns] for drawn in narrow] == [["%", "1", str(n), f"{n} - 1"] for n in (2, 3, 4)]
    cells = [[str(cell) for cell in column.cells] for column in narrow[0].columns]
    assert cells == [["mIoU", "a long name"], ["50.00", "absent"], ["62.50", "25.00"], ["+12.50 [-12.50, +112.50]", ""]]


@pytest.mark.slow
def test_two_processes_compare_once(runs):
    words = [ROOT / "scripts/eval.py", runs["a"], runs["b"], *QUICK, "--devices", "2", "--resamples", "100"]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    assert (done.stdout.count("results  "), done.stdout.count("comparison  ")) == (2, 1)
    for name in "ab":
        task = SegmentationTask.load(runs[name] / "checkpoints/last.ckpt")
        assert read(runs[name] / "eval/test-last")[0]["step"] == task.step == 4
    assert newest_run("runs") == runs["c"]
