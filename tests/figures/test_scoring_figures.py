"""The confusion matrix and the reliability diagram: what is drawn is what was counted."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.text import Text

from segkit.figures import draw_confusion, draw_reliability, save
from segkit.figures.confusion import absent, amount


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_rows_are_shares_of_the_truth_with_their_pixels():
    figure = draw_confusion(np.array([[3000, 1000], [0, 250]]), ["sky", "pole"], "test")
    (shown,) = figure.axes[0].images
    assert np.asarray(shown.get_array()).tolist() == [[0.75, 0.25], [0, 1]]
    ax = figure.axes[0]
    placed = {(*text.get_position(), text.get_text()) for text in ax.texts}
    assert {(0, -0.02, "75.0"), (0, 0.08, "3.00k"), (1, -0.02, "25.0"), (1, 1.08, "250")} <= placed
    assert "0.0" not in {text for *_, text in placed}  # nothing is written where there is nothing
    assert [label.get_text() for label in ax.get_yticklabels()] == ["sky", "pole"]
    beside = [text.get_text() for text in ax.texts if text.get_position()[0] > 1]
    assert beside == ["pixels\n(%)", "94", "5.9", "IoU\n(%)", "75.0", "20.0"]


@pytest.mark.parametrize("classes", [2, 11, 19, 150])
def test_every_number_of_classes_fits_its_page(classes, tmp_path):
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 10**6, (classes, classes)) + np.eye(classes, dtype=int) * 10**7
    matrix[1] = 0
    names = [f"class {k} with quite a long name" for k in range(classes)]
    figure = draw_confusion(matrix, names, "test")
    figure.draw_without_rendering()
    page, ax = figure.bbox, figure.axes[0]
    labels = [*ax.get_xticklabels(), *ax.get_yticklabels(), *ax.texts]
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    assert all(box.x0 >= -1 and box.y0 >= -1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1 for box in boxes)
    rows = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(rows))  # no name touches the next
    inner = ax.get_window_extent()
    cell = inner.width / classes
    numbers = [text.get_window_extent().width for text in ax.texts if text.get_position()[0] == int(text.get_position()[0])]
    assert max(numbers, default=0) < cell
    assert any("without a true pixel: class 1 " in text for text in texts(figure))


def test_what_is_absent_is_said():
    assert absent(np.array([[1, 0, 2], [0, 0, 0], [0, 0, 1]]), ["a", "b", "c"]) == "without a true pixel: b\nnever predicted: b"
    assert absent(np.array([[0, 0], [1, 1]]), ["a", "b"]) == "without a true pixel: a"
    assert absent(np.eye(2, dtype=int), ["a", "b"]) == ""


@pytest.mark.parametrize(
    ("pixels", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00k"), (12345, "12.3k"), (999_600, "1.00M"), (4.56e6, "4.56M"), (123e6, "123M"), (2e9, "2.00G")],
)
def test_amounts_have_three_digits(pixels, text):
    assert amount(pixels) == text


def bins(count, confidence, accuracy):
    return {
        "edges": np.linspace(0, 1, len(count) + 1),
        "count": np.array(count),
        "confidence": np.array(confidence),
        "accuracy": np.array(accuracy),
    }


def test_the_diagram_shows_accuracy_gap_and_histogram(tmp_path):
    found = bins([0, 10, 0, 30], [np.nan, 0.4, np.nan, 0.9], [np.nan, 0.5, np.nan, 0.7])
    figure = draw_reliability(found, "camvid, test")
    upper, lower = figure.axes
    accuracy, gap = ([(bar.get_x(), bar.get_y(), bar.get_height()) for bar in bars] for bars in upper.containers)
    assert accuracy == [(0.25, 0, 0.5), (0.75, 0, 0.7)]
    assert [pytest.approx(bar) for bar in gap] == [(0.25, 0.4, 0.1), (0.75, 0.7, 0.2)]
    assert [bar.get_height() for bar in lower.containers[0]] == [25, 75]
    written = texts(figure)
    assert "ECE 17.50 %\nMCE 20.00 %" in written  # (10 x 0.1 + 30 x 0.2) / 40
    assert {"mean confidence 77.5 %", "accuracy 65.0 %", "camvid, test"} <= set(written)
    for name in ("r.png", "r.pdf"):
        save(figure, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000


def test_a_diagram_of_nothing_says_so():
    figure = draw_reliability(bins([0, 0], [np.nan] * 2, [np.nan] * 2), "test")
    assert "no pixel to score" in texts(figure)
