"""Do agents stay where they got? One criterion on evaluations of many seeds: first passage, settling, and the end."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dqn_jax.convergence.criteria import Criterion
from dqn_jax.convergence.intervals import mean_interval
from dqn_jax.convergence.settling import first_passage, held_after, held_interval, settled_from
from dqn_jax.convergence.statistics import TimeToConvergence, time_to_convergence


class Staying(NamedTuple):
    """What S seeds reached and whether they stayed, to the end of one budget; 95 % intervals are (low, high)."""

    first: np.ndarray  # [S], environment steps of first passage; NaN where there was none
    settled: np.ndarray  # [S], environment steps at which it settled; NaN where it did not
    held: np.ndarray  # [S], share of the evaluations after first passage that hold; NaN without any
    final: np.ndarray  # [S], mean of the last evaluation
    passage: TimeToConvergence  # over seeds: share, median and restricted mean of first passage
    settling: TimeToConvergence  # likewise of settling: who did not is censored at the budget
    held_mean: float  # over seeds with later evaluations; NaN without any
    held95: tuple[float, float]
    final_mean: float
    final95: tuple[float, float]
    worst: float  # final return of the worst seed


def staying(env_steps: Any, returns: Any, criterion: Criterion, *, percent: float = 100.0) -> Staying:
    """First passage by `criterion`, and settling at its threshold, of S seeds that were seen to one budget's end.

    Args:
      env_steps: `[C]`, of the evaluations; the last is the budget's end.
      returns: `[S, C]`, evaluation means; NaN does not hold.
      criterion: on evaluations ("eval>=475x3").
      percent: of the evaluations that must hold for a seed to have settled.

    Raises:
      ValueError: if there is no evaluation, or the shapes do not fit.
    """
    steps, returns = np.asarray(env_steps, np.float64), np.asarray(returns, np.float64)
    if returns.ndim != 2 or steps.shape != returns.shape[1:] or not returns.size:
        raise ValueError(f"returns {returns.shape} must be [seeds, evaluations], as many as env_steps {steps.shape}")
    holds = criterion.holds(returns)

    def dates(index: np.ndarray) -> tuple[np.ndarray, TimeToConvergence]:
        found = index >= 0
        times = np.where(found, steps[index], np.nan)
        return times, time_to_convergence(np.where(found, times, steps[-1]), found, steps[-1])

    first, passage = dates(first_passage(holds, criterion.window))
    settled, settling = dates(settled_from(holds, percent))
    held, final = held_after(holds, criterion.window), returns[:, -1]
    known = held[~np.isnan(held)]
    low, high = mean_interval(final)
    return Staying(
        first=first,
        settled=settled,
        held=held,
        final=final,
        passage=passage,
        settling=settling,
        held_mean=float(known.mean()) if len(known) else np.nan,
        held95=held_interval(known),
        final_mean=float(final.mean()),
        final95=(float(low), float(high)),
        worst=float(final.min()),
    )
