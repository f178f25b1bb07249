"""What counts as solved: scores as published, and criteria made of them."""

from __future__ import annotations

import numpy as np

from dqn_jax.convergence import parse_criterion
from dqn_jax.envs import pool_names
from dqn_jax.presets import ATARI_SCORES, GAMES, criteria_of, resolve_preset


def test_games_have_scores_and_no_other_names_do():
    assert len(ATARI_SCORES) == 57
    assert set(ATARI_SCORES) | set(GAMES.values()) <= set(pool_names())
    assert all(random < human for random, human in ATARI_SCORES.values())


def test_games_are_measured_by_the_scores_as_published():
    for env, (random, human) in ATARI_SCORES.items():
        levels = [parse_criterion(text).threshold for text in resolve_preset(env).criteria]
        np.testing.assert_allclose(
            levels, [random + share * (human - random) for share in (0.5, 0.25, 1.0)], rtol=1e-12
        )
        assert levels[2] == human


def test_criteria_are_by_full_name_with_or_without_the_prefix():
    assert criteria_of("CartPole-v1") == criteria_of("envpool:CartPole-v1") == resolve_preset("cartpole").criteria
    assert criteria_of("Nothing-v0") == ()
