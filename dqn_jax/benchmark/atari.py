"""The loop over a pool against its parts, and the replay of frames."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax import devices
from dqn_jax.benchmark.measure import Row, row_of, seconds_of
from dqn_jax.config import HParams
from dqn_jax.population import stack_hparams
from dqn_jax.presets import resolve_preset
from dqn_jax.prng import make_key


def atari_rows(repeats: int) -> list[Row]:
    """The loop over a pool against its parts, in turn in one process. One seed, Pong, Nature network."""
    from dqn_jax.pool_loop import make_pool_loop
    from dqn_jax.pool_population import PoolPopulation, Timeline

    devices.configure()
    config = dataclasses.replace(
        resolve_preset("pong").config, num_envs=16, train_every=4, replay_capacity=20_000, min_replay=1_600
    )
    loop, envs, steps = make_pool_loop(config), config.num_envs, 100
    population = PoolPopulation(loop, HParams(), 1)
    lanes, _ = population.start([0], HParams())
    placed = population.layout.place(stack_hparams(HParams(), 1))
    pool: Any = population.pools[0]
    rng = np.random.default_rng(0)
    env_steps = loop.warmup_steps

    def environment() -> None:
        for _ in range(steps):
            pool.recv()
            pool.send(rng.integers(0, loop.spec.num_actions, envs))

    def acting() -> None:
        for _ in range(steps):
            lanes[0], *_ = population.act_on(0, output, env_steps, lanes[0], placed[0])

    def learning() -> None:
        for _ in range(steps):
            lanes[0], sums = population.learn(0, envs // config.train_every, lanes[0], placed[0])
            jax.block_until_ready(sums)

    def loop_of(learning: bool) -> None:
        population.advance(env_steps, steps, lanes, placed, [0], learning=learning)
        jax.block_until_ready(lanes)

    output = pool.recv()
    pool.send(rng.integers(0, loop.spec.num_actions, envs))
    parts = {"environment": environment, "act": acting, "learn": learning}
    parts |= {"acting loop": lambda: loop_of(False), "full loop": lambda: loop_of(True)}
    took: dict[str, list[float]] = {name: [] for name in parts}
    for repeat in range(repeats + 1):
        for name, part in parts.items():
            seconds = seconds_of(part) / steps
            if repeat:  # the first round warms up
                took[name].append(seconds)
    frames = envs * config.action_repeat
    acting_sum = [e + a for e, a in zip(took["environment"], took["act"], strict=True)]
    full_sum = [s + x for s, x in zip(acting_sum, took["learn"], strict=True)]
    slower = [max(e, a + x) for e, a, x in zip(took["environment"], took["act"], took["learn"], strict=True)]

    def ratios(numerator: str, denominator: list[float]) -> list[float]:
        return [a / b for a, b in zip(took[numerator], denominator, strict=True)]

    def rate(what: str, name: str) -> Row:
        return row_of(what, [frames / t for t in took[name]], "frames/s")

    population.timeline = timeline = Timeline()
    loop_of(True)
    shares = {what: seconds / sum(timeline.seconds.values()) for what, seconds in timeline.seconds.items()}
    return [
        rate("frames/s, EnvPool alone, random actions, 16 Pong games", "environment"),
        rate("frames/s, acting loop (policy on, learner off)", "acting loop"),
        rate("frames/s, full loop (one update of 32 every 16 frames)", "full loop"),
        row_of("updates/s in the full loop", [envs / config.train_every / t for t in took["full loop"]], "updates/s"),
        row_of("acting loop: step time / (EnvPool alone + acting alone)", ratios("acting loop", acting_sum), "ratio",
               "<= 1.15 on CPU"),
        row_of("full loop: step time / (EnvPool + acting + learning, each alone)", ratios("full loop", full_sum),
               "ratio", "<= 1.15 on CPU"),
        row_of("full loop: speed / the slower of the two", [1 / x for x in ratios("full loop", slower)], "ratio",
               ">= 0.9 on an accelerator"),
        *(row_of(f"  {text}", [shares[what]], "share") for what, text in _TIMELINE.items()),
        row_of("bytes to the device per agent step and environment", [loop.frame_bytes], "bytes", f"<= {84 * 84 + 16}"),
        *_frame_replay(repeats),
    ]  # fmt: skip


_TIMELINE = {
    "environment": "of its time bound by the environment: waiting for the pool",
    "learning": "bound by the learner: waiting for what is still being learnt",
    "transfer": "waiting for the frames' transfer to the device",
    "acting": "acting, and the actions' way back",
    "host": "the host's own part, in which pool and device may be idle",
}


def _frame_replay(repeats: int) -> list[Row]:
    """A Nature replay: its size at a million transitions, and what sampling costs in small and large ones."""
    from dqn_jax.frame_replay import make_frame_replay
    from dqn_jax.types import FrameRow

    envs = 16
    flag = jnp.zeros((envs,), bool)
    row = FrameRow(
        jnp.zeros((envs, 84, 84), jnp.uint8), jnp.zeros((envs,), jnp.int32), jnp.zeros((envs,)), flag, flag, flag
    )
    million = jax.eval_shape(lambda: make_frame_replay(1_000_000, 32, envs, frame_stack=4).init(row))
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(million))
    took = {}
    for capacity in (10_000, 200_000):
        replay = make_frame_replay(capacity, 32, envs, frame_stack=4)
        state = replay.init(row)._replace(rows_added=jnp.int32(2 * capacity // envs))
        sample = jax.jit(replay.sample)
        jax.block_until_ready(sample(state, make_key(0), 0.99))
        took[capacity] = [min(seconds_of(sample, state, make_key(i), 0.99) for i in range(50)) for _ in range(repeats)]
    ratio = [b / a for a, b in zip(*took.values(), strict=True)]
    return [
        row_of("replay of 1,000,000 Nature transitions", [size / 1e9], "GB", "<= 7.5"),
        row_of("sampling 32: time in a replay of 200,000 / of 10,000", ratio, "ratio", "1"),
    ]
