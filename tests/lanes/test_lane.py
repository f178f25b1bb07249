"""What both drivers do with a lane: rhythm, and hyperparameters for many."""

from __future__ import annotations

import numpy as np
import pytest
from probes import tiny

from dqn_jax.config import ConfigError, HParams
from dqn_jax.lanes.device import make_loop
from dqn_jax.lanes.lane import stack_hparams


@pytest.mark.parametrize(
    ("total_steps", "min_replay", "chunks"),
    [(104, 0, 2), (105, 0, 3), (114, 10, 2), (115, 10, 3), (105, 1, 2), (9, 9, 1)],
)
def test_the_budget_counts_the_warm_up_and_is_rounded_up_to_whole_chunks(total_steps, min_replay, chunks):
    loop = make_loop(tiny(num_envs=2, eval_every=51, total_steps=total_steps, min_replay=min_replay))
    assert loop.steps_per_chunk == 52  # 51 is not a multiple of 2 environments
    assert loop.num_chunks == chunks


def test_hyperparameters_are_stacked_one_value_per_lane():
    stacked = stack_hparams(HParams(learning_rate=[0.1, 0.2, 0.3], target_period=7), 3)
    np.testing.assert_allclose(stacked.learning_rate, [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(stacked.target_period, [7, 7, 7])
    assert (stacked.learning_rate.dtype, stacked.target_period.dtype) == (np.float32, np.int32)
    assert stacked.max_grad_norm is None
    for values in ([0.1, 0.2], np.ones((3, 1))):
        with pytest.raises(ConfigError, match=r"learning_rate.*3 lanes"):
            stack_hparams(HParams(learning_rate=values), 3)
