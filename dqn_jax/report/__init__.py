"""Figures of runs, and the report of a sweep: one page that opens anywhere, its figures, and tables for machines."""

from dqn_jax.report.command import report_command
from dqn_jax.runs.figures import X_AXES, Y_AXES, Aggregate, RunData, plot_runs

__all__ = ["X_AXES", "Y_AXES", "Aggregate", "RunData", "plot_runs", "report_command"]
