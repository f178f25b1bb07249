"""What training goes on from, on disk: the state of a population and the host's part, of runs and of waves alike.

    <env_steps>.npz       all but the rows of replays that are appended, of the lanes that were still at work
    rows/rows-*.npz       those rows (`rows`)

A run keeps them in its folder `checkpoints`, the last two; a wave in flight in `units/<number>`, the last one.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dqn_jax.config import ConfigError
from dqn_jax.files import clear_unfinished
from dqn_jax.lanes.driver import Population
from dqn_jax.lanes.lane import without_rows
from dqn_jax.runs.arrays import MisfitError, read_arrays, tree_arrays, tree_from, write_arrays
from dqn_jax.runs.rows import RowFiles
from dqn_jax.types import PyTree

FORMAT = 2  # a newer one is skipped. (1 was orbax's folders.)


class Saved(NamedTuple):
    """What a population goes on from."""

    env_steps: int
    lanes: PyTree  # on the host, leaves [n, ...]
    arrays: dict[str, np.ndarray]  # of the host's part
    at_work: np.ndarray  # [n], the lanes' numbers


def folder_of(run: Path) -> Path:
    """The folder within a run's in which its checkpoints are."""
    return run / "checkpoints"


class Checkpoints:
    """The checkpoints of one population, in a folder of their own.

    Attributes:
      folder: which is created where there is none.
      saved_at: environment steps of the newest one written here; -1 before it.
    """

    def __init__(self, folder: Path, population: Population, *, rows_apart: bool, kept: int = 2):
        """With `rows_apart` the rows of replays are appended, and each is written once; `kept` are kept."""
        self.folder = folder
        self.saved_at = -1
        self._population = population
        self._rows = RowFiles(folder / "rows", population) if rows_apart else None
        self._kept = kept

    def save(self, env_steps: int, lanes: PyTree, arrays: dict[str, np.ndarray], at_work: np.ndarray) -> None:
        """Write what has changed since the last time.

        Args:
          env_steps: that each lane at work has taken.
          lanes: as the population has them.
          arrays: the host's part.
          at_work: `[n]`, the lanes that are saved.

        Raises:
          OSError: if it cannot be written.
        """
        layout, rows = self._population.layout, self._rows
        state = layout.fetch(lanes if rows is None else self._population.without_rows(lanes), at_work)
        fewer = at_work if len(at_work) < layout.lanes else None
        if rows is None:
            save(self.folder, env_steps, state, arrays, at_work=fewer, kept=self._kept)
        else:
            before = rows.saved
            rows.append(lanes, int(state.replay.rows_added[0]), at_work)
            save(self.folder, env_steps, state, arrays, at_work=fewer, kept=self._kept)
            rows.forget(before if self._kept > 1 else rows.saved)
        self.saved_at = env_steps

    def load(self, warn: Callable[[str], None], otherwise: str = " and is skipped") -> Saved | None:
        """The newest whole one, as the function `load`, in a folder that nobody writes to."""
        _rename_earlier(self.folder)
        for folder in (self.folder, self.folder / "rows"):
            clear_unfinished(folder)
        shapes, rows = self._population.lane_shapes, self._rows
        if rows is None:
            return load(self.folder, shapes, warn, otherwise=otherwise)
        found = load(self.folder, without_rows(shapes), warn, complete=rows.restore, otherwise=otherwise)
        if found is None:
            rows.clear()
        return found

    def clear(self) -> None:
        """Delete all: there is nothing to go on from."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.folder)
        if self._rows is not None:
            self._rows.clear()


def save(
    folder: Path,
    env_steps: int,
    lanes: PyTree,
    arrays: dict[str, np.ndarray],
    *,
    at_work: np.ndarray | None = None,
    kept: int = 2,
) -> None:
    """Save lanes (leaves `[n, ...]`, on the host) and the host's part after `env_steps`; keep the last few up to there.

    Args:
      folder: of checkpoints; created where there is none.
      env_steps: that each lane has taken.
      lanes: their state.
      arrays: the host's part.
      at_work: `[n]`, which lanes they are (None: all that there are).
      kept: how many checkpoints are kept.
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"{env_steps:012d}.npz"
    host = {f"history_{name}": value for name, value in arrays.items()}
    numbers = {} if at_work is None else {"alive": at_work}
    write_arrays(path, {"format": np.asarray(FORMAT), **numbers, **tree_arrays(lanes), **host})
    saved = _saved(folder)
    last = [other for other in saved if other.name <= path.name][-kept:]  # those beyond were damaged, and skipped
    for other in set(saved) - set(last):
        other.unlink()


def load(
    folder: Path,
    template: PyTree,
    warn: Callable[[str], None],
    *,
    complete: Callable[[PyTree, np.ndarray], PyTree] = lambda lanes, at_work: lanes,
    otherwise: str = " and is skipped",
) -> Saved | None:
    """The newest whole checkpoint, or None without any; damaged ones are skipped.

    Args:
      folder: of checkpoints.
      template: the population's state as shapes (`jax.eval_shape`); the lane count may differ.
      warn: called with one line for each checkpoint that is skipped.
      complete: adds to the lanes `[n]` what is kept elsewhere; one in which that raises OSError or ValueError is
        skipped.
      otherwise: what follows where one is damaged, for that line.

    Raises:
      ConfigError: if it is of another version of dqn_jax: its leaves are not those of `template`.
    """
    saved = _saved(folder)
    if not saved and folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir()):
        raise ConfigError(
            f"run: the checkpoints in {folder} are folders of an earlier dqn_jax, which this version does not read; "
            "use the one that wrote them (git_commit in provenance.json), or start a new run."
        )
    for path in reversed(saved):
        try:
            stored = read_arrays(path)
            if int(stored.get("format", FORMAT)) > FORMAT:
                raise ValueError("it was written by a newer dqn_jax")
            lanes = tree_from(stored, template)
            at_work = stored["alive"] if "alive" in stored else np.arange(len(jax.tree.leaves(lanes)[0]))
            arrays = {name.removeprefix("history_"): x for name, x in stored.items() if name.startswith("history_")}
            return Saved(int(path.stem), complete(lanes, at_work), arrays, at_work)
        except MisfitError as error:
            raise ConfigError(
                f"run: the checkpoint {path} does not fit this version of dqn_jax; "
                "use the one that wrote it (provenance.json says which), or start a new run."
            ) from error
        except (OSError, ValueError) as error:
            warn(f"checkpoint {path} is damaged ({error}){otherwise}")
    return None


def _saved(folder: Path) -> list[Path]:
    """The files of a folder that are checkpoints, oldest first."""
    return sorted(path for path in folder.glob("*.npz") if path.stem.isdigit())


def _rename_earlier(folder: Path) -> None:
    """An earlier dqn_jax had other names for what a wave keeps, `state-<env_steps>.npz` and rows beside it."""
    for path in folder.glob("rows-*.npz"):
        (folder / "rows").mkdir(exist_ok=True)
        path.rename(folder / "rows" / path.name)
    for path in folder.glob("state-*.npz"):
        path.rename(folder / path.name.removeprefix("state-"))
