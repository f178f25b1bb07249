"""The loop over a pool against its parts, and the replay of frames."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax import devices
from dqn_jax.benchmark.measure import Row, row_of, seconds_of
from dqn_jax.config import Config, HParams
from dqn_jax.lanes.lane import stack_hparams, trainings_due
from dqn_jax.presets import resolve_preset
from dqn_jax.prng import make_key

_SETTINGS = {"learner-bound": 4, "environment-bound": 1_024}
"""Environment steps to an update of 32: one every 16 frames, as in the paper, and one every 4,096."""
_TIMELINE = {
    "environment": "waiting for the pool",
    "learning": "waiting for what is still being learnt",
    "transfer": "waiting for the frames' transfer to the device",
    "acting": "acting, and the actions' way back",
    "host": "the host's own part, in which pool and device may be idle",
}


def atari_rows(repeats: int) -> list[Row]:
    """The loop over a pool against its parts, in turn in one process. One seed, Pong, Nature network."""
    devices.configure()
    rows: list[Row] = []
    for setting, train_every in _SETTINGS.items():
        took, shares, config, frame_bytes = _times(train_every, repeats)
        frames, between = config.num_envs * config.action_repeat, train_every * config.action_repeat
        acting_sum = took["environment"] + took["act"]
        slower = np.maximum(took["environment"], took["act"] + took["learn"])
        if not rows:
            rows = [
                row_of("bytes to the device per agent step and environment", [frame_bytes], "bytes",
                       f"<= {84 * 84 + 16}"),
                row_of("frames/s, EnvPool alone, random actions, 16 Pong games", frames / took["environment"],
                       "frames/s"),
                row_of("frames/s, acting loop (policy on, learner off)", frames / took["acting loop"], "frames/s"),
                row_of("acting loop: speed / EnvPool alone", took["environment"] / took["acting loop"], "ratio",
                       ">= 0.9 on an accelerator"),
                row_of("acting loop: step time / (EnvPool alone + acting alone)", took["acting loop"] / acting_sum,
                       "ratio", "<= 1.15 on CPU"),
            ]  # fmt: skip
        rows += [
            row_of(f"frames/s, full loop, {setting} (an update of 32 every {between:,} frames)",
                   frames / took["full loop"], "frames/s"),
            row_of("  updates/s", config.num_envs / train_every / took["full loop"], "updates/s"),
            row_of("  step time / (EnvPool + acting + learning, each alone)",
                   took["full loop"] / (acting_sum + took["learn"]), "ratio", "<= 1.15 on CPU"),
            row_of("  speed / the slower of the two", slower / took["full loop"], "ratio", ">= 0.9 on an accelerator"),
            *(row_of(f"  share of its time {text}", [shares[what]], "share") for what, text in _TIMELINE.items()),
        ]  # fmt: skip
    return rows + _frame_replay(repeats)


def _times(train_every: int, repeats: int) -> tuple[dict[str, np.ndarray], dict[str, float], Config, int]:
    """Seconds of a vector step and of its parts (`[repeats]` each), and the shares of the full loop's timeline."""
    from dqn_jax.lanes.pool import make_pool_loop
    from dqn_jax.lanes.pool_population import PoolPopulation
    from dqn_jax.lanes.pool_records import Records, Timeline

    config = dataclasses.replace(
        resolve_preset("pong").config, num_envs=16, train_every=train_every, replay_capacity=20_000, min_replay=1_600
    )
    loop, envs, steps = make_pool_loop(config), config.num_envs, 128
    population = PoolPopulation(loop, HParams(), 1)
    lanes, _ = population.start([0], HParams())
    placed = population.layout.place(stack_hparams(HParams(), 1))
    pool: Any = population.pools[0]
    rng = np.random.default_rng(0)
    env_steps = loop.rhythm.warmup_steps

    def environment() -> None:
        for _ in range(steps):
            pool.recv()
            pool.send(rng.integers(0, loop.spec.num_actions, envs))

    def acting() -> None:
        for _ in range(steps):
            lanes[0], *_ = population.act_on(0, output, env_steps, lanes[0], placed[0])

    def learning() -> None:
        for step in range(steps):
            if trainings := trainings_due(config, step * envs):
                lanes[0], sums = population.learn(0, trainings, lanes[0], placed[0])
                jax.block_until_ready(sums)

    def loop_of(learning: bool) -> None:
        records = Records(1, 1, steps, envs)
        population.advance(env_steps, records, lanes, placed, [0], learning=learning)
        jax.block_until_ready(lanes)

    output = pool.recv()
    pool.send(rng.integers(0, loop.spec.num_actions, envs))
    parts = {"environment": environment, "act": acting, "learn": learning}
    parts |= {"acting loop": lambda: loop_of(False), "full loop": lambda: loop_of(True)}
    for part in parts.values():
        part()  # warms up
    rounds = [{name: seconds_of(part) / steps for name, part in parts.items()} for _ in range(repeats)]
    population.timeline = timeline = Timeline()
    loop_of(True)
    population.close()
    shares = {what: seconds / sum(timeline.seconds.values()) for what, seconds in timeline.seconds.items()}
    return {name: np.array([each[name] for each in rounds]) for name in parts}, shares, config, loop.frame_bytes


def _frame_replay(repeats: int) -> list[Row]:
    """A Nature replay: its size at a million transitions, and what sampling costs in small and large ones."""
    from dqn_jax.replay import frame_memory
    from dqn_jax.types import FrameRow

    envs = 16
    flag = jnp.zeros((envs,), bool)
    row = FrameRow(
        jnp.zeros((envs, 84, 84), jnp.uint8), jnp.zeros((envs,), jnp.int32), jnp.zeros((envs,)), flag, flag, flag
    )
    million = jax.eval_shape(lambda: frame_memory(1_000_000, 32, envs, frame_stack=4).init(row))
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(million))
    took = {}
    for capacity in (10_000, 200_000):
        memory = frame_memory(capacity, 32, envs, frame_stack=4)
        state = memory.init(row)._replace(rows_added=jnp.int32(2 * capacity // envs))
        sample, hparams = jax.jit(memory.sample), HParams()
        jax.block_until_ready(sample(state, make_key(0), hparams))
        took[capacity] = [
            min(seconds_of(sample, state, make_key(i), hparams) for i in range(50)) for _ in range(repeats)
        ]
    ratio = [b / a for a, b in zip(*took.values(), strict=True)]
    return [
        row_of("replay of 1,000,000 Nature transitions", [size / 1e9], "GB", "<= 7.5"),
        row_of("sampling 32: time in a replay of 200,000 / of 10,000", ratio, "ratio", "1"),
    ]
