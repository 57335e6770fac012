"""`predict.py`: masks for images of any size, by a run or by an exported network, for which neither torch nor jsonargparse is needed."""

import hashlib
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from segkit.cli.arguments import Arguments
from segkit.cli.progress_line import ProgressLine
from segkit.config import PredictConfig
from segkit.errors import RunFailed, RunStopped, SegkitError
from segkit.inference.inputs import Job, find_jobs
from segkit.runs import find_checkpoint

if TYPE_CHECKING:
    from segkit.inference.bands import Band
    from segkit.inference.claims import Claims
    from segkit.inference.files import Picture
    from segkit.inference.results import Folder

DESCRIPTION = """Predict a mask for every image: a PNG with the classes' colours, of a TIFF a TIFF that lies in the same place, of a .npy a
.npy. Start it again to go on where it stopped, and several times, on any number of machines, to share the work."""
USAGE = "RUN IMAGES ... [options]"


class Predictor(Protocol):
    """What predicts: `segkit.inference.Model`, or an exported network.

    Attributes:
        class_names: Name of each class.
        colors: Colour of each class.
        white: 255, or 65535 for images of 16 bits.
        in_channels: Channels of the images.
    """

    class_names: list[str]
    colors: list[list[int]]
    white: int
    in_channels: int

    def bands(self, picture: "Picture", probabilities: bool = False) -> "Iterator[Band]":
        """The prediction of an image, band by band."""
        ...


def main(args: Sequence[str]) -> None:
    """Parses `args` and predicts."""
    parser = Arguments(PredictConfig, DESCRIPTION, USAGE)
    parser.add_word("run", "run folder, .ckpt file, or .onnx file")
    parser.add_word("images", "files, folders (searched all the way down; sub-folders are kept), globs", several=True)
    config, words = parser.read(args)
    with stopped_by_signal():
        predict(config, words["run"], words["images"])


def predict(config: PredictConfig, run: str, words: Sequence[str]) -> None:
    """Predicts all images that `words` and `config` name.

    Raises:
        SegkitError: Nothing can be predicted as it is asked for; nothing has been written.
        RunFailed: Some images could not be predicted; the others are.
    """
    exported = Path(run).suffix == ".onnx"
    file = Path(run) if exported else find_checkpoint(run, config.checkpoint)
    if not file.is_file():
        raise SegkitError(f"{run!r} does not exist; give a run folder (runs/NAME/ID), a .ckpt file or an .onnx file")
    jobs = find_jobs(words, Path(config.out), config.images_from)
    model = open_exported(config, file) if exported else open_run(config, file)

    from segkit.inference.claims import Claims
    from segkit.inference.results import open_folder

    with file.open("rb") as stream:
        made_by: dict[str, Any] = {
            "model": hashlib.file_digest(stream, "sha256").hexdigest(),
            "tile": config.tile,
            "overlap": config.overlap,
        }
    made_by["classes"] = model.class_names
    made_by |= {"tta": sorted(set(config.tta)), "tta_scales": config.tta_scales, "precision": getattr(model, "precision", "32-true")}
    folder = open_folder(
        Path(config.out),
        made_by,
        model.colors,
        overlays=config.overlays,
        probabilities=config.probabilities,
        overwrite=config.overwrite,
        jobs=jobs,
    )
    claims, progress = Claims(folder.path / ".claims"), ProgressLine(len(jobs), "images")
    try:
        counts, failed = predict_all(model, jobs, folder, claims, progress)
    finally:
        claims.close()
        progress.close()
    print(", ".join(f"{count} {what}" for what, count in counts.items() if count) + f"; {folder.path}")
    if failed:
        names = ", ".join(str(job.image) for job in failed[:10]) + (", ..." if len(failed) > 10 else "")
        raise RunFailed(f"{len(failed)} of {len(jobs)} images could not be predicted: {names}; the others are done")


def predict_all(
    model: Predictor, jobs: Sequence[Job], folder: "Folder", claims: "Claims", progress: ProgressLine
) -> tuple[dict[str, int], list[Job]]:
    """Predicts what no other process has predicted or is predicting; returns how many images met which fate, and the bad ones."""
    counts = {"predicted": 0, "finished before": 0, "with another process": 0, "bad": 0}
    failed: list[Job] = []

    def settle(job: Job) -> bool:
        if folder.finished(job):
            counts["finished before"] += 1
            progress.finish(worked=False)
            return True
        with claims.claim(str(folder.files(job)[-1].relative_to(folder.path))) as mine:
            if not mine:
                return False
            if folder.finished(job):  # meanwhile
                return settle(job)
            try:
                predict_one(model, job, folder, progress)
                counts["predicted"] += 1
            except SegkitError as error:
                failed.append(job)
                counts["bad"] += 1
                progress.say(f"skipped  {error}")
            progress.finish()
            return True

    left, before = list(jobs), 0
    while left and len(left) != before:  # again what others had claimed: they may have died
        before = len(left)
        left = [job for job in left if not settle(job)]
    counts["with another process"] = len(left)
    return counts, failed


def predict_one(model: Predictor, job: Job, folder: "Folder", progress: ProgressLine) -> None:
    """Predicts one image and writes its results."""
    from segkit.inference.files import open_picture

    progress.advance(0.0, job.image.name)
    try:
        with open_picture(job.image, model.in_channels, model.white) as picture:
            height = picture.size[0]
            bands = model.bands(picture, folder.probabilities)
            folder.write(job, picture, bands, lambda rows: progress.advance(rows / height, job.image.name))
    except RunFailed as error:
        raise RunFailed(f"{job.image}: {error}") from None
    except OSError as error:
        raise RunFailed(
            f"cannot write the results of {job.image} to {folder.path} ({error.strerror or error}); free space, then go on"
        ) from None


def open_run(config: PredictConfig, checkpoint: Path) -> Predictor:
    """The model of a checkpoint."""
    from segkit.inference.model import load

    return load(
        checkpoint,
        device=config.device,
        precision=config.precision,
        tile=config.tile,
        overlap=config.overlap,
        tta=config.tta,
        scales=config.tta_scales,
        batch_size=config.batch_size,
    )


def open_exported(config: PredictConfig, file: Path) -> Predictor:
    """The model of an .onnx file, by onnxruntime and numpy alone."""
    for name, usual, why in (
        ("checkpoint", "last", "holds one checkpoint"),
        ("precision", None, "has the arithmetic that it was exported with"),
        ("tta_scales", [1.0], "is predicted at its own size"),
        ("device", "auto", "runs where onnxruntime runs it"),
        ("batch_size", 1, "takes one tile at a time"),
    ):
        if getattr(config, name) != usual:
            raise SegkitError(f"--{name} {getattr(config, name)}: an exported network {why}; leave the option out, or give the run")
    from segkit.onnx_model import OnnxModel

    return OnnxModel(file, tile=config.tile, overlap=config.overlap, tta=config.tta)


class Terminated(BaseException):
    """SIGTERM, as Ctrl-C is a KeyboardInterrupt: no Exception, or a reader that it hits would take it for a damaged file."""


@contextmanager
def stopped_by_signal() -> Iterator[None]:
    """SIGTERM ends the block like an error, so that claims and half-written files are removed."""

    def stop(number: int, frame: Any) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, where signals never arrive
        yield
        return
    try:
        yield
    except Terminated:
        raise RunStopped("stopped by SIGTERM; the same command goes on", signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, before)
