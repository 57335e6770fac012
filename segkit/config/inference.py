"""Options of what is done with a trained network: scored, applied, exported."""

from dataclasses import dataclass, field
from typing import Literal

from segkit.config.choices import Flip, Precision, Split
from segkit.config.rules import within
from segkit.errors import SegkitError


@dataclass(kw_only=True)
class EvalConfig:
    """One evaluation.

    Args:
        split: images to score; default: test, or val where there is no test split
        checkpoint: which checkpoint of the run; choosing best on val and reporting on val is optimistic
        data_root: the data set's folder, where it has moved since training
        batch_size: images of one size evaluated together; default: as in training
        workers: loader processes; default: as in training
        precision: arithmetic; default: as in training
        accelerator: hardware to run on (auto, cpu, gpu, ...)
        devices: number of devices
        boundary: score boundaries too: boundary IoU, trimap mIoU and BF score
        artefacts: measure checkerboards too: the index of every operator and of the logits, and the spectrum of the logits
        calibration: measure too how far confidence is from accuracy, with a reliability diagram
        tile: side in pixels of the tiles that images are cut into; default: whole images
        overlap: share of a tile that the next one covers again
        tta: flips whose predictions are averaged with the image's own (test-time augmentation)
        tta_scales: sizes of the image, relative to its own, whose predictions are averaged
        resamples: several runs: bootstrap samples of the images behind an interval
        images: images in the gallery, the worst; in the panel half as many of the worst and of the best; 0 draws none
        out: folder for the results, of several runs for their comparison; default: eval/SPLIT-CHECKPOINT in the run's folder, followed by
            what --tta, --tta_scales and --tile say
    """

    split: Split | None = None
    checkpoint: Literal["last", "best"] = "last"
    data_root: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    precision: Precision | None = None
    accelerator: str = "auto"
    devices: int = 1
    boundary: bool = False
    artefacts: bool = False
    calibration: bool = False
    tile: int | None = None
    overlap: float = 0.25
    tta: list[Flip] = field(default_factory=list)
    tta_scales: list[float] = field(default_factory=lambda: [1.0])
    resamples: int = 10_000
    images: int = 8
    out: str | None = None

    def __post_init__(self) -> None:
        within("", self, 1, None, "batch_size", "devices")
        within("", self, 0, None, "workers", "images")
        within("", self, 100, 10**6, "resamples")
        _tiles_and_views(self)


@dataclass(kw_only=True)
class PredictConfig:
    """Predictions for images of any size.

    Args:
        out: folder for the masks and whatever else is asked for
        checkpoint: which checkpoint of a run
        images_from: text file that names one more image per line
        overlays: write the image under its transparent prediction too, as NAME.overlay.jpg
        probabilities: write the probability of every class too, in 255ths: NAME.probabilities.npy, uint8 [classes, rows, columns]
        tile: side in pixels of the tiles that large images are cut into
        overlap: share of a tile that the next one covers again
        tta: flips whose predictions are averaged with the image's own (test-time augmentation)
        tta_scales: sizes of the image, relative to its own, whose predictions are averaged
        batch_size: tiles predicted together
        precision: arithmetic; default: as in training
        device: hardware to run on: auto, cpu, cuda, cuda:1, mps
        overwrite: predict again what has its mask already
    """

    out: str = "predictions"
    checkpoint: Literal["last", "best"] = "last"
    images_from: str | None = None
    overlays: bool = False
    probabilities: bool = False
    tile: int = 1024
    overlap: float = 0.25
    tta: list[Flip] = field(default_factory=list)
    tta_scales: list[float] = field(default_factory=lambda: [1.0])
    batch_size: int = 1
    precision: Precision | None = None
    device: str = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        within("", self, 1, None, "batch_size")
        _tiles_and_views(self)


@dataclass(kw_only=True)
class ExportConfig:
    """A network for use elsewhere.

    Args:
        format: onnx: one file for onnxruntime; torch_export: a program of torch.export (.pt2); safetensors: weights with a card (JSON) from
            which segkit rebuilds the network
        checkpoint: which checkpoint of the run
        out: file to write; default: export/MODEL in the run's folder
        normalize: put the normalisation into the graph, so that it takes pixel values as they are in the file; not of
            safetensors, which hold no graph
        opset: ONNX operator set; of --format onnx only
        check: compare the exported network with the original on 20 sizes, odd ones included
    """

    format: Literal["onnx", "torch_export", "safetensors"] = "onnx"
    checkpoint: Literal["last", "best"] = "last"
    out: str | None = None
    normalize: bool = True
    opset: int = 20
    check: bool = True

    def __post_init__(self) -> None:
        within("", self, 18, 23, "opset")


def _tiles_and_views(config: EvalConfig | PredictConfig) -> None:
    within("", config, 32, 65536, "tile")
    within("", config, 0, 0.9, "overlap")
    if not config.tta_scales or not all(0.1 <= scale <= 8 for scale in config.tta_scales):
        raise SegkitError(f"--tta_scales {config.tta_scales}: give factors from 0.1 to 8, such as [0.75,1,1.25]")
