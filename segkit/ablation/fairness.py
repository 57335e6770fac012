"""The proof that arms differ in nothing but what they were asked to differ in: within one seed, what their runs recorded must agree."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from segkit.ablation.study import Run, Study, StudyArm

# what must agree, and what the report calls it
RECORDS = {
    "initial": "initial weights outside the operators",
    "order": "order of the samples",
    "batches": "augmented training batches",
    "schedule": "objective, optimiser and learning rates",
    "step": "optimiser steps",
    "software": "software versions",
    "code": "training code",
    "device": "device",
    "precision": "precision",
    "deterministic": "deterministic algorithms",
    "processes": "number of processes",
    "scoring": "scoring code",
    "truth": "scored images and their truth",
}
SEEDED = ("initial", "order", "batches")  # what another seed changes
# What an option changes by design: arms that differ in it may differ in these records. What is not listed, --upsample above all, may
# change none; every augmentation (`data.` and not listed) may change the batches.
BY_DESIGN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("decoder", "encoder", "encoder_weights", "decoder_channels", "norm"), ("initial",)),
    "in_channels": ("initial", "batches"),
    **dict.fromkeys(("loss", "class_weights", "label_smoothing", "deep_supervision", "dropout", "ema", "trainer.clip"), ("schedule",)),
    **dict.fromkeys(("optimizer", "lr", "encoder_lr", "weight_decay", "momentum", "schedule", "warmup"), ("schedule",)),
    **dict.fromkeys(("trainer.max_steps", "trainer.max_epochs"), ("schedule", "step", "order", "batches")),
    "trainer.accumulate": ("schedule", "order", "batches"),
    **dict.fromkeys(("data.batch_size", "data.scenes_train"), ("order", "batches")),
    **dict.fromkeys(("trainer.devices", "trainer.num_nodes", "trainer.strategy"), ("processes", "order", "batches")),
    "trainer.accelerator": ("device",),
    "trainer.precision": ("precision",),
    "deterministic": ("deterministic",),
    **dict.fromkeys(("data.eval_batch_size", "data.workers", "data.check", "data.mean", "data.std"), ()),
    **dict.fromkeys(("data.normalize", "data.cache", "data.cache_folder"), ()),
}


@dataclass(frozen=True)
class Difference:
    """Two runs of one seed that differ in what they should share.

    Args:
        arm: The arm that is named.
        reference: The arm that it was held against.
        seed: The seed of the plan.
        record: A key of `RECORDS`.
        ours: What `arm` recorded, in short.
        theirs: What `reference` recorded, in short.
    """

    arm: str
    reference: str
    seed: int
    record: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        told = f"{RECORDS[self.record]} differ from those of {self.reference}"
        return f"{self.arm}, seed {self.seed}: {told} ({self.ours}, not {self.theirs})"


def recorded(run: Run, record: str) -> Any:
    """What a finished run says of itself under a key of `RECORDS`; None where it says nothing."""
    if record == "scoring":
        return run.scores.get("code")
    return run.truth if record == "truth" else run.provenance.get(record)


def may_differ(option: str) -> tuple[str, ...]:
    """The records that an option changes by design."""
    return BY_DESIGN.get(option, ("batches",) if option.startswith("data.") else ())


def shared_settings(arm: StudyArm, record: str) -> str:
    """The settings of an arm that change a record by design: arms that agree in them must agree in it."""
    settings = {option: value for option, value in arm.settings.items() if record in may_differ(option)}
    if arm.aa and record in SEEDED:
        settings["seed"] = "another, by design"
    return json.dumps(settings, sort_keys=True)


def groups(study: Study, seed: int, record: str) -> list[list[StudyArm]]:
    """The arms with a finished run of that seed, parted into those that must agree in a record; the baseline's group comes first."""
    parted: dict[str, list[StudyArm]] = {}
    for arm in sorted(study.arms, key=lambda arm: arm is not study.baseline):
        if seed in arm.finished:
            parted.setdefault(shared_settings(arm, record), []).append(arm)
    return list(parted.values())


def differences(study: Study) -> list[Difference]:
    """Everything in which the finished runs of one seed differ without being asked to."""
    cases = [(group, seed, record) for seed in study.plan.seeds for record in RECORDS for group in groups(study, seed, record)]
    return [found for case in cases for found in _within(*case)]


def _within(group: list[StudyArm], seed: int, record: str) -> Iterator[Difference]:
    reference = group[0]
    theirs = recorded(reference.finished[seed], record)
    for arm in group if theirs is None else group[1:]:  # what is recorded nowhere is proven nowhere
        ours = recorded(arm.finished[seed], record)
        if ours is None or ours != theirs:
            yield Difference(arm.name, reference.name, seed, record, *_apart(ours, theirs))


def _apart(ours: Any, theirs: Any) -> tuple[str, str]:
    """Two different values in short: of two mappings only what differs."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
        return tuple(", ".join(f"{key} {side.get(key, 'absent')}" for key in keys) for side in (ours, theirs))  # type: ignore[return-value]
    return tuple(str(side) if side is not None and len(str(side)) < 64 else short(side) for side in (ours, theirs))  # type: ignore[return-value]


def short(value: Any) -> str:
    """A recorded value for a table: the first eight digits of a hash, or of the hash of what is long."""
    if value is None:
        return "not recorded"
    text = json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)
    if len(text) > 12 and not (len(text) == 64 and text.isalnum()):
        text = hashlib.sha256(text.encode()).hexdigest()
    return text[:8] if len(text) == 64 else text


def check_fairness(study: Study) -> list[str]:
    """One line for everything that differs between arms and should not; empty where the comparison is fair."""
    return [str(difference) for difference in differences(study)]
