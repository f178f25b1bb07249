"""What both drivers do with one lane, an agent at work: a seed with its hyperparameters."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dqn_jax.config import Config, envs_per_step


class Rhythm(NamedTuple):
    """The numbers that fix when a run acts, learns and is evaluated; counted in environment steps of one lane."""

    step: int  # of one iteration: of all environments that act at once
    warmup_steps: int  # before learning
    steps_per_chunk: int  # from one evaluation to the next
    num_chunks: int

    @property
    def warmup_iterations(self) -> int:
        """Of the warm-up."""
        return self.warmup_steps // self.step

    @property
    def iterations(self) -> int:
        """Of a chunk."""
        return self.steps_per_chunk // self.step

    @property
    def last_step(self) -> int:
        """At the end of the last chunk."""
        return self.warmup_steps + self.num_chunks * self.steps_per_chunk


def rhythm_of(config: Config, least: int = 0) -> Rhythm:
    """The rhythm of `config`, in whole iterations; the warm-up has `least` of them or more."""
    step = envs_per_step(config)
    warmup_steps = max(-(-config.min_replay // step), least) * step
    steps_per_chunk = -(-config.eval_every // step) * step
    num_chunks = max(1, -(-(config.total_steps - warmup_steps) // steps_per_chunk))
    return Rhythm(step, warmup_steps, steps_per_chunk, num_chunks)


class Watch(NamedTuple):
    """What a population tells and asks while a chunk goes on; one whose chunk is a single program does neither."""

    on_step: Callable[[int], None] = lambda env_steps: None  # told every second, the environment steps taken
    on_game: Callable[[int, int, int], None] = lambda env_steps, ended, games: None  # and of an evaluation its games
    stop: Callable[[], bool] = lambda: False  # asked every step: whether to end the chunk at once, unevaluated
    seconds_left: Callable[[], float] = lambda: math.inf  # and what is left: training ends so that an evaluation fits


UNWATCHED = Watch()


def tree_bytes(tree: Any) -> int:
    """What the leaves of a tree take, arrays or shapes; a key 8 bytes."""

    def size(x: Any) -> int:
        return 8 if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize

    return sum(math.prod(x.shape) * size(x) for x in jax.tree.leaves(tree))


def without_rows(lane: Any) -> Any:
    """A lane, or many, with no more of the replay than the number of rows added."""
    return lane._replace(replay=lane.replay.rows_added)


@functools.partial(jax.jit, static_argnums=2)
def ring_rows(storage: Any, first: jax.Array, count: int) -> Any:
    """`[L, count, ...]`, rows of rings `[L, rows, ...]` from `first` on; one program for all places."""
    return jax.tree.map(lambda x: jnp.take(x, (first + jnp.arange(count)) % x.shape[1], axis=1), storage)
