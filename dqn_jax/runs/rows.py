"""The rows of replays on disk, appended as they come.

Replays are by far the largest part of what a population is made of, and of them a chunk changes only the rows that it
wrote: these go to files of their own, `rows-<from>-<to>.npz`, which are never written again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from dqn_jax.lanes.driver import Population
from dqn_jax.runs.arrays import read_arrays, write_arrays
from dqn_jax.types import PyTree

_ROWS_AT_ONCE = 512


class RowFiles:
    """Appends and restores the rows of a population's replays; zip's checksums tell damaged files.

    Attributes:
      saved: rows added, of those that are on disk.
    """

    def __init__(self, folder: Path, population: Population):
        self.folder = folder
        self.saved = 0
        self._population = population
        self._layout = population.layout
        self._shapes = population.lane_shapes.replay
        self.capacity = jax.tree.leaves(self._shapes.storage)[0].shape[1]

    def append(self, population_lanes: PyTree, rows_added: int, lanes: np.ndarray) -> None:
        """Write the rows added since the last time, up to `rows_added`, of the lanes `[n]` of the population's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        count = min(_ROWS_AT_ONCE, self.capacity)

        for row in range(max(self.saved, rows_added - self.capacity), rows_added, count):
            fetched = self._layout.fetch(self._population.rows(population_lanes, row, count, lanes), lanes)
            arrays = {f"leaf{i:04d}": leaf[:, : rows_added - row] for i, leaf in enumerate(jax.tree.leaves(fetched))}
            path = self.folder / f"rows-{row:012d}-{min(row + count, rows_added):012d}.npz"
            write_arrays(path, {"lanes": lanes, **arrays})
        self.saved = rows_added

    def restore(self, without: PyTree, lanes: np.ndarray) -> PyTree:
        """The lanes `[n]` whole again, on the host, from what `without_rows` left of them.

        Rows beyond, written just before a kill, are deleted: environments of a pool do not go that way again.

        Raises:
          ValueError: if files are damaged or gone.
        """
        saved = int(without.replay.rows_added[0])
        storage, structure = jax.tree.flatten(self._shapes.storage)
        restored = [np.zeros((len(lanes), *leaf.shape[1:]), leaf.dtype) for leaf in storage]
        oldest = reached = max(0, saved - self.capacity)
        for path in sorted(self.folder.glob("rows-*.npz")):
            first, last = _bounds(path)
            if last <= reached or first >= saved:
                continue
            if first > reached:
                break
            arrays = read_arrays(path)
            begin, reached = max(first, oldest), min(last, saved)
            own = np.searchsorted(arrays["lanes"], lanes)  # whoever is at work now was so then
            places = np.arange(begin, reached) % self.capacity
            for i, leaf in enumerate(restored):
                leaf[:, places] = arrays[f"leaf{i:04d}"][own, begin - first : reached - first]
        if reached < saved:
            raise ValueError("rows are missing")
        self.saved = saved
        self._delete(lambda first, last: first >= saved)
        replay = without.replay._replace(storage=jax.tree.unflatten(structure, restored))
        return without._replace(replay=replay)

    def forget(self, rows_added: int) -> None:
        """Delete what replays no longer hold once so many rows have been added."""
        self._delete(lambda first, last: last <= rows_added - self.capacity)

    def clear(self) -> None:
        """Delete all: what is saved next begins at the first row."""
        self.saved = 0
        self._delete(lambda first, last: True)

    def _delete(self, chosen: Callable[[int, int], bool]) -> None:
        for path in self.folder.glob("rows-*.npz"):
            if chosen(*_bounds(path)):
                path.unlink()


def _bounds(path: Path) -> tuple[int, int]:
    first, last = path.stem.split("-")[1:]
    return int(first), int(last)
