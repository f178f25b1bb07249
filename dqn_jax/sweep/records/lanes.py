"""The table of lanes: one row for each trial and seed that has left its wave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa

from dqn_jax.sweep.records.curves import in_order
from dqn_jax.sweep.records.database import Record
from dqn_jax.sweep.records.errors import damaged
from dqn_jax.sweep.records.study import Study
from dqn_jax.sweep.records.values import LaneKey, digest, insert
from dqn_jax.sweep.tables import LANE_COLUMNS

if TYPE_CHECKING:
    import pandas as pd


def recorded(connection: sa.Connection, study: Study, trials: set[int] | None = None) -> set[LaneKey]:
    """The lanes that are recorded, of these trials or of all."""
    table = study.tables.lanes
    which = [] if trials is None else [table.c.trial.in_(sorted(trials))]
    columns = (table.c.phase, table.c.trial, table.c.seed)
    rows = connection.execute(sa.select(*columns).where(study.owns(table), *which))
    return {(row.phase, row.trial, row.seed) for row in rows}


def read(connection: sa.Connection, study: Study, with_wave: bool = False) -> pd.DataFrame:
    """The recorded lanes, LANE_COLUMNS, sorted by phase, trial and seed; if asked, with the column `wave` of its id.

    Raises:
      DamagedError: if one of them is not as it was written, or missing.
    """
    import pandas as pd

    columns = {**LANE_COLUMNS, **({"wave": "int64"} if with_wave else {})}
    table = study.tables.lanes
    rows = connection.execute(table.select().where(study.owns(table))).all()
    _check(study, rows)
    study.check(connection, "lanes_recorded", lambda: len(rows), "lanes are missing")
    values = [[getattr(row, "unit_id" if name == "wave" else name) for name in columns] for row in rows]
    return in_order([pd.DataFrame.from_records(values, columns=list(columns))], columns)


def of_trials(connection: sa.Connection, study: Study, phase: str, trials: Iterable[int]) -> Sequence[Record]:
    """The lanes of some trials in a phase, by trial and seed.

    Raises:
      DamagedError: if one of them is not as it was written.
    """
    table = study.tables.lanes
    which = (study.owns(table), table.c.phase == phase, table.c.trial.in_(sorted(trials)))
    rows = connection.execute(table.select().where(*which).order_by(table.c.trial, table.c.seed)).all()
    _check(study, rows)
    return rows


def add(connection: sa.Connection, study: Study, wave_id: int, rows: Iterable[Mapping[str, object]]) -> None:
    """Add lanes of a wave: rows (see `values.row_of`) that are not there yet."""
    own = {"study_id": study.id, "unit_id": wave_id}
    whole = [{**own, **row, **study.digest_column(list(row.values()))} for row in rows]
    insert(connection, study.tables.lanes, whole)
    if whole:
        study.count(connection, "lanes_recorded", len(whole))


def forget(connection: sa.Connection, study: Study, wave_id: int) -> None:
    """Take the lanes of a wave out again."""
    table = study.tables.lanes
    gone = connection.execute(table.delete().where(study.owns(table), table.c.unit_id == wave_id))
    study.count(connection, "lanes_recorded", -gone.rowcount)


def _check(study: Study, rows: Iterable[Record]) -> None:
    for row in rows if study.has_digests else ():
        if row.digest != digest([getattr(row, name) for name in LANE_COLUMNS]):
            raise damaged(study.where, f"trial {row.trial}, seed {row.seed}")
