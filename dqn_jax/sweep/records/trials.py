"""The trials, in Optuna's own tables: a trial is a point of the space, and has a value once all its seeds are in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa
from optuna.distributions import distribution_to_json

from dqn_jax.sweep.records import lanes
from dqn_jax.sweep.records.adaptive import Past
from dqn_jax.sweep.records.database import Record
from dqn_jax.sweep.records.errors import clear_decoding, damaged
from dqn_jax.sweep.records.study import Study
from dqn_jax.sweep.records.values import Point, digest, insert, mean, utc_now
from dqn_jax.sweep.space import Space, distribution
from dqn_jax.sweep.tables import PHASES

if TYPE_CHECKING:
    import pandas as pd

_CONSTRAINTS = "constraints"  # Optuna's own: above zero is infeasible
_GENERATION = "dqn_jax:generation"  # which draw of CMA-ES a trial came from


class _Ended(NamedTuple):
    """A trial whose seeds are all in."""

    state: str  # as Optuna says it
    value: float | None  # none of a pruned one
    lanes: list[Record]


def ids(connection: sa.Connection, study: Study) -> dict[int, int]:
    """Optuna's key of each trial, by its number."""
    table = study.tables.trials
    query = sa.select(table.c.number, table.c.trial_id).where(study.owns(table)).order_by(table.c.number)
    return {row.number: row.trial_id for row in connection.execute(query)}


def points(connection: sa.Connection, study: Study) -> list[Point]:
    """The point of each trial, in their order.

    Raises:
      DamagedError: if they are not as they were drawn.
    """
    rows = _point_rows(connection, study)
    study.check(connection, "trials_digest", lambda: _digest(rows), "its points")
    found: dict[int, Point] = {}
    for number, name, value in rows:
        found.setdefault(number, {})[name] = study.space[name].decode(value)
    return [{name: point[name] for name in study.space} for _, point in sorted(found.items())]


def table_of(space: Space, drawn: Sequence[Point]) -> pd.DataFrame:
    """Points as a table: index `trial`, one column per setting that varies."""
    import pandas as pd

    def column(name: str) -> pd.Series:
        values = [point[name] for point in drawn]
        if any(value is None or isinstance(value, tuple) for value in values):
            return pd.Series(values, dtype=object)  # or None became NaN
        return pd.Series(values)

    return pd.DataFrame({name: column(name) for name in space}, index=pd.RangeIndex(len(drawn), name="trial"))


def add(connection: sa.Connection, study: Study, drawn: Sequence[Point], generation: int | None = None) -> None:
    """Add trials: rows of Optuna's tables, where its own interface takes seconds for each hundred.

    Args:
      connection: in a transaction that writes.
      study: the sweep.
      drawn: the points of the new trials.
      generation: which draw of CMA-ES they are, if they are.
    """
    tables, first = study.tables, len(ids(connection, study))
    numbers = range(first, first + len(drawn))
    insert(connection, tables.trials, [{"study_id": study.id, "number": n, "state": "WAITING"} for n in numbers])
    id_of = ids(connection, study)
    for name, dimension in study.space.items():
        same = {"param_name": name, "distribution_json": distribution_to_json(distribution(dimension))}
        rows = [
            {"trial_id": id_of[number], "param_value": dimension.encode(point[name]), **same}
            for number, point in zip(numbers, drawn, strict=True)
        ]
        insert(connection, tables.trial_params, rows)
    study.note(connection, trials_digest=_digest(_point_rows(connection, study)))
    if generation is not None:
        told = {"key": _GENERATION, "value_json": json.dumps(generation)}
        insert(connection, tables.trial_system_attributes, [{"trial_id": id_of[n], **told} for n in numbers])


def begin(connection: sa.Connection, study: Study, numbers: Iterable[int]) -> None:
    """Of those trials, the ones that were waiting are at work."""
    table = study.tables.trials
    which = (study.owns(table), table.c.number.in_(sorted(set(numbers))), table.c.state == "WAITING")
    connection.execute(table.update().where(*which).values(state="RUNNING", datetime_start=utc_now()))


