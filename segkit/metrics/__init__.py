"""How good a segmentation is."""

from segkit.metrics.confusion import Scores, confusion_matrices, confusion_matrix, labels, scores

__all__ = ["Scores", "confusion_matrices", "confusion_matrix", "labels", "scores"]
