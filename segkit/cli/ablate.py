"""`ablate.py`: trains every arm with every seed and says which is better, and how sure that is."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from segkit.architectures import default_upsample
from segkit.cli.axes import parse_values, split_axes
from segkit.cli.parsing import Parser
from segkit.cli.resuming import plain
from segkit.cli.train import build_task
from segkit.config import AblateConfig, ReportConfig, TrainConfig, from_dict
from segkit.errors import RunFailed, SegkitError
from segkit.runs import cannot_write, write_whole

if TYPE_CHECKING:
    from segkit.ablation.plan import Plan
    from segkit.ablation.run import Executor
    from segkit.ablation.trial import Trial
    from segkit.data.module import SegmentationDataModule

BUSY = 0.75  # load per core from which costs cannot be measured; threads that wait for one another then take many times as long
TAG = 64  # characters that W&B takes
DESCRIPTION = (
    "Compare settings: an option with several values (--upsample transpose bilinear) is an axis, each value an arm, trained with the same "
    "seeds. `ablate.py report FOLDER` reports what is finished so far; `ablate.py costs` measures what one configuration costs."
)


def main(args: Sequence[str]) -> None:
    """Parses `args` and runs, reports or measures."""
    if args[:1] == ["costs"]:
        from segkit.cli.costs import main as costs_main

        costs_main(args[1:])
    elif args[:1] == ["report"]:
        from segkit.cli.report import main as report_main

        report_main(args[1:])
    else:
        ablate(read(args))


def read(args: Sequence[str]) -> AblateConfig:
    """The configuration behind a command line, with every value of every axis checked."""
    rest, axes = split_axes(args)
    parser = Parser(AblateConfig, DESCRIPTION)
    values = parser.read(rest)
    singles = {word.split("=", 1)[0].removeprefix("--") for word in rest if word.startswith("--")}
    declared = {name: given for name, given in values["axes"].items() if name not in singles}  # flags beat the file
    values["axes"] = {name: parse_values(name, given) for name, given in {**declared, **axes}.items()}
    for rule in values["exclude"]:
        rule |= {name: parse_values(name, [value])[0] for name, value in rule.items()}
    return from_dict(AblateConfig, values)


def ablate(config: AblateConfig) -> None:
    """Plans, measures the arms, runs what is not finished, and reports."""
    from rich.console import Console

    from segkit.ablation.live import LiveTable
    from segkit.ablation.outline import outline
    from segkit.ablation.run import run_all
    from segkit.ablation.sweep import export_sweep
    from segkit.cli.report import report

    console = Console()
    plan = build_plan(config)
    folder = Path(config.runs).resolve() / "ablations" / plan.name
    if config.export_wandb_sweep:
        commands = export_sweep(plan, Path(config.export_wandb_sweep), Path(sys.argv[0]).with_name("train.py"))
        console.print(commands, soft_wrap=True, highlight=False)
        return
    if config.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            costs = measure_arms(plan, Path(scratch), console, threads(config))
            console.print(outline(plan, folder, costs, slots(config)))
        return
    refuse_another(plan, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from None
    executor = build_executor(config, folder)
    plan.write(folder)
    costs = measure_arms(plan, folder, console, threads(config))
    console.print(outline(plan, folder, costs, executor.slots))
    trials = list_trials(plan, folder)
    with LiveTable(trials, costs, executor.slots, console, config.executor != "local") as table:
        run_all(executor, list(trials.values()), config.retry_failed, table)
    report(folder, ReportConfig())


def build_plan(config: AblateConfig) -> "Plan":
    """Arms and seeds, on data that has been looked at."""
    from segkit import __version__
    from segkit.ablation.plan import TRIALS, Plan, build_arms, combinations, word
    from segkit.data.fingerprint import fingerprint
    from segkit.data.module import SegmentationDataModule

    if config.data.root is not None:
        config.data.root = str(Path(config.data.root).expanduser().resolve())
    config.encoder_weights = _found(config.encoder_weights)
    if "encoder_weights" in config.axes:
        config.axes["encoder_weights"] = [_found(weights) for weights in config.axes["encoder_weights"]]
    if config.run_id is not None:
        raise SegkitError(f"--run_id {config.run_id}: the runs of an ablation are named by the hash of all that decides them; leave it out")
    values = asdict(config)
    base = plain({f.name: values[f.name] for f in fields(TrainConfig)})
    if base["trainer"]["devices"] == "auto":
        base["trainer"]["devices"] = 1  # a run is one slot's
    base["data"]["check"] = False  # below, once for all runs
    if config.aa and not config.axes:  # the noise of one setting
        config.axes = {"upsample": [default_upsample(config.decoder) if config.upsample is None else config.upsample]}
    settings = combinations(config.axes, config.exclude)
    name = config.name or "-".join([config.data.kind, config.decoder.replace(":", "_"), *(axis.split(".")[-1] for axis in config.axes)])
    if config.match != "native":
        name += "" if config.name else f"-{config.match}"
    if Path(name).name != name or name in ("", ".."):
        raise SegkitError(f"--name {name}: it is the name of one folder, without / or ..")
    base["wandb"]["group"] = base["wandb"]["group"] or name
    data = SegmentationDataModule(config.data, config.seed, config.in_channels)
    split = config.split or ("test" if "test" in data.sources else "val")
    data.prepare(splits=("train", "val", split))
    if config.match != "native":
        settings = match(config.match, base, settings, config.baseline, data, split)
    seeds = list(range(config.seed, config.seed + config.seeds))
    description = str(data).replace(config.data.root, Path(config.data.root).name) if config.data.root else str(data)  # a report is shown
    weights = [changes.get("encoder_weights", config.encoder_weights) for changes in settings]
    prints = {file: fingerprint(config.data, [file]) for file in {None, *weights}}
    arms, baseline = build_arms(base, settings, seeds, [prints[file] for file in weights], config.baseline, config.aa)
    for arm in arms:
        tags = [f"{k}={word(v)}"[:TAG] for k, v in arm.settings.items() if k in config.axes]
        arm.config["wandb"]["tags"] = [*arm.config["wandb"]["tags"], *tags]
        from_dict(TrainConfig, arm.config)  # the rules between options, before anything runs
    return Plan(
        name=name,
        segkit=__version__,
        commit=commit(),
        axes=config.axes,
        baseline=baseline,
        margin=config.margin,
        match=config.match,
        split=split,
        checkpoint="last",
        seeds=seeds,
        aa=config.aa,
        trials=f"../../{TRIALS}",
        data={"fingerprint": prints[None], "description": description},
        arms=arms,
    )


def match(
    what: str, base: dict[str, Any], settings: list[dict[str, Any]], baseline: str | None, data: "SegmentationDataModule", split: str
) -> list[dict[str, Any]]:
    """Adds to the settings of every arm the widths with which its operators cost what the baseline's would natively in their place."""
    from segkit.ablation.plan import arm_name, with_settings
    from segkit.costs import match_widths

    names = [arm_name(changes) for changes in settings]
    reference = settings[names.index(baseline)] if baseline in names else settings[0]
    operator = {"upsample": reference.get("upsample", base["upsample"])}
    size = data.sources[split].size(0)

    def network(changes: Mapping[str, Any]) -> Any:
        values = with_settings(base, {**changes, "encoder_weights": None, "class_weights": "none"})
        return build_task(from_dict(TrainConfig, values), data.classes.names, data.classes.colors, None).model

    def widths(changes: Mapping[str, Any]) -> list[int]:
        native = network({**changes, **operator})  # other decoders and encoders have other stages
        return match_widths(lambda width: network({**changes, "upsample_width": width}), native, what, size, base["in_channels"])

    return [{**changes, "upsample_width": widths(changes)} for changes in settings]


