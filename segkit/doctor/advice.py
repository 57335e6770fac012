"""How to train on the data: options with the reason for each, on a command line or as a file for `train.py --config`."""

import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segkit.config import IGNORE_INDEX, CheckConfig, DataConfig
from segkit.data.classes import count_pixels, median_frequency_weights
from segkit.data.findings import Finding
from segkit.data.open import ONLY
from segkit.doctor.examine import SplitFacts

SIDES = (64, 512)  # of the crop
STEP = 32  # by which encoders divide the size of an image
PIXELS = 2**20  # of a batch: 16 crops of 256 pixels, 4 of 512
BYTES = 3000  # of memory per pixel of a batch: the default network keeps 1400 in float32 for the backward pass, and works on as many
IMBALANCE = 5.0  # between the most and the least weighted class; below, weights change nothing
NATURAL = (0.449, 0.226)  # mean and standard deviation over ImageNet's three channels
FAR = 0.15  # of white
LISTED = 32  # values of masks: more are no labels, but what became of them


@dataclass(frozen=True)
class Advice:
    """An option that the data ask for.

    Args:
        option: Its name on the command line, without --.
        value: Its value, plain.
        reason: Why, in a few words.
    """

    option: str
    value: Any
    reason: str


def advise(
    splits: Mapping[str, SplitFacts], findings: Sequence[Finding], config: CheckConfig, bands: int | None = None, memory: int | None = None
) -> list[Advice]:
    """The options that follow from the facts.

    The crop is the largest multiple of 32, up to 512, that 9 of 10 training images hold; a batch has about a million pixels, in a quarter
    of the memory at most; classes are weighted by the square root of median frequency balancing (Eigen and Fergus, ICCV 2015), which
    lifts rare classes without drowning frequent ones, where weights differ by a factor of 5 or more.

    Args:
        splits: The facts.
        findings: What is wrong.
        config: What was asked for.
        bands: Channels of a file that has others than were asked for.
        memory: Bytes of memory; default: this machine's.
    """
    counts = Counter(finding.kind for finding in findings)
    most = sum(len(split.usable) for split in splits.values()) / 2  # what few files are is damage, what most are is how the data are
    kinds = {kind for kind, count in counts.items() if count > most or kind == "binary"}
    advice: list[Advice] = []
    facts = splits.get("train")
    if "binary" in kinds:
        advice.append(Advice("data.masks", "binary", "all masks hold 0 and 255 only"))
    elif "color_mask" in kinds:
        advice.append(Advice("data.masks", "colors", "masks hold colours, which classes.txt names"))
    if "deep_image" in kinds:
        advice.append(Advice("data.bits", 16, "images have more than 8 bits"))
    if kinds & {"channels", "deep_image"} and bands:
        advice.append(Advice("in_channels", bands, "so many channels are in the files"))
    if facts is None or not facts.usable.any():
        return advice
    usable = facts.usable
    if config.in_channels == 3 and all(split.grey[split.usable].all() for split in splits.values()):
        advice.append(Advice("in_channels", 1, "all images are grey; a pretrained encoder may still want 3"))
    short = np.sort(facts.sizes[usable].min(axis=1))
    crop = int(np.clip(short[len(short) // 10] // STEP * STEP, *SIDES))
    rows, columns = (int(n) for n in np.median(facts.sizes[usable], axis=0))
    advice.append(Advice("data.crop", crop, f"9 of 10 training images hold it; the median image has {columns} x {rows} pixels"))
    room = (_memory() if memory is None else memory) / 4 / BYTES
    largest = max(1, min(PIXELS, int(room)) // crop**2)
    batch = min(2 ** (largest.bit_length() - 1), 32, 2 ** (int(usable.sum()).bit_length() - 1))
    advice.append(
        Advice("data.batch_size", batch, f"{batch * crop**2 / 1e6:.1f} million pixels; {batch * crop**2 * BYTES / 2**30:.1f} GiB")
    )
    if "binary" not in kinds:
        histograms = facts.pixels[usable]
        weights = np.sqrt(median_frequency_weights(count_pixels(histograms, histograms.shape[1])))
        if weights.max() / weights.min() >= np.sqrt(IMBALANCE):
            given = [round(float(weight), 2) for weight in weights]
            advice.append(Advice("class_weights", given, "square roots of median_frequency: the rarest class gets the most"))
    mean, deviation = statistics(facts)
    if abs(mean.mean() - NATURAL[0]) > FAR or not 0.5 < deviation.mean() / NATURAL[1] < 2:
        told = f"mean {mean.mean():.2f}, deviation {deviation.mean():.2f}; photographs have {NATURAL[0]:.2f} and {NATURAL[1]:.2f}"
        advice.append(Advice("data.normalize", "dataset", told))
    return advice


def mapping(values: Sequence[str], config: DataConfig, classes: int) -> str:
    """The option that ignores values of mask files which stand for no class, to be filled in; "" where a mapping is no remedy.

    Args:
        values: The values, as numbers or `#rrggbb`.
        config: How masks are read: what stands for a class now does so still.
        classes: Number of classes.
    """
    if not values or len(values) > LISTED or config.kind not in ONLY["mapping"] or config.masks == "binary":
        return ""
    known = config.mapping or ({} if config.masks == "colors" else {str(k): k for k in range(classes)})
    pairs = (known | dict.fromkeys(values, IGNORE_INDEX)).items()
    return f"--data.mapping {shlex.quote(_flow({old if old.startswith('#') else int(old): new for old, new in pairs}))}"


def statistics(facts: SplitFacts) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every channel over all usable images, each weighted by its pixels, in [0, 1]."""
    weight = facts.sizes[facts.usable].prod(axis=1, dtype=np.float64)
    mean = np.average(facts.mean[facts.usable], axis=0, weights=weight)
    square = np.average(facts.square[facts.usable], axis=0, weights=weight)
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def command(advice: Sequence[Advice], config: CheckConfig) -> str:
    """The options on one command line, after those that say where the data are."""
    words = [f"--{name} {_word(value)}" for name, value in (_given(config) | {one.option: one.value for one in advice}).items()]
    return " ".join(["python scripts/train.py", *words])


def for_shards(advice: Sequence[Advice], config: CheckConfig, folder: Path) -> tuple[list[Advice], CheckConfig]:
    """The same for the data set as shards in a folder, which hold class ids and have their splits."""
    default = DataConfig()
    without = {name: getattr(default, name) for name, kinds in ONLY.items() if "shards" not in kinds}
    data = replace(config.data, kind="shards", root=str(folder), download=False, **without)
    return [one for one in advice if one.option.removeprefix("data.") not in without], replace(config, data=data)


def configuration(advice: Sequence[Advice], config: CheckConfig, about: str) -> str:
    """The same as a YAML file that `train.py --config` takes, with the reasons as comments.

    Args:
        advice: The options.
        config: What was asked for, of which everything that says where the data are and how they are read is kept.
        about: One line on the data.
    """
    values = {name: (value, "") for name, value in _given(config, absolute=True).items()}
    values |= {one.option: (one.value, one.reason) for one in advice}
    lines = [f"# {' '.join(about.split())}", "# written by check_data.py; train with: python scripts/train.py --config THIS_FILE"]

    def line(name: str, value: Any, reason: str, indent: str = "") -> str:
        return f"{indent}{name}: {_flow(value)}{f'  # {reason}' if reason else ''}"

    lines += [line(name, value, reason) for name, (value, reason) in values.items() if not name.startswith("data.")]
    lines += ["data:", *(line(n.removeprefix("data."), v, r, "  ") for n, (v, r) in values.items() if n.startswith("data."))]
    return "\n".join(lines) + "\n"


def _given(config: CheckConfig, absolute: bool = False) -> dict[str, Any]:
    """The options that say where the data are and how they are read: those that differ from their defaults."""
    default, data = asdict(DataConfig()), asdict(config.data)
    given = {f"data.{name}": list(value) if isinstance(value, tuple) else value for name, value in data.items() if value != default[name]}
    if absolute and config.data.root is not None:
        given["data.root"] = str(Path(config.data.root).expanduser().resolve())
    given.setdefault("data.kind", config.data.kind)
    given.pop("data.download", None)  # it is here by now
    return ({"in_channels": config.in_channels} if config.in_channels != 3 else {}) | {"data.kind": given.pop("data.kind"), **given}


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False).removesuffix("...\n").strip()


def _word(value: Any) -> str:
    """A value as one word of a command line."""
    return shlex.quote(value if isinstance(value, str) else _flow(value).replace(", ", ","))


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 * 2**30
