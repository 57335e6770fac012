from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from segkit.figures.report import (
    LOOKS,
    Curve,
    draw_against,
    draw_classes,
    draw_curves,
    draw_differences,
    draw_indices,
    draw_runs,
    draw_spectra,
    looks,
    settle,
    svg,
)
from segkit.figures.style import GREY

NAN = (np.nan, np.nan)
LOOK = looks("a", ["a", "b", "c"], ["a (A/A)"])


def contrast(difference, interval, bootstrap=NAN, differences=()):
    return SimpleNamespace(difference=difference, interval=interval, bootstrap=bootstrap, differences=differences)


def lines(figure):
    """The points of every line, `[N, 2]` each."""
    return [np.array(line.get_xydata()) for ax in figure.axes for line in ax.lines]


def drawn(figure, *points):
    return any(len(points) == len(line) and np.allclose(line, points) for line in lines(figure))


def test_arms_keep_their_look_and_are_told_apart_in_grey():
    assert LOOK["a"] is LOOKS[0]
    assert LOOK["a (A/A)"].color == GREY
    many = looks("a", [f"b{i}" for i in range(6)])
    assert len({look.mark for look in many.values()}) == len({look.color for look in many.values()}) == 7
    assert len({look.dash for look in many.values()}) == 7
    light = [np.dot(to_rgb(look.color), [0.2126, 0.7152, 0.0722]) for look in LOOKS]
    assert max(light) < 0.75  # dark enough on white


def test_runs_are_marked_joined_by_seed_and_averaged():
    figure = draw_runs({"a": {0: 0.5, 1: 0.6}, "b": {1: 0.7}, "a (A/A)": {0: 0.4, 1: 0.5}}, LOOK, "mIoU")
    assert drawn(figure, (60, 0), (70, 1))  # seed 1
    assert drawn(figure, (50, 0), (60, 0))
    assert drawn(figure, (55, -0.33), (55, 0.33))
    assert not any(len(line) == 2 and {0, 2} == set(line[:, 1]) for line in lines(figure))  # no seed is shared with A/A
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b", "a (A/A)"]


def test_the_forest_shows_both_intervals_seeds_margin_and_verdict():
    found = {"b": contrast(0.02, (0.01, 0.03), (0.012, 0.028), (0.015, 0.025)), "c": contrast(0.01, NAN, (0.0, 0.02), (0.01,))}
    figure = draw_differences(found, {"b": "better", "c": "one seed"}, LOOK, "mIoU", margin=0.005)
    assert drawn(figure, (1, -0.12), (3, -0.12))
    assert drawn(figure, (1.2, 0.14), (2.8, 0.14))
    assert drawn(figure, (1.5, 0.34), (2.5, 0.34))
    assert drawn(figure, (2, -0.12))
    ax = figure.axes[0]
    assert [text.get_text() for text in ax.texts] == ["better", "one seed"]
    band = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((-0.5, 0.5))


def test_scores_over_costs():
    figure = draw_against({"a": 10, "b": 20}, {"a": [0.5, 0.6], "b": [0.7]}, LOOK, "ms", "mIoU")
    assert drawn(figure, (10, 50), (10, 60))
    assert drawn(figure, (10, 55))
    assert drawn(figure, (20, 70))
    beside = draw_against({"a": 10, "b": 20, "c": 20}, {"a": [0.5], "b": [0.7], "c": [0.7]}, LOOK, "ms", "mIoU")
    assert drawn(beside, (20, 70))
    assert drawn(beside, (20.2, 70))  # 2 % of the width further, where it is seen


def test_classes_have_a_row_and_arms_a_place_in_it():
    found = {"b": {"sky": contrast(0.01, (0, 0.02)), "car": contrast(0.03, (0.02, 0.04))}, "c": {"car": contrast(-0.01, (-0.02, 0))}}
    figure = draw_classes(found, LOOK, "IoU")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["sky", "car"]
    assert drawn(figure, (2, 0.8), (4, 0.8))
    assert drawn(figure, (-2, 1.2), (0, 1.2))


def test_curves_and_spectra_are_means_of_the_runs():
    curve = Curve(np.array([1.0, 2, 4]), np.array([[0.1, 0.2, 0.3], [0.3, 0.4, 0.5]]))
    assert drawn(draw_curves({"a": curve}, LOOK, "x", "y"), (0, 20), (1, 30), (2, 40))
    assert drawn(draw_curves({"a": curve}, LOOK, "x", "y", zero=True), (0, 0), (1, 0))
    spectra = Curve(np.array([0, 0.25, 0.5]), np.array([[9.0, 1, 4], [9, 4, 1]]))
    assert drawn(draw_spectra({"a": spectra}, LOOK), (0.25, 2), (0.5, 2))  # the geometric mean, without frequency 0


def test_indices_before_and_after():
    figure = draw_indices({"a": {"1": [0.2, 0.4]}, "b": {"1": [0.0]}}, {"a": {"1": [0.1, 0.1]}}, LOOK, "stage", "CI", apart=1)
    x = -0.5 * 0.75 / 2
    assert drawn(figure, (x, 0.1))
    assert drawn(figure, (x, 0.3))
    assert drawn(figure, (x, 0.2), (x, 0.4))
    hollow = [line.get_fillstyle() for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert hollow == ["none", "full", "full"]


def test_svg_is_text_that_repeats():
    figure = settle(draw_runs({"a": {0: 0.5}}, LOOK, "mIoU"))
    text = svg(figure)
    assert text == svg(figure)
    assert ">mIoU of every run (%)</text>" in text
    assert "<dc:date>" not in text
