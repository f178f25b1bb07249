"""Figures of a sweep over time."""

from __future__ import annotations

import dataclasses

from reporting import END
from synthetic import lane, sweep_of

from dqn_jax.report import sweep_figures
from dqn_jax.report.view import View


def test_one_evaluation_is_a_point_in_every_figure_over_time():
    data = sweep_of([lane(0, s, final_return=100.0 * s) for s in range(3)], {}, criteria=[])
    view = View.of(dataclasses.replace(data, curves=data.curves[data.curves["env_steps"] == END]))
    for chart in (sweep_figures.learning_curves([view]), sweep_figures.values(view)):
        marked = [line.get_marker() for line in chart.axes[0].lines if len(line.get_xdata()) == 1]
        assert len(marked) == 4  # three seeds and their mean
        assert set(marked) <= {".", "o"}
