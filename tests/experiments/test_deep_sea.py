"""The sea that is dived in is bsuite's: gymnax's played against the rules, written anew here."""

from __future__ import annotations

import itertools

import jax
import numpy as np

from dqn_jax.config import Config
from dqn_jax.envs import make_env
from dqn_jax.prng import make_key, rolled
from experiments.convergence import deep_sea


def bsuites(size, right, actions):
    """Rewards `[size]` and places `[size]` (row, column) that actions lead to: `deep_sea.py` of bsuite, deterministic.

    `right` `[size, size]` is the action that leads right in each place.
    """
    rewards, places, column = [], [], 0
    for row, action in enumerate(actions):
        reward = 0.0
        if action == right[row, column]:
            reward += 1.0 if column == size - 1 else 0.0
            reward -= 0.01 / size
            column = min(column + 1, size - 1)
        else:
            column = max(column - 1, 0)
        rewards.append(reward)
        places.append((row + 1, column))
    return rewards, places


def test_every_dive_is_bsuites_and_one_alone_is_worth_anything():
    size = 6
    env = make_env(Config(env="DeepSea-bsuite", env_params=(("size", size),)))
    assert env.spec.obs_shape == (size, size)
    assert env.spec.num_actions == 2
    dives = np.array(list(itertools.product((0, 1), repeat=size)), np.int32)

    def play(actions):
        states, first = jax.vmap(env.reset)(rolled(jax.random.split(make_key(1), 3)))
        state = jax.tree.map(lambda x: x[0], states)

        def dive(actions):  # by no chance: any key will do
            return jax.lax.scan(lambda state, action: env.advance(make_key(0), state, action), state, actions)[1]

        return states.inner.action_mapping, first, jax.vmap(dive)(actions)

    maps, first, out = jax.device_get(jax.jit(play, compiler_options={"xla_backend_optimization_level": 0})(dives))
    right = np.asarray(env.inner.action_mapping)
    assert 0 < right.sum() < size**2  # which action leads right differs from place to place
    assert np.all(maps == right)  # and is the same for whoever dives
    rules = [bsuites(size, right, actions) for actions in dives]
    np.testing.assert_allclose(out.reward, [rewards for rewards, _ in rules], atol=1e-6)
    eye = np.eye(size * size + 1)[:, :-1].reshape(-1, size, size)  # the last is the bottom, which shows nothing
    shown = [[eye[row * size + column if row < size else -1] for row, column in places] for _, places in rules]
    np.testing.assert_array_equal(out.obs, shown)
    np.testing.assert_array_equal(first[0], eye[0])
    np.testing.assert_array_equal(out.terminated, np.broadcast_to(np.arange(size) == size - 1, dives.shape))
    assert not np.any(out.truncated)
    returns = np.sort(np.sum(out.reward, axis=1))
    np.testing.assert_allclose(returns[-1], deep_sea.OPTIMUM, rtol=1e-6)
    assert returns[-2] <= 0.0 < deep_sea.NEAR < returns[-1]
