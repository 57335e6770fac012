"""Overlaps against PyTorch's transposed convolution and against counts by hand."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn.functional import conv_transpose2d

from segkit.config import OverlapFigureConfig
from segkit.errors import SegkitError
from segkit.figures import Geometry, draw_overlap, list_geometries
from segkit.metrics import operator_index

GEOMETRIES = [
    Geometry(k, s, p, o)
    for k, s, p, o in itertools.product(range(1, 8), (2, 3, 4), (0, 1, 2), (0, 1, 2))
    if o < s and k + o - 2 * p > -2 * s
]


def test_counts_by_hand():
    # k 3, s 2, p 0: taps 0 and 2 fall on even rows, tap 1 on odd ones
    assert Geometry(3, 2, 0).counts == [2, 1]
    assert Geometry(3, 2, 1).counts == [1, 2]
    assert Geometry(4, 2, 1).counts == [2, 2]
    assert Geometry(2, 3, 0).counts == [1, 1, 0]
    assert Geometry(5, 3, 1).counts == [2, 1, 2]


def test_size_overlap_index_and_shift_are_those_of_the_layer():
    for g in GEOMETRIES:
        ones = torch.ones(1, 1, 12, 12, dtype=torch.float64)
        options = {"stride": g.stride, "padding": g.padding, "output_padding": g.output_padding}
        out = conv_transpose2d(ones, ones[..., : g.kernel, : g.kernel], **options)[0, 0]
        assert len(out) == 12 * g.stride + g.excess
        np.testing.assert_array_equal(g.overlap(12), out)
        inner = out[4 * g.stride : 8 * g.stride, 4 * g.stride : 8 * g.stride]
        np.testing.assert_array_equal(np.tile(np.outer(g.counts, g.counts), (4, 4)), inner)
        impulse = torch.zeros_like(ones)
        impulse[..., 6, 6] = 1
        line = conv_transpose2d(impulse, ones[..., : g.kernel, : g.kernel], **options)[0, 0].sum(0)
        centroid = (line * torch.arange(len(line))).sum() / line.sum()
        assert g.shift == centroid - (6 * g.stride + (g.stride - 1) / 2)
        assert (g.index < 1e-12) == (g.kernel % g.stride == 0)  # the rule
        if g.excess == 0:
            layer = torch.nn.ConvTranspose2d(1, 1, g.kernel, **options)
            torch.nn.init.ones_(layer.weight)
            assert g.index == pytest.approx(operator_index(layer), abs=1e-6)


def test_paddings_are_those_that_give_the_size_or_lie_next_to_it():
    listed = list_geometries(OverlapFigureConfig(kernel=[3, 4], stride=[2]))
    assert listed == [Geometry(3, 2, 0), Geometry(3, 2, 1), Geometry(3, 2, 1, 1), Geometry(4, 2, 1)]
    assert [g.excess for g in listed] == [1, -1, 0, 0]
    assert list_geometries(OverlapFigureConfig(kernel=[4, 4], stride=[2], padding=[0, 2])) == [
        Geometry(4, 2, 0), Geometry(4, 2, 2)
    ]  # fmt: skip
    with pytest.raises(SegkitError, match="--padding 6: with kernel 2 and stride 2 nothing is left of 5 rows"):
        list_geometries(OverlapFigureConfig(kernel=[2], stride=[2], padding=[0, 6]))
    assert list_geometries(OverlapFigureConfig(kernel=[1], stride=[2])) == [Geometry(1, 2, 0), Geometry(1, 2, 0, 1)]


def test_the_figure():
    geometries = list_geometries(OverlapFigureConfig(kernel=[3, 4, 6], stride=[2, 3]))
    figure = draw_overlap(geometries)
    top, bottom = figure.subfigs
    assert [text.get_text() for text in top.axes[0].texts] == list("11212121211")  # five kernels of 3, 2 apart
    assert [text.get_text() for text in top.axes[1].texts] == list("112222222211")
    bold = [ax.get_title() for ax in bottom.axes if ax.title.get_weight() == "bold"]
    assert bold == ["k 4, s 2", "k 6, s 2", "k 3, s 3", "k 6, s 3"]
    assert bottom.axes[0].get_xlabel() == "per axis 1 2\nCI 0.190"
