"""`ablate.py`: trains every arm with every seed and says which is better, and how sure that is."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from segkit.cli.axes import parse_values, split_axes
from segkit.cli.parsing import Parser
from segkit.cli.train import build_task, plain
from segkit.config import AblateConfig, TrainConfig, from_dict
from segkit.errors import RunFailed, SegkitError
from segkit.runs import cannot_write

if TYPE_CHECKING:
    from segkit.ablation.plan import Plan
    from segkit.ablation.run import Executor
    from segkit.ablation.trial import Trial
    from segkit.data.module import SegmentationDataModule

DESCRIPTION = (
    "Compare settings: an option with several values (--upsample transpose bilinear) is an axis, each value an arm, trained with the same "
    "seeds. `ablate.py report FOLDER` reports what is finished so far; `ablate.py costs` measures what one configuration costs."
)


def main(args: Sequence[str]) -> None:
    """Parses `args` and runs, reports or measures."""
    if args[:1] == ["costs"]:
        from segkit.cli.costs import main as costs

        costs(args[1:])
    elif args[:1] == ["report"]:
        from segkit.cli.report import main as report

        report(args[1:])
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

    from segkit.ablation.run import run_all

    console = Console()
    plan = build_plan(config)
    folder = Path(config.runs).resolve() / "ablations" / plan.name
    if config.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            console.print(outline(plan, config, measure_arms(plan, Path(scratch), console)))
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from None
    plan.write(folder)
    costs = measure_arms(plan, folder, console)
    console.print(outline(plan, config, costs))
    trials = list_trials(plan, folder)
    run_all(build_executor(config), list(trials.values()), config.retry_failed, lambda states: None)


def build_plan(config: AblateConfig) -> "Plan":
    """Arms and seeds, on data that has been looked at."""
    from segkit import __version__
    from segkit.ablation.plan import TRIALS, Plan, build_arms, combinations
    from segkit.data.fingerprint import fingerprint
    from segkit.data.module import SegmentationDataModule

    if config.data.root is not None:
        config.data.root = str(Path(config.data.root).expanduser().resolve())
    if config.encoder_weights and Path(config.encoder_weights).expanduser().is_file():
        config.encoder_weights = str(Path(config.encoder_weights).expanduser().resolve())
    values = asdict(config)
    base = plain({f.name: values[f.name] for f in fields(TrainConfig)})
    if base["trainer"]["devices"] == "auto":
        base["trainer"]["devices"] = 1  # a run is one slot's
    settings = combinations(config.axes, config.exclude)
    name = config.name or "-".join([config.data.kind, config.decoder, *(axis.split(".")[-1] for axis in config.axes)])
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
    prints: dict[str | None, str] = {}
    for changes in settings:
        weights = changes.get("encoder_weights", config.encoder_weights)
        prints.setdefault(weights, "") or prints.update({weights: fingerprint(config.data, [weights])})
    seeds = list(range(config.seed, config.seed + config.seeds))
    every = [prints[changes.get("encoder_weights", config.encoder_weights)] for changes in settings]
    arms, baseline = build_arms(base, settings, seeds, every, config.baseline, config.aa)
    for arm in arms:
        arm.config["wandb"]["tags"] = [*arm.config["wandb"]["tags"], *(f"{k}={v}" for k, v in arm.settings.items() if k in config.axes)]
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
        data={"fingerprint": fingerprint(config.data), "description": str(data)},
        arms=arms,
    )


def match(
    what: str, base: dict[str, Any], settings: list[dict[str, Any]], baseline: str | None, data: "SegmentationDataModule", split: str
) -> list[dict[str, Any]]:
    """Adds to the settings of every arm the widths with which its operators cost what the baseline's cost natively."""
    from segkit.ablation.plan import arm_name, with_settings
    from segkit.costs import match_widths

    names = [arm_name(changes) for changes in settings]
    reference = settings[names.index(baseline)] if baseline in names else settings[0]
    size = data.sources[split].size(0)

    def network(changes: Mapping[str, Any]) -> Any:
        values = with_settings(base, {**changes, "encoder_weights": None, "class_weights": "none"})
        return build_task(from_dict(TrainConfig, values), data.classes.names, data.classes.colors, None).model

    native = network(reference)
    return [
        {**changes, "upsample_width": match_widths(lambda w, c=changes: network({**c, "upsample_width": w}), native, what, size)}  # type: ignore[misc]
        for changes in settings
    ]


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


def list_trials(plan: "Plan", folder: Path) -> dict[tuple[str, int], "Trial"]:
    """The runs of a plan by arm and seed, seed after seed."""
    from segkit.ablation.plan import with_settings
    from segkit.ablation.trial import Trial

    place = (folder / plan.trials).resolve()
    return {
        (arm.name, seed): Trial(str(place / arm.trials[seed]), with_settings(arm.config, {"seed": plan.seed(arm, seed)}), plan.split)
        for seed, arm in plan.pairs()
    }


def measure_arms(plan: "Plan", folder: Path, console: Any) -> dict[str, dict[str, Any]]:
    """What each arm costs here, one after the other in fresh processes while nothing else runs; measured once, kept in `costs.json`."""
    path = folder / "costs.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    costs = {}
    for arm in plan.arms:
        key = min(arm.trials.values()) if arm.aa else arm.trials[plan.seeds[0]]
        if known.get(arm.name, {}).get("trial") != key:
            with tempfile.TemporaryDirectory() as scratch:
                source, out = Path(scratch) / "arm.yaml", Path(scratch) / "costs.json"
                source.write_text(yaml.safe_dump(arm.config))
                done = subprocess.run(
                    [sys.executable, "-m", "segkit.cli", "ablate", "costs", "--config", str(source), "--out", str(out)],
                    capture_output=True,
                    text=True,
                    env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
                )
                if done.returncode:
                    line = (done.stderr.strip().splitlines() or ["no message"])[-1]
                    raise RunFailed(f"arm {arm.name} cannot be trained: {line}")
                known[arm.name] = {**json.loads(out.read_text()), "trial": key}
            path.write_text(json.dumps(known, indent=2) + "\n")
        costs[arm.name] = known[arm.name]
    return costs


def build_executor(config: AblateConfig) -> "Executor":
    """Who executes the runs."""
    from segkit.ablation.run import LocalExecutor, visible_gpus

    gpus = visible_gpus() if config.trainer.accelerator != "cpu" else []
    return LocalExecutor(gpus, config.slots or len(gpus) or max(1, (os.cpu_count() or 1) // 2))


def outline(plan: "Plan", config: AblateConfig, costs: Mapping[str, Mapping[str, Any]]) -> str:
    """Arms, seeds, runs, and about how long and how large they will be."""
    return ""
