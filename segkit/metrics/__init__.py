"""How good a segmentation is."""

from segkit.metrics.artefacts import checkerboard_index, operator_index, phase_gains
from segkit.metrics.confusion import Scores, confusion_matrices, confusion_matrix, labels, scores

__all__ = [
    "Scores",
    "checkerboard_index",
    "confusion_matrices",
    "confusion_matrix",
    "labels",
    "operator_index",
    "phase_gains",
    "scores",
]
