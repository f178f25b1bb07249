"""Evaluation: fixed starts, and every environment's first episode only.

Averaging 'all episodes that ended within N steps' would favour short ones; here each of E
environments plays exactly one episode, from the same E starts every time.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dqn_jax.agent import Agent
from dqn_jax.envs import DeviceEnvState, Env
from dqn_jax.types import Key, Obs, Params


class Evaluation(NamedTuple):
    """What E environments gave in one evaluation of one policy."""

    returns: jax.Array  # [E], float32, raw return of each environment's first episode
    lengths: jax.Array  # [E], int32, its length in environment frames


class _Playing(NamedTuple):
    """What goes through the steps of E episodes under way."""

    key: Key
    states: DeviceEnvState  # leaves [E, ...]
    obs: Obs  # [E, *obs_shape]
    done: jax.Array  # [E], bool, whether the first episode has ended
    returns: jax.Array  # [E], float32, of the first episode so far
    lengths: jax.Array  # [E], int32, likewise


def evaluate(env: Env, agent: Agent, params: Params, key: Key, *, episodes: int, epsilon: float = 0.0) -> Evaluation:
    """Play one episode in each of `episodes` environments.

    Args:
      env: the environment.
      agent: gives `play` and `judged`.
      params: network weights.
      key: fixes starts, environment noise and exploration.
      episodes: number of environments, E.
      epsilon: exploration; 0 is the greedy policy.
    """
    reset_key, loop_key = jax.random.split(key)
    states, obs = jax.vmap(env.reset)(jax.random.split(reset_key, episodes))

    def running(carry: _Playing) -> jax.Array:
        return ~jnp.all(carry.done)

    def body(carry: _Playing) -> _Playing:
        key, act_key, env_key = jax.random.split(carry.key, 3)
        if epsilon == 0.0:
            actions = jnp.argmax(agent.judged(params, carry.obs, act_key).q_values, axis=-1).astype(jnp.int32)
        else:
            actions = agent.play(params, carry.obs, epsilon, act_key)
        states, out = jax.vmap(env.advance)(jax.random.split(env_key, episodes), carry.states, actions)
        returns = jnp.where(carry.done, carry.returns, out.episode_return)
        lengths = jnp.where(carry.done, carry.lengths, out.episode_length)
        return _Playing(key, states, out.obs, carry.done | out.terminated | out.truncated, returns, lengths)

    start = _Playing(
        loop_key,
        states,
        obs,
        jnp.zeros((episodes,), bool),
        jnp.zeros((episodes,), jnp.float32),
        jnp.zeros((episodes,), jnp.int32),
    )
    played = jax.lax.while_loop(running, body, start)
    return Evaluation(played.returns, played.lengths)
