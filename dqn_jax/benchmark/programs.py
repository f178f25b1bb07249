"""The speed of single programs: updates, many lanes, a cold start, and the environment alone."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax import devices
from dqn_jax.benchmark.measure import Row, child, row_of, seconds_of
from dqn_jax.config import Config, HParams
from dqn_jax.lanes.device import make_loop
from dqn_jax.lanes.lane import stack_hparams
from dqn_jax.lanes.population import make_population
from dqn_jax.prng import make_key
from dqn_jax.replay import make_replay

# Of updates and populations: 120-84 network, batch 128, 10 environments, one update per vector step.
SETTING = Config(
    num_envs=10, train_every=10, batch_size=128, hidden=(120, 84), replay_capacity=10_000, eval_every=20_000,
    eval_episodes=1, min_replay=1_000, total_steps=21_000,
)  # fmt: skip


def update_rows(repeats: int) -> list[Row]:
    """Both programs in one process on one core, taking turns."""
    loop_rates, alone_rates = child(f"benchmark.programs.update_rates({repeats})", core=0)
    ratios = [a / b for a, b in zip(loop_rates, alone_rates, strict=True)]
    return [
        row_of("updates/s, whole loop (CartPole, 120-84, batch 128, 10 envs), one core", loop_rates, "updates/s"),
        row_of("updates/s, the same update alone on a fixed batch, one core", alone_rates, "updates/s"),
        row_of("whole loop / update alone", ratios, "ratio", ">= 0.9"),
    ]


def update_rates(repeats: int) -> tuple[list[float], list[float]]:
    """Updates per second of the whole loop and of the update alone, in turn."""
    devices.configure()
    loop, hparams = make_loop(SETTING), _scalars(HParams())
    lane, _ = jax.jit(loop.start)(jnp.int32(0), hparams)
    env_steps = jnp.int32(loop.warmup_steps)
    updates = loop.steps_per_chunk // SETTING.train_every
    replay = make_replay(SETTING.replay_capacity, SETTING.batch_size, SETTING.num_envs)
    batch = jax.jit(replay.sample)(lane.replay, make_key(1))

    @jax.jit
    def alone(state: Any, batch: Any) -> Any:
        return jax.lax.scan(lambda s, _: (loop.agent.update(s, batch, hparams)[0], None), state, length=updates)[0]

    whole = jax.jit(loop.chunk)
    jax.block_until_ready((whole(env_steps, lane, hparams), alone(lane.agent, batch)))
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        rates[0].append(updates / seconds_of(whole, env_steps, lane, hparams))
        rates[1].append(updates / seconds_of(alone, lane.agent, batch))
    return rates


def population_rows(repeats: int) -> list[Row]:
    """64 lanes on all cores and one lane on one core, in turn, each in processes of their own."""
    lanes = 64
    many, one = [], []
    for _ in range(repeats):
        one.append(child("benchmark.programs.lane_steps_per_second(1)", core=0))
        many.append(child(f"benchmark.programs.lane_steps_per_second({lanes})"))
    cores = devices.cpu_cores()
    return [
        row_of("lane-steps/s, 1 lane on 1 core", one, "lane-steps/s"),
        row_of(f"lane-steps/s, {lanes} lanes on {cores} cores", many, "lane-steps/s"),
        row_of(f"{lanes} lanes on {cores} cores / 1 lane on 1 core",
               [a / b for a, b in zip(many, one, strict=True)], "ratio", ">= 1.8 on 2 cores"),
    ]  # fmt: skip


def lane_steps_per_second(lanes: int, chunks: int | None = None) -> float:
    """Environment steps per second over all lanes of a training population, over so many chunks."""
    devices.configure()
    config = dataclasses.replace(SETTING, eval_every=5_000)
    loop = make_loop(config)
    population = make_population(config, loop, HParams(), lanes)
    hparams = population.layout.place(stack_hparams(HParams(), lanes))
    active = population.layout.active(np.arange(lanes))
    state, _ = population.start(range(lanes), HParams())
    chunks = chunks or (1 if lanes > 1 else 8)
    env_steps = jnp.int32(loop.warmup_steps)
    state, _ = jax.block_until_ready(population.chunk(env_steps, state, hparams, active))
    began = time.perf_counter()
    for _ in range(chunks):
        state, metrics = population.chunk(env_steps, state, hparams, active)
    jax.block_until_ready((state, metrics))
    return lanes * chunks * loop.steps_per_chunk / (time.perf_counter() - began)


def _scalars(hparams: HParams) -> HParams:
    return jax.tree.map(lambda x: jnp.asarray(x[0]), stack_hparams(hparams, 1))


def cold_rows(repeats: int) -> list[Row]:
    """From the start of the process to convergence of one CartPole seed, by the default criterion."""
    cold: list[float] = []
    warm: list[float] = []
    for seed in range(repeats):
        cache = tempfile.mkdtemp(prefix="dqn_jax_cache_")
        try:
            for values in (cold, warm):
                began = time.perf_counter()
                child(
                    f"dqn_jax.train('cartpole', seeds=1, seed={seed}, stop='converged').summary['seconds']",
                    environment={"DQN_JAX_CACHE": cache},
                )
                values.append(time.perf_counter() - began)
        finally:
            shutil.rmtree(cache)
    return [
        row_of("seconds, process start to convergence, one CartPole seed, empty cache", cold, "s", "<= 10"),
        row_of("seconds, the same with a warm cache", warm, "s", "<= 5"),
    ]


def env_rows(repeats: int) -> list[Row]:
    """gymnax CartPole alone, random actions, through gymnax's own `step`."""
    import gymnax

    devices.configure()
    envs, steps = 4096, 500
    env, params = gymnax.make("CartPole-v1")

    @jax.jit
    def roll(key: jax.Array) -> Any:
        reset_key, loop_key = jax.random.split(key)
        _, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(reset_key, envs), params)

        def body(state: Any, key: jax.Array) -> Any:
            act_key, step_key = jax.random.split(key)
            action = jax.random.randint(act_key, (envs,), 0, 2)
            obs, state, reward, *_ = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
                jax.random.split(step_key, envs), state, action, params
            )
            return state, (obs.sum(), reward.sum())

        return jax.lax.scan(body, state, jax.random.split(loop_key, steps))

    jax.block_until_ready(roll(jax.random.key(0)))
    rates = [envs * steps / seconds_of(roll, jax.random.key(i)) for i in range(repeats)]
    return [row_of("gymnax CartPole steps/s alone, 4096 environments (the ceiling)", rates, "steps/s")]
