"""One evaluation: a checkpoint, the images of a split, and a folder of results."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.cli.parsing import saved_config
from segkit.config import EvalConfig, TrainConfig, TrainerConfig
from segkit.errors import SegkitError
from segkit.runs import make_folder

if TYPE_CHECKING:
    from segkit.data.module import SegmentationDataModule
    from segkit.data.source import Source
    from segkit.task import SegmentationTask

# all that an evaluation may leave, of which another one with other options may not leave anything behind
LEFT = (
    "metrics.json", "per_image.npz", "per_image.csv", "confusion.png", "panel.png", "gallery.html", "artefacts.npz", "calibration.npz",
    "reliability.png", "reliability.pdf",
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """What is scored, how, and where the results go.

    Args:
        task: The network and its classes; its `score` says how images are scored.
        data: The data set.
        split: The images.
        folder: Of the results.
        about: What decides the scores, as plain values: two evaluations that agree in it have the same.
        trained: The configuration of the run.
        run: Its name.
        moved: Whether the training split has other images than when the run was trained.
    """

    task: "SegmentationTask"
    data: "SegmentationDataModule"
    split: str
    folder: Path
    about: Mapping[str, Any]
    trained: TrainConfig
    run: str
    moved: bool


def folder_name(config: EvalConfig, split: str, checkpoint: Path) -> str:
    """The name of a folder of results: evaluations that score differently do not overwrite each other."""
    words = [split, checkpoint.stem, *(["tta", *config.tta] if config.tta else [])]
    words += ["scales", *(f"{scale:g}" for scale in config.tta_scales)] if config.tta_scales != [1.0] else []
    if config.tile is not None:
        words.append(f"tile{config.tile}" + (f"x{config.overlap:g}" if config.overlap != EvalConfig.overlap else ""))
    return "-".join(words)


def open_evaluation(config: EvalConfig, checkpoint: Path) -> Evaluation:
    """Loads a checkpoint and the data that it was trained on.

    Raises:
        SegkitError: The checkpoint, its data, or the split cannot be had, or they do not fit.
    """
    import hashlib

    from segkit.checkpoint import load_checkpoint
    from segkit.data.module import SegmentationDataModule
    from segkit.inference import infer
    from segkit.preflight import check_workers
    from segkit.provenance import SCORING, code_hash
    from segkit.task import SegmentationTask

    task = SegmentationTask.load(checkpoint)
    if not task.run_config:
        raise SegkitError(
            f"{checkpoint} does not say which data it was trained on; evaluate it in Python: Trainer().validate(task, loader)"
        )
    trained = saved_config(task.run_config, checkpoint)
    given: dict[str, Any] = {"root": config.data_root, "eval_batch_size": config.batch_size, "workers": config.workers}
    wanted = replace(trained.data, **{name: value for name, value in given.items() if value is not None})
    if wanted.root is not None and not Path(wanted.root).expanduser().is_dir():
        raise SegkitError(f"the data is not in {wanted.root!r}; say where it is with --data_root")
    data = SegmentationDataModule(wanted, trained.seed, trained.in_channels)
    split = config.split or ("test" if "test" in data.sources else "val")
    if split not in data.sources:
        raise SegkitError(f"--split {split}: the data has {', '.join(data.sources)} only")
    if data.classes.names != tuple(task.class_names):
        raise SegkitError(
            f"the checkpoint knows the classes {task.class_names}, the data has {list(data.classes.names)}: give --data_root of its data"
        )
    check_workers(data, (split,))
    how: dict[str, Any] = {"tile": config.tile, "overlap": config.overlap, "tta": config.tta, "scales": config.tta_scales}
    if config.tile is not None or config.tta or config.tta_scales != [1.0]:
        task.score = partial(infer, task, **how)
    run = checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    with checkpoint.open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    about = {
        "split": split,
        "checkpoint": str(checkpoint),
        "step": task.step,
        "weights": weights,
        "inference": {**how, "precision": config.precision or trained.trainer.precision, "batch_size": wanted.eval_batch_size},
        "data": data_state(data.sources[split], wanted.scenes_size, wanted.scenes_seed),
        "code": code_hash(SCORING),
    }
    folder = run / "eval" / folder_name(config, split, checkpoint)
    state = load_checkpoint(checkpoint).get(SegmentationDataModule.__name__)
    saved = state.get("images") if isinstance(state, dict) else None
    moved = saved is not None and "train" in data.sources and saved != data.training_images
    return Evaluation(task, data, split, folder, about, trained, "/".join(run.resolve().parts[-2:]), moved)


def data_state(source: "Source", *made: int) -> str:
    """sha256 over the names of the images and the sizes and times of their files; of built-in scenes, over what they are made from."""
    import hashlib
    import os

    digest = hashlib.sha256(repr((len(source), *made)).encode())
    for index in range(len(source)):
        digest.update(os.fsencode(source.name(index)))
        for path in source.paths(index) or ():
            if os.path.exists(path):  # the check of the data says better what is missing
                stat = os.stat(path)
                digest.update(f" {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def score(evaluation: Evaluation, config: EvalConfig) -> bool:
    """Evaluates and writes what `config` asks for to the folder; returns whether this is the process that has written it.

    The files: `metrics.json`, `per_image.npz` and `.csv`, `confusion.png`; for images `panel.png` and `gallery.html`; for calibration
    `calibration.npz` and `reliability.png` and `.pdf`; for artefacts `artefacts.npz`.
    """
    import numpy as np
    from rich.console import Console

    from segkit.cli.showing import draw_figures, show_images, write_images_table
    from segkit.console import header, score_table
    from segkit.measures import ArtefactMeasures, BoundaryMeasures, CalibrationMeasures, Clock, Extremes, boundary_summary, choose, lines
    from segkit.peers import together
    from segkit.results import gather_per_image, image_scores, write_results
    from segkit.trainer import build_trainer

    task, data, split, folder = evaluation.task, evaluation.data, evaluation.split, evaluation.folder
    data.prepare(config.devices, splits=(split,))
    make_folder(folder)
    options = TrainerConfig(accelerator=config.accelerator, devices=config.devices, precision=evaluation.about["inference"]["precision"])
    trainer = build_trainer(options)
    clock, boundary, artefacts = Clock(), BoundaryMeasures(), ArtefactMeasures(len(task.class_names))
    calibration, extremes = CalibrationMeasures(task.class_names, task.ignore_index), Extremes(config.images)
    asked = {boundary: config.boundary, artefacts: config.artefacts, calibration: config.calibration, extremes: config.images, clock: True}
    trainer.callbacks += [callback for callback, wanted in asked.items() if wanted]  # type: ignore[attr-defined]
    console = Console()
    if trainer.is_global_zero:
        told = {"checkpoint": f"{evaluation.about['checkpoint']}, step {task.step}", "data": f"{data}; scored on {split}"}
        if evaluation.moved:
            told["note"] = "training images came or went since the run was trained: it may have seen images that are scored here"
        console.print(header(told), soft_wrap=True)
    task.names = {"val": data.sources[split].name}
    task.validation_loss = False  # a third of all that is not the network, and no file has it
    with together(trainer, "start the evaluation again"):
        trainer.validate(task, data.eval_dataloader(split, trainer.global_rank, trainer.world_size), verbose=False)
        indices, matrices = gather_per_image(task)
        columns = boundary.gathered() if config.boundary else {}
        found = image_scores(matrices)
        chosen = choose(found.miou, found.wrong, config.images)
        maps = extremes.gathered([int(indices[place]) for place in chosen.all()])
    if not trainer.is_global_zero:
        return False
    assert task.validation_scores is not None
    measured: dict[str, Any] = {"seconds": clock.seconds}
    if config.boundary:
        measured["boundary"] = boundary_summary(columns, task.class_names)
    if config.calibration:
        measured["calibration"] = calibration.summary()
    if config.artefacts:
        measured["artefacts"] = artefacts.summary(task.model, evaluation.trained.in_channels)
    for name in LEFT:  # metrics.json first: what has it is complete
        (folder / name).unlink(missing_ok=True)
    source, about = data.sources[split], f"{evaluation.run}: {split}, {len(indices)} images"
    bins = calibration.arrays() if config.calibration else {}
    for name, arrays in (("calibration", bins), ("artefacts", artefacts.arrays() if config.artefacts else {})):
        if arrays:
            np.savez_compressed(folder / f"{name}.npz", **arrays)
    draw_figures(folder, about, matrices.sum(0), task, bins)
    write_images_table(folder / "per_image.csv", source, indices, found, columns)
    show_images(folder, about, source, task, (indices, matrices), chosen, maps)
    names = [source.name(index) for index in indices.tolist()]
    write_results(folder, task, names, (indices, matrices), measured=measured, arrays=columns, **evaluation.about)
    console.print(score_table(task.validation_scores, task.class_names))
    if rows := lines(measured):
        console.print(header(rows), soft_wrap=True, highlight=False)
    console.print(f"results  {folder}", soft_wrap=True, highlight=False)
    return True
