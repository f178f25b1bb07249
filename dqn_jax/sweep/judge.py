"""When lanes of a wave leave: as they converge, diverge, are pruned, or run out of their budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from dqn_jax.convergence import Criterion, time_to
from dqn_jax.lanes.history import History
from dqn_jax.sweep.pruning import Prune, Rung, score


@dataclasses.dataclass(frozen=True)
class Rules:
    """When lanes of a sweep leave: by which criterion, at once or later, weeded out or not."""

    criteria: tuple[Criterion, ...]  # the first one decides; where one asks who settles, nobody leaves before the end
    stop: Literal["converged", "budget"] = "converged"  # whether lanes that have converged leave
    stability_steps: int = 0  # environment steps that they stay on, to see whether it lasts
    prune: Prune | None = None


class LaneJudge:
    """Decides after every chunk of a wave who leaves, and why: a `drive.Judge`."""

    def __init__(self, rules: Rules, trials: Sequence[int], raced: Mapping[Rung, Sequence[float]] | None = None):
        """For lanes of these `trials` `[L]`; `raced` are the scores of trials of earlier waves at their rungs."""
        self.rules = rules
        self._raced = raced or {}
        self.trials = np.array(trials)
        self._converged_at = np.full(len(trials), -1)  # environment steps
        self._rungs: dict[int, list[int]] = {}  # still ahead of each trial that has not been pruned
        if rules.prune is not None:
            self._rungs = {int(trial): rules.prune.rungs(int(trial)) for trial in np.unique(self.trials)}
        self._bracket = {trial: len(rungs) for trial, rungs in self._rungs.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """What cannot be told from the history, for a checkpoint."""
        return {"racing": np.array(list(self._rungs), int)}

    def restore(self, history: History, arrays: dict[str, np.ndarray]) -> None:
        """Know what was known after the chunks in `history`."""
        for lane, curve in enumerate(history.curves()):
            moment = time_to(self.rules.criteria[0], curve) if self.rules.criteria else None
            self._converged_at[lane] = -1 if moment is None else self._chunk_end(history, moment.env_steps)
        if self._rungs:
            racing = (int(trial) for trial in arrays["racing"])
            self._rungs = {t: [rung for rung in self._rungs[t] if rung > history.env_steps[-1]] for t in racing}

    @staticmethod
    def _chunk_end(history: History, env_steps: int) -> int:
        return int(history.env_steps[np.searchsorted(history.env_steps, env_steps)])

    def leaving(self, history: History, alive: np.ndarray, *, last: bool) -> dict[int, str]:
        """The lanes among `alive` that leave after this chunk, with their status."""
        now = history.env_steps[-1]
        self._note_converged(history, alive, now, last=last)
        leaving: dict[int, str] = {}
        resting = history.at_rest()
        for i in alive:
            converged = self._converged_at[i] >= 0
            stayed = converged and now >= self._converged_at[i] + self.rules.stability_steps
            if converged and ((stayed and self.rules.stop == "converged") or last or resting[i]):
                leaving[int(i)] = "converged"
            elif not history.finite[i]:
                leaving[int(i)] = "diverged"
            elif last or resting[i]:
                leaving[int(i)] = "budget"
        for i in self._hopeless(history, alive, now):
            leaving.setdefault(i, "pruned")
        return leaving

    def _note_converged(self, history: History, alive: np.ndarray, now: int, *, last: bool) -> None:
        if not self.rules.criteria:
            return
        criterion = self.rules.criteria[0]
        waiting = alive[self._converged_at[alive] < 0]
        if criterion.settles and not last:
            waiting = waiting[history.at_rest()[waiting]]  # nothing is known of the others before their end
        if criterion.settles or criterion.kind in ("train", "epsilon"):
            curves = history.curves(waiting)
            met = np.array([time_to(criterion, curve) is not None for curve in curves], bool)
        else:
            readings = history.readings["eval_return" if criterion.kind == "eval" else criterion.kind]
            recent = np.array(readings[-criterion.window :])[:, waiting]
            met = np.all(criterion.holds(recent), axis=0) & (len(recent) == criterion.window)
        self._converged_at[waiting[met]] = now

    def _hopeless(self, history: History, alive: np.ndarray, now: int) -> list[int]:
        """Lanes of the trials that a rung reached in this chunk weeds out."""
        due = [trial for trial, rungs in self._rungs.items() if rungs and rungs[0] <= now]
        prune = self.rules.prune
        if not due or prune is None:
            return []
        reached: dict[Rung, list[int]] = {}
        for trial in due:
            passed = [rung for rung in self._rungs[trial] if rung <= now]
            reached.setdefault((self._bracket[trial], passed[-1]), []).append(trial)
            self._rungs[trial] = self._rungs[trial][len(passed) :]
        pruned: list[int] = []
        for rung, trials in reached.items():
            scores = {trial: self._score(history, trial) for trial in trials}
            staying = prune.go_on(scores, self._raced.get(rung, ()))
            for trial in trials:
                if trial in staying or np.isinf(scores[trial]):
                    continue  # who has converged has nothing left to be weeded out
                self._rungs.pop(trial)
                pruned += [int(i) for i in alive if self.trials[i] == trial]
        return pruned

    def _score(self, history: History, trial: int) -> float:
        own = np.flatnonzero(self.trials == trial)
        returns = history.final_eval[own].mean(axis=1)
        return score(returns.astype(np.float64), self._converged_at[own] >= 0, history.finite[own])
