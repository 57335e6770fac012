"""What the runs of one arm counted, image by image, and the scores of a data set that follow from it.

    S  seeds    N  images    K  classes

Every score comes from counts summed over the images, never from an average of per-image scores.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segkit.errors import SegkitError

ScoreFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]
Score = Literal["miou"] | int | ScoreFunction


def iou(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Intersection over union of summed counts, elementwise, in [0, 1]; NaN where the union is empty."""
    values: np.ndarray = np.divide(intersection, union, out=np.full(np.shape(union), np.nan), where=np.asarray(union) > 0)
    return values


def miou(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Mean IoU of summed counts, `[..., K] -> [...]`: over the classes whose union is not empty, NaN if there are none."""
    present = np.asarray(union) > 0
    total = np.divide(intersection, union, out=np.zeros(np.shape(union)), where=present).sum(-1)
    classes = present.sum(-1)
    return iou(total, classes)


def score_function(score: Score, classes: int) -> ScoreFunction:
    """The function of (intersection, union), `[..., K] -> [...]`, that a score stands for.

    Args:
        score: "miou", the index of a class, or such a function itself.
        classes: K.

    Raises:
        SegkitError: The name or the class is unknown.
    """
    if callable(score):
        return score
    if score == "miou":
        return miou
    if isinstance(score, int) and 0 <= score < classes:
        return lambda intersection, union: iou(intersection[..., score], union[..., score])
    raise SegkitError(
        f"score {score!r}: give 'miou', the index of a class from 0 to {classes - 1}, or a function of intersection and union"
    )


@dataclass(frozen=True)
class Counts:
    """Intersections and unions of one arm: of whole regions for IoU, of boundary bands for boundary IoU, of any pair of sets.

    Args:
        intersection: Integer `[S, N, K]`, pixels of each class that truth and prediction share.
        union: Integer `[S, N, K]`, pixels of each class in either; the images are the same ones, in the same order, for every seed.
    """

    intersection: np.ndarray
    union: np.ndarray

    def __post_init__(self) -> None:
        assert self.intersection.ndim == 3, self.intersection.shape
        assert self.intersection.shape == self.union.shape, (self.intersection.shape, self.union.shape)
        assert self.intersection.size > 0, self.intersection.shape
        assert (self.intersection >= 0).all()
        assert (self.intersection <= self.union).all()

    @classmethod
    def from_matrices(cls, matrices: np.ndarray | Iterable[np.ndarray]) -> "Counts":
        """The counts of confusion matrices, rows truth, columns prediction.

        Args:
            matrices: Integer `[S, N, K, K]`, or one `[N, K, K]` after the other: read singly, many large runs fit in memory.

        Raises:
            SegkitError: The seeds have different shapes, or what they have are no confusion matrices.
        """
        counted: list[tuple[np.ndarray, np.ndarray]] = []
        shape = None
        for matrix in matrices:
            shape = shape or matrix.shape
            if matrix.shape != shape or len(shape) != 3 or shape[1] != shape[2] or not matrix.size:
                raise SegkitError(f"confusion matrices of shape {matrix.shape}: give [images, classes, classes], the same for every seed")
            counted.append((np.diagonal(matrix, axis1=1, axis2=2).astype(np.int64), (matrix.sum(1) + matrix.sum(2)).astype(np.int64)))
        if not counted:
            raise SegkitError("no confusion matrices: give those of one seed at least")
        intersection, both = (np.stack(parts) for parts in zip(*counted, strict=True))
        return cls(intersection, both - intersection)

    def class_iou(self) -> np.ndarray:
        """IoU of every class over all images, `[S, K]`; NaN where the class is absent from truth and prediction."""
        return iou(*self.summed())

    def miou(self) -> np.ndarray:
        """Mean IoU over the classes present, `[S]`."""
        return miou(*self.summed())

    def summed(self) -> tuple[np.ndarray, np.ndarray]:
        """Intersection and union of the whole data set, `[S, K]` each."""
        return self.intersection.sum(1), self.union.sum(1)
