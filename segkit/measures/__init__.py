"""What an evaluation measures beside its confusion matrices: callbacks that listen to it, and what is told of their results."""

from segkit.measures.artefacts import ArtefactMeasures, operator_indices
from segkit.measures.boundary import BoundaryMeasures, boundary_summary
from segkit.measures.calibration import CalibrationMeasures
from segkit.measures.extremes import Chosen, Extremes, choose
from segkit.measures.words import Clock, lines

__all__ = [
    "ArtefactMeasures",
    "BoundaryMeasures",
    "CalibrationMeasures",
    "Chosen",
    "Clock",
    "Extremes",
    "boundary_summary",
    "choose",
    "lines",
    "operator_indices",
]
