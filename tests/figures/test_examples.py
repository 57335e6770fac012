import numpy as np
import pytest
from matplotlib.figure import Figure

from segkit.figures.examples import Example, boundaries, draw_examples, window


def example(mask, *predictions):
    named = {f"arm{i}": labels for i, labels in enumerate(predictions)}
    image = np.zeros((*mask.shape, 3), np.uint8)
    return Example("a scene", image, mask, named, dict.fromkeys(named, "50"))


def test_the_window_holds_most_of_what_arms_see_differently():
    rng = np.random.default_rng(0)
    mask = np.zeros((70, 90), np.uint8)
    first, second = mask.copy(), (rng.random((70, 90)) < 0.02).astype(np.uint8)
    second[40:52, 60:75] = 1
    mask[41:51, 61:63] = 255  # is not scored, and no boundary
    top, left, side = window(example(mask, first, second), 255)
    assert side == 24  # the least
    apart = (first != second) & (mask != 255)
    inside = [apart[y : y + side, x : x + side].sum() for y in range(70 - side + 1) for x in range(90 - side + 1)]
    assert apart[top : top + side, left : left + side].sum() == max(inside)


def test_the_window_of_one_arm_is_where_it_is_wrong_and_of_a_small_image_all_of_it():
    mask = np.zeros((40, 60), np.uint8)
    wrong = mask.copy()
    wrong[30, 50] = 1
    top, left, side = window(example(mask, wrong), 255)
    assert top <= 30 < top + side
    assert left <= 50 < left + side
    assert window(example(mask[:10], wrong[:10]), 255) == (0, 0, 10)


def test_boundaries_are_the_edges_between_pixels():
    mask = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]])
    found = {tuple(map(tuple, segment)) for segment in boundaries(mask).tolist()}
    assert found == {
        ((1.5, -0.5), (1.5, 0.5)), ((1.5, 0.5), (1.5, 1.5)),  # between 0 and 1, (x, y)
        ((-0.5, 1.5), (0.5, 1.5)), ((0.5, 1.5), (1.5, 1.5)), ((1.5, 1.5), (2.5, 1.5)),  # above the 2s
    }  # fmt: skip
    assert boundaries(np.zeros((4, 4), int)).shape == (0, 2, 2)


@pytest.mark.parametrize("arms", [1, 3])
def test_a_row_per_image_and_a_picture_per_arm(arms):
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, (30, 40)).astype(np.uint8)
    mask[0] = 255
    rows = [example(mask, *(rng.integers(0, 2, (30, 40)).astype(np.uint8) for _ in range(arms))) for _ in range(2)]
    figure = draw_examples(rows, ["sky", "road", "car"], [[0, 0, 255], [9, 9, 9], [255, 0, 0]], 255)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 2 * (3 + arms)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sky", "road", "car", "ignored"]
    whole, near, truth, *predicted = (ax.images[0].get_array() for ax in figure.axes[: 3 + arms])
    top, left, side = window(rows[0], 255)
    assert whole.shape == (30, 40, 3)
    assert near.shape == truth.shape == predicted[0].shape == (side, side, 3)
    assert (truth[mask[top : top + side, left : left + side] == 2] == [255, 0, 0]).all()


def test_the_window_prefers_boundaries():
    mask = np.zeros((96, 96), np.uint8)
    mask[70:90, 70:90] = 1
    baseline, other = mask.copy(), mask.copy()
    other[5:30, 5:30] = 2  # many pixels, far from any boundary
    other[66:70, 72:88] = 1
    top, left, side = window(example(mask, baseline, other), 255)
    assert side == 24
    assert top <= 66 < top + side
    assert left <= 72 < left + side
    other[66:70, 72:88] = 0
    top, left, _ = window(example(mask, baseline, other), 255)
    assert (top, left) <= (7, 7)  # nothing differs at a boundary
