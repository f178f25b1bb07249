"""Tabular problems whose answers are computed: fixed points of targets by iteration, and what agents learn of them.

Observations are one-hot and networks linear, so that nothing is approximated but what the algorithm approximates; every
update sees each state and action with each outcome, as often as it is likely.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from probes import scalars

from dqn_jax.agent import make_agent
from dqn_jax.config import HParams
from dqn_jax.prng import make_key
from dqn_jax.types import Batch, EnvSpec, Transition

DISCOUNT = 0.9
TEMPERATURE, SHARE, EPSILON = 0.2, 0.8, 0.3
QUICK = {"xla_backend_optimization_level": 0}  # compiling takes longer than learning


class Outcomes(NamedTuple):
    """All that can happen, `[n]` each; those of one state and action are equally likely."""

    state: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    goes_on: np.ndarray
    after: np.ndarray


def outcomes_of(rows):
    return Outcomes(*(np.array(column) for column in zip(*rows, strict=True)))


def transitions_of(outcomes, states):
    """As they are remembered, leaves `[n, ...]`."""
    eye = np.eye(states, dtype=np.float32)
    reward, goes_on = np.float32(outcomes.reward), np.float32(outcomes.goes_on)
    return Transition(eye[outcomes.state], np.int32(outcomes.action), reward, goes_on, eye[outcomes.after])


def softmax(q, temperature):
    return np.exp(log_policy(q, temperature) / temperature)


def log_policy(q, temperature):
    q = q - q.max(-1, keepdims=True)
    return q - temperature * np.log(np.exp(q / temperature).sum(-1, keepdims=True))


def soft(q):
    log_pi = log_policy(q, TEMPERATURE)
    return (np.exp(log_pi / TEMPERATURE) * (q - log_pi)).sum(-1), SHARE * np.clip(log_pi, -1.0, 0.0)


def explored(q, otherwise):
    return (1 - EPSILON) * otherwise + EPSILON * q.mean(-1), 0 * q


BACKUPS = {  # of the next values, and of what is added to the rewards, both from Q-values
    "greedy": lambda q: (q.max(-1), 0 * q),
    "expected_sarsa": lambda q: explored(q, q.max(-1)),
    "expected_sarsa, boltzmann": lambda q: explored(q, (softmax(q, TEMPERATURE) * q).sum(-1)),
    "munchausen": soft,
    "advantage": lambda q: (q.max(-1), SHARE * (q - q.max(-1, keepdims=True))),
}
HPARAMS = {
    "greedy": {},
    "expected_sarsa": {"epsilon_end": EPSILON},
    "expected_sarsa, boltzmann": {"epsilon_end": EPSILON, "temperature": TEMPERATURE},
    "munchausen": {"munchausen_alpha": SHARE, "munchausen_temperature": TEMPERATURE},
    "advantage": {"advantage_alpha": SHARE},
}


def backup_of(config):
    return config.target + (", boltzmann" if config.exploration == "boltzmann" else "")


def values(backup, outcomes, states, actions):
    """The fixed point of a target, `[states, actions]`, by iterating it in float64."""
    state, action, reward, goes_on, after = outcomes
    likely = np.zeros((states, actions))
    np.add.at(likely, (state, action), 1.0)
    q = np.zeros((states, actions))
    for _ in range(1000):
        v, bonus = BACKUPS[backup](q)
        new = np.zeros_like(q)
        np.add.at(new, (state, action), reward + DISCOUNT * goes_on * v[after])
        q = new / np.maximum(likely, 1.0) + bonus
    return q


def learnt(config, transition, actions, *, updates=1500, keys=(2,), hidden=(), **values):
    """What is predicted for each state after learning from all transitions at every update, `[keys, states, ...]`."""
    config = dataclasses.replace(config, torso="mlp", hidden=hidden)
    count, states = transition.obs_tm1.shape
    agent = make_agent(config, EnvSpec("Tabular-v0", (states,), jnp.float32, actions, 100))
    rates = {"learning_rate": 0.05, "learning_rate_end": 1e-4, "learning_rate_decay_updates": updates}
    rest = {"discount": DISCOUNT, "target_period": 1, "target_mixing": 0.2, **HPARAMS[backup_of(config)]}
    hparams = scalars(HParams(**(rates | rest | values)))
    batch = Batch(transition, None, np.zeros(count, np.int32))

    def run(hparams):
        def step(state, _):
            return agent.learn(state, batch, hparams, make_key(1))[0], None

        state, _ = jax.lax.scan(step, agent.init(make_key(0), hparams), None, length=updates)
        return jax.tree.map(
            lambda *x: jnp.stack(x), *[agent.predict(state.params, jnp.eye(states), make_key(key)) for key in keys]
        )

    return jax.jit(run, compiler_options=QUICK)(hparams)
