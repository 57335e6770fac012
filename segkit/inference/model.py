"""A trained network as two lines of Python: `model = segkit.load(RUN); mask = model.predict(image)`.

Shapes: C channels, K classes, H W rows and columns, n rows of a band.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from segkit.config import Precision, PredictConfig
from segkit.errors import RunFailed, SegkitError, unknown
from segkit.inference.augment import augmented
from segkit.inference.bands import Band, gather, whole
from segkit.inference.files import Picture, open_picture
from segkit.inference.tiles import score_blocks
from segkit.metrics import labels
from segkit.runs import find_checkpoint
from segkit.task import SegmentationTask

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]
TILE = 1024  # a U-Net with 64 channels at full resolution then needs about 2 GB; what is larger is cut


class Model:
    """Predicts images of any size; `load` makes one.

    An image whose sides are at most `tile` is predicted as a whole; a larger one in overlapping tiles (`segkit.inference.tiles.infer` says
    what that changes), so that memory holds one tile's activations and `overlap * tile` rows of scores, whatever the image's height.

    Args:
        task: The network with its classes and its normalisation.
        device: Hardware to run on.
        precision: Arithmetic.
        tile: Longest side of a tile in pixels.
        overlap: Least share of a tile that the next one covers again, in [0, 1).
        tta: Flips, of `hflip` and `vflip`, that are averaged with the image itself (`segkit.inference.augment.augmented`).
        scales: Sizes, relative to the image's own, that are averaged.
        batch_size: Tiles predicted together.

    Attributes:
        class_names: K names, in the order of the labels.
        colors: K colours, RGB in 0..255.
        mean: Mean of each channel that is subtracted, in units of white.
        std: Deviation that is divided by.
        white: 255, or 65535 of a model for images of 16 bits.
        in_channels: C.
    """

    def __init__(
        self,
        task: SegmentationTask,
        device: torch.device,
        precision: Precision = "32-true",
        *,
        tile: int = TILE,
        overlap: float = 0.25,
        tta: Sequence[str] = (),
        scales: Sequence[float] = (1.0,),
        batch_size: int = 1,
    ) -> None:
        self.task = task.to(device, torch.float64 if precision == "64-true" else None).eval()
        self.device, self.precision = device, precision
        self.tile, self.overlap, self.batch_size = tile, overlap, batch_size
        self.class_names, self.colors = task.class_names, task.colors
        self.mean, self.std = list(task.hparams["mean"]), list(task.hparams["std"])
        self.white, self.in_channels = int(task.hparams.get("white", 255)), int(task.hparams["in_channels"])
        self._scores = augmented(self._logits, tta, scales)

    def predict(self, image: str | Path | np.ndarray) -> Bytes:
        """Labels of an image.

        Args:
            image: A file (an image, or an array in a `.npy` file), or an array [H, W, C], of one channel also [H, W]; uint8, or uint16 for
                a model of 16 bits, for which 8 bits are scaled up.

        Returns:
            uint8 [H, W].

        Raises:
            SegkitError: The image cannot be read, or has other channels or another type.
        """
        with open_picture(image, self.in_channels, self.white) as picture:
            return whole(self.bands(picture), picture.size)

    def probabilities(self, image: str | Path | np.ndarray) -> Floats:
        """Probabilities of the classes, float32 [K, H, W]; the image as in `predict`."""
        with open_picture(image, self.in_channels, self.white) as picture:
            out = np.empty((len(self.class_names), *picture.size), np.float32)
            for top, left, scores in self._blocks(picture):
                out[:, top : top + scores.shape[-2], left : left + scores.shape[-1]] = scores.softmax(1)[0].cpu().numpy()
        return out

    def bands(self, picture: Picture, probabilities: bool = False) -> Iterator[Band]:
        """The labels of an image, and on request its probabilities, row band by row band, each as soon as it is final."""

        def finished() -> Iterator[tuple[int, int, Bytes, Bytes | None]]:
            for top, left, scores in self._blocks(picture):
                shares = (255 * scores.softmax(1)).round_().to(torch.uint8)[0].cpu().numpy() if probabilities else None
                yield top, left, labels(scores)[0].cpu().numpy(), shares

        return gather(finished(), picture.size[1])

    def _blocks(self, picture: Picture) -> Iterator[tuple[int, int, Tensor]]:
        def read(start: int, stop: int) -> Tensor:
            return torch.from_numpy(np.require(picture.read(start, stop), requirements=["C", "W"])).permute(2, 0, 1)[None]

        return score_blocks(self._scores, read, picture.size, tile=self.tile, overlap=self.overlap, batch_size=self.batch_size)

    def _logits(self, images: Tensor) -> Tensor:
        kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        arithmetic = torch.autocast(self.device.type, kinds[self.precision]) if self.precision in kinds else nullcontext()
        try:
            with torch.inference_mode(), arithmetic:
                logits: Tensor = self.task(images.to(self.device))
        except torch.OutOfMemoryError:
            height, width = images.shape[-2:]
            raise RunFailed(
                f"{self.device} has not enough memory for {len(images)} x {height} x {width} pixels: give a smaller --tile or --batch_size"
            ) from None
        return logits.float()


def load(
    run: str | Path,
    checkpoint: Literal["last", "best"] = "last",
    device: str = "auto",
    precision: Precision | None = None,
    *,
    tile: int = TILE,
    overlap: float = 0.25,
    tta: Sequence[str] = (),
    scales: Sequence[float] = (1.0,),
    batch_size: int = 1,
) -> Model:
    """The model of a run: network, weights, classes and normalisation come from its checkpoint.

    Args:
        run: Run folder or `.ckpt` file.
        checkpoint: Which checkpoint of a run folder.
        device: auto (a graphics card, where there is one), cpu, cuda, cuda:1, mps.
        precision: Arithmetic; default: as in training, where the device has it.
        tile: As in `Model`.
        overlap: As in `Model`.
        tta: As in `Model`.
        scales: As in `Model`.
        batch_size: As in `Model`.

    Raises:
        SegkitError: There is no such checkpoint or device, or a number makes no sense.
    """
    PredictConfig(tile=tile, overlap=overlap, tta_scales=list(scales), batch_size=batch_size)  # refuses what makes no sense
    if checkpoint not in ("last", "best"):
        raise unknown("checkpoint", checkpoint, ("last", "best"))
    found = _device(device)
    if precision is not None and precision not in get_args(Precision):
        raise unknown("precision", precision, get_args(Precision))
    if precision == "16-mixed" and found.type == "cpu":
        raise SegkitError("--precision 16-mixed: a CPU has no such arithmetic; use bf16-mixed or 32-true")
    task = SegmentationTask.load(find_checkpoint(run, checkpoint))
    if precision is None:
        trainer = (task.run_config or {}).get("trainer")
        trained = trainer.get("precision") if isinstance(trainer, dict) else None
        known: dict[Any, Precision] = {name: name for name in get_args(Precision) if name != "16-mixed" or found.type != "cpu"}
        precision = known.get(trained, "32-true") if isinstance(trained, str) else "32-true"
    return Model(task, found, precision, tile=tile, overlap=overlap, tta=tta, scales=scales, batch_size=batch_size)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except Exception as error:  # every library behind a device has an error of its own
        raise SegkitError(f"--device {name}: {str(error).splitlines()[0]}; choose from auto, cpu, cuda, cuda:1, mps") from None
    return device
