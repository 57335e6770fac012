"""Figures for papers, one kind a file; matplotlib is imported here only, and only when something is drawn."""

from segkit.figures.operators import OperatorResponses, draw_operators, measure_operator
from segkit.figures.style import save

__all__ = ["OperatorResponses", "draw_operators", "measure_operator", "save"]
