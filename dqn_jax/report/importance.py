"""Which hyperparameters mattered, by PED-ANOVA (Watanabe, Bansal & Hutter 2023, arXiv 2304.10255) as in Optuna."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dqn_jax.config import show
from dqn_jax.sweep.records.database import quiet_optuna
from dqn_jax.sweep.space import Space, as_optuna, distribution

if TYPE_CHECKING:
    import pandas as pd
    from optuna.trial import FrozenTrial

_FEWEST = 8  # trials; and of them, how many make up the best at the least
_TOP, _TOP_FEWEST = 0.1, 5
_HALVES = 40


class Importance(NamedTuple):
    """Shares that add up to 1: how much each hyperparameter sets the best trials apart from the rest."""

    names: tuple[str, ...]  # most important first
    shares: np.ndarray  # [H]
    low: np.ndarray  # [H], 2.5 % quantile over random halves of the trials
    high: np.ndarray  # [H], 97.5 %
    top: float  # the share of the trials that counted as best


def importance_of(space: Space, trials: pd.DataFrame, losses: Any, *, seed: int = 0) -> Importance | str:
    """Importances, or in plain words why there are none.

    Args:
      space: what varied.
      trials: N rows, with a column for each dimension of the space.
      losses: `[N]`, smaller is better.
      seed: of the halves.
    """
    losses = np.asarray(losses, np.float64)
    names = [name for name in space if len({show(value) for value in trials[name]}) > 1]
    if len(names) < 2:
        return "Importance compares hyperparameters, and fewer than two took more than one value."
    if len(losses) < _FEWEST:
        return f"Importance needs at least {_FEWEST} finished trials; there are {len(losses)}."
    top = min(max(_TOP, _TOP_FEWEST / len(losses)), 0.5)
    if np.quantile(losses, top) >= losses.max():
        return "Importance sets the best trials apart from the rest, and too few did better than the worst."
    rng = np.random.default_rng(seed)
    frozen = _frozen({name: space[name] for name in names}, trials, losses)
    whole = _shares(names, frozen, top)
    halves = []
    for _ in range(_HALVES):
        half = rng.permutation(len(losses))[: (len(losses) + 1) // 2]
        halves.append(_shares(names, [frozen[i] for i in half], top))
    order = np.argsort(-whole, kind="stable")
    low, high = np.quantile(np.stack(halves), [0.025, 0.975], axis=0)
    return Importance(tuple(names[i] for i in order), whole[order], low[order], high[order], top)


def _frozen(space: Space, trials: pd.DataFrame, losses: np.ndarray) -> list[FrozenTrial]:
    """The trials as Optuna has them."""
    import optuna

    distributions = {name: distribution(dimension) for name, dimension in space.items()}
    rows = trials[list(space)].to_dict("records")
    return [
        optuna.trial.create_trial(
            params=as_optuna(space, distributions, row), distributions=distributions, value=float(loss)
        )
        for row, loss in zip(rows, losses, strict=True)
    ]


def _shares(names: list[str], trials: list[FrozenTrial], top: float) -> np.ndarray:
    """In the order of `names`; all equal where nothing sets the best apart."""
    import optuna

    with quiet_optuna():
        study = optuna.create_study()
        study.add_trials(trials)
        found = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=top).evaluate(study)
    shares = np.array([found.get(name, 0.0) for name in names])
    return shares / shares.sum() if shares.sum() > 0 else np.full(len(names), 1 / len(names))
