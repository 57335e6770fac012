"""The images that are shown after an evaluation: the worst, the best, and for each class the one on which it fails most.

N images, K classes, H W rows, columns.
"""

from typing import Any, NamedTuple

import numpy as np
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer

from segkit.results import image_scores


class Chosen(NamedTuple):
    """Positions of the chosen among N images.

    Args:
        worst: Those with the lowest mean IoU over the classes in each, the lowest first.
        best: Those with the highest, the highest first.
        failed: For each class with a wrong pixel the image with most of them, missed and false ones together.
    """

    worst: list[int]
    best: list[int]
    failed: dict[int, int]

    def all(self) -> list[int]:
        """Each position once, in order."""
        return sorted({*self.worst, *self.best, *self.failed.values()})


def choose(miou: np.ndarray, wrong: np.ndarray, count: int) -> Chosen:
    """Chooses `count` of the worst and of the best images each; of equals, the first.

    Args:
        miou: `[N]`, NaN for an image with nothing to score, which is not chosen.
        wrong: Wrong pixels of each class, `[N, K]`.
        count: How many; 0 chooses none for the classes either.
    """
    if not count:
        return Chosen([], [], {})
    scored = (~np.isnan(miou)).sum()  # NaN are sorted to the end
    worst, best = (np.argsort(values, kind="stable")[: min(count, scored)].tolist() for values in (miou, -miou))
    return Chosen(worst, best, {k: int(wrong[:, k].argmax()) for k in range(wrong.shape[1]) if wrong[:, k].any()})


class Extremes(Callback):
    """Keeps the label maps of the images that are chosen in the end while the validation passes by, so that none is predicted twice.

    What is chosen among all images is chosen among any part of them that it is in: so little is kept, and so several processes agree.

    Args:
        count: As in `choose`.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.maps: dict[int, np.ndarray] = {}
        self.scores: dict[int, tuple[float, np.ndarray]] = {}  # mean IoU, wrong pixels of each class

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self.maps, self.scores = {}, {}

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keeps what may still be chosen of the `prediction` [B, H, W] in `outputs`, by the confusion `matrices` [B, K, K]."""
        found = image_scores(outputs["matrices"].cpu().numpy())
        new = {int(index): place for place, index in enumerate(batch["index"].tolist())}
        self.scores |= {index: (float(found.miou[place]), found.wrong[place]) for index, place in new.items()}
        indices = sorted(self.scores)
        miou, wrong = (np.array(column) for column in zip(*(self.scores[index] for index in indices), strict=True))
        kept = [indices[place] for place in choose(miou, wrong, self.count).all()]
        self.scores = {index: self.scores[index] for index in kept}
        self.maps = {i: self.maps[i] if i in self.maps else outputs["prediction"][new[i]].cpu().numpy() for i in kept}

    def gathered(self, indices: list[int]) -> dict[int, np.ndarray]:
        """The label maps uint8 `[H, W]` of these images, from whichever process has them; every process must call it."""
        own = {index: self.maps[index] for index in indices if index in self.maps}
        parts = [own]
        if dist.is_available() and dist.is_initialized():
            everyone: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(everyone, own)
            parts = everyone
        return {index: labels for part in parts for index, labels in part.items()}