def _found(weights: str | None) -> str | None:
    """Weights in a file by its full path, so that runs find it from any folder; others as they are."""
    path = Path(weights or "").expanduser()
    return str(path.resolve()) if path.is_file() else weights


def commit() -> str | None:
    """The revision of the source code, with a + where files differ from it; None where it is installed without one."""
    root = Path(__file__).resolve().parents[2]
    git = ["git", "-C", str(root)]
    try:
        revision = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "--", "segkit"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision + "+" * bool(changed.strip())


def refuse_another(plan: "Plan", folder: Path) -> None:
    """A folder holds one ablation: arms and seeds may come and go, but an arm that has runs does not become another of the same name."""
    from segkit.ablation.plan import Plan

    if not (folder / "plan.yaml").exists():
        return
    earlier = Plan.read(folder)
    runs = {(arm.name, seed): trial for arm in earlier.arms for seed, trial in arm.trials.items() if not arm.aa}
    for arm in plan.arms:
        for seed, trial in arm.trials.items():
            other = runs.get((arm.name, seed), trial)
            if not arm.aa and other != trial and (folder / earlier.trials / other).exists():
                raise SegkitError(
                    f"--name {plan.name}: {str(folder)!r} holds another ablation, whose arm {arm.name} is trained otherwise (its options, "
                    "its data or segkit's version differ); give this one another --name"
                )


