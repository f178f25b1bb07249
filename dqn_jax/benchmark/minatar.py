"""The speed of DQN on MinAtar's Breakout: with its convolution, and with a network that Rejax has too."""

from __future__ import annotations

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax import devices
from dqn_jax.benchmark.measure import Row, child, row_of
from dqn_jax.config import Config
from dqn_jax.lanes.driver import driver_for
from dqn_jax.lanes.lane import stack_hparams
from dqn_jax.presets import resolve_preset

_MLP = Config(
    env="Breakout-MinAtar",
    hidden=(64, 64),
    num_envs=10,
    batch_size=128,
    train_every=10,
    replay_capacity=100_000,
    min_replay=1_000,
)


def minatar_rows(repeats: int) -> list[Row]:
    """Each in a process of its own, on one core."""
    rows = []
    for lanes, target in ((1, ">= 1,500"), (4, ">= 2,000")):
        rates = child(f"benchmark.minatar.steps_per_second('convolution', {lanes}, {repeats})", core=0)
        what = f"updates/s of 32, one a step, MinAtar's convolution, {lanes} lane{'s' * (lanes > 1)}, one core"
        rows.append(row_of(what, rates, "updates/s", target))
    for lanes in (1, 16):
        rates = child(f"benchmark.minatar.steps_per_second('mlp', {lanes}, {repeats})", core=0)
        what = f"steps/s, 64-64, 10 envs, an update of 128 every 10, {lanes} lane{'s' * (lanes > 1)}, one core"
        rows.append(row_of(what, rates, "steps/s"))
    return rows


def steps_per_second(network: str, lanes: int, repeats: int) -> list[float]:
    """Environment steps per second over all lanes, chunk by chunk; `network` is "convolution" or "mlp"."""
    devices.configure()
    if network == "mlp":
        config, steps = _MLP, 60_000 // lanes
    else:  # four environments and an update a step: four updates after each
        config, steps = dataclasses.replace(resolve_preset("dqn-minatar").config, train_every=1), 4_000 // lanes
    config = dataclasses.replace(config, eval_every=steps // 20 * 20, total_steps=1_000_000, eval_episodes=1)
    preset = resolve_preset("dqn-minatar")
    driver = driver_for(config)
    population, stacked = driver.population(preset.hparams, lanes), stack_hparams(preset.hparams, lanes)
    layout = population.layout
    state, _ = population.start(range(lanes), stacked)
    hparams, active, rates = layout.place(stacked), layout.active(np.arange(lanes)), []
    for i in range(1 + repeats):
        env_steps = jnp.int32(driver.rhythm.warmup_steps + i * driver.rhythm.steps_per_chunk)
        began = time.perf_counter()
        state, _ = jax.block_until_ready(population.chunk(env_steps, state, hparams, active))
        rates.append(lanes * driver.rhythm.steps_per_chunk / (time.perf_counter() - began))
    return rates[1:]
