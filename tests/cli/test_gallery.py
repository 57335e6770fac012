from dataclasses import asdict

import numpy as np

from segkit.checkpoint import save_checkpoint
from segkit.cli.gallery import predictor
from segkit.cli.resuming import plain
from segkit.cli.train import build_task
from segkit.config import DataConfig, TrainConfig
from segkit.data.module import SegmentationDataModule


def test_a_run_predicts_an_image_of_its_split(tmp_path):
    data = DataConfig(scenes_size=48, scenes_train=1, scenes_val=0, scenes_test=3)
    config = TrainConfig(decoder_channels=[8, 4], data=data)
    module = SegmentationDataModule(data, config.seed)
    task = build_task(config, module.classes.names, module.classes.colors, None)
    assert task.run_config == plain(asdict(config))
    state = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams), "config": task.run_config, "global_step": 0}
    (tmp_path / "checkpoints").mkdir()
    save_checkpoint(state, tmp_path / "checkpoints" / "last.ckpt")
    predict = predictor("test")
    for index in (2, 0):
        said = predict(tmp_path, index)
        image, mask = module.sources["test"].read(index)
        np.testing.assert_array_equal(said.image, image)
        np.testing.assert_array_equal(said.mask, mask)
        np.testing.assert_array_equal(said.labels, task.predict(image))
        assert said.colors == task.colors
