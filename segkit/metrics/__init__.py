"""How good a segmentation is."""

from segkit.metrics.artefacts import NetworkIndex, Spectrum, alone, checkerboard_index, operator_index, phase_gains
from segkit.metrics.boundary import bf_scores, boundary_counts, boundary_iou, trimap_matrices
from segkit.metrics.calibration import Calibration, Reliability
from segkit.metrics.confusion import Scores, confusion_matrices, confusion_matrix, labels, scores

__all__ = [
    "Calibration",
    "NetworkIndex",
    "Reliability",
    "Scores",
    "Spectrum",
    "alone",
    "bf_scores",
    "boundary_counts",
    "boundary_iou",
    "checkerboard_index",
    "confusion_matrices",
    "confusion_matrix",
    "labels",
    "operator_index",
    "phase_gains",
    "scores",
    "trimap_matrices",
]
