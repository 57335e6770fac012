"""What trained runs predict, for the figure of the images on which they differ."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segkit.ablation.pictures import Prediction


def predictor(split: str) -> "Callable[[Path, int], Prediction]":
    """A function of a run's folder and the index of an image in `split`; the network that was asked last is kept.

    Args:
        split: The images that were scored.
    """
    from functools import lru_cache

    from segkit.ablation.pictures import Prediction
    from segkit.cli.parsing import saved_config
    from segkit.data.module import SegmentationDataModule
    from segkit.data.source import Source
    from segkit.panels import viewable
    from segkit.runs import find_checkpoint
    from segkit.task import SegmentationTask

    @lru_cache(maxsize=1)
    def opened(folder: Path) -> tuple[SegmentationTask, Source]:
        task = SegmentationTask.load(find_checkpoint(folder))
        trained = saved_config(task.run_config or {}, str(folder))
        return task, SegmentationDataModule(trained.data, trained.seed, trained.in_channels).sources[split]

    def predict(folder: Path, index: int) -> Prediction:
        task, source = opened(folder)
        image, mask = source.read(index)
        return Prediction(viewable(image), mask, task.predict(image), task.colors)

    return predict
