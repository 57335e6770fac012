import json

import numpy as np
import pytest

from segkit.ablation.study import load_study
from segkit.errors import SegkitError


def test_states_of_the_runs(tmp_path, write_study):
    folder = write_study(tmp_path, {"a": 0, "b": 0}, seeds=3, unfinished=[("a", 1)], failed=[("b", 0)])
    study = load_study(folder)
    assert [(arm.name, run.seed, run.state) for arm in study.arms for run in arm.runs.values() if run.state != "finished"] == [
        ("a", 1, "unfinished"),
        ("b", 0, "failed"),
    ]
    assert list(study.arm("a").finished) == [0, 2]
    assert [(arm.name, run.seed) for arm, run in study.of_state("failed")] == [("b", 0)]
    assert study.arm("b").runs[0].failure["message"] == "the loss is nan at step 7 <again>; lower --lr"
    assert study.baseline is study.arm("a")
    assert study.arm("a").cost["parameters"] == 1_940_000


def test_a_run_counts_when_training_and_this_evaluation_are_whole(tmp_path, write_study):
    folder = write_study(tmp_path, {"a": 0}, seeds=3)
    runs = load_study(folder).arm("a").runs
    (runs[0].folder / "done.json").unlink()  # scores alone are half a run
    (runs[1].evaluation / "metrics.json").unlink()  # of another ablation, which scores another split
    (runs[2].folder / "failed.json").write_text(json.dumps({"code": 1}))  # and then tried again
    assert [run.state for run in load_study(folder).arm("a").runs.values()] == ["unfinished", "unfinished", "finished"]


def test_numbers_of_the_scores_by_seed(tmp_path, write_study):
    study = load_study(write_study(tmp_path, {"a": 0}, seeds=2, boundary=False))
    runs = study.arm("a").runs
    assert study.arm("a").values("miou") == {
        seed: json.loads((run.evaluation / "metrics.json").read_text())["miou"] for seed, run in runs.items()
    }
    assert study.arm("a").values("iou", "ghost") == {}  # null in JSON
    assert study.arm("a").values("boundary", "miou") == {}  # not measured
    assert runs[0].per_image("boundary_union") is None
    assert study.classes == ["sky", "road", "car", "pole", "ghost"]


def test_the_truth_is_what_is_scored_and_not_what_is_predicted(finished):
    runs = [arm.runs[0] for arm in finished.arms]
    assert len({run.truth for run in runs}) == 1
    path = runs[0].evaluation / "per_image.npz"
    with np.load(path) as file:
        arrays = dict(file)
    before, run = dict(arrays), runs[0]
    try:
        arrays["matrix"] = arrays["matrix"].copy()
        arrays["matrix"][3, 1, 1] += 1  # a pixel of road more in one image
        np.savez(path, **arrays)
        assert load_study(finished.folder).arms[0].runs[0].truth != run.truth
    finally:
        np.savez(path, **before)


@pytest.mark.parametrize(("name", "text", "message"), [
    ("plan.yaml", None, "no plan.yaml"),
    ("plan.yaml", "arms: 3", "plan.yaml cannot be read"),
    ("costs.json", "{", "costs.json' cannot be read"),
])  # fmt: skip
def test_what_is_no_ablation(tmp_path, write_study, name, text, message):
    folder = write_study(tmp_path, {"a": 0}, seeds=1)
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    with pytest.raises(SegkitError, match=message):
        load_study(folder)


def test_a_broken_run_is_named(tmp_path, write_study):
    study = load_study(write_study(tmp_path, {"a": 0}, seeds=1))
    (study.arms[0].runs[0].evaluation / "per_image.npz").write_bytes(b"PK")
    with pytest.raises(SegkitError, match=r"per_image.npz' cannot be read \(\w+\); delete the run's folder"):
        _ = study.classes
