"""Each seed's best networks by evaluation, kept beside the last: they fall back, and the best are thrown away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from numpy.typing import ArrayLike

from dqn_jax.runs.arrays import load_networks, save_networks, tree_arrays, tree_from
from dqn_jax.types import Params

_PREFIX = "best_"  # of its arrays in a checkpoint


class Best:
    """The networks of L lanes as they were at each one's best evaluation so far, the first of equal ones.

    A checkpoint holds them too (`arrays`), so that a run that goes on ends with those of one that was never stopped.

    Attributes:
      eval_return: `[L]`, of the evaluation; NaN before the first that is a number.
      env_steps: `[L]`, of the run when it was made.
      params: networks, leaves `[L, ...]`, on the host; None before the first evaluation.
    """

    def __init__(self, lanes: int):
        self.eval_return = np.full(lanes, np.nan)
        self.env_steps = np.zeros(lanes, np.int64)
        self.params: Params | None = None

    def update(self, env_steps: int, eval_return: np.ndarray, fetch: Callable[[np.ndarray], Params]) -> None:
        """Take in an evaluation (`[L]`); `fetch` gives the networks (leaves `[n, ...]`, on the host) of lanes `[n]`."""
        better = (eval_return > self.eval_return) | (np.isnan(self.eval_return) & ~np.isnan(eval_return))
        if self.params is None:  # of lanes whose evaluation is no number too: there is nothing better
            self.params = jax.tree.map(np.array, fetch(np.arange(len(better))))
            self.env_steps[:] = env_steps
        elif better.any():
            lanes = np.flatnonzero(better)
            jax.tree.map(lambda own, new: own.__setitem__(lanes, new), self.params, fetch(lanes))
        self.env_steps[better] = env_steps
        self.eval_return[better] = eval_return[better]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as named arrays, for a checkpoint."""
        if self.params is None:
            return {}
        notes = {f"{_PREFIX}eval_return": self.eval_return, f"{_PREFIX}env_steps": self.env_steps}
        return notes | tree_arrays(self.params, f"{_PREFIX}lane")

    def restore(self, arrays: dict[str, np.ndarray], template: Params) -> None:
        """Take over what `arrays` gave; `template` are the networks as shapes (leaves `[L, ...]`)."""
        if f"{_PREFIX}env_steps" in arrays:
            self.eval_return = arrays[f"{_PREFIX}eval_return"].copy()
            self.env_steps = arrays[f"{_PREFIX}env_steps"].copy()
            self.params = tree_from(arrays, template, f"{_PREFIX}lane")

    def save(self, run: Path, seeds: Sequence[int]) -> None:
        """Write the file of networks, if there are any."""
        if self.params is not None:
            notes = {"eval_return": self.eval_return, "env_steps": self.env_steps}
            save_networks(path_of(run), self.params, seeds=np.asarray(seeds, np.int64), **notes)


def path_of(run: Path) -> Path:
    """Where a run's best networks are."""
    return run / "best.npz"


def load(run: Path, template: Params) -> tuple[Params, dict[str, np.ndarray]]:
    """The best networks of a run and `seeds`, `eval_return` and `env_steps` (each `[L]`), as `load_networks`."""
    params, notes = load_networks(path_of(run), template)
    if not {"seeds", "eval_return", "env_steps"} <= set(notes):
        raise ValueError("it is not a file of best networks")
    return params, notes


def describe(env_steps: ArrayLike) -> str:
    """`5,000 environment steps`, or the least and the most, of lanes `[L]`."""
    low, high = int(np.min(env_steps)), int(np.max(env_steps))
    return f"{low:,}" + (f" to {high:,}" if high > low else "") + " environment steps"
