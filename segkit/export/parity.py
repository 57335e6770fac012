"""How far an exported network is from the original: the same images through both.

Shapes: B batch, C channels, K classes, H W rows/columns.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segkit.errors import RunFailed
from segkit.export.program import load_program
from segkit.export.weights import load_safetensors
from segkit.task import SegmentationTask

# below, at and above multiples of the strides, narrow, odd, and single pixels
SIZES = (
    *((1, 1), (1, 9), (2, 5), (7, 3), (31, 33), (32, 32), (33, 64), (63, 65), (64, 64), (65, 97)),
    *((96, 128), (97, 131), (100, 75), (127, 129), (131, 97), (17, 200), (200, 17), (160, 120), (161, 119), (190, 210)),
)
TOLERANCE = 1e-3  # of the largest logit: 100 times what rounding makes of a deep network in float32, 100 times less than a wrong pixel


@dataclass(frozen=True)
class Parity:
    """What differs between two networks.

    Args:
        difference: Largest absolute difference of a logit; NaN or infinite where one of them is.
        largest: Largest absolute logit of the original.
        labels: Share of pixels whose label differs.
        cases: Batches compared.
    """

    difference: float
    largest: float
    labels: float
    cases: int

    @property
    def holds(self) -> bool:
        """Whether it is rounding."""
        return self.difference <= TOLERANCE * self.largest

    def __str__(self) -> str:
        return (
            f"{self.cases} batches of {len(SIZES)} sizes: logits differ by {self.difference:.1e} at most (largest {self.largest:.3g}), "
            f"labels in {100 * self.labels:.2g} % of the pixels"
        )


@torch.inference_mode()
def compare(
    original: Callable[[Tensor], Tensor],
    exported: Callable[[Tensor], Tensor],
    images: Iterable[Tensor],
) -> Parity:
    """Compares the logits `[B, K, H, W]` that two networks give for each batch of images.

    Raises:
        RunFailed: The exported network gives another shape.
    """
    difference, largest, differing, pixels, cases = 0.0, 0.0, 0, 0, 0
    for image in images:
        a, b = original(image).cpu(), exported(image)
        if a.shape != b.shape:
            shapes = f"{list(b.shape)}, the original {list(a.shape)}"
            raise RunFailed(f"for images {list(image.shape)} the exported network gives logits {shapes}")
        gap = (a - b).abs().max().item()
        difference = gap if math.isnan(gap) else max(difference, gap)
        largest = max(largest, a.abs().max().item())
        differing += int((a.argmax(1) != b.argmax(1)).sum())
        pixels += a.shape[0] * a.shape[2] * a.shape[3]
        cases += 1
        if math.isnan(gap):
            break
    return Parity(difference, largest, differing / pixels, cases)


def random_images(task: SegmentationTask, sizes: Iterable[tuple[int, int]] = SIZES) -> Iterable[Tensor]:
    """Random pixels, uint8 or uint16, one image and two of every size."""
    generator, white = torch.Generator().manual_seed(0), task.hparams["white"]
    for h, w in sizes:
        for batch in (1, 2):
            shape = (batch, int(task.hparams["in_channels"]), h, w)
            pixels = torch.randint(white + 1, shape, generator=generator, dtype=torch.int32)
            yield pixels.to(torch.uint8 if white == 255 else torch.uint16)


def runner(path: Path, task: SegmentationTask, normalize: bool, threads: int | None = None) -> Callable[[Tensor], Tensor]:
    """The network in an exported file as a function of pixels; `.onnx` files by onnxruntime on the CPU."""
    if path.suffix == ".safetensors":
        return load_safetensors(path)
    if path.suffix == ".pt2":
        run: Callable[[Tensor], Tensor] = load_program(path)[0].module()
    else:
        from segkit.onnx_model import open_session

        session = open_session(path, threads)

        def run(image: Tensor) -> Tensor:
            return torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])

    return run if normalize else lambda image: run(task.normalize(image).contiguous())
