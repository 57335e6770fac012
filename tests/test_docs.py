"""`docs/upsampling.md` is true: its code runs, its commands parse, its files exist, and its numbers are recomputed here."""

import itertools
import re
from pathlib import Path

import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d, interpolate, pad, pixel_shuffle

from segkit.cli.parsing import Parser
from segkit.cli.visualize import FIGURES
from segkit.config import from_dict
from segkit.metrics import operator_index
from segkit.upsampling import UPSAMPLERS, Nearest, PixelShuffle, TransposeK2, build_upsampler

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/upsampling.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
SETTINGS = [
    (k, s, p, d, o)
    for k, s, p, d, o in itertools.product((1, 2, 3, 4, 5), (1, 2, 3), (0, 1, 2), (1, 2), (0, 1, 2))
    if o < max(s, d) and (5 - 1) * s - 2 * p + d * (k - 1) + o + 1 > 0
]


def transposed(x, weight, s, p=0, d=1, o=0):
    """PyTorch's answer along one axis, float64 `[H]` and `[k]` to `[H_out]`."""
    options = {"stride": (s, 1), "padding": (p, 0), "dilation": (d, 1), "output_padding": (o, 0)}
    wide = conv_transpose2d(x[None, None, :, None], weight[None, None, :, None], **options)
    return wide[0, 0, :, 0]


def row(k):
    return torch.randn(k, dtype=torch.float64, generator=torch.Generator().manual_seed(k))


def block(after):
    """The indented numbers that follow a text."""
    lines = PAGE.split(after, 1)[1].splitlines()
    lines = list(itertools.dropwhile(lambda line: not re.match(r"    +\d", line), lines))
    return [[int(n) for n in line.split()] for line in itertools.takewhile(lambda line: re.match(r"    +\d", line), lines)]


def test_sizes_and_the_forms():
    assert len(SETTINGS) > 150
    for setting in SETTINGS:
        check_forms(*setting)


def check_forms(k, s, p, d, o):
    x, w = row(5), row(k)
    y = transposed(x, w, s, p, d, o)
    size = (5 - 1) * s - 2 * p + d * (k - 1) + o + 1
    assert len(y) == size
    assert (size == 5 * s) == (d * (k - 1) + 1 + o - 2 * p == s)

    scatter, gather = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for i, t in itertools.product(range(5), range(k)):
        if 0 <= s * i - p + d * t < size:
            scatter[s * i - p + d * t] += x[i] * w[t]
    for m, t in itertools.product(range(size), range(k)):
        if (m + p - d * t) % s == 0 and 0 <= (m + p - d * t) // s < 5:
            gather[m] += x[(m + p - d * t) // s] * w[t]
    torch.testing.assert_close(scatter, y)
    torch.testing.assert_close(gather, y)

    grid = torch.eye(size, dtype=torch.float64)[
        :, None, :, None
    ]  # columns of C: what the convolution makes of each pixel of the output's grid
    matrix = conv2d(grid, w[None, None, :, None], stride=(s, 1), padding=(p, 0), dilation=(d, 1))[:, 0, :5, 0].T
    torch.testing.assert_close(matrix.T @ x, y)

    if d == 1 and k - 1 - p >= 0:
        spread = torch.zeros((5 - 1) * s + 1, dtype=torch.float64)
        spread[::s] = x
        padded = pad(spread, (k - 1 - p, k - 1 - p + o))
        torch.testing.assert_close(conv2d(padded[None, None, :, None], w.flip(0)[None, None, :, None])[0, 0, :, 0], y)


def test_the_worked_example():
    code = re.search(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1]
    names = {}
    exec(compile(code, "upsampling.md", "exec"), names)
    assert block("```python") == names["y"][0, 0].tolist()
    assert "12 = 1 + 2 + 4 + 5" in WORDS
    assert names["y"][0, 0, 1, 1] == 1 + 2 + 4 + 5
    assert names["y"][0, 0, 1, 2] == 2 + 5
    assert names["y"][0, 0, 2, 2] == 5
    assert "(7 15 8 17 9 9)" in WORDS
    assert names["y"][0, 0, -1].tolist() == [7, 15, 8, 17, 9, 9]
    both = torch.cat([names["x"], 10 - names["x"]], 1)
    grid = conv_transpose2d(both, torch.ones(2, 1, 3, 3), stride=2, padding=1, output_padding=1)
    assert sorted(set(grid.flatten().tolist())) == [10, 20, 40]


def test_the_wrong_formula():
    x = [1, 2, 3]
    wrong = [sum(x[i] for t in range(3) if 0 <= (i := 2 * (h - 1) + t) < 3) for h in range(6)]
    assert wrong == [1, 6, 3, 0, 0, 0]
    right = transposed(torch.tensor([1.0, 2, 3]), torch.ones(3), 2, 1, o=1)
    assert "yields 1 6 3 and then nothing but zeros; the transposed convolution gives 1 3 2 5 3 3." in WORDS
    assert right.tolist() == [1, 3, 2, 5, 3, 3]


def test_two_sizes_lead_to_one():
    assert "maps 5 rows to 3, and 6 rows to 3 as well" in WORDS
    for size, o in ((5, 0), (6, 1)):
        assert conv2d(torch.ones(1, 1, size, size), torch.ones(1, 1, 3, 3), stride=2, padding=1).shape[-1] == 3
        assert len(transposed(torch.ones(3), torch.ones(3), 2, 1, o=o)) == size


def test_the_table_of_sizes_overlaps_and_shifts():
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == 10
    for *numbers, size, counts, index, shift in rows:
        k, s, p, o = map(int, numbers)
        y = transposed(torch.ones(20), torch.ones(k), s, p, o=o)
        excess = len(y) - 20 * s
        assert size == f"{s}H" + (f" {'+' if excess > 0 else '-'} {abs(excess)}" if excess else "")
        inner = y[8 * s : 9 * s]
        assert counts == " ".join(f"{n:.0f}" for n in inner)
        gains = torch.outer(inner, inner)
        assert index == f"{(gains - gains.mean()).square().sum() / gains.square().sum():.3f}"
        impulse = transposed(torch.eye(20)[8], torch.ones(k), s, p, o=o)
        centre = (impulse * torch.arange(len(impulse))).sum() / impulse.sum()
        assert shift == f"{centre - (8 * s + (s - 1) / 2):+.1f}"
        assert float(shift) == (k - s) / 2 - p


@pytest.mark.parametrize("s", [2, 3, 4])
def test_relations_to_sub_pixel_convolution(s):
    x = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    tiling = TransposeK2(3, 2, s).double()
    phases = tiling.conv.weight.permute(1, 2, 3, 0).reshape(2 * s * s, 3, 1, 1)
    expected = pixel_shuffle(conv2d(x, phases, tiling.conv.bias.repeat_interleave(s * s)), s)
    torch.testing.assert_close(tiling(x), expected)

    shuffle = PixelShuffle(3, 2, s).double()
    shuffle.reset_parameters("standard")
    weight = shuffle.conv.weight.view(2, s, s, 3, 3, 3)  # out, phase row and column, in, kernel row and column
    kernel = weight.flip(4, 5).permute(3, 0, 4, 1, 5, 2).reshape(3, 2, 3 * s, 3 * s)
    one_bias = shuffle.conv.bias.data.view(2, s * s).mean(1)
    shuffle.conv.bias.data = one_bias.repeat_interleave(s * s)
    torch.testing.assert_close(conv_transpose2d(x, kernel, one_bias, stride=s, padding=s), shuffle(x))


def test_nearest_and_a_convolution_are_one_transposed_convolution():
    nearest = Nearest(3, 2, 2).double()
    x = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    assert "`w2, w1 + w2, w0 + w1, w0`" in WORDS
    fold = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float64)
    kernel = (fold @ nearest.conv.weight.data @ fold.T).transpose(0, 1)
    torch.testing.assert_close(conv_transpose2d(x, kernel, nearest.conv.bias, stride=2, padding=1), nearest(x))


