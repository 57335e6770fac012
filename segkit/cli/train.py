"""`train.py`: trains a network and leaves a run folder."""

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from segkit.cli.parsing import Parser, given
from segkit.cli.resuming import has_results, hold_data, hold_network, hold_options, options_in, plain, read_config, refuse_changes
from segkit.cli.running import Leaving
from segkit.config import TrainConfig, TrainerConfig, from_dict
from segkit.errors import RunStopped, SegkitError
from segkit.runs import holds_run, write_whole

if TYPE_CHECKING:
    from pytorch_lightning import Trainer
    from pytorch_lightning.loggers import Logger
    from rich.console import Console

    from segkit.data.module import SegmentationDataModule
    from segkit.task import SegmentationTask

Moments = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation per channel, in shares of white
DESCRIPTION = (
    "Train a U-Net, an FCN or a network of smp whose upsampling operator is one flag. "
    "With no options: the built-in scenes, in minutes, on a CPU."
)
RUN_FOLDER = "SEGKIT_RUN_FOLDER"  # environment variable by which the first process tells those that it starts where the run is


def main(args: Sequence[str]) -> None:
    """Parses `args` and trains."""
    parser = Parser(TrainConfig, DESCRIPTION)
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="run folder to go on with, exactly where it stopped and in the same W&B run; auto: the run of --run_id, started where there "
        "is none yet, for jobs that a cluster may start again",
    )
    words = parser.arrange(args)
    resume = given(words, "--resume")
    saved = {}
    if resume == "auto" and "--help" not in words:
        resume = begun(from_dict(TrainConfig, {k: v for k, v in parser.read(words).items() if k != "resume"}))
        at = next(i for i, word in enumerate(words) if word.startswith("--resume"))
        words = words[:at] + words[at + (1 if "=" in words[at] else 2) :]
    if resume and "--help" not in words:
        saved = read_config(Path(resume))
        words = ["--config", str(Path(resume) / "config.yaml"), *words]
    values = parser.read(words)
    values.pop("resume")
    if resume and given(words, "--trainer.max_steps") and not given(words, "--trainer.max_epochs"):
        values["trainer"]["max_epochs"] = None  # the budget that the run was started with
    config = from_dict(TrainConfig, values)
    if saved:  # with defaults for what was no option then
        refuse_changes(plain(asdict(from_dict(TrainConfig, saved))), asdict(config))
    train(config, Path(resume) if resume else None)


def begun(config: TrainConfig) -> str | None:
    """The folder of the run that `--resume auto` means, or None where it has not begun."""
    if config.run_id is None:
        raise SegkitError("--resume auto: say which run it is with --run_id, such as --run_id $SLURM_JOB_ID")
    folder = Path(config.runs) / run_name(config) / config.run_id
    return str(folder) if holds_run(folder) else None


def run_name(config: TrainConfig) -> str:
    """The name of the experiment, by default data-decoder-operator."""
    return config.name or f"{config.data.kind}-{config.decoder.replace(':', '_')}-{operator_name(config)}"


def operator_name(config: TrainConfig) -> str:
    """The operators in one word: their names, or `own` for the interpolation that a network of smp brings."""
    if config.upsample is None:
        return "own"
    return config.upsample if isinstance(config.upsample, str) else "+".join(config.upsample)


def operator_start(config: TrainConfig) -> str:
    """What the header says of the operators."""
    if config.upsample is None:
        return f"the own interpolation of {config.decoder}"
    init = config.upsample_init or ("smooth" if config.decoder in ("unet", "smp:Unet") else "bilinear (transpose, transpose_k2) or smooth")
    return f"{operator_name(config)}, initialised {init}"


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as `{"data.crop": ...}`: what W&B may see of the configuration, all of it but where things lie on this machine."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return {
        name: value
        for name, value in out.items()
        if name not in ("runs", "run_id", "data.root", "encoder_weights") and not name.startswith("wandb.")
    }


def measured_channels(config: TrainConfig, data: "SegmentationDataModule", state: Mapping[str, Any] | None) -> Moments | None:
    """Mean and deviation of the training images, where the configuration wants them.

    Every process takes them from sums that are exact, so that all have the same; a resumed run goes on with those in its checkpoint.
    """
    if config.data.normalize != "dataset" or (config.data.mean and config.data.std):
        return None
    if state:
        return state["hyper_parameters"]["mean"], state["hyper_parameters"]["std"]
    from segkit.data.statistics import measure_channels

    return measure_channels(data.sources["train"], 2**config.data.bits - 1)


