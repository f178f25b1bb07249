"""A wave in flight on disk, cheap enough to be written after every chunk that takes a few seconds.

The replays are by far the largest part of it, and of them a chunk changes only the rows it wrote. So these are
appended, `rows-<from>-<to>.npz`, and only the rest is written anew, `state-<env_steps>.npz`. (Not where each lane
has rows at times of its own, or throws them away; then everything is.)
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax.config import Config, own_rhythm
from dqn_jax.loop import LaneState
from dqn_jax.population import Population
from dqn_jax.prng import key_data, wrap_key_data
from dqn_jax.replay import ReplayState
from dqn_jax.runs import Allowance, atomic, clear_errors

_ROWS_AT_ONCE = 512
_DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)  # what reading raises


class Saved(NamedTuple):
    """What a wave goes on from."""

    env_steps: int
    lanes: LaneState  # placed, leaves [padded, ...]
    alive: np.ndarray  # [n], lanes still at work
    arrays: dict[str, np.ndarray]  # of the host's part


@functools.partial(jax.jit, static_argnums=2)
def _rows(storage: Any, first: jax.Array, count: int) -> Any:
    """`[padded, count, ...]`, rows of rings `[padded, rows, ...]` from `first` on; one program for all places."""
    return jax.tree.map(lambda x: jnp.take(x, (first + jnp.arange(count)) % x.shape[1], axis=1), storage)


class WaveCheckpoint:
    """Saves and restores the lanes at work; files are written whole, and zip's checksums tell damaged ones."""

    def __init__(self, folder: Path, population: Population, config: Config, allowance: Allowance):
        self.folder = folder
        self.allowance = allowance
        self.saved_at = -1  # environment steps
        self.population = population
        self._appends = not own_rhythm(config) and not config.clear_replay
        storage = jax.tree.leaves(population.lane_shapes.replay.storage)[0]
        self._capacity = storage.shape[1]  # rows of a ring
        self._saved_rows = 0

    def due(self) -> bool:
        """Whether there is time to save again."""
        return self.allowance.left()

    def save(self, env_steps: int, lanes: LaneState, alive: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
        """Write what has changed since the last time; `arrays` are the host's part."""
        layout = self.population.layout
        with self.allowance.spend(), clear_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._appends:
                rows_added: Any = lanes.replay.rows_added
                small = layout.fetch(lanes._replace(replay=rows_added), alive)
                first, last = self._saved_rows, int(small.replay[0])
                if last - first > self._capacity:
                    first = last - self._capacity
                self._save_rows(lanes.replay.storage, first, last, alive)
                self._saved_rows = last
            else:
                small = layout.fetch(lanes, alive)
            leaves = jax.tree.leaves(small._replace(key=key_data(small.key)))
            everything = {f"lane{i:04d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
            everything |= {f"history_{name}": value for name, value in arrays.items()}
            path = self.folder / f"state-{env_steps:012d}.npz"
            _write(path, {"alive": alive, "env_steps": np.asarray(env_steps), **everything})
            for old in self.folder.glob("state-*.npz"):
                if old != path:
                    old.unlink()
            for old in self.folder.glob("rows-*.npz"):
                if _bounds(old)[1] <= self._saved_rows - self._capacity:
                    old.unlink()  # overwritten in the rings since
        self.saved_at = env_steps

    def _save_rows(self, storage: Any, first: int, last: int, alive: np.ndarray) -> None:
        count = min(_ROWS_AT_ONCE, self._capacity)
        for row in range(first, last, count):
            fetched = self.population.layout.fetch(_rows(storage, jnp.int32(row), count), alive)
            arrays = {f"leaf{i:04d}": leaf[:, : last - row] for i, leaf in enumerate(jax.tree.leaves(fetched))}
            path = self.folder / f"rows-{row:012d}-{min(row + count, last):012d}.npz"
            _write(path, {"lanes": alive, **arrays})

    def load(self, warn: Callable[[str], None]) -> Saved | None:
        """The last state, or None without a whole one (the wave starts again, and ends with the same numbers)."""
        states = sorted(self.folder.glob("state-*.npz"), reverse=True)
        if not states:
            self.clear()
            return None
        try:
            rows = [(*_bounds(path), _read(path)) for path in sorted(self.folder.glob("rows-*.npz"))]
            return self._restore(_read(states[0]), rows)
        except _DAMAGE as error:
            warn(f"checkpoint {self.folder} is damaged ({error}); its lanes start again, with the same numbers")
            self.clear()
            return None

    def _restore(self, stored: dict[str, np.ndarray], rows: list[tuple[int, int, dict[str, np.ndarray]]]) -> Saved:
        alive = stored["alive"]
        shapes = self.population.lane_shapes
        saved_part: Any = 0 if self._appends else shapes.replay
        small = jax.tree.unflatten(
            jax.tree.structure(shapes._replace(replay=saved_part)),
            [stored[name] for name in sorted(stored) if name.startswith("lane")],
        )
        lanes = small._replace(key=wrap_key_data(small.key))
        if self._appends:
            self._saved_rows = int(small.replay[0])
            lanes = lanes._replace(replay=ReplayState(self._restore_rows(rows, alive), small.replay))
        # Back to everybody's own place; what lies in the places of those who have left is never read again.
        layout = self.population.layout
        place = np.searchsorted(alive, np.arange(layout.lanes)).clip(max=len(alive) - 1)
        placed = layout.place(jax.tree.map(lambda x: x[place], lanes))
        arrays = {name.removeprefix("history_"): x for name, x in stored.items() if name.startswith("history_")}
        return Saved(int(stored["env_steps"]), placed, alive, arrays)

    def _restore_rows(self, rows: list[tuple[int, int, dict[str, np.ndarray]]], alive: np.ndarray) -> Any:
        """The rings of the lanes `alive`, leaves `[n, rows, ...]`, from what was appended."""
        storage, structure = jax.tree.flatten(self.population.lane_shapes.replay.storage)
        restored = [np.zeros((len(alive), *leaf.shape[1:]), leaf.dtype) for leaf in storage]
        oldest = reached = max(0, self._saved_rows - self._capacity)
        for first, last, arrays in rows:
            if last <= reached or first >= self._saved_rows:
                continue
            if first > reached:
                break
            begin, reached = max(first, oldest), min(last, self._saved_rows)
            own = np.searchsorted(arrays["lanes"], alive)  # whoever is at work now was so then
            places = np.arange(begin, reached) % self._capacity
            for i, leaf in enumerate(restored):
                leaf[:, places] = arrays[f"leaf{i:04d}"][own, begin - first : reached - first]
        if reached < self._saved_rows:
            raise ValueError("rows are missing")
        return jax.tree.unflatten(structure, restored)

    def clear(self) -> None:
        """The wave has ended: nothing to go on from."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.folder)
        self._saved_rows = 0


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic(path) as temporary:  # zip's checksums do not tell that a file of it is gone: their number does
        np.savez(temporary, files=len(arrays), **arrays)  # type: ignore[arg-type]


def _read(path: Path) -> dict[str, np.ndarray]:
    # Opened here: NumPy leaves a file open that it opened and found damaged.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if arrays.pop("files") != len(arrays):
        raise ValueError("arrays are missing")
    return arrays


def _bounds(path: Path) -> tuple[int, int]:
    first, last = path.stem.split("-")[1:]
    return int(first), int(last)
