"""`eval.py`: scores a checkpoint at native resolution; everything it needs is in the checkpoint."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segkit.cli.parsing import Parser
from segkit.config import EvalConfig, TrainConfig, TrainerConfig, from_dict
from segkit.errors import SegkitError
from segkit.runs import cannot_write, find_checkpoint, newest_run

DESCRIPTION = "Evaluate a run. With no options: the last checkpoint of the newest run below runs/, on its test split."


def main(args: Sequence[str]) -> None:
    """Parses `args` and evaluates."""
    parser = Parser(EvalConfig, DESCRIPTION, file=False)
    parser.add_argument("run", nargs="?", metavar="RUN", help="run folder or .ckpt file; default: the newest run")
    values = parser.read(args)
    run = values.pop("run")
    config = from_dict(EvalConfig, values)
    evaluate(config, find_checkpoint(run or newest_run("runs"), config.checkpoint))


def evaluate(config: EvalConfig, checkpoint: Path) -> None:
    """Evaluates `checkpoint` as `config` says and writes `metrics.json`, `per_image.npz`, `panel.png` and, on request, `artefacts.npz`."""
    import numpy as np
    from PIL import Image
    from rich.console import Console

    from segkit.console import header, score_table
    from segkit.data.module import SegmentationDataModule
    from segkit.measures import ArtefactMeasures, BoundaryMeasures, Clock, boundary_summary, lines
    from segkit.panels import draw_panels, viewable
    from segkit.provenance import SCORING, code_hash
    from segkit.results import gather_per_image, worst_and_best, write_results
    from segkit.task import SegmentationTask
    from segkit.trainer import build_trainer

    task = SegmentationTask.load(checkpoint)
    if not task.run_config:
        raise SegkitError(
            f"{checkpoint} does not say which data it was trained on; evaluate it in Python: Trainer().validate(task, loader)"
        )
    trained = from_dict(TrainConfig, task.run_config)
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
    data.prepare(config.devices, splits=(split,))
    run = checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    folder = Path(config.out) if config.out else run / "eval" / f"{split}-{checkpoint.stem}"
    try:  # before the work, not after it
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from None
    options = TrainerConfig(accelerator=config.accelerator, devices=config.devices, precision=config.precision or trained.trainer.precision)
    trainer = build_trainer(options)
    clock, boundary, artefacts = Clock(), BoundaryMeasures(), ArtefactMeasures(len(task.class_names))
    trainer.callbacks += [*([boundary] * config.boundary), *([artefacts] * config.artefacts), clock]  # type: ignore[attr-defined]
    console = Console()
    if trainer.is_global_zero:
        console.print(header({"checkpoint": f"{checkpoint}, step {task.step}", "data": f"{data}; scored on {split}"}), soft_wrap=True)
    trainer.validate(task, data.eval_dataloader(split, trainer.global_rank, trainer.world_size), verbose=False)
    indices, matrices = gather_per_image(task)
    columns = boundary.gathered() if config.boundary else {}
    if not trainer.is_global_zero:
        return
    assert task.validation_scores is not None
    source = data.sources[split]
    measured: dict[str, Any] = {"seconds": clock.seconds}
    if config.boundary:
        measured["boundary"] = boundary_summary(columns, task.class_names)
    if config.artefacts:
        measured["artefacts"] = artefacts.summary(task.model, trained.in_channels)
        np.savez_compressed(folder / "artefacts.npz", **artefacts.arrays())
    about = {"split": split, "checkpoint": str(checkpoint), "step": task.step, "code": code_hash(SCORING)}
    names = [source.name(i) for i in indices]
    write_results(folder, task, names, (indices, matrices), measured=measured, arrays=columns, **about)
    worst, best = worst_and_best(matrices, config.images)
    if chosen := worst + best:
        titles = [f"worst: {source.name(int(indices[i]))}" for i in worst] + [f"best: {source.name(int(indices[i]))}" for i in best]
        pairs = [source.read(int(indices[i])) for i in chosen]
        predictions = [task.predict(image) for image, _ in pairs]
        images, masks = zip(*pairs, strict=True)
        panel = draw_panels(
            [viewable(image) for image in images], masks, predictions, task.class_names, task.colors, task.ignore_index, titles
        )
        Image.fromarray(panel).save(folder / "panel.png")
    console.print(score_table(task.validation_scores, task.class_names))
    if rows := lines(measured):
        console.print(header(rows), soft_wrap=True, highlight=False)
    console.print(f"results  {folder}", soft_wrap=True, highlight=False)
