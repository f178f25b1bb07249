"""What a run ended with: `summary.json`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dqn_jax import convergence, devices
from dqn_jax._import_time import import_seconds
from dqn_jax.files import Json
from dqn_jax.lanes.history import History
from dqn_jax.runs.best import Best
from dqn_jax.runs.settings import RunSettings


def converged(criteria: Sequence[convergence.Criterion], history: History) -> np.ndarray:
    """`[L]`, bool, which seeds have converged so far, by the first criterion; without one nobody has."""
    if not criteria:
        return np.zeros(len(history.seeds), bool)
    return np.array([convergence.time_to(criteria[0], curve) is not None for curve in history.curves()])


def lane_steps(history: History) -> np.ndarray:
    """`[L]`, environment steps each seed has taken: those of the run, or up to the end of its last episode."""
    steps = np.full(len(history.seeds), history.env_steps[-1] if history.env_steps else 0)
    resting = history.at_rest()
    if resting.any():
        curves = history.curves()
        steps[resting] = [curves[lane].episode_env_steps[-1] for lane in np.flatnonzero(resting)]
    return steps


def summarize(
    settings: RunSettings,
    criteria: Sequence[convergence.Criterion],
    history: History,
    best: Best,
    *,
    bound: np.ndarray,
    compile_seconds: float,
    complete: bool,
) -> Json:
    """The content of summary.json: lists have one entry per seed, None where something was not reached.

    Args:
      settings: of the run.
      criteria: the settings' convergence criteria; the first one decides.
      history: what the run has seen.
      best: each seed's best networks.
      bound: `[L]`, of mean Q-values (`envs.bounds.value_bound`), NaN where nothing bounds them.
      compile_seconds: that compiling its programs took.
      complete: whether it ended by itself.
    """
    curves = history.curves()
    seconds = history.seconds[-1] if history.seconds else 0.0
    lanes = len(settings.seeds)
    steps = lane_steps(history)
    updates = history.reading("updates")[:, -1:].sum()
    final = history.reading("eval_return")[:, -1] if history.env_steps else np.full(lanes, np.nan)
    low, high = convergence.mean_interval(final)
    worst = int(np.argmin(np.where(np.isnan(final), -np.inf, final)))

    def seeds_where(flags: np.ndarray) -> list[int]:
        return [seed for seed, flag in zip(settings.seeds, flags, strict=True) if flag]

    fell_back = np.zeros(lanes, bool)
    if criteria and criteria[0].kind in ("eval", "train"):
        fell_back = converged(criteria, history) & ~criteria[0].holds(final)
    return {
        "env": settings.config.env,
        "preset": settings.name,
        "seeds": list(settings.seeds),
        "complete": complete,
        "env_steps": int(steps.max()),
        "updates": history.reading("updates")[:, -1].tolist() if history.env_steps else [0] * lanes,
        "criteria": [convergence.summarize(criterion, curves) for criterion in criteria],
        "final_eval_return": final.tolist(),
        "final_eval": {
            "mean": float(np.mean(final)),
            "interval95": [None if np.isnan(end) else float(end) for end in (low, high)],
            "iqm": float(convergence.interquartile_mean(final)),
            "worst": float(final[worst]),
            "worst_seed": settings.seeds[worst],
        },
        "best_eval_return": best.eval_return.tolist(),
        "best_env_steps": best.env_steps.tolist(),  # when each was made
        "final_train_return": history.reading("train_return")[:, -1].tolist() if history.env_steps else [],
        # Of the seeds that met the first criterion, those whose last evaluation is on the wrong side of its threshold.
        "fell_back": seeds_where(fell_back),
        "diverged": seeds_where(~history.finite),
        "value_bound": [None if np.isnan(b) else float(b) for b in bound],
        "q_mean": _furthest(history.reading("q_mean")),  # of all chunks, the one furthest from zero
        "above_bound": seeds_where(history.above_bound(bound)),
        "throughput": {
            "env_steps_per_second": float(steps.sum()) / seconds if seconds else None,
            "updates_per_second": float(updates) / seconds if seconds else None,
        },
        "seconds": {"import": import_seconds(), "compile": compile_seconds, "run": seconds},
        "peak_memory_bytes": devices.peak_memory_bytes(),
    }


def _furthest(values: np.ndarray) -> list[float | None]:
    """Of each row of `values` `[L, C]` the one furthest from zero; None if there is none."""
    found = (row[np.isfinite(row)] for row in values)
    return [float(row[np.argmax(np.abs(row))]) if len(row) else None for row in found]