def build_task(
    config: TrainConfig,
    class_names: Sequence[str],
    colors: Sequence[Sequence[int]],
    weights: Sequence[float] | None,
    measured: Moments | None = None,
) -> "SegmentationTask":
    """The task of a configuration, for a data set with these classes; the seed decides its weights.

    Args:
        config: The configuration.
        class_names: Of the data set.
        colors: Of the data set.
        weights: One per class, or None.
        measured: Mean and deviation per channel, of the training images; without them, as where only the network matters, those that the
            encoder goes with.
    """
    import torch

    from segkit.models.encoders import normalization
    from segkit.task import SegmentationTask

    for name, values in (("mean", config.data.mean), ("std", config.data.std)):
        if values is not None and len(values) != config.in_channels:
            raise SegkitError(f"--data.{name} {values}: --in_channels {config.in_channels} wants one number per channel")
    source = "plain" if config.data.normalize == "imagenet" else config.encoder  # the plain encoder states none, and goes with ImageNet's
    mean, std = measured or normalization(source, config.in_channels)
    shared = {f.name for f in fields(TrainConfig)} - {
        "name",
        "runs",
        "run_id",
        "deterministic",
        "class_weights",
        "ema",
        "rewrite",
        "recompute",
        "compile",
        "data",
        "trainer",
        "wandb",
    }
    torch.manual_seed(config.seed)
    return SegmentationTask(
        class_names,
        colors,
        config.data.mean or mean,
        config.data.std or std,
        white=2**config.data.bits - 1,
        **{name: getattr(config, name) for name in shared},
        class_weights=weights,
        fused=config.trainer.precision != "16-mixed",  # Lightning cannot clip gradients that the fused update still has to unscale
        run_config=plain(asdict(config)),
    )


