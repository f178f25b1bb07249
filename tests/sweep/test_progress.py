"""What a display is told adds up."""

from __future__ import annotations

import pytest
from sweeping import (
    ASKED,
)
from sweeping import compiled as compiled  # a fixture

from dqn_jax.sweep import sweep
from dqn_jax.sweep.results import ranked
from dqn_jax.sweep.tables import STATUSES


def test_progress_adds_up(tmp_path, compiled, whole):
    seen = []
    result = sweep(**ASKED, wave=6, out=tmp_path / "sweep", on_progress=seen.append)
    assert [p.wave for p in seen if p.phase == "compile"] == [0, 1]
    assert {p.waves for p in seen} == {2}
    for progress in seen:
        assert sum(progress.lanes.values()) + progress.running + progress.waiting == 12
        assert set(progress.lanes) <= set(STATUSES)
        assert progress.total_steps in (1, 416)
    counts = result.data.lanes["status"].value_counts().to_dict()
    assert {status: n for status, n in seen[-1].lanes.items() if n} == counts
    assert (seen[-1].running, seen[-1].waiting, seen[-1].seconds_left) == (0, 0, 0)
    best = ranked(result.data).iloc[0]
    assert seen[-1].best == ({"learning_rate": best["learning_rate"]}, pytest.approx(best["time"]))
    assert all(p.lane_steps_per_second > 0 and p.seconds_left >= 0 for p in seen if p.phase == "run")
