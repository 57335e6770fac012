"""Figures for papers, one kind a file; matplotlib is imported here only, and only when something is drawn."""

from segkit.figures.benchmark import Mark, draw_benchmark
from segkit.figures.confusion import draw_confusion
from segkit.figures.curves import Curve, draw_curves
from segkit.figures.features import Network, Stage, draw_features, record_stages
from segkit.figures.operators import CHANNELS, OperatorResponses, build_variants, draw_operators, measure_operator
from segkit.figures.overlap import RULE, Geometry, draw_overlap, list_geometries
from segkit.figures.page import ResponseRow, draw_page
from segkit.figures.reliability import draw_reliability
from segkit.figures.responses import Responses, measure_responses
from segkit.figures.style import save

__all__ = [
    "CHANNELS",
    "RULE",
    "Curve",
    "Geometry",
    "Mark",
    "Network",
    "OperatorResponses",
    "ResponseRow",
    "Responses",
    "Stage",
    "build_variants",
    "draw_benchmark",
    "draw_confusion",
    "draw_curves",
    "draw_features",
    "draw_operators",
    "draw_overlap",
    "draw_page",
    "draw_reliability",
    "list_geometries",
    "measure_operator",
    "measure_responses",
    "record_stages",
    "save",
]
