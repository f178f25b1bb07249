"""Adaptive sampling: points that the values of earlier trials suggest, by TPE or CMA-ES."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cmaes
import numpy as np
import optuna

from dqn_jax.config import ConfigError
from dqn_jax.sweep.records.database import quiet_optuna
from dqn_jax.sweep.records.values import Point
from dqn_jax.sweep.space import Range, Space, as_optuna, distribution

FINISHED = ("COMPLETE", "PRUNED")


class Past(NamedTuple):
    """A trial, as samplers see it."""

    point: Point
    state: str
    value: float | None
    generation: int | None


def ask_tpe(space: Space, history: Sequence[Past], count: int, seed: int) -> list[Point]:
    """Points from Optuna's TPE, in a study in memory: there a batch costs nothing and leaves nothing half done."""
    with quiet_optuna():
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True))
        distributions = {name: distribution(dimension) for name, dimension in space.items()}
        for past in history:
            state = past.state if past.state in FINISHED else "RUNNING"
            trial = optuna.trial.create_trial(
                state=optuna.trial.TrialState[state],
                value=past.value,
                params=as_optuna(space, distributions, past.point),
                distributions=distributions,
            )
            study.add_trial(trial)
        asked = [study.ask(distributions) for _ in range(count)]
    return [
        {n: space[n].decode(d.to_internal_repr(trial.params[n])) for n, d in distributions.items()} for trial in asked
    ]


def ask_cmaes(space: Space, history: Sequence[Past], count: int, seed: int) -> tuple[list[Point], int]:
    """Points from CMA-ES on the unit cube, and which generation they are; lists are drawn at random.

    Optuna keeps the optimiser's state in its trials, pickled. Here it is worked out anew: each generation so far is
    told its first trials again. The first batch gives their number.
    """
    ranges = {name: dimension for name, dimension in space.items() if isinstance(dimension, Range)}
    if not ranges:
        raise ConfigError("sampler: cmaes needs a setting that varies over a range; use tpe.")
    of_generation: dict[int, list[Past]] = {}
    for past in history:
        if past.generation is not None:
            of_generation.setdefault(past.generation, []).append(past)
    size = max(len(of_generation.get(0, ())) or count, 4 + math.floor(3 * math.log(len(ranges))))
    bounds = np.tile([0.0, 1.0], (len(ranges), 1))
    search = cmaes.CMA(np.full(len(ranges), 0.5), 0.25, bounds=bounds, seed=seed, population_size=size)
    while len(told := [p for p in of_generation.get(search.generation, ()) if p.state in FINISHED][:size]) == size:
        search.tell(
            [
                (
                    np.array([ranges[name].position(past.point[name]) for name in ranges]),
                    math.inf if past.value is None else past.value,  # pruned: the worst
                )
                for past in told
            ]
        )
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        unit = dict(zip(ranges, search.ask(), strict=True))
        drawn.append({name: d.at(float(unit[name]) if name in unit else rng.random()) for name, d in space.items()})
    return drawn, search.generation
