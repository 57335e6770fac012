"""An exported network that predicts images of any size, without torch. Shapes: B batch, C channels, K classes, h w rows and columns."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from segkit.inference.arrays import Floats, bands
from segkit.inference.bands import Band
from segkit.inference.files import Picture
from segkit.onnx_model import OnnxModel


class Exported:
    """An .onnx file with what `predict.py` asks of a model; the arguments are those of `segkit.inference.Model`."""

    def __init__(self, path: Path, *, tile: int, overlap: float, tta: Sequence[str]) -> None:
        self.model = OnnxModel(path)
        self.tile, self.overlap, self.tta = tile, overlap, tuple(tta)
        self.colors, self.white, self.in_channels = self.model.colors, self.model.white, self.model.in_channels

    def bands(self, picture: Picture, probabilities: bool = False) -> Iterator[Band]:
        """The prediction of an image, band by band."""
        return bands(
            self._scores,
            picture.read,
            picture.size,
            tile=self.tile,
            overlap=self.overlap,
            tta=self.tta,
            probabilities=probabilities,
        )

    def _scores(self, images: np.ndarray) -> Floats:
        """Log probabilities: up to a number per pixel the logits, and that changes neither their blend's labels nor its probabilities."""
        found = np.stack([self.model.probabilities(image.transpose(1, 2, 0)) for image in images])
        return np.asarray(np.log(np.maximum(found, np.finfo(np.float32).tiny)), np.float32)
