"""Ablations: a plan of arms and seeds becomes runs, runs become statistics, statistics a report."""
