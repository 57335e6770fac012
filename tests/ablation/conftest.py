"""Trials of a few seconds."""

from dataclasses import asdict

import pytest

from segkit.ablation.trial import Trial
from segkit.cli.train import plain
from segkit.config import DataConfig, TrainConfig, TrainerConfig, WandbConfig


@pytest.fixture
def make_trials(tmp_path):
    """Make trials that differ in their seed: real ones, with a training of two steps unless told otherwise."""

    def make(count=2, steps=2, **options):
        data = DataConfig(batch_size=2, crop=32, scenes_size=48, scenes_train=4, scenes_val=2, scenes_test=2)
        trainer = TrainerConfig(max_steps=steps, val_every=steps, accelerator="cpu", devices=1)
        base = {"decoder_channels": [4, 4], "data": data, "trainer": trainer, "wandb": WandbConfig(mode="disabled", panels=0)}
        configs = [plain(asdict(TrainConfig(**{**base, "seed": seed, **options}))) for seed in range(count)]
        return [Trial(str(tmp_path / "runs" / "trials" / f"trial{seed}"), config, "test") for seed, config in enumerate(configs)]

    return make
