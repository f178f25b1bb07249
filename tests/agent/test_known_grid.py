"""A grid world whose answers are known: played through the environment layer, time limits and all, then learnt.

Most episodes end by the time limit. A limit is no end: what lies behind it is bootstrapped, from where the
episode really was. So transitions, whenever they were seen, are those of one decision problem without limits, and
values are what value iteration makes of it in float64.
"""

from __future__ import annotations

import functools

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from flax import struct
from gymnax.environments import environment, spaces

from dqn_jax.config import Config
from dqn_jax.envs import make_env
from dqn_jax.prng import make_key
from dqn_jax.types import to_transition

# Four by four; into the wall and off the grid one stays. Every step costs, the goal pays and the pit costs more, and
# both end the episode. Actions: up, right, down, left.
SIDE, WALL, GOAL, PIT = 4, (1, 1), (0, 3), (1, 3)
MOVES = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])
STEP, PAYS, COSTS = -0.04, 1.0, -1.0
LIMIT = 3
FREE = [(r, c) for r in range(SIDE) for c in range(SIDE) if (r, c) not in (WALL, GOAL, PIT)]


def place(row, column):
    return SIDE * row + column


@struct.dataclass
class GridState(environment.EnvState):
    time: int
    row: jax.Array
    column: jax.Array


@struct.dataclass
class GridParams(environment.EnvParams):
    max_steps_in_episode: int = LIMIT


class Grid(environment.Environment[GridState, GridParams]):
    """Episodes begin anywhere free; observations are one-hot."""

    @property
    def default_params(self):
        return GridParams()

    def reset_env(self, key, params):
        row, column = jnp.array(FREE)[jax.random.randint(key, (), 0, len(FREE))]
        state = GridState(0, row, column)
        return self.get_obs(state), state

    def step_env(self, key, state, action, params):
        row, column = jnp.clip(jnp.stack([state.row, state.column]) + jnp.array(MOVES)[action], 0, SIDE - 1)
        wall = place(row, column) == place(*WALL)
        state = GridState(state.time + 1, jnp.where(wall, state.row, row), jnp.where(wall, state.column, column))
        goal, pit = (place(state.row, state.column) == place(*at) for at in (GOAL, PIT))
        reward = STEP + PAYS * goal + COSTS * pit
        return self.get_obs(state), state, reward, self.is_terminated(state, params), {}

    def get_obs(self, state, params=None, key=None):
        return jax.nn.one_hot(place(state.row, state.column), SIDE * SIDE)

    def is_terminated(self, state, params):
        at = place(state.row, state.column)
        return (at == place(*GOAL)) | (at == place(*PIT))

    def action_space(self, params=None):
        return spaces.Discrete(4)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (SIDE * SIDE,), jnp.float32)


if "KnownGrid-test" not in gymnax.registered_envs:
    gymnax.register("KnownGrid-test", Grid)


def outcomes():
    """The grid by its rules, not by its code: state, action, reward, whether it goes on, next state, `[52]` each."""
    rows = []
    for at in FREE:
        for action, move in enumerate(MOVES.tolist()):
            after = (at[0] + move[0], at[1] + move[1])
            if after == WALL or min(after) < 0 or max(after) >= SIDE:
                after = at
            ends = after in (GOAL, PIT)
            reward = STEP + {GOAL: PAYS, PIT: COSTS}.get(after, 0.0)
            rows.append((place(*at), action, reward, not ends, place(*after)))
    return tabular.outcomes_of(rows)


@functools.cache
def played():
    """Everything that random actions met in 256 environments, each transition once, and how episodes ended."""
    env, many = make_env(Config(env="KnownGrid-test")), 256

    def play(key):
        def step(carry, key):
            state, obs = carry
            act_key, step_key = jax.random.split(key)
            actions = jax.random.randint(act_key, (many,), 0, 4)
            state, out = jax.vmap(env.step)(jax.random.split(step_key, many), state, actions)
            return (state, out.obs), (to_transition(obs, actions, out), out.terminated, out.truncated)

        reset_key, step_key = jax.random.split(key)
        start = jax.vmap(env.reset)(jax.random.split(reset_key, many))
        return jax.lax.scan(step, start, jax.random.split(step_key, 40))[1]

    seen, terminated, truncated = jax.device_get(jax.jit(play, compiler_options=tabular.QUICK)(make_key(0)))
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), seen)
    table = np.column_stack([flat.obs_tm1.argmax(-1), flat.a_tm1, flat.r_t, flat.discount_t, flat.obs_t.argmax(-1)])
    _, first = np.unique(table, axis=0, return_index=True)
    return jax.tree.map(lambda x: x[first], flat), terminated.sum(), truncated.sum()


def values(backup):
    """The fixed point of a target in the places that are free, `[13, 4]`."""
    return tabular.values(backup, outcomes(), SIDE * SIDE, 4)[[place(*at) for at in FREE]]


def test_what_is_played_is_the_grid_and_time_limits_end_nothing():
    transition, terminated, truncated = played()
    assert truncated > 2 * terminated > 0
    state, action, reward, goes_on, after = outcomes()
    assert len(transition.a_tm1) == len(state)  # each state and action led to one place, at a limit too
    np.testing.assert_array_equal(transition.obs_tm1.argmax(-1), state)
    np.testing.assert_array_equal(transition.a_tm1, action)
    np.testing.assert_allclose(transition.r_t, reward, rtol=1e-6)
    np.testing.assert_array_equal(transition.discount_t, goes_on)
    np.testing.assert_array_equal(transition.obs_t.argmax(-1), after)


def test_the_oracle_knows_the_way_around_the_wall():
    best = dict(zip(FREE, values("greedy"), strict=True))
    # Six steps from the opposite corner, the last of which pays.
    way = sum(STEP * tabular.DISCOUNT**k for k in range(6)) + PAYS * tabular.DISCOUNT**5
    np.testing.assert_allclose(best[(3, 0)].max(), way, rtol=1e-6)
    assert best[(1, 0)].argmax() == 0  # up, and not into the wall
    np.testing.assert_allclose(best[(1, 2)][1], STEP + COSTS)  # into the pit
    assert LIMIT < 6  # no episode ever went all the way


SUPPORT = {"v_min": -2.0, "v_max": 2.0}


@pytest.mark.parametrize(
    ("settings", "hparams", "tolerance"),
    [
        ({"loss": "squared"}, {}, 2e-3),
        ({"loss": "huber", "double": True}, {}, 2e-3),
        ({"loss": "squared", "target": "expected_sarsa"}, {}, 2e-3),
        ({"loss": "squared", "target": "expected_sarsa", "exploration": "boltzmann"}, {}, 2e-3),
        ({"loss": "squared", "target": "munchausen"}, {}, 1e-2),
        ({"loss": "squared", "target": "advantage"}, {}, 1e-2),
        ({"loss": "categorical", "atoms": 21}, SUPPORT, 0.02),
        ({"loss": "hl_gauss", "atoms": 31}, SUPPORT, 0.03),
        ({"loss": "quantile", "atoms": 5}, {"kappa": 0.0}, 0.02),
        ({"loss": "implicit_quantile", "atoms": 8}, {"kappa": 0.1, "hidden": (32,), "learning_rate": 0.005}, 0.1),
    ],
    ids=str,
)
def test_values_are_those_of_the_grid_without_time_limits(settings, hparams, tolerance):
    config = Config(**settings)
    q = tabular.learnt(config, played()[0], 4, **hparams).q_values[0]
    np.testing.assert_allclose(
        q[jnp.array([place(*at) for at in FREE])], values(tabular.backup_of(config)), atol=tolerance
    )
