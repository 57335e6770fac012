"""The grid in logits: a loop over cells as the oracle, grids of known strength, and spectra with known peaks and energy."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from segkit.metrics.artefacts import FREQUENCIES, NULLS, SCALES, NetworkIndex, Spectrum


def slow_index(images, s):
    """The definition, cell by cell; `images` are `(index, logits [K, H, W])`."""
    classes = images[0][1].shape[0]
    cells = ([], [])  # of the two halves: h of every cell, [K, s, s]
    for index, logits in images:
        for i in range(logits.shape[1] // s):
            for j in range(logits.shape[2] // s):
                cell = logits[:, i * s : (i + 1) * s, j * s : (j + 1) * s].astype(np.float64)
                cells[index % 2].append(cell - cell.mean((1, 2), keepdims=True))
    if not cells[0] or not cells[1]:
        return float("nan")
    even, odd = (np.mean(half, axis=0) for half in cells)
    energy = sum(np.mean([cell[k] ** 2 for half in cells for cell in half]) for k in range(classes))
    product = sum((even[k] * odd[k]).mean() for k in range(classes))
    return float(np.clip(product / energy, 0, 1)) if energy > 0 else 0.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_loop_s(seed, dtype):
    random = torch.Generator().manual_seed(seed)
    index, images = NetworkIndex(3), []
    for batch in ([4, 1], [3], [0, 5, 7], [2]):
        height, width = torch.randint(5, 80, (2,), generator=random).tolist()
        logits = torch.randn(len(batch), 3, height, width, generator=random) + 5
        logits[:, 1] += 0.7 * (torch.arange(width) % 2)
        logits[:, 2] -= 3 * (torch.arange(height)[:, None] % 16 == 3)
        logits = logits.to(dtype).to(memory_format=torch.channels_last)
        index.update(logits, torch.tensor(batch))
        images += [(i, image.float().numpy()) for i, image in zip(batch, logits, strict=True)]
    for s, found in index.compute().items():
        assert found == pytest.approx(slow_index(images, s), rel=1e-9, abs=1e-12, nan_ok=True)
    assert index.compute()[2] > 0.05


def test_large_images_are_summed_in_pieces():
    logits = torch.randn(2, 5, 280, 260, generator=torch.Generator().manual_seed(0))
    index = NetworkIndex(5, (16,))
    index.update(logits, torch.arange(2))
    assert index.compute()[16] == pytest.approx(slow_index(list(enumerate(logits.numpy())), 16), rel=1e-9, abs=1e-12)


def smooth(count, seed=0):
    """Bilinearly doubled noise, whose variation within cells of 2 x 2 has the energy 0.0145."""
    noise = torch.randn(count, 2, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    logits = interpolate(noise, scale_factor=2, mode="bilinear", align_corners=False)
    cells = logits.unflatten(3, (48, 2)).unflatten(2, (48, 2))
    return logits * (0.0145 / (cells - cells.mean((3, 5), keepdim=True)).square().mean()).sqrt()


def found(logits):
    index = NetworkIndex(2)
    index.update(logits, torch.arange(len(logits)))
    return index.compute()


@pytest.mark.parametrize(("amplitude", "expected"), [(0.0, 0.0), (0.01, 0.007), (0.05, 0.147), (0.2, 0.734)])
def test_an_added_grid_is_found_at_its_strength(amplitude, expected):
    """Cells of energy v and a checkerboard of amplitude a have the index a² / (a² + v)."""
    grid = amplitude * torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).repeat(48, 48)
    assert amplitude**2 / (amplitude**2 + 0.0145) == pytest.approx(expected, abs=5e-4)
    values = found(smooth(40) + grid)
    assert values[2] == pytest.approx(expected, abs=1.5e-3)
    assert max(values[s] for s in NULLS) <= 0.0014


@pytest.mark.parametrize("s", SCALES)
def test_a_pure_grid_is_one_and_flat_cells_are_zero(s):
    random = torch.Generator().manual_seed(s)
    grid = torch.randn(1, 2, s, s, generator=random).repeat(2, 1, 64 // s, 64 // s)
    offset = torch.randn(2, 2, 64 // s, 64 // s, generator=random).repeat_interleave(s, 2).repeat_interleave(s, 3)
    index = NetworkIndex(2, (s,))
    index.update(grid + offset, torch.tensor([0, 1]))
    assert index.compute()[s] == pytest.approx(1, abs=1e-6)
    expected = (grid - grid.mean((2, 3), keepdim=True))[0, :, :s, :s].double()
    torch.testing.assert_close(index.grid(s), expected, rtol=0, atol=1e-6)
    assert found(1e4 * offset + 3e4)[s] == 0


def test_noise_has_no_grid_though_every_image_has_one():
    """The square of a mean over few cells is far from 0; the product of two halves is not."""
    logits = torch.randn(60, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    cells = logits.unflatten(3, (2, 4)).unflatten(2, (2, 4))
    h = cells - cells.mean((3, 5), keepdim=True)
    assert h.mean((2, 4)).square().mean() / h.square().mean() > 0.2
    assert found(logits)[4] < 0.01


def test_without_two_halves_there_is_no_value():
    logits = torch.randn(3, 2, 20, 20)
    index = NetworkIndex(2)
    index.update(logits, torch.tensor([0, 2, 4]))
    assert np.isnan(list(index.compute().values())).all()
    index.update(logits, torch.tensor([1, 3, 5]))
    values = index.compute()
    assert np.isnan(values[32])  # larger than any image
    assert not np.isnan([value for s, value in values.items() if s != 32]).any()


def test_sums_of_several_processes_add_up():
    logits, order = torch.randn(6, 3, 40, 37, generator=torch.Generator().manual_seed(1)), torch.arange(6)
    whole, parts = (NetworkIndex(3), Spectrum()), [(NetworkIndex(3), Spectrum()) for _ in range(2)]
    for (index, spectrum), chosen in ((whole, order), (parts[0], order[::2]), (parts[1], order[1::2])):
        index.update(logits[chosen], chosen)
        spectrum.update(logits[chosen])
    for mine, other in zip(parts[0], parts[1], strict=True):
        for tensor, more in zip(mine.tensors(), other.tensors(), strict=True):
            tensor += more
    assert parts[0][0].compute() == pytest.approx(whole[0].compute(), rel=1e-9)
    torch.testing.assert_close(parts[0][1].compute()[1], whole[1].compute()[1])


def spectrum_of(*batches):
    spectrum = Spectrum()
    for logits in batches:
        spectrum.update(logits)
    frequency, power = spectrum.compute()
    assert frequency.shape == (FREQUENCIES,)
    assert power.shape == (2, FREQUENCIES)
    return frequency, power


@pytest.mark.parametrize("size", [(128, 96), (131, 97), (512, 640), (40, 1000)])
def test_a_wave_peaks_at_its_frequency_in_an_image_of_any_size(size):
    rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])
    logits = torch.cos(2 * torch.pi * rows / 8) + 2 * torch.cos(2 * torch.pi * columns / 4) + 100.0
    frequency, power = spectrum_of(logits.expand(1, 2, -1, -1))
    for side, found, expected in zip(size, power, (1 / 8, 1 / 4), strict=True):
        assert abs(frequency[found.argmax()] - expected) <= max(0.5 / side, 1 / 256)
    # the variance of a line, amplitude² / 2, as the integral over negative and positive frequencies
    widths = torch.full((FREQUENCIES,), 2 / 256)
    widths[[0, -1]] /= 2
    assert (power[0] * widths).sum() == pytest.approx(1 / 2, rel=0.05)
    assert (power[1] * widths).sum() == pytest.approx(4 / 2, rel=0.05)


@pytest.mark.parametrize("size", [(50, 61), (300, 257), (1, 7), (3, 1)])
def test_no_energy_is_lost_between_the_frequencies(size):
    """Parseval: the integral is the mean energy of the windowed lines, however many frequencies they have."""
    logits = np.random.default_rng(0).normal(size=(2, 3, *size))
    _, power = spectrum_of(torch.from_numpy(logits))
    widths = np.full(FREQUENCIES, 2 / 256)
    widths[[0, -1]] /= 2
    for axis, found in zip((2, 3), power, strict=True):
        n = logits.shape[axis]
        window = np.sin(np.pi * np.arange(n) / n) ** 2 if n > 1 else np.ones(1)
        lines = np.moveaxis(logits - logits.mean(axis, keepdims=True), axis, -1) * window
        assert (found.numpy() * widths).sum() == pytest.approx((lines**2).sum(-1).mean() / (window**2).sum(), rel=1e-5, abs=1e-12)


def test_a_grid_peaks_at_the_multiples_of_its_frequency():
    grid = torch.zeros(1, 1, 256, 256)
    grid[..., ::4, ::4] = 1
    frequency, power = spectrum_of(grid)
    peaks = sorted(power[1].argsort(descending=True)[:2].tolist())
    assert frequency[peaks].tolist() == [1 / 4, 1 / 2]


def test_every_image_has_the_same_weight():
    a, b = torch.randn(2, 3, 64, 48), torch.randn(1, 3, 200, 131)
    expected = (2 * spectrum_of(a)[1] + spectrum_of(b)[1]) / 3
    torch.testing.assert_close(spectrum_of(a, b)[1], expected)
