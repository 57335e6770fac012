import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.inference.grid import ALIGN, blend, spans

sizes = st.integers(1, 700)
overlaps = st.floats(0, 0.9)


@given(length=sizes, tile=sizes, overlap=overlaps)
@settings(max_examples=300, deadline=None)
def test_spans_cover_everything_once_in_sum_and_overlap_as_much_as_asked(length, tile, overlap):
    found = spans(length, tile, overlap)
    total, covered = np.zeros(length), np.zeros(length, int)
    for span in found:
        assert 1 <= len(span) <= min(tile, length)
        assert span.weights.dtype == np.float32
        assert span.weights.min() > 0
        total[span.start : span.stop] += span.weights
        covered[span.start : span.stop] += 1
    assert covered.min() >= 1
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert (found[0].start, found[-1].stop) == (0, length)
    for a, b in itertools.pairwise(found):
        assert a.start < b.start <= a.stop
        assert a.stop <= b.stop
        assert a.stop - b.start >= min(overlap, 1 - 1 / len(a)) * len(a) - 1  # steps are whole pixels
    for span in found:
        alone = covered[span.start : span.stop] == 1
        assert (span.weights[alone] == 1).all()  # exactly: such a pixel keeps the network's own score


@given(length=sizes, tile=st.integers(64, 700), overlap=st.floats(0, 0.5))
@settings(max_examples=200, deadline=None)
def test_tiles_start_at_the_strides_of_the_whole_image(length, tile, overlap):
    found = spans(length, tile, overlap)
    assert all(span.start % ALIGN == 0 for span in found)
    assert len({len(span) for span in found[:-1]}) <= 1


def test_spans_by_hand():
    """4096 pixels in windows of 512: nine steps of 384, and a last one that ends with the image."""
    starts = [span.start for span in spans(4096, 512, 0.25)]
    assert starts == [*range(0, 3457, 384), 3584]
    slightly_larger = [(span.start, span.stop) for span in spans(1100, 1024, 0.25)]
    assert slightly_larger == [(0, 640), (480, 1100)]  # not two of 1024: 480 is 3/4 of 640
    assert [(s.start, s.stop) for s in spans(5, 3, 0.25)] == [(0, 3), (2, 5)]
    assert [(s.start, s.stop) for s in spans(7, 9, 0.25)] == [(0, 7)]


def test_weights_are_gaussians_of_an_eighth_of_the_span_over_their_sum():
    first, second = spans(96, 64, 0.5)
    assert (first.start, second.start) == (0, 32)

    def gauss(i, length):
        return np.exp(-(((i - (length - 1) / 2) / (length / 8)) ** 2) / 2)

    i = 40  # column 8 of the second
    expected = gauss(40, 64) / (gauss(40, 64) + gauss(8, 64))
    assert first.weights[i] == pytest.approx(expected, rel=1e-6)
    assert second.weights[8] == pytest.approx(1 - expected, rel=1e-6)


@given(height=st.integers(1, 90), width=st.integers(1, 90), tile=st.integers(1, 40), overlap=overlaps)
@settings(max_examples=100, deadline=None)
def test_blend_equals_the_plain_sum_over_all_tiles(height, width, tile, overlap):
    rng = np.random.default_rng(0)
    rows, columns = spans(height, tile, overlap), spans(width, tile, overlap)
    tiles = [rng.normal(size=(2, len(r), len(c))) for r in rows for c in columns]
    expected = np.zeros((2, height, width))
    for (r, c), t in zip(((r, c) for r in rows for c in columns), tiles, strict=True):
        expected[:, r.start : r.stop, c.start : c.stop] += t
    got, touched = np.full((2, height, width), np.nan), np.zeros((height, width), int)
    last = (0, -1)
    for top, left, block in blend(rows, columns, iter(tiles), np.copy):
        got[:, top : top + block.shape[1], left : left + block.shape[2]] = block
        touched[top : top + block.shape[1], left : left + block.shape[2]] += 1
        assert (top, left) > last
        last = (top, left)
    assert (touched == 1).all()
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_blend_keeps_the_overlapping_rows_only():
    """Of a picture 20 tiles high and 12 wide, the copies alive at a time never exceed the overlap of two rows of tiles and one tile."""
    rows, columns = spans(32 * 20, 64, 0.25), spans(32 * 12, 64, 0.25)
    alive, most = 0, 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            if self.base is None:
                alive -= self.size

    def copy(array):
        nonlocal alive, most
        fresh = np.ndarray.__new__(Counted, array.shape, array.dtype)
        fresh[...] = array
        alive += fresh.size
        most = max(most, alive)
        return fresh

    tiles = (np.zeros((3, len(r), len(c))) for r in rows for c in columns)
    blocks = sum(block.size for _, _, block in blend(rows, columns, tiles, copy))
    assert blocks == 3 * 32 * 20 * 32 * 12
    overlap = rows[0].stop - rows[1].start
    assert 0 < most <= 3 * overlap * (32 * 12 + 2 * 64)