@pytest.mark.parametrize("s", [2, 3, 4, 5, 8])
def test_the_bilinear_kernel_interpolates_inside_and_keeps_constants(s):
    k = 2 * s - s % 2
    f = (k + 1) // 2
    c = f - 1 if k % 2 else f - 0.5
    taps = torch.tensor([1 - abs(i - c) / f for i in range(k)], dtype=torch.float64)
    if s == 2:
        assert f"For k = {k} these are {' '.join(f'{tap:g}' for tap in taps)}." in WORDS
    assert all(taps[phase::s].sum() == pytest.approx(1) for phase in range(s))
    operator = UPSAMPLERS["transpose"](1, 1, s)
    operator.reset_parameters("bilinear")
    torch.testing.assert_close(operator.conv.weight[0, 0].double(), torch.outer(taps, taps))
    x = torch.randn(1, 1, 6, 6)
    expected = interpolate(x, scale_factor=s, mode="bilinear", align_corners=False)
    inside = (..., slice(s, -s), slice(s, -s))
    torch.testing.assert_close(operator(x)[inside], expected[inside])
    assert not torch.allclose(operator(x), expected)  # the border


def test_the_bilinear_kernel_of_two_taps():
    taps = [1 - abs(i - 0.5) / 1 for i in range(2)]
    assert taps == [0.5, 0.5]
    assert "both taps become 0.5, and over two axes the gain is 0.25" in WORDS
    operator = TransposeK2(1, 1, 2)
    operator.reset_parameters("bilinear")
    assert operator.conv.weight.tolist() == [[[[1, 1], [1, 1]]]]


def index(name, s, init="standard"):
    torch.manual_seed(0)
    return operator_index(build_upsampler(UPSAMPLERS[name], 32, 32, s, init, guide_channels=32))


def test_the_indices_of_random_weights():
    found = re.search(r"1 - 1/s² of grid: ([\d.]+) for s = 2, ([\d.]+) for s = 3, ([\d.]+) for s = 4,", WORDS)
    for s, number in zip((2, 3, 4), found.groups(), strict=True):
        assert number == f"{1 - 1 / s**2:.2f}"
        for name in ("transpose", "pixel_shuffle"):
            assert index(name, s) == pytest.approx(float(number), abs=0.02)
    assert all(index(name, 2, "smooth") < 1e-10 for name in UPSAMPLERS if name != "unpool")


def test_copies_that_are_not_interleaved():
    torch.manual_seed(0)
    shuffle = build_upsampler(PixelShuffle, 64, 64, 2)
    with torch.no_grad():
        shuffle.conv.weight.copy_(shuffle.conv.weight[::4].repeat(4, 1, 1, 1))
    assert f"the index of 64 to 64 channels is then {operator_index(shuffle):.2f}, not 0." in WORDS


def test_commands_parse_and_files_exist():
    commands = re.findall(r"`python scripts/visualize\.py ([^`]+)`", PAGE)
    assert len(commands) == 5
    for figure, *words in (command.split() for command in commands):
        kind, _ = FIGURES[figure]
        from_dict(kind, Parser(kind, "", file=False).read(words))
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE)
    assert len(pictures) == 4
    assert all(10_000 < (ROOT / "docs" / name).stat().st_size < 300_000 for name in pictures)
