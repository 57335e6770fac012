import json

import numpy as np
import pytest

from segkit.ablation.compare import analyse, image_scores
from segkit.ablation.study import load_study


@pytest.fixture(scope="module")
def analysis(finished):
    return analyse(finished, resamples=500)


def told(run):
    return json.loads((run.evaluation / "metrics.json").read_text())


def test_differences_are_those_of_what_the_runs_wrote(analysis, finished):
    for name in ("bilinear", "nearest", "pixel_shuffle"):
        found, scores = (
            analysis.comparisons[name],
            [[told(arm.runs[s]) for s in range(6)] for arm in (finished.arm(name), finished.baseline)],
        )
        ours, theirs = ([score["miou"] for score in side] for side in scores)
        assert found.miou.differences == pytest.approx(np.subtract(ours, theirs))
        assert found.miou.difference == pytest.approx(np.mean(ours) - np.mean(theirs))
        ours, theirs = ([score["boundary"]["miou"] for score in side] for side in scores)
        assert found.boundary.difference == pytest.approx(np.mean(ours) - np.mean(theirs))
        for k in ("sky", "pole"):
            ours, theirs = ([score["iou"][k] for score in side] for side in scores)
            assert found.classes[k].difference == pytest.approx(np.mean(ours) - np.mean(theirs))
        assert all(low <= c.difference <= high for c in found.classes.values() for low, high in (c.interval, c.bootstrap))
        assert list(found.classes) == ["sky", "road", "car", "pole"]  # the ghost is nowhere


def test_every_score_is_a_family_and_an_aa_arm_is_in_none(analysis):
    proper = [c for c in analysis.comparisons.values() if not c.arm.aa]
    assert [c.miou.comparisons for c in proper] == [3, 3, 3]
    assert [c.boundary.comparisons for c in proper] == [3, 3, 3]
    assert {contrast.comparisons for c in proper for contrast in c.classes.values()} == {12}
    again = analysis.comparisons["transpose (A/A)"]
    assert (again.miou.comparisons, again.miou.paired) == (1, False)
    assert list(analysis.proper("miou")) == ["bilinear", "nearest", "pixel_shuffle"]


def test_arms_are_compared_on_the_seeds_that_both_have_finished(tmp_path, write_study):
    folder = write_study(
        tmp_path, {"a": 0, "b": 0.01, "c": 0.01, "d": 0}, seeds=3, unfinished=[("a", 2), ("d", 0), ("d", 1)], failed=[("b", 0)]
    )
    found = analyse(load_study(folder), resamples=0).comparisons
    assert {name: c.seeds for name, c in found.items()} == {"b": [1], "c": [0, 1], "d": []}
    assert found["b"].miou.seeds == 1
    assert np.isnan(found["b"].miou.interval).all()
    assert found["d"].miou is None
    assert found["c"].miou.comparisons == 3  # as planned


def test_margin_and_missing_boundaries(tmp_path, write_study):
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0}, seeds=6, noise=0.0, margin=0.05, boundary=False))
    found = analyse(study, resamples=0).comparisons["b"]
    assert found.miou.verdict == "equivalent"
    assert found.boundary is None


def test_what_is_unfair_is_withheld_and_leaves_the_rest(tmp_path, write_study, alter):
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0.05, "c": 0.05}, seeds=3))
    alter(study, "b", 1, batches="0" * 64)
    analysis = analyse(load_study(study.folder), resamples=0)
    assert analysis.comparisons["b"].miou is None
    assert len(analysis.comparisons["b"].withheld) == 1
    assert analysis.comparisons["c"].miou.verdict == "better"
    assert analysis.comparisons["c"].miou.comparisons == 2  # as planned


def test_a_baseline_that_nobody_recorded_withholds_everything(tmp_path, write_study, alter):
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0.05, "c": 0.05}, seeds=2))
    alter(study, "a", 0, order=None)
    assert all(c.miou is None and c.withheld for c in analyse(load_study(study.folder), resamples=0).comparisons.values())


def test_scores_of_single_images_against_a_loop(finished):
    arm = finished.arm("bilinear")
    expected = np.zeros(24)
    for n in range(24):
        values = []
        for seed in (0, 4):
            matrix = arm.runs[seed].required("matrix")[n]
            for k in range(5):
                union = matrix[k].sum() + matrix[:, k].sum() - matrix[k, k]
                if union:
                    values.append(matrix[k, k] / union)
        expected[n] = np.mean(values)
    np.testing.assert_allclose(image_scores(arm, [0, 4]), expected)


def test_arms_that_have_nothing_yet_count_in_the_family(tmp_path, write_study):
    runs = [("c", 0), ("c", 1), ("c", 2)]
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0.05, "c": 0, "d": 0}, seeds=3, unfinished=runs))
    found = analyse(study, resamples=0).comparisons
    assert found["c"].miou is None
    assert found["b"].miou.comparisons == found["b"].boundary.comparisons == 3
    assert found["b"].classes["sky"].comparisons == 3 * 4
    assert found["b"].miou.headline_p_holm == pytest.approx(3 * found["b"].miou.headline_p)
