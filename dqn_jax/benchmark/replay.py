"""What a batch costs that is drawn by priority, against one that is drawn uniformly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax import devices
from dqn_jax.benchmark.measure import Row, row_of, seconds_of
from dqn_jax.config import HParams
from dqn_jax.prng import make_key
from dqn_jax.replay import Memory, ReplayState
from dqn_jax.replay.prioritized import prioritized_transitions
from dqn_jax.replay.transitions import transition_memory
from dqn_jax.types import Transition, TransitionRow

CAPACITIES = (10_000, 100_000, 1_000_000)
_BATCH, _ENVS, _TIMES, _TURNS = 32, 8, 200, 20


def replay_rows(repeats: int) -> list[Row]:
    """Both replays in turn in one process, full of CartPole's transitions, as a loop of updates has them.

    A repeat is the best of several turns, each of hundreds of batches: other work on the machine makes none faster.
    """
    devices.configure()
    programs = {
        (capacity, drawn): _program(make(capacity, _BATCH, _ENVS))
        for capacity in CAPACITIES
        for drawn, make in (("uniform", transition_memory), ("prioritized", prioritized_transitions))
    }
    took: dict[tuple[int, str], list[float]] = {which: [] for which in programs}
    for _ in range(repeats):
        turns = [{which: run() for which, run in programs.items()} for _ in range(_TURNS)]
        for which, seconds in took.items():
            seconds.append(min(turn[which] for turn in turns))
    rows = []
    for capacity in CAPACITIES:
        uniform, prioritized = (np.array(took[capacity, drawn]) for drawn in ("uniform", "prioritized"))
        target = "<= 3" if capacity == CAPACITIES[-1] else ""
        rows += [
            row_of(f"a batch of {_BATCH} of {capacity:,}, drawn uniformly", 1e6 * uniform, "us"),
            row_of("  drawn by priority and given new priorities", 1e6 * prioritized, "us"),
            row_of("  ratio", prioritized / uniform, "ratio", target),
        ]
    least, most = (np.array(took[capacity, "prioritized"]) for capacity in (CAPACITIES[0], CAPACITIES[-1]))
    logs = float(np.log(CAPACITIES[-1]) / np.log(CAPACITIES[0]))
    return [*rows, row_of("by priority, of 1,000,000 / of 10,000", most / least, "ratio", f"<= {logs:.1f}, as log N")]


def _program(memory: Memory) -> Callable[[], float]:
    """What takes batches of a full memory one after another, and gives the seconds that each took."""
    row = TransitionRow(
        Transition(
            jnp.zeros((_ENVS, 4)),
            jnp.zeros((_ENVS,), jnp.int32),
            jnp.zeros(_ENVS),
            jnp.ones(_ENVS),
            jnp.zeros((_ENVS, 4)),
        ),
        jnp.zeros(_ENVS, bool),
    )
    state = memory.init(row)
    rows = jax.tree.leaves(state.storage)[0].shape[0]
    hparams = HParams()

    @jax.jit
    def fill(state: ReplayState) -> ReplayState:
        return jax.lax.fori_loop(0, rows, lambda _, state: memory.add(state, row), state)

    # As `lanes.lane.learn` does: priorities go round, rows do not.
    @functools.partial(jax.jit, donate_argnums=1)
    def many(storage: Any, rest: ReplayState, key: jax.Array) -> tuple[ReplayState, jax.Array]:
        def one(i: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
            priorities, kept = carry
            stored = rest._replace(storage=storage, priorities=priorities)
            batch = memory.sample(stored, jax.random.fold_in(key, i), hparams)
            weight = 1.0 if batch.weight is None else batch.weight
            td_error = batch.transition.obs_tm1[:, 0] + batch.transition.obs_t[:, 0] + batch.transition.r_t + kept
            priorities = memory.reprioritize(priorities, batch.place, td_error, hparams)
            return priorities, weight * (0.5 + batch.transition.discount_t + batch.transition.a_tm1) / 2

        priorities, kept = jax.lax.fori_loop(0, _TIMES, one, (rest.priorities, jnp.ones(_BATCH)))
        return rest._replace(priorities=priorities), kept

    filled = jax.block_until_ready(fill(state))
    storage, rest = filled.storage, filled._replace(storage=())

    def run() -> float:
        nonlocal rest

        def call() -> jax.Array:
            nonlocal rest
            rest, kept = many(storage, rest, make_key(0))
            return kept

        return seconds_of(call) / _TIMES

    run()
    return run
