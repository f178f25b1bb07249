"""The table of waves: lanes that run together, each wave leased to one worker at a time (`dqn_jax_units`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from dqn_jax.sweep.records.database import Record
from dqn_jax.sweep.records.study import Study
from dqn_jax.sweep.records.values import Wave, WaveState, clock, digest, insert


def read(connection: sa.Connection, study: Study) -> list[tuple[Wave, WaveState]]:
    """All waves by id, and whether each is waiting for a worker, leased to one, or done.

    Raises:
      DamagedError: if they are not as they were planned.
    """
    now, rows = clock(connection), _rows(connection, study)
    study.check(connection, "units_digest", lambda: _digest(rows), "its waves")

    def state(row: Record) -> WaveState:
        if row.done:
            return "done"
        return "running" if row.lease_until is not None and row.lease_until > now else "waiting"

    return [(_wave(row), state(row)) for row in rows]


def find(connection: sa.Connection, study: Study, wave_id: int) -> tuple[Wave, bool]:
    """A wave, and whether it is done."""
    row = connection.execute(study.tables.waves.select().where(*_is(study, wave_id))).one()
    return _wave(row), bool(row.done)


def add(connection: sa.Connection, study: Study, waves: Iterable[Wave]) -> None:
    """Add waves that nobody has yet."""
    rows = [
        {"study_id": study.id, "id": w.id, "phase": w.phase, "lanes": json.dumps(w.lanes), "done": False} for w in waves
    ]
    insert(connection, study.tables.waves, rows)
    study.note(connection, units_digest=_digest(_rows(connection, study)))


def lease(connection: sa.Connection, study: Study, owner: str, seconds: float) -> Wave | None:
    """Lease the first wave that is neither done nor leased; None if there is none."""
    wave = next((wave for wave, state in read(connection, study) if state == "waiting"), None)
    if wave is not None:
        until = clock(connection) + seconds
        table = study.tables.waves
        connection.execute(table.update().where(*_is(study, wave.id)).values(owner=owner, lease_until=until))
    return wave


def renew(connection: sa.Connection, study: Study, wave_id: int, owner: str, seconds: float) -> bool:
    """Lease a wave for longer; False if it is done, or someone else's by now."""
    table = study.tables.waves
    result = connection.execute(
        table.update()
        .where(*_is(study, wave_id), table.c.owner == owner, ~table.c.done)
        .values(lease_until=clock(connection) + seconds)
    )
    return result.rowcount == 1


def release(connection: sa.Connection, study: Study, owner: str | None) -> None:
    """Give back what `owner` has leased (None: what anyone has)."""
    table = study.tables.waves
    mine = [] if owner is None else [table.c.owner == owner]
    connection.execute(table.update().where(study.owns(table), *mine).values(owner=None, lease_until=None))


def is_held(connection: sa.Connection, study: Study, wave_id: int, owner: str) -> bool:
    """Whether a wave is still the owner's."""
    held = connection.execute(study.tables.waves.select().where(*_is(study, wave_id))).one()
    return bool(held.owner == owner and not held.done)


def finish(connection: sa.Connection, study: Study, wave_id: int, file_digest: str | None) -> None:
    """Mark a wave done, and note the digest of its curves' file if that has been written."""
    noted = {} if file_digest is None or not study.has_digests else {"curves_digest": file_digest}
    ended = {"done": True, "owner": None, "lease_until": None}
    connection.execute(study.tables.waves.update().where(*_is(study, wave_id)).values(**ended, **noted))


def reopen(connection: sa.Connection, study: Study, wave_id: int) -> None:
    """Have a wave that was done run again."""
    noted = {"curves_digest": None} if study.has_digests else {}
    connection.execute(study.tables.waves.update().where(*_is(study, wave_id)).values(done=False, **noted))


def file_digests(connection: sa.Connection, study: Study) -> dict[int, str | None]:
    """Of the waves that are done, the digest of the file of each one's curves (None: from before there were any)."""
    return {row.id: row._mapping.get("curves_digest") for row in _rows(connection, study) if row.done}


def _rows(connection: sa.Connection, study: Study) -> Sequence[Record]:
    table = study.tables.waves
    return connection.execute(table.select().where(study.owns(table)).order_by(table.c.id)).all()


def _is(study: Study, wave_id: int) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    table = study.tables.waves
    return study.owns(table), table.c.id == wave_id


def _wave(row: Record) -> Wave:
    return Wave(row.id, row.phase, tuple((trial, seed) for trial, seed in json.loads(row.lanes)))


def _digest(rows: Iterable[Record]) -> str:
    return digest([[row.id, row.phase, row.lanes] for row in rows])
