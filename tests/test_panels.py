import numpy as np
import pytest

from segkit.panels import GAP, TEXT, WRONG, draw_panels, viewable

NAMES, COLORS = ["ground", "disc", "wire"], [[10, 20, 30], [200, 100, 0], [0, 150, 250]]
LEFT, TOP = GAP, GAP + TEXT + GAP + TEXT + GAP // 2  # of the first picture


def draw(mask, prediction, side=16, image=None, titles=("image 7",)):
    mask, prediction = np.array(mask, np.uint8), np.array(prediction, np.uint8)
    image = np.full((*mask.shape, 3), 90, np.uint8) if image is None else image
    return draw_panels([image] * len(titles), [mask] * len(titles), [prediction] * len(titles), NAMES, COLORS, 255, titles, side)


def cell(panel, column, height, width):
    left = LEFT + column * (width + GAP)
    return panel[TOP : TOP + height, left : left + width]


def test_small_images_are_enlarged_by_a_whole_factor_without_smoothing():
    mask, prediction = [[0, 1], [2, 0]], [[0, 1], [1, 0]]
    panel = draw(mask, prediction, side=17)
    assert panel.dtype == np.uint8
    for column, labels in ((1, mask), (2, prediction)):
        expected = np.array(COLORS, np.uint8)[np.array(labels)].repeat(8, 0).repeat(8, 1)
        np.testing.assert_array_equal(cell(panel, column, 16, 16), expected)
    np.testing.assert_array_equal(cell(panel, 0, 16, 16), 90)
    grey = int(0.45 * 90 + 0.55 * 255)
    errors = cell(panel, 3, 16, 16)
    np.testing.assert_array_equal(errors[8:, :8], np.broadcast_to(WRONG, (8, 8, 3)))
    np.testing.assert_array_equal(errors[:8], grey)
    np.testing.assert_array_equal(errors[8:, 8:], grey)


def test_ignored_pixels_look_the_same_in_truth_prediction_and_errors():
    panel = draw([[255, 0], [0, 0]], [[1, 0], [0, 0]])
    truth, prediction, errors = (cell(panel, column, 16, 16)[:8, :8] for column in (1, 2, 3))
    np.testing.assert_array_equal(truth, prediction)
    np.testing.assert_array_equal(truth, errors)
    assert set(np.unique(truth)) == {70, 150}


def test_a_wire_one_pixel_wide_survives_the_reduction_of_a_large_image():
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 21] = 2
    truth = cell(draw(mask, mask), 1, 16, 16).astype(int)
    expected = (np.array(COLORS[2]) + 3 * np.array(COLORS[0])) / 4  # a quarter of the wire's colour
    assert np.abs(truth[:, 5] - expected).max() <= 0.5
    assert (truth[:, 4] == COLORS[0]).all()


def test_images_of_different_sizes_share_one_sheet():
    images = [np.zeros((h, w, 3), np.uint8) for h, w in ((4, 4), (97, 131), (1, 1))]
    masks = [np.zeros(image.shape[:2], np.uint8) for image in images]
    panel = draw_panels(images, masks, masks, NAMES, COLORS, 255, ["a", "b", "c"], 64)
    assert panel.shape[1] == GAP + 4 * (64 + GAP)


def test_the_legend_names_the_classes_that_occur(monkeypatch):
    from PIL import ImageDraw

    written = []
    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, xy, said, *a, **k: (written.append(said), text(self, xy, said, *a, **k)))
    draw([[0, 0], [0, 0]], [[0, 0], [0, 2]])
    assert written == ["image", "truth", "prediction", "errors", "image 7", "ground", "wire", "wrong"]
    written.clear()
    draw([[1, 255]], [[1, 1]])
    assert written[5:] == ["disc", "ignored", "wrong"]


def test_a_long_legend_wraps():
    few = draw_panels(*[[np.zeros((2, 2, 3), np.uint8)], *[[np.zeros((2, 2), np.uint8)]] * 2], NAMES, COLORS, 255, ["a"], 64)
    labels = np.arange(36, dtype=np.uint8).reshape(6, 6)
    names, colors = [f"a class with a long name {i}" for i in range(36)], [[i, i, i] for i in range(36)]
    many = draw_panels([np.zeros((6, 6, 3), np.uint8)], [labels], [labels], names, colors, 255, ["a"], 64)
    assert many.shape[0] > few.shape[0] + 12 * (TEXT + GAP) - 64


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3)])
def test_any_shape(shape):
    mask = np.zeros(shape, np.uint8)
    assert draw(mask, mask).ndim == 3


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (4, [0, 1, 2]), (7, [0, 1, 2])])
def test_any_number_of_channels_can_be_looked_at(channels, shown):
    image = np.random.default_rng(0).integers(0, 256, (5, 6, channels), np.uint8)
    np.testing.assert_array_equal(viewable(image), image[..., shown])


def test_sixteen_bits_are_stretched_alike_in_all_channels():
    levels = np.linspace(1000, 3000, 10201).astype(np.uint16)  # the percentiles are 1020 and 2980
    image = np.stack([levels, levels, np.full_like(levels, 2000), levels[::-1]], axis=1).reshape(101, 101, 4)
    shown = viewable(image)
    assert (shown.dtype, shown.shape) == (np.uint8, (101, 101, 3))
    low, high = np.percentile(image[..., :3], [1, 99])
    expected = np.clip((image[..., :3] - low) / (high - low), 0, 1) * 255
    assert np.abs(shown - expected).max() <= 0.51
    assert shown[..., 2].min() == shown[..., 2].max() in (127, 128)
    assert (shown[..., 0].min(), shown[..., 0].max()) == (0, 255)


def test_a_picture_of_one_value_in_sixteen_bits_is_black_and_a_large_one_keeps_its_size():
    assert not viewable(np.full((4, 4, 1), 40000, np.uint16)).any()
    assert viewable(np.zeros((3000, 20, 5), np.uint16)).shape == (3000, 20, 3)
