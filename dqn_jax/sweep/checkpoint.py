"""A wave in flight on disk, cheap enough to be written after every chunk that takes a few seconds.

The rows of its replays are appended (`rows`), and only the rest is written anew, `state-<env_steps>.npz`.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dqn_jax.files import clear_errors, clear_unfinished
from dqn_jax.lanes.driver import Population
from dqn_jax.lanes.lane import without_rows
from dqn_jax.runs.checkpoint import Allowance, read_arrays, tree_arrays, tree_from, write_arrays
from dqn_jax.runs.rows import RowFiles


class Saved(NamedTuple):
    """What a wave goes on from."""

    env_steps: int
    lanes: Any  # placed
    alive: np.ndarray  # [n], lanes still at work
    arrays: dict[str, np.ndarray]  # of the host's part


class WaveCheckpoint:
    """Saves and restores the lanes at work; files are written whole, and zip's checksums tell damaged ones."""

    def __init__(self, folder: Path, population: Population, allowance: Allowance, *, appends_rows: bool):
        self.folder = folder
        self.allowance = allowance
        self.saved_at = -1  # environment steps
        self.population = population
        self._rows = RowFiles(folder, population) if appends_rows else None

    def due(self) -> bool:
        """Whether there is time to save again."""
        return self.allowance.left()

    def save(self, env_steps: int, lanes: Any, alive: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
        """Write what has changed since the last time; `lanes` are the population's, `arrays` the host's part."""
        layout = self.population.layout
        with self.allowance.spend(), clear_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            small = layout.fetch(lanes if self._rows is None else self.population.without_rows(lanes), alive)
            if self._rows is not None:
                self._rows.append(lanes, int(small.replay[0]), alive)
            everything = tree_arrays(small) | {f"history_{name}": value for name, value in arrays.items()}
            path = self.folder / f"state-{env_steps:012d}.npz"
            write_arrays(path, {"alive": alive, "env_steps": np.asarray(env_steps), **everything})
            for old in self.folder.glob("state-*.npz"):
                if old != path:
                    old.unlink()
            if self._rows is not None:
                self._rows.forget(self._rows.saved)
        self.saved_at = env_steps

    def load(self, warn: Callable[[str], None]) -> Saved | None:
        """The last state, or None without a whole one (the wave starts again, and ends with the same numbers)."""
        clear_unfinished(self.folder)
        states = sorted(self.folder.glob("state-*.npz"), reverse=True)
        if not states:
            self.clear()
            return None
        try:
            return self._restore(read_arrays(states[0]))
        except ValueError as error:
            warn(f"checkpoint {self.folder} is damaged ({error}); its lanes start again, with the same numbers")
            self.clear()
            return None

    def _restore(self, stored: dict[str, np.ndarray]) -> Saved:
        alive = stored["alive"]
        shapes = self.population.lane_shapes
        lanes = tree_from(stored, shapes if self._rows is None else without_rows(shapes))
        if self._rows is not None:
            lanes = self._rows.restore(lanes, alive)
        # Back to everybody's own place; what lies in the places of those who have left is never read again.
        layout = self.population.layout
        if len(alive) < layout.lanes:
            place = np.searchsorted(alive, np.arange(layout.lanes)).clip(max=len(alive) - 1)
            lanes = jax.tree.map(lambda x: x[place], lanes)
        arrays = {name.removeprefix("history_"): x for name, x in stored.items() if name.startswith("history_")}
        return Saved(int(stored["env_steps"]), layout.place(lanes), alive, arrays)

    def clear(self) -> None:
        """The wave has ended: nothing to go on from."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.folder)
        if self._rows is not None:
            self._rows.clear()
