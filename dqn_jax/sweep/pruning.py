"""Pruning: at rungs of the budget the better part of the trials goes on, by evaluation return.

A trial is compared with all of its bracket that have reached that rung so far: those beside it in its wave, and those
of waves that had ended when its own began, whichever program they ran in. It goes on if it is among the best 1/eta of
them: successive halving as lanes can have it that run in waves one after another, where nobody waits for those to come.
So an early wave is compared with fewer than a late one. With one process the decisions are the same after any kill;
with several they depend on whose waves end first.

References: Jamieson & Talwalkar 2016 (arXiv 1502.07943); Li et al. 2018 (JMLR 18:185), algorithm 1; Li et al. 2020
(MLSys, arXiv 1810.05934), the asynchronous form, here without promotion of those that were stopped.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from dqn_jax.config import ConfigError

if TYPE_CHECKING:
    import pandas as pd

Rung = tuple[int, int]
"""Where trials are compared: rungs of their bracket, and environment steps."""

_DIVERGED = -1e30  # the score of a diverged lane: below any other


@dataclasses.dataclass(frozen=True)
class Prune:
    """When trials are judged.

    "halving": one in `eta` goes on at every rung, `budget / eta**k`. "hyperband": trials are dealt out to brackets that
    start halving ever later, for when early returns mislead.
    """

    rule: Literal["halving", "hyperband"] = "halving"
    eta: int = 3
    first: int = 0  # environment steps before the first evaluation: no rung lies before it
    budget: int = 0  # environment steps in all
    seed: int = 0  # of the brackets
    settles: bool = False  # who converges is known at the end only: at a rung nobody has

    def __post_init__(self) -> None:
        if self.rule not in ("halving", "hyperband"):
            raise ConfigError(f"prune: there is no rule '{self.rule}'; use halving or hyperband.")
        if self.eta < 2:
            raise ConfigError(f"prune_eta: {self.eta} is not possible; one trial in eta goes on: use 2 or more.")

    def ladder(self) -> list[int]:
        """Environment steps of all rungs, ascending; none before the first evaluation or at the budget."""
        steps, rung = [], self.budget / self.eta
        while rung >= max(self.first, 1):
            steps.append(round(rung))
            rung /= self.eta
        return steps[::-1]

    def rungs(self, trial: int) -> list[int]:
        """Environment steps at which `trial` is judged, ascending."""
        steps = self.ladder()
        if self.rule == "halving":
            return steps
        # Each so many trials in a row have one in every bracket, in an order of their own: were it always the same, a
        # bracket would be a hyperparameter where points make a grid.
        brackets = len(steps) + 1
        block, place = divmod(trial, brackets)
        return steps[np.random.default_rng([self.seed, block]).permutation(brackets)[place] :]

    def go_on(self, scores: Mapping[int, float], earlier: Iterable[float]) -> set[int]:
        """The trials of a rung that go on: those among the best 1/eta of these and of earlier ones.

        Args:
          scores: of the trials that are judged. Of equal ones earlier trials are better, then those of lower number.
          earlier: of others that had reached the rung before.
        """
        ordered = sorted([(-score, -1) for score in earlier] + [(-score, trial) for trial, score in scores.items()])
        return {trial for _, trial in ordered[: math.ceil(len(ordered) / self.eta)]} & scores.keys()


def score(returns: np.ndarray, converged: np.ndarray, finite: np.ndarray) -> float:
    """Of a trial: the mean of its seeds' last evaluations `[S]`; infinite once all have converged, lowest for a
    diverged one."""
    if np.all(converged):
        return np.inf
    return float(np.mean(np.where(np.isfinite(returns) & finite, returns, _DIVERGED)))


def scores_of(prune: Prune, lanes: pd.DataFrame, curves: pd.DataFrame) -> dict[Rung, list[float]]:
    """What the trials of a wave that has ended had scored at each rung, from its lanes and curves."""
    found: dict[Rung, list[float]] = {}
    curves_of = dict(iter(curves.groupby("trial")))
    for number, own in lanes.groupby("trial"):
        curve = curves_of[number].sort_values("env_steps")
        rungs, times = prune.rungs(int(str(number))), np.unique(curve["env_steps"].to_numpy())
        for i, rung in enumerate(rungs):
            later = times[times >= rung]
            now = later[0] if len(later) else np.inf
            if i + 1 < len(rungs) and rungs[i + 1] <= now < np.inf:
                continue  # two rungs in one chunk: judged once
            left = own["env_steps"].to_numpy() <= now
            last = curve[curve["env_steps"] <= now].groupby("seed")["eval_return"].last().reindex(own["seed"])
            value = score(
                last.to_numpy(np.float64),
                (own["converged"] & (own["converged_env_steps"] <= now) & (not prune.settles)).to_numpy(bool),
                ~(left & (own["status"] == "diverged").to_numpy()),
            )
            found.setdefault((len(rungs), rung), []).append(value)
            if left.all() and np.isfinite(value):
                break  # it was weeded out here, or nobody of it was left
    return found
