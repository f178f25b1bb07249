"""A sweep's lanes by other criteria than it was run with, from the evaluations that it recorded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dqn_jax.config import ConfigError
from dqn_jax.convergence import (
    Criterion,
    Curve,
    Moment,
    parse_criteria,
    settling_among,
    stability_since,
    time_to,
)
from dqn_jax.sweep.tables import CLOCKS, SweepData

if TYPE_CHECKING:
    import pandas as pd

_LANE = ["phase", "trial", "seed"]
_EPISODES = ("train", "epsilon")  # kinds that read training episodes, of which no curve is kept


def rejudged(data: SweepData, criteria: Sequence[Criterion]) -> SweepData:
    """The sweep as if it had asked these criteria, of which the first one decides.

    Its lanes also have `unmet_<clock>`, up to where each is known not to have converged: of one that was pruned and
    might yet have settled, its last evaluation that failed.

    Raises:
      ConfigError: if that was not seen: lanes left as they met another criterion, or it reads training episodes, which
        are not kept, and the sweep had not asked it.
    """
    asked = parse_criteria(data.settings["criteria"])
    if data.settings["stop"] != "budget" and list(criteria[:1]) != asked[:1]:
        raise ConfigError(
            f"criteria: lanes left when they met {asked[0].name if asked else 'their end'}, so nobody knows when "
            f"{criteria[0].name} was met; run it again with --stop budget."
        )
    for criterion in criteria:
        if criterion.kind in _EPISODES and criterion not in asked:
            raise ConfigError(
                f"criteria: {criterion.name} reads training episodes, and only evaluations are kept; choose one of "
                f"eval, settled, loss and td_error{', or ' if asked else ''}{', '.join(c.name for c in asked)}."
            )
    settings = {**data.settings, "criteria": [criterion.name for criterion in criteria]}
    lanes, first = data.lanes, criteria[0]
    found: list[list[Moment | None]] = []
    unmet, stays = np.full((len(lanes), len(CLOCKS)), np.nan), np.full(len(lanes), np.nan)
    for i, (curve, recorded, pruned) in enumerate(_curves(data)):
        known = dict(zip(asked, recorded, strict=False))
        moments = [known[c] if c in known else time_to(c, curve) for c in criteria]
        found.append(moments)
        share = stability_since(first, curve, moments[0])
        stays[i] = np.nan if share is None else share
        if pruned:
            unmet[i] = _unmet(first, curve)
    firsts = [moments[0] for moments in found]
    times = {
        f"converged_{clock}": np.array([np.nan if m is None else getattr(m, clock) for m in firsts], np.float64)
        for clock in CLOCKS
    }
    met = np.array([moment is not None for moment in firsts], bool)
    lanes = lanes.assign(
        converged=met,
        **times,
        stability=stays,
        status=lanes["status"].mask(~met & (lanes["status"] == "converged").to_numpy(), "budget"),
        moments=[json.dumps([None if m is None else list(m) for m in moments]) for moments in found],
        **{f"unmet_{clock}": unmet[:, i] for i, clock in enumerate(CLOCKS)},
    )
    return dataclasses.replace(data, settings=settings, lanes=lanes)


def settling_of(data: SweepData) -> Criterion | None:
    """What settling means in a sweep; None where lanes left before their end, or criteria are not about returns."""
    return settling_among(parse_criteria(data.settings["criteria"])) if data.settings["stop"] == "budget" else None


def judged(data: SweepData, by: str) -> tuple[SweepData, str]:
    """The sweep and the clock or the return it is ranked by: by "settled" it is as if that were its first criterion.

    Raises:
      ConfigError: if settling was not seen, or its criteria are not about returns.
    """
    asked = parse_criteria(data.settings["criteria"])
    settles = any(criterion.settles for criterion in asked[:1])
    if by != "settled":
        again = settles and "unmet_env_steps" not in data.lanes and (data.lanes["status"] == "pruned").any()
        return (rejudged(data, asked) if again else data), by
    settling = settling_among(asked)
    if data.settings["stop"] != "budget":
        raise ConfigError("by: lanes left when they converged, and were not seen to settle; rank by a time instead.")
    if settling is None:
        raise ConfigError("by: nothing says what settled means here; give a criterion, e.g. --criteria settled:475.")
    return rejudged(data, [settling, *(criterion for criterion in asked if criterion != settling)]), "env_steps"


def with_settling(data: SweepData) -> SweepData:
    """The sweep, whose lanes also have `settled_env_steps`: when each settled, NaN where it did not or nobody saw."""
    if "settled_env_steps" in data.lanes:
        return data
    times = np.full(len(data.lanes), np.nan)
    if settling_of(data) is not None:
        times = judged(data, "settled")[0].lanes["converged_env_steps"].to_numpy(np.float64)
    return dataclasses.replace(data, lanes=data.lanes.assign(settled_env_steps=times))


def _curves(data: SweepData) -> Iterator[tuple[Curve, list[Moment | None], bool]]:
    """Of each lane what was evaluated, the moments that were recorded, and whether it was pruned."""
    columns = {name: data.curves[name].to_numpy() for name in (*CLOCKS, "eval_return", "loss", "td_error")}
    rows_of = data.curves.groupby(_LANE).indices
    episodes = {name: np.empty(0) for name in Curve._fields if name.startswith("episode_")}
    lanes: pd.DataFrame = data.lanes[[*_LANE, "status", "moments"]]
    for phase, trial, seed, status, moments in lanes.itertuples(index=False):
        rows = rows_of.get((phase, trial, seed), np.empty(0, int))
        own = {name: values[rows] for name, values in columns.items()}
        curve = Curve(**own, **episodes, whole=status in ("converged", "budget"), finite=status != "diverged")
        yield curve, [None if m is None else _moment(m) for m in json.loads(moments)], status == "pruned"


def _moment(values: Sequence[float]) -> Moment:
    env_steps, updates, episodes, seconds = values
    return Moment(int(env_steps), int(updates), int(episodes), float(seconds))


def _unmet(criterion: Criterion, curve: Curve) -> list[float]:
    """On each clock, up to where a curve that was cut is known not to have met the criterion."""
    holds, seen = criterion.holds(curve.eval_return), len(curve.env_steps)
    if criterion.settles:  # from the next evaluation on all that were not seen might have held
        apart = np.flatnonzero(~holds) + 1 if criterion.percent == 100 else np.append(np.flatnonzero(holds)[:1], seen)
        seen = int(apart[-1 if criterion.percent == 100 else 0]) if len(apart) else 0
    return [float(getattr(curve, clock)[seen - 1]) if seen else 0.0 for clock in CLOCKS]
