"""What is under the pointer in a figure, and that it can be seen."""

from __future__ import annotations

import re

import matplotlib.colors
import numpy as np
import pytest
from reporting import HAND
from synthetic import sweep_of

from dqn_jax.report import axes, space_figures, sweep_figures
from dqn_jax.report.view import View
from dqn_jax.runs import figures


def test_each_mark_says_which_trial_it_is():
    data = sweep_of(HAND, {"learning_rate": [1e-3, 2e-3, 4e-3], "discount": [0.9, 0.95, 0.99]})
    view = View.of(data)
    drawn = [
        *(draw(view) for draw in (space_figures.slices, space_figures.parallel_coordinates, sweep_figures.cost)),
        *(draw([view]) for draw in (sweep_figures.survival, sweep_figures.learning_curves, sweep_figures.profile)),
        sweep_figures.stability(view),
    ]
    titles = [title for chart in drawn for title in chart.told]
    trial = "trial 1: 2 of 3 [9%, 99%] converged, mean environment steps 50,000 ["
    found = [title for title in titles if title.startswith(trial) and "; learning_rate 0.002, discount 0.95" in title]
    assert len(found) == 6  # survival, slices, parallel coordinates, stability, profile, cost
    assert any(title.endswith("; device-seconds 30") for title in found)
    assert any("; stability 0.8" in title for title in found)
    assert any(title.startswith("mean of trial 0: 3 of 3") for title in titles)
    assert "trial 1, seed 2: converged at 40,000 environment steps, last evaluation 500" in titles
    assert "trial 1, seed 1: not converged, last evaluation -, diverged" in titles

    # The dots are where the points are: in both panels at one height, and what is slower is higher.
    svg = drawn[0].svg()
    assert 'viewBox="0 0 648 ' in svg
    overlay = drawn[0].overlay()
    assert 'viewBox="0 0 648.0 ' in overlay
    dots = {
        title: [(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h0", rest)]
        for title, rest in re.findall(r"<title>(trial \d)[^<]*</title>(.*?)</g>", overlay)
    }
    assert {len(places) for places in dots.values()} == {2}
    assert all(places[0][1] == places[1][1] for places in dots.values())
    (x0, y0), (x1, y1), (x2, y2) = (dots[f"trial {i}"][0] for i in range(3))
    assert (y0 - y1) / (y1 - y2) == pytest.approx(1.0, abs=0.05)  # 30,000, 50,000 and 70,000 steps
    assert (x1 - x0) / (x2 - x1) == pytest.approx(1.0, abs=0.05)  # 0.001, 0.002 and 0.004 on a logarithmic axis


def test_dots_stand_out_from_white():
    def contrast(colour):  # WCAG 2: of graphical objects at least 3
        channels = np.asarray(matplotlib.colors.to_rgb(colour))
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)

    ramp = axes.dark_is_good(reverse=False)
    assert min(contrast(ramp(share)) for share in np.linspace(0, 1, 21)) > 3
    assert min(map(contrast, [*figures.COLOURS, axes.GREY])) > 3
