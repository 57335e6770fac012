import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from segkit.config import OperatorFigureConfig
from segkit.errors import SegkitError
from segkit.figures import draw_operators, measure_operator, save
from segkit.upsampling import UPSAMPLERS


def measure(name, **options):
    return measure_operator(name, OperatorFigureConfig(**options), channels=24)


@pytest.mark.parametrize("name", sorted(set(UPSAMPLERS) - {"unpool"}))
@pytest.mark.parametrize("scale", [2, 3])
def test_a_flat_image_under_smooth_weights_and_the_gains_of_its_phases(name, scale):
    row = measure_operator(name, OperatorFigureConfig(scale=scale), channels=36)
    np.testing.assert_allclose(row.variants["smooth"].flat, 1, atol=1e-5)
    assert row.reach.shape == (7 * scale, 7 * scale)
    for init in ("smooth", "standard"):
        flat, edge = row.variants[init].flat, row.variants[init].edge
        assert (flat.shape, edge.shape) == ((6 * scale, 6 * scale), (12 * scale, 12 * scale))
        assert np.abs(flat).max() == pytest.approx(1)
        np.testing.assert_allclose(np.tile(row.variants[init].gains, (6, 6)), flat, atol=1e-5)  # period s, whatever the weights
    own = row.variants["standard"].gains
    shown = ((own - own.mean()) ** 2).sum() / (own**2).sum()
    assert shown == pytest.approx(row.variants["standard"].index, abs=0.03)  # the kernel in the picture is typical


@pytest.mark.parametrize(("name", "weights"), [
    ("transpose_k2", [1, 1]),
    ("transpose", [1, 1, 1, 1]),
    ("pixel_shuffle", [1, 1, 1, 1, 1, 1]),
    ("nearest", [1, 2, 2, 1]),  # so many of three taps see the pixel
])  # fmt: skip
def test_the_reach_of_one_pixel(name, weights):
    reach = measure(name).reach
    expected = np.zeros((14, 14))
    start = 7 - len(weights) // 2
    expected[start : start + len(weights), start : start + len(weights)] = np.sqrt(np.outer(weights, weights))
    assert ((reach > 1e-6) == (expected > 0)).all()
    np.testing.assert_allclose(reach / reach.max(), expected / expected.max(), atol=0.2)  # 576 random kernels


def test_an_edge_rises_from_nothing_to_the_flat_response():
    variants = measure("transpose", init="bilinear").variants
    edge = variants["bilinear"].edge
    assert edge[:, 0] == pytest.approx(0, abs=1e-6)
    assert edge[:, -1] == pytest.approx(1, abs=1e-6)
    assert (np.diff(edge, axis=1) > -1e-6).all()
    assert edge.mean() == pytest.approx(0.5, abs=0.02)
    assert list(variants) == ["smooth", "standard", "bilinear"]
    assert variants["bilinear"].index == pytest.approx(0, abs=1e-10)


def test_the_seed_decides_and_the_global_stream_is_left_alone():
    state = torch.get_rng_state()
    one, again, other = measure("transpose"), measure("transpose"), measure("transpose", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(one.variants["standard"].flat, again.variants["standard"].flat)
    assert not np.array_equal(one.variants["standard"].flat, other.variants["standard"].flat)


@pytest.mark.parametrize("options", [{}, {"scale": 3, "init": "standard"}, {"init": "bilinear", "upsample": ["transpose"]}])
def test_a_row_per_operator_with_its_figures(options):
    config = OperatorFigureConfig(**options)
    rows = [measure_operator(name, config, channels=36) for name in config.upsample or UPSAMPLERS]
    figure = draw_operators(rows, config)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == len(rows) * (4 + len(rows[0].variants))
    texts = [text.get_text() for ax in figure.axes for text in (*ax.texts, ax.title, ax.xaxis.label)]
    for row in rows:
        assert row.name in texts
        assert f"{row.parameters:,} parameters\n12 x 12 to {12 * config.scale} x {12 * config.scale}" in texts
        assert all(f"CI {variant.index:.2f}" in texts for variant in row.variants.values())


def test_files(tmp_path):
    config = OperatorFigureConfig(upsample=["nearest"])
    figure = draw_operators([measure_operator("nearest", config, channels=2)], config)
    save(figure, tmp_path / "new" / "a.png")
    save(figure, tmp_path / "a.pdf")
    with Image.open(tmp_path / "new" / "a.png") as picture:
        assert picture.width > 1000
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    (tmp_path / "file").touch()
    with pytest.raises(SegkitError, match="give another --out"):
        save(figure, tmp_path / "file" / "a.png")
