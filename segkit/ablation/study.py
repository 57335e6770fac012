"""What an ablation has measured so far: the plan, its arms, and every run in whatever state it is.

N images, K classes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segkit.ablation.plan import Plan
from segkit.ablation.records import COSTS, DONE, FAILED, PROVENANCE, SCORES, read_columns, read_record
from segkit.errors import SegkitError

State = Literal["finished", "failed", "unfinished"]


@dataclass(frozen=True, eq=False)
class Run:
    """One training with one seed, and its evaluation.

    Args:
        seed: The seed of the plan that it is paired by; in an A/A arm it was trained with another.
        folder: Its run folder.
        state: Finished where training and evaluation are whole; failed where it stopped with an error; else unfinished.
        evaluation: The folder of its scores.
        scores: `metrics.json` of the evaluation; empty unless finished.
        provenance: What it started from and ran on; empty where nothing is recorded.
        failure: Why it failed: code, stage, message, log; empty unless failed.
        seconds: Wall time of the training; None unless finished.
    """

    seed: int
    folder: Path
    state: State
    evaluation: Path
    scores: Mapping[str, Any]
    provenance: Mapping[str, Any]
    failure: Mapping[str, Any]
    seconds: float | None

    def per_image(self, name: str) -> np.ndarray | None:
        """An array of `per_image.npz`: index `[N]`, name `[N]`, matrix `[N, K, K]`, classes `[K]`, boundary_intersection `[N, K]`, ...

        None where it was not measured. Nothing is kept: matrices of many large runs would not fit in memory.
        """
        return read_columns(self.evaluation / "per_image.npz", name).get(name)

    def required(self, name: str) -> np.ndarray:
        """An array of `per_image.npz` that every finished run has."""
        array = self.per_image(name)
        if array is None:
            raise SegkitError(f"{str(self.evaluation / 'per_image.npz')!r} has no {name!r}: delete the run's folder to do it again")
        return array

    def artefacts(self, name: str) -> np.ndarray | None:
        """An array of `artefacts.npz`: frequency `[F]` in cycles per pixel, or spectrum `[F]` of the logits; None where not measured."""
        return read_columns(self.evaluation / "artefacts.npz", name).get(name)

    @cached_property
    def classes(self) -> list[str]:
        """Names of the K classes that were scored."""
        return [str(name) for name in self.required("classes")]

    @cached_property
    def truth(self) -> str:
        """sha256 of what was scored: the images, the classes, and the true pixels of each class in each image."""
        names, matrix = self.required("name"), self.required("matrix")
        digest = hashlib.sha256(json.dumps([names.tolist(), self.classes]).encode())
        digest.update(self.required("index").astype("<i8").tobytes() + matrix.sum(2).astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class StudyArm:
    """One setting of the ablation and its runs.

    Args:
        name: Its name in tables and figures.
        settings: What it sets: a value per axis, by the dotted name of the option.
        config: Its complete configuration.
        runs: By the seed of the plan.
        aa: The baseline over again with other seeds, which shows what difference chance alone makes.
        cost: Parameters, MACs, latency and memory; empty where they were not measured.
    """

    name: str
    settings: Mapping[str, Any]
    config: Mapping[str, Any]
    runs: Mapping[int, Run]
    aa: bool
    cost: Mapping[str, Any]

    @cached_property
    def finished(self) -> dict[int, Run]:
        """The runs that count, by seed."""
        return {seed: run for seed, run in sorted(self.runs.items()) if run.state == "finished"}

    def values(self, *keys: str) -> dict[int, float]:
        """A number of `metrics.json` per finished seed, such as `("boundary", "miou")`; seeds without it are left out."""
        found = {seed: look_up(run.scores, *keys) for seed, run in self.finished.items()}
        return {seed: float(value) for seed, value in found.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Study:
    """An ablation: its plan and what has been measured.

    Args:
        folder: Where plan and report lie.
        plan: `plan.yaml`.
        arms: In the order of the plan; A/A arms among them.
    """

    folder: Path
    plan: Plan
    arms: tuple[StudyArm, ...]

    @cached_property
    def baseline(self) -> StudyArm:
        """The arm that all others are compared with."""
        return self.arm(self.plan.baseline)

    def arm(self, name: str) -> StudyArm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def of_state(self, *states: State) -> list[tuple[StudyArm, Run]]:
        """The runs in these states, each with its arm, in the order of the plan."""
        return [(arm, run) for arm in self.arms for _, run in sorted(arm.runs.items()) if run.state in states]

    @cached_property
    def classes(self) -> list[str]:
        """Names of the K classes; empty before the first run has finished."""
        runs = [run for arm in (self.baseline, *self.arms) for run in arm.finished.values()]
        return runs[0].classes if runs else []


def load_study(folder: Path) -> Study:
    """Reads the plan of an ablation and whatever its runs have left.

    Args:
        folder: `runs/ablations/NAME`.

    Raises:
        SegkitError: It is no ablation, or a file that should be whole cannot be read.
    """
    plan = Plan.read(folder)
    costs = read_record(folder / "costs.json", COSTS, "delete it to measure again")
    evaluation = f"{plan.split}-{plan.checkpoint}"
    arms = [
        StudyArm(
            name=arm.name,
            settings=arm.settings,
            config=arm.config,
            runs={seed: _run(seed, folder / plan.trials / name, evaluation) for seed, name in arm.trials.items()},
            aa=arm.aa,
            cost=costs.get(plan.baseline if arm.aa else arm.name) or {},
        )
        for arm in plan.arms
    ]
    return Study(folder, plan, tuple(arms))


def _run(seed: int, folder: Path, name: str) -> Run:
    evaluation, done = folder / "eval" / name, read_record(folder / "done.json", DONE)
    whole = bool(done) and (evaluation / "metrics.json").is_file()  # another ablation may score another split of the same run
    failure = {} if whole else read_record(folder / "failed.json", FAILED)
    return Run(
        seed=seed,
        folder=folder,
        state="finished" if whole else "failed" if failure else "unfinished",
        evaluation=evaluation,
        scores=read_record(evaluation / "metrics.json", SCORES) if whole else {},
        provenance=read_record(folder / "provenance.json", PROVENANCE),
        failure=failure,
        seconds=done.get("seconds") if whole else None,
    )


def look_up(values: Any, *keys: str) -> Any:
    """The value below nested keys, or None where one of them is missing."""
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values
