"""The speed of DQN on MinAtar's Breakout: with its convolution, and with a network that Rejax has too."""

from __future__ import annotations

import dataclasses

from dqn_jax.benchmark.measure import Row, child, population_rates, row_of
from dqn_jax.config import Config
from dqn_jax.presets import resolve_preset

_MLP = Config(
    env="Breakout-MinAtar",
    torso="mlp",
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
    preset = resolve_preset("dqn-minatar")
    config, steps = _MLP, 60_000 // lanes
    if network == "convolution":  # four environments and an update a step: four updates after each
        config, steps = dataclasses.replace(preset.config, train_every=1), 4_000 // lanes
    config = dataclasses.replace(config, eval_every=steps // 20 * 20, total_steps=1_000_000, eval_episodes=1)
    return population_rates(config, preset.hparams, lanes, repeats)
