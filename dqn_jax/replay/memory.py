"""What learns remembers through one door, whatever drives it: `Memory(init, add, sample, reprioritize, clear)`.

A memory is a ring of rows, one row per vector step of `N` environments. A *place* is a row of the ring and an
environment, as one number: row * N + environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax

from dqn_jax.config import HParams
from dqn_jax.replay.ring import ReplayState
from dqn_jax.types import Batch, Key, PyTree

QValuesOf = Callable[[jax.Array], jax.Array]
"""The learner's present Q-values, `[M, A]` float32, of observations `[M, *obs_shape]`."""


class MemoryInit(Protocol):
    """An empty memory for rows shaped and typed as `example_row` (leaves `[N, ...]`).

    Rows are `TransitionRow`s of environments on the device, `FrameRow`s of a pool's.
    """

    def __call__(self, example_row: PyTree) -> ReplayState: ...


class MemoryAdd(Protocol):
    """Write one row (leaves `[N, ...]`), overwriting the oldest when full.

    Asynchronously, the next row of each of the environments `envs` (`[M]`, int32, none twice; leaves `[M, ...]`).
    """

    def __call__(self, state: ReplayState, row: PyTree, envs: jax.Array | None = None) -> ReplayState: ...


class MemorySample(Protocol):
    """A batch to learn from; there must be something to draw.

    `q_values` is for targets that are made when they are drawn; None where the memory is kept apart from networks.
    """

    def __call__(self, state: ReplayState, key: Key, hparams: HParams, q_values: QValuesOf | None = None) -> Batch: ...


class MemoryReprioritize(Protocol):
    """The priorities (`state.priorities`) after a batch from `place` `[B]` had the TD errors `td_error` `[B]`.

    They alone come and go: a loop that carried the rows would copy them. Without priorities nothing happens.
    """

    def __call__(self, priorities: PyTree, place: jax.Array, td_error: jax.Array, hparams: HParams) -> PyTree: ...


class MemoryClear(Protocol):
    """An empty memory where `when` (`[]`, bool) holds, else the same."""

    def __call__(self, state: ReplayState, when: jax.Array | bool) -> ReplayState: ...


class MemoryPrepare(Protocol):
    """What to draw from in the batches of one time of training, with targets that are made once for all of them.

    `q_values` is of the networks before the first batch (of the target network, where there is one). Nothing of it is
    kept.
    """

    def __call__(self, state: ReplayState, hparams: HParams, q_values: QValuesOf) -> ReplayState: ...


class Memory(NamedTuple):
    """What is remembered, and how it is drawn: pure functions of a `ReplayState`.

    In one jitted program, add before sampling: XLA copies the whole ring where it is written after it is read.
    """

    init: MemoryInit
    add: MemoryAdd
    sample: MemorySample
    reprioritize: MemoryReprioritize
    clear: MemoryClear
    prepare: MemoryPrepare | None = None  # None where batches are drawn from what is stored, as it is
