"""The speed of PQN in the settings of its presets, and how much of its time is learning."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from dqn_jax import devices
from dqn_jax.benchmark.measure import Row, child, population_rates, row_of, seconds_of
from dqn_jax.config import HParams, transitions_drawn
from dqn_jax.lanes.device import make_loop
from dqn_jax.lanes.lane import LaneState, LearnKeys, Parts, learn, no_sums, one_lane
from dqn_jax.presets import Preset, resolve_preset
from dqn_jax.prng import make_key
from dqn_jax.replay import make_memory

_ROLLOUTS = {"pqn-cartpole": 20, "pqn-minatar": 4}  # in a measurement: a second or two of one seed


def pqn_rows(repeats: int) -> list[Row]:
    """Each preset with one seed and with 16 on all cores, in processes of their own; and its parts on one core."""
    rows = []
    for name in _ROLLOUTS:
        for seeds in (1, 16):
            rates = child(f"benchmark.pqn.steps_per_second({name!r}, {seeds}, {repeats})")
            rows.append(
                row_of(f"{name}: environment steps/s, {seeds} seed{'s' * (seeds > 1)}, all cores", rates, "steps/s")
            )
        rates, shares = child(f"benchmark.pqn.alone({name!r}, {repeats})", core=0)
        rows.append(row_of(f"{name}: environment steps/s, 1 seed, one core", rates, "steps/s"))
        rows.append(row_of(f"{name}: share of that spent learning", shares, "share"))
    return rows


def _measured(name: str, rollouts: int) -> Preset:
    """The preset in chunks of so many rollouts, hardly evaluated."""
    preset = resolve_preset(name)
    steps = rollouts * transitions_drawn(preset.config)
    config = dataclasses.replace(preset.config, eval_every=steps, total_steps=steps, eval_episodes=1)
    return dataclasses.replace(preset, config=config)


def steps_per_second(name: str, seeds: int, repeats: int) -> list[float]:
    """Environment steps per second of all seeds together, one chunk after another."""
    preset = _measured(name, _ROLLOUTS[name])
    return population_rates(preset.config, preset.hparams, seeds, repeats)


def alone(name: str, repeats: int) -> tuple[list[float], list[float]]:
    """Of one seed, rollout by rollout: environment steps per second, and the share that its learning alone takes."""
    devices.configure()
    preset = _measured(name, 1)
    loop, hparams = make_loop(preset.config), one_lane(preset.hparams)
    parts = Parts(preset.config, loop.agent, make_memory(preset.config, "transitions"))

    @jax.jit
    def learning(lane: LaneState, hparams: HParams) -> LaneState:
        keys = LearnKeys(make_key(0), make_key(1))
        return learn(parts, jnp.int32(1), lane, no_sums(), keys, hparams)[0]

    whole, env_steps = jax.jit(loop.chunk), jnp.int32(loop.warmup_steps)
    lane, _ = jax.jit(loop.start)(jnp.int32(0), hparams)
    lane, _ = jax.block_until_ready(whole(env_steps, lane, hparams))
    jax.block_until_ready(learning(lane, hparams))
    taken = [
        (seconds_of(whole, env_steps, lane, hparams), seconds_of(learning, lane, hparams)) for _ in range(4 * repeats)
    ]
    return [loop.steps_per_chunk / a for a, _ in taken], [b / a for a, b in taken]