def train(config: TrainConfig, resume: Path | None = None) -> None:
    """Trains as `config` says; `resume` is a run folder to go on with."""
    from segkit import preflight
    from segkit.callbacks import EMA, Checkpoints, PanelCallback, Throughput
    from segkit.checkpoint import load_checkpoint
    from segkit.console import RunConsole, header
    from segkit.data.module import SegmentationDataModule
    from segkit.models.fingerprint import initial_hash
    from segkit.models.recompute import recompute_activations
    from segkit.optim import learning_rate_factor
    from segkit.peers import together
    from segkit.progress import Progress
    from segkit.provenance import Provenance, differences, earlier_parts, provenance
    from segkit.results import gather_per_image
    from segkit.runs import RunLock, new_run_folder, resumable
    from segkit.stopping import StopSignals
    from segkit.tracking import build_loggers, first_process, rewind, tracked
    from segkit.trainer import Validations, build_trainer, device_count
    from segkit.upsampling import rewriting

    preflight.before_data(config, resume or Path(config.runs))
    first = first_process()
    lock = RunLock(resume) if resume and first else None
    checkpoint = resumable(resume) if resume else None
    state = load_checkpoint(checkpoint) if checkpoint else None
    saved = options_in(state, checkpoint) if checkpoint and state else None
    if checkpoint and saved:
        hold_options(config, saved, checkpoint)
    if config.data.root is not None:  # evaluation and resumption find the data from any folder
        config.data.root = str(Path(config.data.root).expanduser().resolve())
    world = device_count(config.trainer.devices, config.trainer.accelerator) * config.trainer.num_nodes
    data = SegmentationDataModule(config.data, config.seed, config.in_channels)
    data.prepare(world, read=first)
    others = hold_data(data, state, world) if state else []
    steps = budget(config.trainer, data, world)
    before = budget(TrainerConfig(**saved["trainer"]), data, world) if saved else steps
    config.trainer.val_every = config.trainer.val_every or max(steps // 10, 1)  # a resumed run with a larger budget keeps its interval
    # the rule of the schedule, before anything is built or made
    learning_rate_factor(config.schedule, round(config.warmup * steps), steps)
    measured = measured_channels(config, data, state)
    task = build_task(config, data.classes.names, data.classes.colors, data.class_weights(config.class_weights), measured)
    task.names = {split: data.sources[split].name for split in ("train", "val")}
    if config.recompute:
        recompute_activations(task.model)
    if checkpoint and state:
        hold_network(task, state, checkpoint, config.trainer.precision == "64-true")
    del state
    trainer = build_trainer(config.trainer, max_steps=steps, deterministic=config.deterministic)
    preflight.before_steps(config, resume or Path(config.runs), task.model, data, world // config.trainer.num_nodes, first)
    name, start = run_name(config), initial_hash(task.model)
    if first:
        folder = resume or new_run_folder(config.runs, name, config.run_id)
        lock = lock or RunLock(folder)  # held until this function is left
        # of a resumed run too, or its new budget would be forgotten by the next --resume
        write_whole(folder / "config.yaml", yaml.safe_dump(plain(asdict(config)), sort_keys=False))
    else:
        folder = resume or Path((not config.run_id and os.environ.get(RUN_FOLDER)) or Path(config.runs, name, config.run_id or "RUN"))
    record = provenance(config, task.model, steps, trainer.world_size)
    earlier = earlier_parts(folder, record) if checkpoint else []
    record |= {"earlier": earlier} if earlier else {}
    told = {**flat(plain(asdict(config))), "initial_hash": start[:12]}
    loggers, tracking = build_loggers(
        config.wandb, folder, name, told, [operator_name(config), config.decoder, config.encoder], bool(resume)
    )
    with tracked(loggers), in_folder(folder, first):
        trainer.loggers, console = loggers, RunConsole()
        trainer.callbacks += [  # type: ignore[attr-defined]
            *([EMA(config.ema)] if config.ema else []),
            Provenance(folder, record, data.stream),
            StopSignals(folder, config.trainer.timeout),
            Checkpoints(folder / "checkpoints", config.trainer.save_every),
            PanelCallback(folder / "panels", config.wandb.panels),
            Progress(console),
            Throughput(),
            Validations(again=checkpoint is not None and not has_results(folder, steps)),
        ]
        if resume and checkpoint is None and first:
            rewind(loggers, 0)
            console.print("the run was stopped before its first checkpoint, so it starts from its beginning", soft_wrap=True)
        if first:
            longer = f"; {before} until now: from here on the learning rate is that of a run of {steps}" if before != steps else ""
            changed = [*others, *(differences(earlier[-1], record) if earlier else [])]
            rows = {
                "operator": operator_start(config),
                "model": f"{config.decoder}, encoder {config.encoder}, weights {config.encoder_weights or 'random'}",
                "parameters": f"{sum(p.numel() for p in task.model.parameters()):,}; outside the operators they start as {start[:12]}",
                "data": str(data),
                "device": f"{trainer.world_size} x {trainer.strategy.root_device.type}, {config.trainer.precision}",
                "budget": f"{steps} steps of {config.data.batch_size * world * config.trainer.accumulate} images{longer}",
                "run folder": str(folder),
                "W&B": tracking,
                **({"note": f"goes on under other conditions, so not to the bit: {'; '.join(changed)}"} if changed else {}),
            }
            console.print(header(rows), soft_wrap=True)
        if config.compile:
            task.model.compile()
        with rewriting(config.rewrite), together(trainer, f"go on with --resume {folder}"):
            fit(trainer, task, data, checkpoint)
            per_image = gather_per_image(task) if task.validation_scores else None  # every process takes part
        if trainer.is_global_zero and per_image:
            report(console, folder, task, per_image, data, loggers, trainer.global_step)
        elif first:
            done = f"nothing left to do: the run is at step {trainer.global_step} of {steps}; give a larger --trainer.max_steps to go on"
            console.print(done if resume else "no validation ran, so there are no scores", soft_wrap=True, highlight=False)


@contextmanager
def in_folder(folder: Path, first: bool) -> Iterator[None]:
    """Tells the processes that this one starts where the run is, and whoever stops it before its steps or after them how to go on."""
    os.environ[RUN_FOLDER] = str(folder)
    try:
        yield
    except Leaving as left:
        line = f"stopped by {signal.Signals(left.number).name}; go on with --resume {folder}"
        raise RunStopped(line if first else "", left.number) from left
    finally:
        os.environ.pop(RUN_FOLDER)


def budget(options: TrainerConfig, data: "SegmentationDataModule", world: int) -> int:
    """Optimiser steps of a training by so many processes."""
    return options.max_epochs * data.steps_per_epoch(world, options.accumulate) if options.max_epochs else options.max_steps


def fit(trainer: "Trainer", task: "SegmentationTask", data: "SegmentationDataModule", checkpoint: Path | None) -> None:
    """Trains, from a checkpoint where there is one.

    Raises:
        SegkitError: Lightning stumbles over the checkpoint, which a stranger may have written.
    """
    try:
        trainer.fit(task, datamodule=data, ckpt_path=str(checkpoint) if checkpoint else None)
    except (LookupError, TypeError, AttributeError) as error:
        if not any("restore" in frame.name for frame in traceback.extract_tb(error.__traceback__)):
            raise
        said = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise SegkitError(f"{checkpoint} is no checkpoint to go on from ({said}); take it from a copy, or train again") from error


def report(
    console: "Console",
    folder: Path,
    task: "SegmentationTask",
    per_image: Any,
    data: "SegmentationDataModule",
    loggers: Sequence["Logger"],
    step: int,
) -> None:
    """Leaves the result of the last validation in the run folder and in W&B, and prints it with the next command."""
    from segkit.console import score_table
    from segkit.results import write_results
    from segkit.tracking import finish, log_table

    names = [data.sources["val"].name(int(i)) for i in per_image[0]]
    results = write_results(folder, task, names, per_image, split="val", step=step)
    table = [[name, iou] for name, iou in results["iou"].items()]
    log_table(loggers, "val/table", ["class", "IoU"], table, {name: results[name] for name in ("miou", "accuracy", "mean_dice")})
    finish(loggers)
    assert task.validation_scores is not None
    console.print(score_table(task.validation_scores, task.class_names, f"validation after {step} steps"))
    script = Path(sys.argv[0]).with_name("eval.py")
    next_command = shlex.join(["python", str(script), str(folder)])
    console.print(f"run folder  {folder}\nnext        {next_command}", soft_wrap=True, highlight=False, markup=False)