def list_trials(plan: "Plan", folder: Path) -> dict[tuple[str, int], "Trial"]:
    """The runs of a plan by arm and seed, seed after seed."""
    from segkit.ablation.plan import with_settings
    from segkit.ablation.trial import Trial

    place = (folder / plan.trials).resolve()
    return {
        (arm.name, seed): Trial(str(place / arm.trials[seed]), with_settings(arm.config, {"seed": plan.seed(arm, seed)}), plan.split)
        for seed, arm in plan.pairs()
    }


def _known_costs(path: Path) -> dict[str, dict[str, Any]]:
    """What was measured before; what cannot be read is measured again."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: cost for name, cost in values.items() if isinstance(cost, dict)} if isinstance(values, dict) else {}


def measure_arms(plan: "Plan", folder: Path, console: Any, threads: int) -> dict[str, dict[str, Any]]:
    """What each arm costs here, one after the other in fresh processes while nothing else runs; measured once, kept in `costs.json`."""
    from segkit.ablation.trial import python_path

    path = folder / "costs.json"
    known = _known_costs(path)
    costs = {}
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > BUSY * cores and any(arm.name not in known for arm in plan.arms):
        words = f"other programs keep {load:.1f} of {cores} cores busy: what is measured now, and the time estimated from it, is too high"
        console.print(words, soft_wrap=True, highlight=False)
    for arm in plan.arms:
        key = min(arm.trials.values()) if arm.aa else arm.trials[plan.seeds[0]]
        if known.get(arm.name, {}).get("trial") != key:
            with tempfile.TemporaryDirectory() as scratch:
                source, out = Path(scratch) / "arm.yaml", Path(scratch) / "costs.json"
                source.write_text(yaml.safe_dump(arm.config))
                began = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-m", "segkit.cli", "ablate", "costs", "--config", str(source), "--out", str(out)],
                    capture_output=True,
                    text=True,
                    env={**os.environ, "PYTHONPATH": python_path(), "OMP_NUM_THREADS": str(threads)},
                )
                if done.returncode:
                    line = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("ablate.py: error: ")
                    raise RunFailed(f"arm {arm.name} cannot be trained: {line}")
                measured = json.loads(out.read_text())
                known[arm.name] = {**measured, "start_s": time.perf_counter() - began - measured.pop("measuring_s"), "trial": key}
            write_whole(path, json.dumps(known, indent=2) + "\n")
        costs[arm.name] = known[arm.name]
    return costs


def slots(config: AblateConfig) -> int:
    """Runs at a time; of a cluster, whose queue holds the others, as many as there are."""
    from segkit.ablation.run import visible_gpus

    here = config.executor == "local" or config.cluster.get("cluster") == "local"
    gpus = visible_gpus() if here and config.trainer.accelerator != "cpu" else []
    return config.slots or ((len(gpus) or max(1, len(os.sched_getaffinity(0)) // 2)) if here else sys.maxsize)


def threads(config: AblateConfig) -> int:
    """Threads of a run, with which it is measured too."""
    from segkit.ablation.run import slot_threads

    if config.executor == "local":
        return slot_threads(slots(config))
    name, default = ("cpus_per_task", 2) if config.executor == "slurm" else ("num_cpus", 1)
    said = config.cluster.get(name, default)
    if not isinstance(said, int | float):
        raise SegkitError(f"--cluster.{name} {said}: give a number of cores")
    return max(1, int(said))


def build_executor(config: AblateConfig, folder: Path) -> "Executor":
    """Who executes the runs of the ablation in `folder`."""
    from segkit.ablation.ray_tasks import RayExecutor
    from segkit.ablation.run import LocalExecutor, visible_gpus
    from segkit.ablation.slurm_jobs import SubmititExecutor

    gpu = config.trainer.accelerator != "cpu"
    if config.executor == "slurm":
        return SubmititExecutor(folder / "jobs", slots(config), config.cluster)
    if config.executor == "ray":
        return RayExecutor(slots(config), config.cluster, gpu)
    if config.cluster:
        raise SegkitError(f"--cluster.{next(iter(config.cluster))}: this machine needs none; it goes with --executor slurm or ray")
    return LocalExecutor(visible_gpus() if gpu else [], slots(config))
