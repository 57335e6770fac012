"""What an ablation is: arms, seeds, and the run behind each pair, named by the hash of all that decides it. Standard library and YAML."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from segkit import __version__
from segkit.architectures import default_dropout, default_upsample
from segkit.errors import SegkitError, unknown
from segkit.runs import write_whole
from segkit.yaml_file import read_yaml

# where a run lies, what it is called and who watches it decide nothing of what it computes; what lies in files, their hash says
APART = {"name", "runs", "run_id", "seed", "wandb", "encoder_weights"}
APART_DATA = {"root", "workers", "check"}
TRIALS = "trials"  # the folder below `runs` that all ablations share


@dataclass(frozen=True)
class Arm:
    """One setting of an ablation.

    Args:
        name: Its values, joined.
        settings: The options in which arms differ, as `{"upsample": "bilinear"}`.
        config: The complete training configuration, nested plain values.
        trials: Folder of the run, below `runs/trials`, of each seed.
        aa: The baseline again, its runs from other seeds than those they are paired with.
    """

    name: str
    settings: dict[str, Any]
    config: dict[str, Any]
    trials: dict[int, str]
    aa: bool = False


@dataclass(frozen=True)
class Plan:
    """An ablation before its first run; `plan.yaml` is all of it.

    Args:
        name: Its folder below `runs/ablations`.
        segkit: Version of segkit.
        commit: Revision of the source code, None where there is none.
        axes: Options and their values.
        baseline: Name of the arm that the others are compared with.
        margin: Differences of mIoU below it count as none; None: no arm can be called equivalent.
        match: Which budget is equal: native (none), params or macs.
        split: Images that are scored.
        checkpoint: Which checkpoint is scored.
        seeds: Of every arm.
        aa: Whether the baseline meets itself under other seeds.
        trials: Folder of all runs, seen from the ablation's own.
        data: `fingerprint` and `description` of the data set.
        arms: All arms.
    """

    name: str
    segkit: str
    commit: str | None
    axes: dict[str, list[Any]]
    baseline: str
    margin: float | None
    match: str
    split: str
    checkpoint: str
    seeds: list[int]
    aa: bool
    trials: str
    data: dict[str, str]
    arms: list[Arm]

    def pairs(self) -> Iterator[tuple[int, Arm]]:
        """Seed after seed, so that an ablation that is stopped has whole seeds to compare."""
        return ((seed, arm) for seed in self.seeds for arm in self.arms)

    def seed(self, arm: Arm, seed: int) -> int:
        """The seed of the run that stands for `seed` in an arm."""
        return seed + len(self.seeds) if arm.aa else seed

    def write(self, folder: Path) -> None:
        """Write `plan.yaml`, whole or not at all."""
        write_whole(folder / "plan.yaml", yaml.safe_dump(asdict(self), sort_keys=False))

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """Read `plan.yaml`.

        Raises:
            SegkitError: There is none, or it is not one.
        """
        path = folder / "plan.yaml"
        if not path.exists():
            raise SegkitError(f"no plan.yaml in {str(folder)!r}; give the folder of an ablation: runs/ablations/NAME")
        broken = f"{path} cannot be read, start the ablation again, finished runs are kept"
        values = read_yaml(path, broken, dict)
        try:
            plan = cls(**{**values, "arms": [Arm(**arm) for arm in values["arms"]]})
        except (TypeError, KeyError) as error:
            raise SegkitError(f"{broken} ({error})") from error
        return plan


def combinations(axes: Mapping[str, Sequence[Any]], exclude: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """The settings of all arms: every combination of the values but those that agree with an exclusion in all that it names.

    Raises:
        SegkitError: There is no axis, one without or with twice the same value, or an exclusion that meets none.
    """
    if not axes:
        raise SegkitError("no axis: give several values to an option, such as --upsample transpose bilinear")
    for name, values in axes.items():
        words = [word(value) for value in values]
        if not values or len(set(words)) < len(words):
            raise SegkitError(f"axis {name} {words}: give one value or more, each once")
    every = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    for rule in exclude:
        if stray := sorted(set(rule) - set(axes)):
            raise unknown("axis in exclude", stray[0], axes)
        if not any(_meets(settings, rule) for settings in every):
            raise SegkitError(f"exclude {dict(rule)}: no combination of the axes has it; remove it or correct it")
    left = [settings for settings in every if not any(_meets(settings, rule) for rule in exclude)]
    if not left:
        raise SegkitError("the exclusions leave no arm; remove one")
    return left


def _meets(settings: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    return all(settings[name] == value for name, value in rule.items())


def arm_name(settings: Mapping[str, Any]) -> str:
    """`bilinear` for one axis, `bilinear, lr=0.001` for more: operators and decoders go without the name of their option.

    `own` is the interpolation of smp's network.
    """
    settings = {k: "own" if k == "upsample" and v is None else v for k, v in settings.items()}
    named = [
        word(v) if k in ("upsample", "decoder") or len(settings) == 1 else f"{k.split('.')[-1]}={word(v)}" for k, v in settings.items()
    ]
    return ", ".join(named)


def word(value: Any) -> str:
    """A value of an axis in one word: a list as `bilinear+nearest`, a file without its folders, which are nobody else's business."""
    if isinstance(value, str) and "/" in value:
        return value.rsplit("/", 1)[-1]
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def with_settings(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a nested configuration with dotted options replaced."""
    out = json.loads(json.dumps(config))
    for name, value in settings.items():
        *path, last = name.split(".")
        inner = out
        for part in path:
            inner = inner[part]
        inner[last] = value
    return dict(out)


def _decided(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration in which what the decoder decides is said, so that equal runs have equal names."""
    chosen = {"upsample": default_upsample(config["decoder"]), "dropout": default_dropout(config["decoder"])}
    return {**config, **{name: value for name, value in chosen.items() if config[name] is None}}


def trial_name(config: Mapping[str, Any], seed: int, fingerprint: str) -> str:
    """The folder of a run: 16 digits of the sha256 over its configuration, its files and the version of segkit."""
    kept = {k: v for k, v in config.items() if k not in APART}
    kept["data"] = {k: v for k, v in config["data"].items() if k not in APART_DATA}
    weights = config["encoder_weights"]
    kept["encoder_weights"] = "a file" if weights and Path(weights).is_file() else weights  # its content is in the fingerprint
    about = {"config": kept, "seed": seed, "data": fingerprint, "segkit": __version__}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def build_arms(
    base: Mapping[str, Any],
    settings: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    fingerprints: Sequence[str],
    baseline: str | None,
    aa: bool,
) -> tuple[list[Arm], str]:
    """The arms of a plan and the name of the baseline.

    Args:
        base: The training configuration that all share, nested plain values.
        settings: What each arm changes in it; `upsample_width`, where budgets are matched, stays out of its name.
        seeds: Of every arm.
        fingerprints: Of the files behind each arm.
        baseline: Name of the arm to compare with; None: the first.
        aa: Add the baseline with seeds that follow on the others.

    Raises:
        SegkitError: There is no such baseline, or two arms are the same.
    """
    arms = []
    for changes, fingerprint in zip(settings, fingerprints, strict=True):
        config = _decided(with_settings(base, changes))
        shown = {k: config[k] if k == "upsample" else v for k, v in changes.items() if k != "upsample_width"}
        arms.append(Arm(arm_name(shown), dict(changes), config, {s: trial_name(config, s, fingerprint) for s in seeds}))
    names = [arm.name for arm in arms]
    for one, other in itertools.combinations(arms, 2):
        if one.trials == other.trials:
            raise SegkitError(f"arms {one.name!r} and {other.name!r} are the same runs: leave one of them out")
    chosen = baseline or names[0]
    if chosen not in names:
        raise unknown("baseline", chosen, names)
    if aa:
        arm, fingerprint = arms[names.index(chosen)], fingerprints[names.index(chosen)]
        trials = {s: trial_name(arm.config, s + len(seeds), fingerprint) for s in seeds}
        arms.append(Arm(f"{arm.name} (A/A)", arm.settings, arm.config, trials, aa=True))
    return arms, chosen
