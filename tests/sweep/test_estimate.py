"""How long a sweep may take."""

from __future__ import annotations

import json
import shutil

import pytest
from sweeping import (
    ENV,
    planned,
    programs_of,
)
from sweeping import compiled as compiled  # a fixture

from dqn_jax.sweep import estimate


def test_time_is_estimated_from_what_ran_here_or_is_measured(tmp_path, compiled, whole):
    plan, asked = planned(), {**whole.data.settings, "confirm": None}
    assert estimate.recorded(tmp_path, asked, plan) is None
    shutil.copytree(whole.directory, tmp_path / "tiny" / "1")
    (session,) = json.loads((whole.directory / "plan.json").read_text())["sessions"]
    rate = session["lane_steps"] / (session["seconds"] - session["compile_seconds"])
    speed = estimate.recorded(tmp_path, asked, plan)
    assert speed.lane_steps_per_second == pytest.approx((rate, rate))
    assert speed.source == f"as in 1 earlier sweep of {ENV} in {tmp_path}"
    elsewhere = {**asked, "config": {**asked["config"], "env": "CartPole-v1"}}
    assert estimate.recorded(tmp_path, elsewhere, plan) is None
    (tmp_path / "tiny" / "1" / "plan.json").write_text("{}")
    assert estimate.recorded(tmp_path, asked, plan) is None
    text = estimate.describe(plan, asked, estimate.Speed((10.0, 41.6), 30.0, "so"))
    assert text == "time: at most about 2.5 min to 8.8 min (estimated so)"  # 4,992 steps and a program
    assert "not known" in estimate.describe(plan, asked, None)


def test_one_chunk_is_measured_where_nothing_has_run(monkeypatch):
    monkeypatch.setattr(estimate, "make_programs", lambda config, hparams, lanes: programs_of(config, hparams, lanes))
    slow, fast = estimate.measured(planned()).lane_steps_per_second
    assert 0 < slow < fast
    monkeypatch.setattr(estimate, "_MOST_WORK", 10.0)
    assert estimate.measured(planned()) is None
