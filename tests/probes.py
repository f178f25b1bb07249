"""Probe environments: tiny gymnax environments whose true values are known by hand.

An agent that misses one of them has one nameable fault: the reward, the observation, the action, the
discount or the time limit. Importing this module registers them; tests name them in `Config.env`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from dqn_jax.config import Config
from dqn_jax.lanes.lane import stack_hparams


@struct.dataclass
class ProbeState(environment.EnvState):
    """`hidden` is drawn when the episode starts."""

    time: int
    hidden: jax.Array


@struct.dataclass
class ProbeParams(environment.EnvParams):
    max_steps_in_episode: int = 100


class Probe(environment.Environment[ProbeState, ProbeParams]):
    """An environment given by four functions of the hidden number, the time and the action."""

    def __init__(
        self,
        *,
        observe: Callable[[Any, Any], list[Any]],
        reward: Callable[[Any, Any, Any], Any],
        ends: Callable[[Any, Any], Any],
        draw: Callable[[jax.Array], Any],
    ):
        super().__init__()
        self.observe_list, self.reward, self.ends, self.draw = observe, reward, ends, draw

    @property
    def default_params(self) -> ProbeParams:
        return ProbeParams()

    def reset_env(self, key, params):
        state = ProbeState(time=0, hidden=jnp.float32(self.draw(key)))
        return self.get_obs(state), state

    def step_env(self, key, state, action, params):
        reward = jnp.float32(self.reward(state.hidden, state.time, action))
        state = ProbeState(time=state.time + 1, hidden=state.hidden)
        return self.get_obs(state), state, reward, self.is_terminated(state, params), {}

    def get_obs(self, state, params=None, key=None):
        return jnp.stack([jnp.float32(x) for x in self.observe_list(state.hidden, state.time)])

    def is_terminated(self, state, params):
        return jnp.asarray(self.ends(state.hidden, state.time))

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(-100.0, 100.0, (len(self.observe_list(0.0, 0)),), jnp.float32)


def sign(key):
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)


def constant(_key):
    return 0.0


PROBES: dict[str, dict[str, Callable[..., Any]]] = {
    # One step, reward 1: Q = 1.
    "ProbeConstant-test": {
        "draw": constant,
        "observe": lambda hidden, time: [1.0],
        "reward": lambda hidden, time, action: 1.0,
        "ends": lambda hidden, time: True,
    },
    # One step, the reward is the observation: Q = observation.
    "ProbeObservation-test": {
        "draw": sign,
        "observe": lambda hidden, time: [hidden],
        "reward": lambda hidden, time, action: hidden,
        "ends": lambda hidden, time: True,
    },
    # One step, action 1 pays 1 and action 0 costs 1: Q = (-1, 1).
    "ProbeAction-test": {
        "draw": constant,
        "observe": lambda hidden, time: [1.0],
        "reward": lambda hidden, time, action: 2.0 * action - 1.0,
        "ends": lambda hidden, time: True,
    },
    # One step, the right action is the sign observed: Q = +-1 by whether they agree.
    "ProbePolicy-test": {
        "draw": sign,
        "observe": lambda hidden, time: [hidden],
        "reward": lambda hidden, time, action: hidden * (2.0 * action - 1.0),
        "ends": lambda hidden, time: True,
    },
    # Two steps, the second pays 1: V(first) = discount, V(second) = 1.
    "ProbeTwoSteps-test": {
        "draw": constant,
        "observe": lambda hidden, time: [jnp.where(time == 0, -1.0, 1.0)],
        "reward": lambda hidden, time, action: jnp.where(time == 0, 0.0, 1.0),
        "ends": lambda hidden, time: time >= 2,
    },
    # Never ends by itself; every step but an episode's first pays 1. With or without a time limit
    # V(later) = 1 / (1 - discount) and V(first) = discount * V(later).
    "ProbeEndless-test": {
        "draw": constant,
        "observe": lambda hidden, time: [jnp.where(time == 0, -1.0, 1.0)],
        "reward": lambda hidden, time, action: jnp.where(time == 0, 0.0, 1.0),
        "ends": lambda hidden, time: False,
    },
    # Lasts 1 to 6 steps, as drawn at the start, and pays 1 for each; going on after that would cost 100.
    "ProbeLengths-test": {
        "draw": lambda key: jax.random.randint(key, (), 1, 7),
        "observe": lambda hidden, time: [hidden, time],
        "reward": lambda hidden, time, action: jnp.where(time < hidden, 1.0, -100.0),
        "ends": lambda hidden, time: time >= hidden,
    },
}


def _register(name: str, functions: dict[str, Callable[..., Any]]) -> None:
    if name not in gymnax.registered_envs:
        gymnax.register(name, lambda: Probe(**functions))


for _name, _functions in PROBES.items():
    _register(_name, _functions)


def scalars(hparams):
    """The hyperparameters of one lane, traced: scalars."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), stack_hparams(hparams, 1))


def comparable(tree):
    """Keys as their data, everything on the host."""

    def plain(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return jax.device_get(jax.tree.map(plain, tree))


def assert_bit_identical(left, right):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


# -- small runs, and their numbers to the bit

TINY = Config(
    env="ProbeConstant-test",
    hidden=(16,),
    num_envs=4,
    batch_size=32,
    replay_capacity=2000,
    min_replay=32,
    train_every=4,
    eval_every=400,
    eval_episodes=8,
    total_steps=2000,
)


def tiny(**changes):
    return dataclasses.replace(TINY, **changes)
