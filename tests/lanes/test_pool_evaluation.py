"""Evaluation in pools: games that are stuck end with their score."""

from __future__ import annotations

import jax
import numpy as np

import dqn_jax
from dqn_jax.config import Config, HParams
from dqn_jax.lanes import pool_evaluation

CONFIG = Config(env="envpool:CartPole-v1", hidden=(8,), num_envs=4, pool_threads=1)


def test_a_stuck_game_of_atari_ends_with_its_score(monkeypatch):
    monkeypatch.setattr(pool_evaluation, "is_atari", lambda name: True)
    monkeypatch.setattr(pool_evaluation, "_STUCK_FRAMES", 5)
    player = pool_evaluation.make_player(CONFIG)
    params = jax.tree.map(lambda x: x[None], player.agent.init(dqn_jax.make_key(0), HParams()).params)
    scoring = pool_evaluation.evaluate_pool(player, params, episodes=3, epsilon=0.0, seed=1)
    assert (scoring.lengths > 5).all()  # every step of CartPole scores
    still = pool_evaluation._Games.step

    def silent(self):
        self._pool_recv = self._pool.recv
        self._pool.recv = lambda: (row := self._pool_recv())._replace(episode_return=np.minimum(row.episode_return, 2))
        still(self)
        self._pool.recv = self._pool_recv

    monkeypatch.setattr(pool_evaluation._Games, "step", silent)
    stuck = pool_evaluation.evaluate_pool(player, params, episodes=3, epsilon=0.0, seed=1)
    np.testing.assert_array_equal(stuck.returns, 2.0)
    np.testing.assert_array_equal(stuck.lengths, 2 + 5)  # two points, and then none for five frames
