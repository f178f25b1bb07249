"""Readings and episodes as the host notes them."""

from __future__ import annotations

import numpy as np
import pytest

from dqn_jax.lanes.history import History
from dqn_jax.lanes.lane import WarmupMetrics


@pytest.mark.parametrize(("rows_before_acting", "ended"), [(False, [4, 8]), (True, [2, 6])])
def test_an_episode_is_dated_by_the_step_that_ended_it(rows_before_acting, ended):
    """Of 4 vector steps of 2 environments, the second and the last report an end."""
    returns = np.full((1, 4, 2), np.nan, np.float32)
    returns[0, 1, 0], returns[0, 3, 1] = 5.0, 7.0
    history = History([0], num_envs=2, rows_before_acting=rows_before_acting)
    history.add_warmup(WarmupMetrics(np.ones((1, 4)), returns))
    (curve,) = history.curves()
    assert curve.episode_env_steps.tolist() == ended
    assert curve.episode_return.tolist() == [5.0, 7.0]
