import dataclasses
import json

import pytest

from segkit.ablation.fairness import BY_DESIGN, RECORDS, check_fairness, groups, may_differ
from segkit.ablation.study import load_study
from segkit.config import DataConfig, TrainConfig, TrainerConfig

OPTIONS = {field.name for field in dataclasses.fields(TrainConfig)} - {"data", "trainer", "wandb"}
OPTIONS |= {f"data.{field.name}" for field in dataclasses.fields(DataConfig)} | {
    f"trainer.{field.name}" for field in dataclasses.fields(TrainerConfig)
}


def test_arms_that_agree_are_fair(finished):
    assert check_fairness(finished) == []


@pytest.mark.parametrize(("record", "value"), [
    ("initial", "0" * 64), ("order", "0" * 64), ("batches", "0" * 64), ("schedule", "0" * 64), ("step", 399), ("code", "0" * 64),
    ("device", "Another processor"), ("precision", "bf16-mixed"), ("deterministic", True), ("processes", 2), ("initial", None),
])  # fmt: skip
def test_a_difference_names_arm_seed_and_record(tmp_path, write_study, alter, record, value):
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0, "c": 0}, seeds=2))
    alter(study, "b", 1, **{record: value})
    (problem,) = check_fairness(load_study(study.folder))
    assert problem.startswith(f"b, seed 1: {RECORDS[record]} differ from those of a (")
    told = {None: "not recorded", "0" * 64: "00000000"}.get(value, str(value))
    assert f"({told}, not " in problem


def test_scores_of_another_code_are_unfair(tmp_path, write_study):
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0}, seeds=1))
    path = study.arm("b").runs[0].evaluation / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "code": "0" * 64}))
    (problem,) = check_fairness(load_study(study.folder))
    assert problem.startswith("b, seed 0: scoring code differ from those of a (00000000, not ")


def test_of_the_software_what_differs_is_told(tmp_path, write_study, alter):
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0}, seeds=1))
    alter(study, "b", 0, software={"segkit": "0.2.0", "torch": "2.16.0", "extra": "1"})
    assert check_fairness(load_study(study.folder)) == [
        "b, seed 0: software versions differ from those of a (extra 1, torch 2.16.0, not extra absent, torch 2.15.0)"
    ]


def test_what_nobody_recorded_is_not_proven(tmp_path, write_study, alter):
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0}, seeds=1))
    for arm in "ab":
        alter(study, arm, 0, order=None)
    assert len(check_fairness(load_study(study.folder))) == 2


def test_other_images_are_unfair(tmp_path, write_study):
    study = load_study(write_study(tmp_path / "1", {"a": 0, "b": 0}, seeds=1))
    other = load_study(write_study(tmp_path / "2", {"a": 0, "b": 0}, seeds=1, images=25))
    (other.arm("b").runs[0].evaluation / "per_image.npz").replace(study.arm("b").runs[0].evaluation / "per_image.npz")
    (problem,) = check_fairness(load_study(study.folder))
    assert problem.startswith("b, seed 0: scored images and their truth differ")


def test_an_axis_changes_its_records_and_no_others(tmp_path, write_study, alter):
    settings = {f"{up}, lr={lr}": {"upsample": up, "lr": lr} for up in ("transpose", "bilinear") for lr in (0.001, 0.003)}
    folder = write_study(
        tmp_path,
        dict.fromkeys(settings, 0.0),
        seeds=1,
        settings=settings,
        axes={"upsample": ["transpose", "bilinear"], "lr": [0.001, 0.003]},
    )
    study = load_study(folder)
    assert check_fairness(study) == []  # the schedules of the two learning rates differ
    assert [[arm.name for arm in group] for group in groups(study, 0, "schedule")] == [
        ["transpose, lr=0.001", "bilinear, lr=0.001"],
        ["transpose, lr=0.003", "bilinear, lr=0.003"],
    ]
    alter(study, "bilinear, lr=0.003", 0, schedule="1" * 64)  # differs by design from the baseline, but not from its like
    (problem,) = check_fairness(load_study(folder))
    assert problem.startswith(
        "bilinear, lr=0.003, seed 0: objective, optimiser and learning rates differ from those of transpose, lr=0.003"
    )


def test_an_aa_arm_has_other_seeds_and_nothing_else(tmp_path, write_study, alter):
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0}, seeds=2, aa=True))
    assert study.arm("a (A/A)").runs[0].provenance["seed"] == 2
    assert check_fairness(study) == []
    alter(study, "a (A/A)", 0, schedule="1" * 64)
    (problem,) = check_fairness(load_study(study.folder))
    assert problem.startswith("a (A/A), seed 0")


def test_runs_that_are_not_finished_prove_and_break_nothing(tmp_path, write_study):
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0}, seeds=2, unfinished=[("a", 0)], failed=[("b", 1)]))
    assert check_fairness(study) == []
    (study.arm("b").runs[1].folder / "provenance.json").write_text(json.dumps({"order": "1"}))
    assert check_fairness(load_study(study.folder)) == []


def test_the_table_of_designs_knows_the_options():
    assert set(BY_DESIGN) <= OPTIONS
    assert {record for records in BY_DESIGN.values() for record in records} <= set(RECORDS)
    assert all(may_differ(option) == () for option in OPTIONS if option.startswith("upsample"))
    assert may_differ("data.crop") == ("batches",)
    assert all("truth" not in may_differ(option) for option in OPTIONS)


CHANGED = {
    "optimizer": "sgd", "lr": 1e-4, "encoder_lr": 0.1, "weight_decay": 0.1, "momentum": 0.8, "schedule": "poly", "warmup": 0.3,
    "loss": "dice", "class_weights": [1, 1, 2.0], "label_smoothing": 0.1, "deep_supervision": 0.4, "dropout": 0.1, "ema": 0.9,
    "upsample": "nearest", "upsample_init": "standard",
    "norm": "group", "decoder_channels": [8, 4], "in_channels": 1, "decoder": "fcn16s", "deterministic": True, "channels_last": False,
    "trainer.accumulate": 2, "trainer.clip": 0.5, "trainer.precision": "bf16-mixed", "trainer.max_steps": 3, "upsample_width": [4, 4],
}  # fmt: skip


@pytest.mark.parametrize("option", CHANGED)
def test_what_an_option_changes_in_what_a_run_records_is_in_the_table(option):
    import torch

    from segkit.models import build_model
    from segkit.provenance import provenance

    def record(config):
        torch.manual_seed(0)
        names = ("encoder", "encoder_weights", "in_channels", "upsample", "upsample_init", "upsample_width", "norm", "dropout")
        options = {name: getattr(config, name) for name in names}
        model = build_model(config.decoder, 3, decoder_channels=config.decoder_channels, **options)
        return provenance(config, model, config.trainer.max_steps, 1)

    where, _, name = option.rpartition(".")
    config = TrainConfig(decoder_channels=[6, 4], trainer=TrainerConfig(max_steps=4))
    before = record(config)
    setattr(config.trainer if where else config, name, CHANGED[option])
    after = record(config)
    changed = {key for key in RECORDS if key in before and before[key] != after[key]}
    assert changed == set(may_differ(option)) & before.keys()
