"""The pages of sweeps are written whole from whatever a sweep finds: here, from sweeps that nobody ran."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import synthetic
from synthetic import lane, sweep_of

from experiments.convergence import cartpole, common, pendulum


@pytest.fixture
def written(tmp_path, monkeypatch):
    """The page that an experiment writes of a sweep, without its figures."""
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(common, "write_results", lambda name, view, figures: ["slices", "survival"])

    def write(module, data):
        monkeypatch.setattr(common, "run", lambda *arguments, **asked: SimpleNamespace(data=data))
        module.main()
        return (tmp_path / module.__name__.rpartition(".")[2] / "README.md").read_text()

    return write


def test_the_page_of_the_cartpole_search_names_the_leaders_by_both_clocks(written):
    page = written(cartpole, synthetic.sweep(9, 3))
    assert page.startswith("# CartPole-v1: fewest steps, fewest seconds\n\nWhich setting")
    assert "**Fewest steps: trial " in page
    assert page.count("| trial | converged | mean env steps | env steps per solved seed | settings |") == 2
    assert page.count("| trial | converged | mean seconds | seconds per solved seed | settings |") == 2
    assert page.endswith("|\n\n![slices](slices.png)\n\n![survival](survival.png)\n")


def test_the_page_of_pendulum_has_a_table_for_each_setting_over_all_else(written):
    grid = list(itertools.product((3, 5), (1, 2), (0.9, 0.95), (5e-4, 1e-3)))
    lanes = [lane(t, s, converged_env_steps=2_000.0 + 1_000 * t) for t in range(len(grid)) for s in range(2)]
    lanes += [lane(t, 100 + s, phase="confirm", converged_env_steps=9_000.0 + t) for t in (0, 1) for s in range(2)]
    points = dict(zip(pendulum.VARY, map(list, zip(*grid, strict=True)), strict=True))
    data = sweep_of(lanes, points, vary=pendulum.VARY, confirm={"seeds": [100, 101], "best": 2})
    page = written(pendulum, data)
    for name in pendulum.VARY:
        assert f"\n\n## Over all else: {name}\n\n| {name} | lanes | converged | mean env steps |\n" in page
    marginal = np.mean([2_000 + 1_000 * t for t, point in enumerate(grid) if point[0] == 3])
    assert f"\n| 3 | 16 | 100% [79%, 100%] | {marginal:,.0f} [" in page
