"""What a report looks at: finished trials only."""

from __future__ import annotations

import pytest
from synthetic import lane, sweep_of

from dqn_jax.config import ConfigError
from dqn_jax.report.caveats import caveats
from dqn_jax.report.view import View
from dqn_jax.sweep import results


def test_trials_with_seeds_still_running_are_left_out():
    data = sweep_of([lane(0, 0), lane(0, 1), lane(1, 0, converged_env_steps=5_000)], seeds=[0, 1])
    whole = results.finished(data)
    assert set(whole.lanes["trial"]) == set(whole.curves["trial"]) == {0}
    assert results.ranked(data)["trial"].tolist() == [0]
    assert results.ranked(sweep_of([lane(0, 0)], seeds=[0, 1])).empty
    view = View.of(data)
    assert view.left_out == 1
    assert any("1 of 2 trials" in text for text in caveats(view))
    with pytest.raises(ConfigError, match="no trial with all its seeds finished"):
        View.of(sweep_of([lane(0, 0)], seeds=[0, 1]))
    with pytest.raises(ConfigError, match="no finished lanes yet"):
        View.of(sweep_of([]))
