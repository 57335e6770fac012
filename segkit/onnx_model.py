"""An exported network without torch: `OnnxModel("model.onnx").predict("image.jpg")`, by onnxruntime, numpy and Pillow.

Shapes: B batch, C channels, K classes, H W rows and columns.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segkit.errors import SegkitError, is_name, unknown
from segkit.inference.arrays import AXES, Floats, bands, flipped, softmax
from segkit.inference.bands import Band, Bytes, whole
from segkit.inference.files import Picture, open_picture
from segkit.inference.grid import blend, spans

FIELDS = ("class_names", "colors", "mean", "std", "white", "in_channels", "normalize")
TILE = 1024


class OnnxModel:
    """Predicts images of any size with a file of `export.py --format onnx`; the counterpart of `segkit.load` where there is no torch.

    Args:
        path: The `.onnx` file.
        threads: Threads of onnxruntime; default: as many as it likes.
        tile: Longest side of the tiles that a larger image is cut into.
        overlap: Least share of a tile that the next one covers again, in [0, 1).
        tta: Flips, of `hflip` and `vflip`, whose probabilities are averaged with the image's own.

    Attributes:
        class_names: K names, in the order of the labels.
        colors: K colours, RGB in 0..255.
        mean: Mean of each channel that is subtracted, in units of white.
        std: Deviation that is divided by.
        white: 255, or 65535 of a network for images of 16 bits.
        in_channels: C.
        card: All that the file says about the network (`segkit.export.card`).

    Raises:
        SegkitError: onnxruntime is not installed, or the file is missing, damaged, or not of segkit.
    """

    def __init__(
        self, path: str | Path, threads: int | None = None, *, tile: int = TILE, overlap: float = 0.25, tta: Sequence[str] = ()
    ) -> None:
        for name in tta:
            if name not in AXES:
                raise unknown("flip", name, AXES)
        self._session = open_session(path, threads)
        self.card: dict[str, Any] = _card(path, self._session)
        self.class_names: list[str] = self.card["class_names"]
        self.colors: list[list[int]] = self.card["colors"]
        self.mean: list[float] = self.card["mean"]
        self.std: list[float] = self.card["std"]
        self.white: int = self.card["white"]
        self.in_channels: int = self.card["in_channels"]
        self.tile, self.overlap, self.tta = tile, overlap, tuple(tta)
        self._network = flipped(self.logits, tta)

    def logits(self, images: np.ndarray) -> Floats:
        """uint8 or uint16 [B, C, H, W] to float32 [B, K, H, W], as a whole."""
        if not self.card["normalize"]:  # then the graph takes what is normalised already, as `SegmentationTask.normalize` does it
            mean, std = (np.array(values, np.float32)[:, None, None] * np.float32(self.white) for values in (self.mean, self.std))
            images = (images.astype(np.float32) - mean) * (1 / std)
        try:
            found: Floats = self._session.run(["logits"], {"image": np.ascontiguousarray(images)})[0]
        except Exception as error:  # onnxruntime has a type of its own for each kind of failure, want of memory among them
            reason = " ".join(str(error).split())[:160]
            raise SegkitError(f"onnxruntime cannot predict an image {list(images.shape)} ({reason}); try smaller tiles") from None
        if found.shape != (wanted := (len(images), len(self.class_names), *images.shape[2:])):
            raise SegkitError(
                f"the network gives logits {list(found.shape)}, not {list(wanted)}; export it again by export.py --format onnx"
            )
        return found

    def predict(self, image: str | Path | np.ndarray) -> Bytes:
        """Labels of an image.

        Args:
            image: A file, or an array [H, W, C], of one channel also [H, W]; uint8, or uint16 for a network of 16 bits.

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
            rows, columns = (spans(length, self.tile, self.overlap) for length in picture.size)
            tiles = (
                self._network(picture.read(row.start, row.stop)[:, column.start : column.stop].transpose(2, 0, 1)[None])[0]
                * (row.weights[:, None] * column.weights)
                for row in rows
                for column in columns
            )
            for top, left, scores in blend(rows, columns, tiles, np.copy):
                out[:, top : top + scores.shape[1], left : left + scores.shape[2]] = softmax(scores)
        return out

    def bands(self, picture: Picture, probabilities: bool = False) -> Iterator[Band]:
        """The labels of an image, and on request its probabilities, row band by row band, each as soon as it is final."""
        yield from bands(
            self._network,
            picture.read,
            picture.size,
            tile=self.tile,
            overlap=self.overlap,
            probabilities=probabilities,
        )


def open_session(path: str | Path, threads: int | None = None) -> Any:
    """A session of onnxruntime on the CPU.

    Raises:
        SegkitError: onnxruntime is not installed, or the file is missing or cannot be run.
    """
    try:
        import onnxruntime
    except ImportError:
        raise SegkitError('.onnx files need the package onnxruntime, which is not installed: pip install "segkit[export]"') from None
    if not Path(path).is_file():
        raise SegkitError(f"{str(path)!r} does not exist; write it by export.py --format onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is in the exception
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a type of its own for each kind of damage
        reason = " ".join(str(error).split("\n", 1)[0].split())
        data = "; its weights are in another file, which is missing or may not be read" if "external" in reason.lower() else ""
        raise SegkitError(f"cannot run {str(path)!r} ({reason[:160]}){data}; export it again by export.py --format onnx") from None


def _card(path: str | Path, session: Any) -> dict[str, Any]:
    stored = session.get_modelmeta().custom_metadata_map
    try:
        values = {name: json.loads(text) for name, text in stored.items()} if "segkit_version" in stored else {}
    except (ValueError, RecursionError):
        values = {}
    if missing := [name for name in FIELDS if name not in values]:
        raise SegkitError(f"{str(path)!r} is no network of segkit: its metadata lack {missing[0]}; export one by export.py --format onnx")
    if problem := _misfit(values, session):
        raise SegkitError(f"{str(path)!r} does not fit its own metadata: {problem}; export it again by export.py --format onnx")
    return values


def _misfit(card: dict[str, Any], session: Any) -> str | None:
    """What of a card is not as `segkit.export` writes it, or not true of the graph beside it."""
    channels, names, colors = card["in_channels"], card["class_names"], card["colors"]
    if not _listed(names, str) or not 1 <= len(names) <= 256 or not all(map(is_name, names)):
        return "class_names are no list of names"
    if not _listed(colors, list, len(names)) or not all(
        _listed(color, int, 3) and 0 <= min(color) <= max(color) <= 255 for color in colors
    ):
        return f"colors are not {len(names)} triples in 0..255"
    if type(channels) is not int or card["white"] not in (255, 65535) or type(card["normalize"]) is not bool:
        return "in_channels, white or normalize have no such value"
    if not (_listed(card["mean"], float | int, channels) and _listed(card["std"], float | int, channels) and 0 not in card["std"]):
        return f"mean and std are not {channels} numbers each"
    kind = "float" if not card["normalize"] else "uint8" if card["white"] == 255 else "uint16"
    for what, found, wanted in (
        ("input", session.get_inputs(), ("image", f"tensor({kind})", channels)),
        ("output", session.get_outputs(), ("logits", "tensor(float)", len(names))),
    ):
        have = [(value.name, value.type, value.shape[1] if len(value.shape) == 4 else None) for value in found]
        if have != [wanted]:
            return f"its {what} is {have}, not {wanted}"
    return None


def _listed(values: Any, kind: Any, length: int | None = None) -> bool:
    return isinstance(values, list) and length in (None, len(values)) and all(isinstance(value, kind) for value in values)
