"""`visualize.py`: figures of what operators do."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from segkit.cli.parsing import Parser, options, saved_config
from segkit.config import FeaturesFigureConfig, OperatorFigureConfig, OverlapFigureConfig, TrainConfig, Upsample, from_dict
from segkit.errors import SegkitError, unknown
from segkit.runs import find_checkpoint

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from segkit.task import SegmentationTask

USAGE = """usage: visualize.py FIGURE [options]

Draw a figure. FIGURE is one of
  operator            what upsampling operators do to one pixel, to an edge and to a constant; with --upsample NAME a worked example,
                      with --checkpoint RUN a run's operators before and after training
  features [RUN ...]  feature maps before and after every upsampling stage, of runs or of small untrained networks
  overlap             how often transposed convolutions write to each output pixel, by kernel, stride and padding

visualize.py FIGURE --help lists the options of a figure."""


def main(args: Sequence[str]) -> None:
    """Parses `args` and draws."""
    if args and args[0] in ("-h", "--help"):
        print(USAGE)
        return
    if not args or args[0].startswith("-"):
        raise SegkitError(f"no figure named; give one first: visualize.py {next(iter(FIGURES))}")
    if args[0] not in FIGURES:
        raise unknown("figure", args[0], FIGURES)
    kind, draw = FIGURES[args[0]]
    runs = list(itertools.takewhile(lambda word: not word.startswith("-"), args[1:])) if args[0] == "features" else []
    rest = args[1 + len(runs) :]
    refuse_options_of_others(args[0], rest)
    parser = Parser(kind, (kind.__doc__ or "").split("\n")[0], file=False)
    draw(from_dict(kind, parser.read(rest)), runs)


def refuse_options_of_others(figure: str, words: Sequence[str]) -> None:
    """Says which figure has an option that `figure` does not have."""
    known = {name: {f"--{option}" for option, _ in options(kind)} for name, (kind, _) in FIGURES.items()}
    for word in (word.split("=")[0] for word in words):
        owners = [name for name in known if word in known[name]]
        if owners and figure not in owners:
            raise SegkitError(f"{word} is an option of {' and '.join(owners)}, not of {figure}; visualize.py {figure} --help lists those")


def draw_operator(config: OperatorFigureConfig, runs: Sequence[str]) -> None:
    """Writes the figure of upsampling operators and prints their parameters and operator indices."""
    from segkit.figures import draw_operators, measure_operator, save

    if config.checkpoint is not None:
        draw_trained(config, find_checkpoint(config.checkpoint))
        return
    if len(config.upsample) == 1:
        draw_initial(config)
        return
    rows, left_out = [], []
    for name in config.upsample or get_args(Upsample):
        try:
            rows.append(measure_operator(name, config))
        except SegkitError:  # of all, one that does not have this scale or initialisation
            if config.upsample:
                raise
            left_out.append(name)
    save(draw_operators(rows, config), config.out)
    table = new_table("operator", "parameters", *(f"CI {init}" for init in rows[0].variants))
    for row in rows:
        table.add_row(row.name, f"{row.parameters:,}", *(f"{variant.index:.2f}" for variant in row.variants.values()))
    say(table, config.out)
    if left_out:
        print(f"left out, as they have no --scale {config.scale} with --init {config.init} here: {', '.join(left_out)}")


def draw_initial(config: OperatorFigureConfig) -> None:
    """The page of one operator with its initial weights."""
    from segkit.figures import CHANNELS, ResponseRow, build_variants, draw_page, measure_responses, save

    variants = build_variants(config.upsample[0], config)
    responses = measure_responses(variants)
    parameters = sum(p.numel() for p in variants[config.init].parameters())
    row = ResponseRow(f"{CHANNELS} to {CHANNELS} channels\n{parameters:,} parameters", config.scale, responses)
    save(draw_page(config.upsample[0], [row], f"Initial weights of seed {config.seed}"), config.out)
    table = new_table("operator", "parameters", *(f"CI {init}" for init in responses))
    table.add_row(config.upsample[0], f"{parameters:,}", *(f"{variant.index:.2f}" for variant in responses.values()))
    say(table, config.out)


def draw_trained(config: OperatorFigureConfig, checkpoint: Path) -> None:
    """The operators of a run, or those of one name, stage by stage, before and after training."""
    from segkit.figures import ResponseRow, draw_page, measure_responses, save
    from segkit.models.fingerprint import operators
    from segkit.task import SegmentationTask
    from segkit.upsampling import UPSAMPLERS

    task = SegmentationTask.load(checkpoint)
    if task.hparams["upsample"] is None:
        raise no_operator(checkpoint)
    before, after = (operators(model) for model in (initial_task(task, checkpoint).model, task.model))
    names: dict[type, str] = {cls: name for name, cls in UPSAMPLERS.items()}
    kinds = {stage: names[type(getattr(operator, "operator", operator))] for stage, operator in after.items()}
    wanted = config.upsample[0] if config.upsample else None
    if wanted and wanted not in kinds.values():
        raise SegkitError(f"--upsample {wanted}: the run has {', '.join(sorted(set(kinds.values())))} only")
    table, rows = new_table("stage", "operator", "channels", "scale", "CI before", "CI after"), []
    for number, (stage, operator) in enumerate(after.items(), start=1):
        if wanted and kinds[stage] != wanted:
            continue
        responses = measure_responses({"before": before[stage], "after": operator}, same_kernel=True)
        c, d, s = (getattr(operator, name) for name in ("in_channels", "out_channels", "scale"))
        rows.append(ResponseRow(f"stage {number}\n{kinds[stage]}\n{c} to {d} channels\nscale {s}", s, responses))
        table.add_row(str(number), kinds[stage], f"{c} to {d}", str(s), *(f"{variant.index:.4f}" for variant in responses.values()))
    save(draw_page(wanted, rows, f"Before training and after {task.step} steps"), config.out)
    say(table, config.out)


def no_operator(run: str | Path) -> SegkitError:
    """The error for a network that interpolates as smp wrote it."""
    return SegkitError(f"{run}: the network keeps smp's own interpolation, which is no operator; give a run with --upsample")


def initial_task(task: "SegmentationTask", checkpoint: Path) -> "SegmentationTask":
    """The task as it was before its first step, but for pretrained weights of the encoder; the operators draw their own."""
    from segkit.cli.train import build_task

    config = trained_config(task)
    if config is None:
        raise SegkitError(f"{checkpoint} does not say how it was started, so there is no before; give a run of train.py")
    measured = task.hparams["mean"], task.hparams["std"]
    return build_task(replace(config, encoder_weights=None), task.class_names, task.colors, None, measured)


def trained_config(task: "SegmentationTask") -> TrainConfig | None:
    """How a run was started, where its checkpoint says so."""
    return saved_config(task.run_config, "the run") if task.run_config else None


def draw_feature_maps(config: FeaturesFigureConfig, runs: Sequence[str]) -> None:
    """Writes the figure of feature maps and prints their shapes and operator indices."""
    from segkit.figures import Network, draw_features, record_stages, save
    from segkit.panels import viewable

    given = [f"--{name}" for name in ("upsample", "init", "seed") if getattr(config, name) != getattr(FeaturesFigureConfig(), name)]
    if runs and given:
        raise SegkitError(f"{given[0]} is for untrained networks, and a run was given; leave one of them out")
    tasks = trained_tasks(runs) if runs else untrained_tasks(config)
    image, name = read_example(config, [task for _, task in tasks])
    networks = [Network(title, record_stages(task.model, task, image)) for title, task in tasks]
    for run, network in zip(runs, networks, strict=False):
        if not network.stages:
            raise no_operator(run)
    save(draw_features(networks, viewable(image), name, config.channels, config.crop), config.out)
    table = new_table("network", "stage", "in", "out", "CI")
    for network in networks:
        for number, stage in enumerate(network.stages, start=1):
            shapes = (" x ".join(map(str, maps.shape)) for maps in (stage.before, stage.after))
            table.add_row(network.title.split("\n")[0] if number == 1 else "", str(number), *shapes, f"{stage.index:.2f}")
    say(table, config.out)


def trained_tasks(runs: Sequence[str]) -> list[tuple[str, "SegmentationTask"]]:
    """The networks of runs, each with its name and the steps behind its weights."""
    from segkit.task import SegmentationTask

    tasks = []
    for run in runs:
        checkpoint = find_checkpoint(run)
        task = SegmentationTask.load(checkpoint)
        folder = checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else checkpoint
        tasks.append((f"{folder.resolve().parent.name}\nafter {task.step} steps", task))
    return tasks


def untrained_tasks(config: FeaturesFigureConfig) -> list[tuple[str, "SegmentationTask"]]:
    """Small U-Nets, one per operator, equal in everything else."""
    from segkit.cli.train import build_task
    from segkit.data.scenes import CLASSES

    tasks = []
    names: list[Upsample] = config.upsample or ["transpose"]
    for name in dict.fromkeys(names):
        network = TrainConfig(upsample=name, upsample_init=config.init, decoder_channels=[64, 32, 16], seed=config.seed)
        tasks.append((f"{name}, untrained\n{config.init} weights", build_task(network, CLASSES.names, CLASSES.colors, None)))
    return tasks


def read_example(config: FeaturesFigureConfig, tasks: Sequence["SegmentationTask"], largest: int = 1024) -> tuple["np.ndarray", str]:
    """The image and its name; of one wider or higher than `largest` the middle."""
    from segkit.data.files import read_image
    from segkit.data.open import open_sources
    from segkit.data.scenes import Scenes

    kinds = {(len(task.hparams["mean"]), 16 if task.hparams["white"] > 255 else 8) for task in tasks}
    if len(kinds) > 1:
        said = " and ".join(f"{channels} channels of {bits} bits" for channels, bits in sorted(kinds))
        raise SegkitError(f"the runs take images of {said}; draw them apart")
    channels, bits = kinds.pop()
    trained = trained_config(tasks[0])
    if config.image is not None:
        image, name = read_image(config.image, channels, bits), Path(config.image).name
    elif trained is None or trained.data.kind == "scenes":
        if channels not in (1, 3) or bits > 8:
            raise SegkitError(f"built-in scenes have no {channels} channels of {bits} bits; give an image with --image FILE")
        options = trained.data if trained else TrainConfig().data
        source = Scenes("val", 1, options.scenes_size, options.scenes_seed, channels)
        image, name = source.read(0)[0], f"built-in scene {source.name(0)}"
    else:
        try:
            sources = open_sources(trained.data, channels)
            image, name = sources["val"].read(0)[0], sources["val"].name(0)
        except (SegkitError, KeyError) as error:
            raise SegkitError(f"the run's validation images cannot be read ({error}); give an image with --image FILE") from error
    top, left = (max(n - largest, 0) // 2 for n in image.shape[:2])
    middle = image[top : top + largest, left : left + largest]
    return middle, name if middle.shape == image.shape else f"{name}, the middle"


def draw_overlaps(config: OverlapFigureConfig, runs: Sequence[str]) -> None:
    """Writes the figure of overlaps and prints what padding does to the size and place of the output."""
    from segkit.figures import RULE, draw_overlap, list_geometries, save

    geometries = list_geometries(config)
    save(draw_overlap(geometries), config.out)
    table = new_table("k", "s", "p", "o", "rows from H", "exact", "overlap per axis", "CI", "shift")
    for g in geometries:
        rows = f"{g.stride}H{f' {g.excess:+d}' if g.excess else ''}".replace("+", "+ ").replace("-", "- ")
        exact, counts = "yes" if g.excess == 0 else "no", " ".join(map(str, g.counts))
        cells = (g.kernel, g.stride, g.padding, g.output_padding, rows, exact, counts, f"{g.index:.3f}", f"{g.shift:+.1f}")
        table.add_row(*map(str, cells))
    say(table, config.out, RULE, "Without shift and exactly s times the size: p = (k - s) / 2, o = 0. The shift is in output pixels.")


def new_table(*columns: str) -> "Table":
    """An empty table; the first column is words, the others are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table


def say(table: "Table", out: str, *lines: str) -> None:
    """Prints a table, what there is to say about it, and where the figure is."""
    from rich.console import Console

    console = Console()
    console.print(table)
    for line in (*lines, f"figure  {out}"):
        console.print(line, soft_wrap=True, highlight=False)


FIGURES: dict[str, tuple[type, Callable[[Any, Sequence[str]], None]]] = {
    "operator": (OperatorFigureConfig, draw_operator),
    "features": (FeaturesFigureConfig, draw_feature_maps),
    "overlap": (OverlapFigureConfig, draw_overlaps),
}
