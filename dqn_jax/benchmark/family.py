"""What an update of each member of the family costs, against plain DQN's on the same network."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax import devices
from dqn_jax.benchmark.measure import Row, row_of, seconds_of
from dqn_jax.benchmark.programs import SETTING
from dqn_jax.config import Config, HParams
from dqn_jax.lanes.device import make_loop
from dqn_jax.lanes.lane import one_lane
from dqn_jax.presets import resolve_preset
from dqn_jax.presets.rainbow import RAINBOW
from dqn_jax.prng import make_key
from dqn_jax.types import Batch, Transition

PLAIN = "DQN"
_VARIANTS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "Double DQN": {"double": True},
    "dueling": {"dueling": True},
    "Munchausen": {"target": "munchausen"},
    "advantage learning": {"target": "advantage"},
    "Expected Sarsa": {"target": "expected_sarsa"},
    "HL-Gauss": {"loss": "hl_gauss"},
    "C51": {"loss": "categorical"},
    "QR-DQN": {"loss": "quantile"},
    "IQN": {"loss": "implicit_quantile"},
    "noisy": {"noisy": True},
    "layer norm": {"layer_norm": True},
    "averaged weights": {},  # its decay is a hyperparameter
    "Rainbow": RAINBOW,
}
# Each network with how many updates of plain DQN make a turn, some hundredths of a second, and how it is called.
_NETWORKS: tuple[tuple[str, str, int], ...] = (
    ("cartpole", "120-84, batch 128, CartPole", 40),
    ("dqn-minatar", "MinAtar's convolution, batch 32, Breakout", 10),
)
_TURNS = 6


def family_rows(repeats: int) -> list[Row]:
    """All of a network in one process on one core, taking turns; an update is that of a batch given to it."""
    os.sched_setaffinity(0, {0})
    devices.configure()
    rows = []
    for name, text, updates in _NETWORKS:
        base = SETTING if name == "cartpole" else resolve_preset(name).config
        programs = {variant: _program(base, variant, updates) for variant in _VARIANTS}
        took: dict[str, list[float]] = {variant: [] for variant in _VARIANTS}
        for _ in range(repeats):
            # A repeat is the best of several turns: other work on the machine makes none faster.
            turns = [{variant: seconds_of(*program) for variant, program in programs.items()} for _ in range(_TURNS)]
            for variant, seconds in took.items():
                seconds.append(min(turn[variant] for turn in turns))
        plain = np.array(took[PLAIN])
        rows.append(row_of(f"microseconds of an update of DQN ({text})", 1e6 * plain / updates, "us"))
        rows += [
            row_of(f"  {variant} / DQN", np.array(took[variant]) / plain, "ratio")
            for variant in _VARIANTS
            if variant != PLAIN
        ]
        jax.clear_caches()
    return rows


def _program(base: Config, variant: str, updates: int) -> tuple[Any, ...]:
    """So many updates on one batch, compiled, and what it is called with."""
    config = dataclasses.replace(base, **_VARIANTS[variant])
    averaging = HParams(average_decay=0.999) if variant == "averaged weights" else HParams()
    loop, hparams = make_loop(config), one_lane(averaging)
    state, batch = loop.agent.init(make_key(0), hparams), _batch(config, loop.env.spec)

    @jax.jit
    def some(state: Any, batch: Batch, hparams: HParams) -> Any:
        return jax.lax.scan(
            lambda state, _: (loop.agent.learn(state, batch, hparams, make_key(1))[0], None), state, length=updates
        )[0]

    jax.block_until_ready(some(state, batch, hparams))
    return some, state, batch, hparams


def _batch(config: Config, spec: Any) -> Batch:
    """Transitions of random numbers; a tenth of them end."""
    size, keys = config.batch_size, jax.random.split(make_key(2), 5)
    obs, obs_t = (
        (jax.random.uniform(key, (size, *spec.obs_shape)) < 0.2).astype(spec.obs_dtype)
        if len(spec.obs_shape) == 3
        else jax.random.normal(key, (size, *spec.obs_shape), spec.obs_dtype)
        for key in keys[:2]
    )
    transition = Transition(
        obs_tm1=obs,
        a_tm1=jax.random.randint(keys[2], (size,), 0, spec.num_actions),
        r_t=jax.random.normal(keys[3], (size,)),
        discount_t=(jax.random.uniform(keys[4], (size,)) > 0.1).astype(jnp.float32),
        obs_t=obs_t,
    )
    weight = jnp.ones((size,)) if config.replay == "prioritized" else None
    return Batch(transition, weight, jnp.zeros((size,), jnp.int32))