def complete(connection: sa.Connection, study: Study, numbers: set[int]) -> None:
    """Give those trials their value whose seeds are all in: the mean over seeds of the steps to convergence.

    A seed that did not converge counts the whole budget, and where settling is asked, as much of it again as the share
    of its evaluations that did not hold: so samplers know who came close. A trial with a pruned seed has no value.
    """
    tables, trials = study.tables, study.tables.trials
    ended = _ended(connection, study, numbers)
    unfinished = connection.execute(
        sa.select(trials.c.number, trials.c.trial_id).where(
            study.owns(trials),
            trials.c.number.in_(sorted(ended)),
            trials.c.state.in_(["WAITING", "RUNNING"]),
        )
    ).all()
    now = utc_now()
    for number, trial_id in unfinished:
        state, value, own = ended[number]
        is_it = trials.c.trial_id == trial_id
        if value is not None:
            row = {"trial_id": trial_id, "objective": 0, "value": value, "value_type": "FINITE"}
            insert(connection, tables.trial_values, [row])
        converged = sum(lane.converged for lane in own)
        summary = {
            "converged": converged,
            "censored": converged < len(own),  # the value counts the whole budget for the others: it is a bound
            "share_converged": converged / len(own),
            "final_return": mean(lane.final_return for lane in own),
            "device_seconds": sum(lane.device_seconds or 0.0 for lane in own),
            "seeds": len(own),
        }
        rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(x)} for key, x in summary.items()]
        insert(connection, tables.trial_user_attributes, rows)
        # A setting of which no seed converged has no time to convergence: to Optuna it is infeasible, never best.
        infeasible = {"trial_id": trial_id, "key": _CONSTRAINTS, "value_json": json.dumps([float(not converged)])}
        insert(connection, tables.trial_system_attributes, [infeasible])
        connection.execute(trials.update().where(is_it, trials.c.datetime_start.is_(None)).values(datetime_start=now))
        connection.execute(trials.update().where(is_it).values(state=state, datetime_complete=now))


def reset(connection: sa.Connection, study: Study, numbers: Iterable[int]) -> None:
    """Trials wait for lanes again, and have no value until these are there."""
    wanted, tables = set(numbers), study.tables
    own = [trial_id for number, trial_id in ids(connection, study).items() if number in wanted]
    constraints = tables.trial_system_attributes
    connection.execute(constraints.delete().where(constraints.c.trial_id.in_(own), constraints.c.key == _CONSTRAINTS))
    for table in (tables.trial_values, tables.trial_user_attributes):
        connection.execute(table.delete().where(table.c.trial_id.in_(own)))
    waiting = {"state": "WAITING", "datetime_complete": None}
    connection.execute(tables.trials.update().where(tables.trials.c.trial_id.in_(own)).values(waiting))


def history(connection: sa.Connection, study: Study) -> list[Past]:
    """All trials in their order, as samplers see them.

    Raises:
      DamagedError: if a value is not that of the trial's lanes.
    """
    trials, values, attributes = study.tables.trials, study.tables.trial_values, study.tables.trial_system_attributes
    of_trial = attributes.c.trial_id == trials.c.trial_id
    rows = connection.execute(
        sa.select(trials.c.state, values.c.value, attributes.c.value_json)
        .outerjoin(values, values.c.trial_id == trials.c.trial_id)
        .outerjoin(attributes, of_trial & (attributes.c.key == _GENERATION))
        .where(study.owns(trials))
        .order_by(trials.c.number)
    )
    with clear_decoding(study.where):
        found = [
            Past(point, state, value, None if generation is None else json.loads(generation))
            for point, (state, value, generation) in zip(points(connection, study), rows, strict=True)
        ]
        if study.has_digests:
            ended = _ended(connection, study, range(len(found)))
            for number, past in enumerate(found):
                if (past.state, past.value) != ended.get(number, (past.state, None))[:2]:
                    raise damaged(study.where, f"the value of trial {number}")
    return found


def _ended(connection: sa.Connection, study: Study, numbers: Iterable[int]) -> dict[int, _Ended]:
    """Those trials whose seeds are all in."""
    seeds_of: dict[int, dict[int, Record]] = {}
    for lane in lanes.of_trials(connection, study, PHASES[0], numbers):
        seeds_of.setdefault(lane.trial, {})[lane.seed] = lane
    ended = {}
    for number, seeds in seeds_of.items():
        own = list(seeds.values())
        if study.seeds <= set(seeds):
            pruned = any(lane.status == "pruned" for lane in own)
            value = None if pruned else sum(_loss(lane, study) for lane in own) / len(own)
            ended[number] = _Ended("PRUNED" if pruned else "COMPLETE", value, own)
    return ended


def _loss(lane: Record, study: Study) -> float:
    if lane.converged:
        return min(lane.converged_env_steps, study.horizon)
    held = 0.0 if lane.status == "diverged" else lane.stability or 0.0  # after first passage; without one nothing held
    return study.horizon * (2.0 - held if study.settles else 1.0)


def _point_rows(connection: sa.Connection, study: Study) -> Sequence[Record]:
    trials, params = study.tables.trials, study.tables.trial_params
    return connection.execute(
        sa.select(trials.c.number, params.c.param_name, params.c.param_value)
        .join(params, params.c.trial_id == trials.c.trial_id)
        .where(study.owns(trials))
        .order_by(trials.c.number)
    ).all()


def _digest(rows: Iterable[Record]) -> str:
    return digest(sorted([list(row) for row in rows]))
