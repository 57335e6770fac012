"""The ablation as it is used: planned, run, started again, reported; real trainings of a few steps."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from segkit.ablation.plan import Plan
from segkit.cli.ablate import build_plan, main, read, refuse_another
from segkit.errors import RunFailed, SegkitError

ROOT = Path(__file__).parents[2]
TINY = "--decoder_channels [8,8] --data.batch_size 2 --data.crop 32 --data.scenes_size 48 --data.scenes_train 6 --data.scenes_val 3"
TINY += " --data.scenes_test 4 --trainer.max_steps 2 --trainer.accelerator cpu --wandb.mode disabled --wandb.panels 0"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder, as a new user has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def ablate(*words):
    main([*TINY.split(), *words])


def test_an_ablation_is_run_once_reported_and_held_against_its_proofs(folder, capsys):
    ablate("--upsample", "bilinear", "transpose_k2", "--seeds", "1", "--slots", "2", "--name", "small")
    out = capsys.readouterr().out
    place = folder / "runs/ablations/small"
    assert "one seed" in out
    assert str(place / "report.html") in out.replace("\n", "")
    plan = Plan.read(place)
    assert [(arm.name, list(arm.trials)) for arm in plan.arms] == [("bilinear", [0]), ("transpose_k2", [0])]
    runs = [folder / "runs/trials" / arm.trials[0] for arm in plan.arms]
    assert sorted(p.name for p in (folder / "runs/trials").iterdir()) == sorted(run.name for run in runs)
    for run, operator in zip(runs, ("bilinear", "transpose_k2"), strict=True):
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert (config["upsample"], config["wandb"]["group"], config["wandb"]["tags"]) == (operator, "small", [f"upsample={operator}"])
        scores = json.loads((run / "eval/test-last/metrics.json").read_text())
        assert {"boundary", "artefacts", "miou"} <= set(scores)
    assert {"report.html", "report.md", "table.tex", "results.csv", "costs.json", "plan.yaml"} <= {p.name for p in place.iterdir()}
    rows = list(csv.DictReader((place / "results.csv").read_text().splitlines()))
    assert [row["state"] for row in rows] == ["finished", "finished"]
    costs = json.loads((place / "costs.json").read_text())
    assert costs["bilinear"]["operator_parameters"] == 9 * 16 * 8 + 8 + 9 * 8 * 8 + 8
    assert costs["transpose_k2"]["operator_parameters"] == 4 * 16 * 8 + 8 + 4 * 8 * 8 + 8

    before = {run: (run / "log.txt").read_bytes() for run in runs}
    ablate("--upsample", "bilinear", "transpose_k2", "--seeds", "1", "--name", "other", "--dry_run")  # the same runs under another name
    capsys.readouterr()
    assert not (folder / "runs/ablations/other").exists()
    ablate("--upsample", "transpose_k2", "bilinear", "--seeds", "1", "--name", "other")
    assert {run: (run / "log.txt").read_bytes() for run in runs} == before
    assert (folder / "runs/ablations/other/report.html").exists()

    proof = json.loads((runs[0] / "provenance.json").read_text())
    (runs[0] / "provenance.json").write_text(json.dumps({**proof, "batches": "0" * 64}))
    capsys.readouterr()
    with pytest.raises(RunFailed, match="not fair"):
        main(["report", str(place), "--images=false"])
    assert "not fair" in capsys.readouterr().out


def test_a_failed_run_is_reported_and_its_arm_named(folder, capsys):
    main(
        [
            *TINY.split(),
            "--upsample",
            "bilinear",
            "--lr",
            "1e-3",
            "1e30",
            "--seeds",
            "1",
            "--slots",
            "2",
            "--name",
            "n",
            "--trainer.max_steps",
            "6",
        ]
    )
    out = capsys.readouterr().out
    assert "failed" in out
    report = (folder / "runs/ablations/n/report.md").read_text()
    assert "the weights were not updated" in report or "NaN" in report


def test_budgets_are_matched_by_the_width_of_the_operators(folder):
    words = [*TINY.split(), "--decoder_channels", "64", "32", "--upsample", "transpose", "bilinear", "pixel_shuffle", "--seeds", "1"]
    plan = build_plan(read([*words, "--match", "params"]))
    widths = [arm.config["upsample_width"] for arm in plan.arms]
    assert [arm.name for arm in plan.arms] == ["transpose", "bilinear", "pixel_shuffle"]
    assert plan.name.endswith("-params")
    per_pixel = [16, 9, 36]
    budget = 16 * (128 * 64 + 64 * 32) + 64 + 32
    for weights, (a, b) in zip(per_pixel, widths, strict=True):
        cost = a * (128 + weights * 64) + b * (64 + weights * 32)
        assert cost == pytest.approx(budget, rel=0.025)  # but for biases
    assert build_plan(read(words)).arms[0].config["upsample_width"] is None


def test_budgets_are_those_of_the_same_network_with_the_operator_of_the_baseline(folder):
    words = [*TINY.split(), "--decoder_channels", "[64,32]", "[64,32,16]", "--upsample", "transpose", "bilinear", "--in_channels", "1"]
    arms = build_plan(read([*words, "--match", "params"])).arms
    widths = {arm.name: arm.config["upsample_width"] for arm in arms}
    assert [len(width) for width in widths.values()] == [2, 2, 3, 3]
    for (a, b), weights in zip(list(widths.values())[:2], (16, 9), strict=True):
        cost = a * (128 + weights * 64) + b * (64 + weights * 32)
        assert cost == pytest.approx(16 * (128 * 64 + 64 * 32) + 64 + 32, rel=0.025)  # but for biases


def test_an_ablation_does_not_take_the_place_of_another(folder):
    def planned(*words):
        return build_plan(read([*TINY.split(), "--upsample", "bilinear", "nearest", "--name", "n", *words]))

    place = folder / "runs/ablations/n"
    place.mkdir(parents=True)
    first = planned("--seeds", "2")
    refuse_another(first, place)
    first.write(place)
    refuse_another(planned("--lr", "0.1"), place)  # nothing has run yet
    (folder / "runs/trials" / first.arms[1].trials[1]).mkdir(parents=True)
    for same in (first, planned("--seeds", "3", "--aa"), planned("--seed", "1", "--margin", "0.1")):
        refuse_another(same, place)
    with pytest.raises(SegkitError, match="--name n: .* whose arm nearest is trained otherwise.* give this one another --name"):
        refuse_another(planned("--lr", "0.1"), place)


def test_weights_in_a_file_are_found_from_any_folder_and_tags_are_no_longer_than_w_and_b_takes(folder):
    (folder / "w.pt").touch()
    values = [*TINY.split(), "--encoder_weights", "null", "w.pt", "--upsample", f"[{','.join(['transpose_k2'] * 2)}]", "bilinear"]
    arms = build_plan(read([*values, "--seeds", "1"])).arms
    assert [arm.config["encoder_weights"] for arm in arms] == [None, None, str(folder / "w.pt"), str(folder / "w.pt")]
    assert arms[0].config["wandb"]["tags"] == ["encoder_weights=None", "upsample=transpose_k2+transpose_k2"]
    assert max(len(tag) for arm in arms for tag in arm.config["wandb"]["tags"]) <= 64
    assert len({arm.trials[0] for arm in arms}) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--upsample bilinear nearest --run_id x", "--run_id x: the runs of an ablation are named by the hash"),
        ("--upsample bilinear", "no axis: give several values"),
        ("--upsample bilinear nearest --baseline transpose", "unknown baseline 'transpose'"),
        ("--upsample bilinear nearest --name a/b", "--name a/b: it is the name of one folder"),
        ("--upsample bilinear nearest --data.scenes_test 0 --split test", "the data has no split test"),
        ("--upsample bilinear nearest --executor ray --dry_run --cluster.num_cpus many", "--cluster.num_cpus many: give a number"),
        ("report", "no ablation named"),
        ("report nowhere", "no plan.yaml in 'nowhere'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(folder, words, message):
    with pytest.raises(SegkitError, match=message) as error:
        main(words.split() if words.startswith("report") else [*TINY.split(), *words.split()])
    assert "\n" not in str(error.value)
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "configs/ablations").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_ablation_is_a_plan(path, folder, shared):
    config = read(["--config", str(path)])
    if config.data.kind == "folder":
        config.data.root = str(shared / "data" / "camvid")
    plan = build_plan(config)
    assert str(shared) not in plan.data["description"]  # which the report shows to others
    assert len(plan.arms) >= 2
    assert (len(plan.seeds), plan.margin) == (6, 0.01)


def test_the_baseline_meets_itself_under_other_seeds(folder):
    plan = build_plan(read([*TINY.split(), "--upsample", "bilinear", "nearest", "--seeds", "2", "--aa", "--baseline", "nearest"]))
    assert [arm.name for arm in plan.arms] == ["bilinear", "nearest", "nearest (A/A)"]
    assert len({name for arm in plan.arms for name in arm.trials.values()}) == 6


def test_without_an_axis_the_baseline_can_still_meet_itself(folder):
    plan = build_plan(read([*TINY.split(), "--upsample", "nearest", "--seeds", "2", "--aa"]))
    assert [arm.name for arm in plan.arms] == ["nearest", "nearest (A/A)"]
