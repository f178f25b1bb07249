"""What is noted of a chunk over pools while it goes on, on the host: readings, and where the time goes."""

from __future__ import annotations

import time

import jax
import numpy as np

from dqn_jax.agent import UpdateInfo
from dqn_jax.envs import PoolOutput
from dqn_jax.lanes.lane import Report, host_array
from dqn_jax.types import PyTree


class Timeline:
    """Where the host's seconds go, between one `lap` and the next.

    Attributes:
      seconds: by what they were spent on: "environment", waiting for the pool; "learning", for what is still being
        learnt; "transfer", for the frames' way to the device; "acting", for actions; "host", all else.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("environment", "learning", "transfer", "acting", "host"), 0.0)
        self._last = time.perf_counter()

    def lap(self, what: str, wait_for: PyTree = None) -> None:
        """Put down what has passed since the last time, after waiting for arrays that are on their way."""
        jax.block_until_ready(wait_for)
        now = time.perf_counter()
        self.seconds[what] += now - self._last
        self._last = now


class Records:
    """What the metrics of a chunk are made of, block after block; with room for so many `iterations`.

    Attributes:
      iterations: T, that there is room for.
      taken: of these, how many have been noted.
      epsilon, updates, episode_return: `[L, T]`, `[L, T]` and `[L, T, N]`, as in `Report`.
      sums: `[L, 3]`, float32, the fields of `UpdateInfo`, summed over the updates.
      made: how many updates these were.
      finite: `[L]`, bool, whether the sums are.
    """

    def __init__(self, blocks: int, block_size: int, iterations: int, num_envs: int):
        lanes = blocks * block_size
        self._block_size = block_size
        self.iterations = iterations
        self.taken = 0
        self.epsilon = np.zeros((lanes, iterations), np.float32)
        self.updates = np.zeros((lanes, iterations), np.int32)
        self.episode_return = np.full((lanes, iterations, num_envs), np.nan, np.float32)
        self.sums = np.zeros((lanes, len(UpdateInfo._fields)), np.float32)
        self.made = 0
        self.finite = np.ones(lanes, bool)

    def lanes_of(self, block: int) -> slice:
        """The rows of a block's lanes."""
        return slice(block * self._block_size, (block + 1) * self._block_size)

    def add(self, block: int, i: int, output: PoolOutput, epsilon: np.ndarray, updates: np.ndarray) -> None:
        """Note iteration `i` of a block: what its pool gave, exploration and updates of each of its lanes."""
        own = self.lanes_of(block)
        self.epsilon[own, i], self.updates[own, i] = epsilon, updates
        ended = np.where(output.game_over, output.episode_return, np.float32(np.nan))
        self.episode_return[own, i] = ended.reshape(self._block_size, -1)

    def add_sums(self, block: int, sums: np.ndarray) -> None:
        """Note the sums `[block_size, 3]` of a block's updates."""
        own = self.lanes_of(block)
        self.finite[own] &= np.isfinite(sums).all(axis=1)
        self.sums[own] += sums

    def means(self) -> UpdateInfo:
        """Over the updates, leaves `[L]`; NaN without any."""
        means = self.sums / self.made if self.made else np.full_like(self.sums, np.nan)
        return UpdateInfo(*(host_array(x) for x in means.T))

    def report(self) -> Report:
        """Of the iterations taken, leaves `[L, taken, ...]`."""
        long = self.epsilon, self.updates, self.episode_return
        return Report(*(host_array(x[:, : self.taken]) for x in long))

    def arrays(self, lanes: int) -> dict[str, np.ndarray]:
        """All of it, of the first so many lanes."""
        long = {name: getattr(self, name)[:lanes, : self.taken] for name in Report._fields}
        return {**long, "sums": self.sums[:lanes], "finite": self.finite[:lanes], "made": np.asarray(self.made)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays` gave, if anything; what fills up a last block is a lane like its last."""
        if not arrays:
            return
        rows = np.minimum(np.arange(len(self.sums)), len(arrays["sums"]) - 1)
        self.taken, self.made = arrays["epsilon"].shape[1], int(arrays["made"])
        for name in Report._fields:
            getattr(self, name)[:, : self.taken] = arrays[name][rows]
        self.sums, self.finite = arrays["sums"][rows], arrays["finite"][rows]
