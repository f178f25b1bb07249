"""The records of a sweep: one database, whole at any instant, whoever dies when.

    <directory>/  store.sqlite      Optuna's tables, and ours: what makes the folder a sweep
                  sweep.json        what was asked (a copy for people, made again if it is missing)
                  curves/unit-00003.parquet
                  lock              held by the process that runs the sweep

Optuna's trials are the configurations: one trial for each point of the space, under its number, so that Optuna and its
dashboard open the database too. Beside them stand tables of ours: lanes (trial x seed), units (lanes that run together,
leased to one worker at a time) and the curves of units that are not done. A PostgreSQL server can hold them in place of
the file: then several machines join a sweep by its URL, and `Store.export` mirrors it into a directory.

Two rules keep it whole. What belongs together is written in one transaction: a lane, its curve, and its trial's value
once the last seed is in. And a transaction that writes begins by raising the sweep's revision, which makes the writers
of a sweep take turns.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from dqn_jax.config import ConfigError, RunError
from dqn_jax.files import LOCK, atomic, clear_unfinished, lock, read_notes, write_json
from dqn_jax.runs import schemas
from dqn_jax.runs.redact import redact
from dqn_jax.sweep.curves import Part, digest, in_order, read_parts, to_parquet
from dqn_jax.sweep.space import Space, distribution, parse_space
from dqn_jax.sweep.tables import CURVE_COLUMNS, LANE_COLUMNS, PHASES, SWEEP_FILES, SweepData

if TYPE_CHECKING:  # slow to import, as pandas, SQLAlchemy and Optuna are wherever they are needed here
    import pandas as pd
    import sqlalchemy as sa

    from dqn_jax.sweep.adaptive import Past

_SQLITE, _COPY = SWEEP_FILES
_PATIENCE_SECONDS = 60  # how long a server that was there may be away, as while it restarts
_CONSTRAINTS = "constraints"  # Optuna's own: above zero is infeasible
_GENERATION = "dqn_jax:generation"  # which draw of CMA-ES a trial came from


def _tell(line: str) -> None:
    print(f"dqn-jax: {line}", file=sys.stderr)


Point = dict[str, Any]
LaneKey = tuple[str, int, int]  # phase, trial, seed
AdaptiveSampler = Literal["tpe", "cmaes"]
UnitState = Literal["waiting", "running", "done"]


class Unit(NamedTuple):
    """Lanes that run together, in one program."""

    id: int
    phase: str
    lanes: tuple[tuple[int, int], ...]  # (trial, seed)


def create(directory: Path | None, url: str | None, definition: dict[str, Any]) -> Store:
    """A new sweep in a directory, or at a URL (then a directory, if given, gets a mirror of it).

    Args:
      directory: the sweep's folder; it must be empty or not exist.
      url: a database by its SQLAlchemy URL, or None for a file in the directory.
      definition: what was asked, as plain JSON. The store reads its `name`, `vary`, `seeds` and `config.total_steps`.

    Raises:
      ConfigError: if the directory is occupied, or the database has a sweep of that name.
      RunError: if it cannot be written.
    """
    from dqn_jax.sweep.database import FORMAT, create_sweep

    definition = json.loads(json.dumps({"format": FORMAT, **definition}, allow_nan=False))
    if url is None:
        if directory is None:
            raise ConfigError("out: say where the sweep is kept; give a folder or the URL of a database.")
        return _create_directory(directory, definition, origin=None)
    with contextlib.nullcontext() if directory is None else _claimed(directory):
        create_sweep(url, definition, origin=None)
    store = _open(url, definition["name"])
    if directory is not None:
        store.export(directory)
    return store


def open_store(where: Path | str, name: str | None = None) -> Store:
    """An existing sweep, by its directory or by a database's URL (with its name, where that database has several).

    Raises:
      ConfigError: if there is no such sweep there, it is a mirror of another, or a newer dqn_jax wrote it.
      RunError: if the database cannot be reached.
    """
    from dqn_jax.sweep.database import prepare_for_optuna

    store = _open(where, name)
    prepare_for_optuna(store.url)
    if store.origin is not None:
        raise ConfigError(f"sweep: {where} mirrors '{store.name}' at {store.origin}; go on with it by --store URL.")
    return store


def load_data(path: Path, warn: Callable[[str], None] = _tell) -> SweepData:
    """All of a sweep that a report needs, at one instant; the sweep may be running. `warn` is told what is lost.

    Raises:
      ConfigError: if there is no sweep, or a newer dqn_jax wrote it.
      RunError: if it cannot be read.
    """
    return _open(path, None).data(path, warn)


def differences(saved: dict[str, Any], wanted: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Entries of two definitions that differ: (field, saved, wanted), nested ones as `config.num_envs`."""
    old, new = _flat(saved), _flat(json.loads(json.dumps(wanted)))
    fields = [field for field in {**old, **new} if field != "format"]
    return [(field, old.get(field), new.get(field)) for field in fields if old.get(field) != new.get(field)]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        flat.update(_flat(entry, f"{prefix}{key}.") if isinstance(entry, dict) else {prefix + key: entry})
    return flat


class Store:
    """A sweep's records; made by `create` and `open_store`. Safe to use from several threads.

    All its methods raise RunError, in one line, if the database cannot be reached or written; what was recorded before
    stays whole.
    """

    def __init__(self, engine: sa.Engine, directory: Path | None, name: str | None):
        from dqn_jax.sweep import database

        self.directory = directory
        self.url = engine.url.render_as_string(hide_password=False)
        self._engine = engine
        self._is_file = engine.dialect.name == "sqlite"
        self._where = database.shown(engine.url) if directory is None else str(directory)
        with self._clear_errors(), database.clear_decoding(self._where):
            self._tables = database.find_tables(engine)
            with engine.connect() as connection:
                row = database.find_sweep(connection, self._tables, self._where, name)
            definition = schemas.definition_from(row.definition)
        self.name: str = row.study_name
        self.definition: dict[str, Any] = definition
        self.origin = None if row.origin is None else redact(row.origin)  # earlier versions kept passwords
        self._study: int = row.study_id
        self._has_digests = row.format >= database.DIGESTS_SINCE
        self._seeds = frozenset(self.definition["seeds"])
        self._horizon = float(self.definition["config"]["total_steps"])

    @functools.cached_property
    def space(self) -> Space:
        """What varies."""
        return parse_space(self.definition["vary"])

    # -- trials

    def amend(self, definition: dict[str, Any]) -> None:
        """Ask more of the sweep: the same definition with more seeds or samples, or a confirmation.

        With more seeds its trials wait for these and then get their values anew.
        """
        from dqn_jax.sweep.database import sweep_digest

        definition = {"format": self.definition["format"], **definition}
        row = {"study_name": self.name, "format": definition["format"], "origin": self.origin}
        row["definition"] = json.dumps(definition)
        sweeps = self._tables.sweeps
        with self._write() as connection:
            digests = {"digest": sweep_digest(row)} if self._has_digests else {}
            connection.execute(
                sweeps.update().where(sweeps.c.study_id == self._study).values(definition=row["definition"], **digests)
            )
            if frozenset(definition["seeds"]) != self._seeds:
                self._reset_trials(connection, list(self._trial_ids(connection).values()))
        self.definition, self._seeds = definition, frozenset(definition["seeds"])
        if self.directory is not None:
            write_json(self.directory / "sweep.json", definition)

    def add_trials(self, points: Sequence[Point]) -> None:
        """Make `points` the sweep's trials 0, 1, ...; those that are there already stay."""
        with self._write() as connection:
            self._insert_trials(connection, points[len(self._trial_ids(connection)) :])

    def ask(self, count: int, sampler: AdaptiveSampler, seed: int, after: int | None = None) -> list[tuple[int, Point]]:
        """Add `count` trials that the values so far suggest, all or none; the same for the same records and seed.

        Args:
          count: how many.
          sampler: which suggests them.
          seed: of its draws.
          after: how many trials there are; if there are more by now, another has asked, and none are added.

        Raises:
          ConfigError: if "cmaes" is asked and nothing varies over a range.
        """
        from dqn_jax.sweep import adaptive

        with self._write() as connection:
            history = self._history(connection)
            if after is not None and len(history) != after:
                return []
            seed = int(np.random.SeedSequence([seed, len(history)]).generate_state(1)[0])
            if sampler == "tpe":
                drawn, generation = adaptive.ask_tpe(self.space, history, count, seed), None
            else:
                drawn, generation = adaptive.ask_cmaes(self.space, history, count, seed)
            self._insert_trials(connection, drawn, generation)
        return list(enumerate(drawn, start=len(history)))

    def points(self) -> list[Point]:
        """The point of each trial, in their order."""
        with self._read() as connection:
            return self._points(connection)

    def trials(self) -> pd.DataFrame:
        """The points as a table: index `trial`, one column per setting that varies."""
        return self._trial_table(self.points())

    # -- units

    def add_units(self, units: Iterable[Unit]) -> None:
        """Add units of work; those that are there already stay.

        Raises:
          ValueError: if a unit of that id has other lanes.
        """
        with self._write() as connection:
            known = {unit.id: unit for unit, _ in self._units(connection)}
            units = list(units)
            for unit in units:
                if known.get(unit.id, unit) != unit:
                    raise ValueError(f"unit {unit.id} is there already, with other lanes")
            self._insert_units(connection, [unit for unit in units if unit.id not in known])

    def plan(self, phase: str, waves: Sequence[tuple[tuple[int, int], ...]], after: int) -> bool:
        """Add units of these lanes, all or none: none if there are not `after` units, for then others have planned.

        Returns:
          Whether they were added.
        """
        with self._write() as connection:
            if len(self._units(connection)) != after:
                return False
            self._insert_units(connection, [Unit(after + i, phase, wave) for i, wave in enumerate(waves)])
            return True

    def units(self) -> list[tuple[Unit, UnitState]]:
        """All units by id, and whether each is waiting for a worker, leased to one, or done."""
        with self._read() as connection:
            return self._units(connection)

    def claim(self, owner: str, lease_seconds: float) -> Unit | None:
        """Lease the first unit that is neither done nor leased; None if there is none. Time is the database's."""
        with self._write() as connection:
            unit = next((unit for unit, state in self._units(connection) if state == "waiting"), None)
            if unit is None:
                return None
            connection.execute(
                self._tables.units.update()
                .where(*self._is_unit(unit.id))
                .values(owner=owner, lease_until=_clock(connection) + lease_seconds)
            )
            trials = self._tables.trials
            if unit.phase == PHASES[0]:
                connection.execute(
                    trials.update()
                    .where(
                        trials.c.study_id == self._study,
                        trials.c.number.in_(sorted({trial for trial, _ in unit.lanes})),
                        trials.c.state == "WAITING",
                    )
                    .values(state="RUNNING", datetime_start=_utc_now())
                )
            return unit

    def renew(self, unit_id: int, owner: str, lease_seconds: float) -> bool:
        """Lease the unit for longer; False if it is done, or someone else's by now."""
        table = self._tables.units
        with self._write() as connection:
            result = connection.execute(
                table.update()
                .where(*self._is_unit(unit_id), table.c.owner == owner, ~table.c.done)
                .values(lease_until=_clock(connection) + lease_seconds)
            )
            return result.rowcount == 1

    def release(self, owner: str | None = None) -> None:
        """Give back what `owner` has leased (None: what anyone has), for others to claim at once."""
        table = self._tables.units
        with self._write() as connection:
            mine = [] if owner is None else [table.c.owner == owner]
            connection.execute(
                table.update().where(table.c.study_id == self._study, *mine).values(owner=None, lease_until=None)
            )

    def record(self, unit_id: int, owner: str, lanes: Sequence[dict[str, Any]], curves: pd.DataFrame) -> bool:
        """Record lanes that have left, and their curves: once each. A lane that is there already stays as it is.

        The last seed of a trial gives the trial its value: the mean over seeds of the environment steps to
        convergence, a seed that did not converge counting the whole budget. A trial with a pruned seed has no value.

        Args:
          unit_id: the unit they belong to.
          owner: the worker that ran them. They count even if it has lost its lease: they are the numbers that any
            other worker would have found.
          lanes: with the entries LANE_COLUMNS.
          curves: their evaluations, CURVE_COLUMNS.

        Returns:
          Whether the unit is still the owner's.
        """
        import pandas as pd

        table = self._tables.lanes
        with self._write() as connection:
            known = self._recorded(connection, {int(lane["trial"]) for lane in lanes})
            new = {_key(lane): _row(lane) for lane in reversed(lanes) if _key(lane) not in known}
            extra = {"study_id": self._study, "unit_id": unit_id}
            _insert(connection, table, [{**extra, **row, **self._digest(list(row.values()))} for row in new.values()])
            if self._has_digests and new:
                count = self._tables.sweeps.c.lanes_recorded
                self._note_digest(connection, lanes_recorded=count + len(new))
            theirs = curves[pd.MultiIndex.from_frame(curves[["phase", "trial", "seed"]]).isin(list(new))]
            if len(theirs):
                data = to_parquet(theirs)
                _insert(connection, self._tables.curves, [{**extra, "data": data, **self._digest(data)}])
            self._complete_trials(connection, {trial for phase, trial, _ in new if phase == PHASES[0]})
            held = connection.execute(self._tables.units.select().where(*self._is_unit(unit_id))).one()
            return bool(held.owner == owner and not held.done)

    def finish(self, unit_id: int) -> None:
        """Mark a unit done, once all its lanes are recorded; in a directory its curves become a file.

        Raises:
          ValueError: if a lane is missing.
        """
        units, blobs = self._tables.units, self._tables.curves
        with self._write() as connection:
            row = connection.execute(units.select().where(*self._is_unit(unit_id))).one()
            if row.done:
                return
            unit = _unit(row)
            recorded = self._recorded(connection, {trial for trial, _ in unit.lanes})
            missing = {(unit.phase, *lane) for lane in unit.lanes} - recorded
            if missing:
                raise ValueError(f"unit {unit_id} is not done: {len(missing)} of its lanes are not recorded")
            if self.directory is not None:
                # The file counts only once the unit is done; until then the blobs do.
                of_unit = (blobs.c.study_id == self._study, blobs.c.unit_id == unit_id)
                curves, _ = read_parts(self._blobs(connection, unit_id))
                path = self._curve_file(unit_id)
                if len(curves) or not path.is_file():
                    path.parent.mkdir(exist_ok=True)
                    data = to_parquet(curves)
                    _write_durably(path, data)
                    if self._has_digests:
                        noted = units.update().where(*self._is_unit(unit_id)).values(curves_digest=digest(data))
                        connection.execute(noted)
                connection.execute(blobs.delete().where(*of_unit))
            connection.execute(
                units.update().where(*self._is_unit(unit_id)).values(done=True, owner=None, lease_until=None)
            )

    # -- results

    def recorded(self) -> set[LaneKey]:
        """The lanes that are recorded: (phase, trial, seed)."""
        with self._read() as connection:
            return self._recorded(connection)

    def lanes(self) -> pd.DataFrame:
        """The recorded lanes, LANE_COLUMNS, sorted by phase, trial and seed."""
        with self._read() as connection:
            return self._lanes(connection)

    def curves(self, warn: Callable[[str], None] = _tell) -> pd.DataFrame:
        """Their evaluations, CURVE_COLUMNS, sorted likewise, then by environment steps; `warn` is told what is lost."""
        with self._read() as connection:
            lanes, parts = self._lanes(connection), self._curve_parts(connection)
        return self._read_curves(parts, lanes, warn)

    def of_unit(self, unit_id: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Lanes and curves of a unit that is done."""
        with self._read() as connection:
            lanes = self._lanes(connection, with_unit=True)
            parts = [part for part in self._curve_parts(connection) if part.unit_id == unit_id]
        curves, lost = read_parts(parts)
        if lost:
            raise RunError(f"store: {lost[0]} in {self._where}, which others are compared with; go on with --resume.")
        return lanes[lanes["unit_id"] == unit_id], curves

    def data(self, directory: Path | None = None, warn: Callable[[str], None] = _tell) -> SweepData:
        """All of the sweep at one instant; plan and provenance come from `directory`, if they are there.

        Curves that are damaged or missing are left out, and `warn` is told.
        """

        def notes(name: str, kind: Any) -> dict[str, Any]:
            return {} if directory is None else read_notes(directory / name, kind, warn)

        with self._read() as connection:
            points, lanes, parts = self._points(connection), self._lanes(connection), self._curve_parts(connection)
        return SweepData(
            name=self.name,
            settings=self.definition,
            plan=notes("plan.json", schemas.Plan),
            provenance=_redacted(notes("provenance.json", schemas.SweepProvenance)),
            trials=self._trial_table(points),
            lanes=lanes,
            curves=self._read_curves(parts, lanes, warn),
        )

    def export(self, directory: Path) -> None:
        """Mirror the sweep into a directory, so that a report needs no database; again, to bring it up to date.

        Raises:
          ConfigError: if the directory holds another sweep.
        """
        if not (directory / _SQLITE).is_file():
            mirror = _create_directory(directory, self.definition, self._where)
        elif self.is_mirrored(directory):
            mirror = _open(directory, None)
        else:
            raise ConfigError(f"out: {directory} holds another sweep; choose another folder.")
        with self._read() as connection:
            points, units = self._points(connection), self._units(connection)
            lanes, parts = self._lanes(connection, with_unit=True), self._curve_parts(connection)
        curves = self._read_curves(parts, lanes, _tell)
        mirror.add_trials(points)
        mirror.add_units(unit for unit, _ in units)
        known = mirror.recorded()
        curves_of = dict(iter(curves.groupby(["phase", "trial", "seed"])))
        for unit_id in sorted(set(lanes["unit_id"])):
            of_unit: list[dict[str, Any]] = lanes[lanes["unit_id"] == unit_id].to_dict("records")  # type: ignore[assignment]
            fresh = [lane for lane in of_unit if _key(lane) not in known]
            theirs = [curves_of[key] for key in map(_key, fresh) if key in curves_of]
            if fresh:
                mirror.record(int(unit_id), "", fresh, in_order(theirs, CURVE_COLUMNS))
        for unit, state in units:
            if state == "done":
                mirror.finish(unit.id)

    def is_mirrored(self, directory: Path) -> bool:
        """Whether the sweep in a directory mirrors this one."""
        from dqn_jax.sweep.database import same_place

        mirror = _open(directory, None)
        return mirror.origin is not None and mirror.name == self.name and same_place(mirror.origin, self._where)

    def reopen_lost(self) -> list[str]:
        """Have units run again whose curves are damaged or missing, with all their lanes; says which in lines.

        For the one process at work (see `lock`): a lane's numbers come out the same.
        """
        with self._read() as connection:
            lanes, parts = self._lanes(connection, with_unit=True), self._curve_parts(connection)
        curves, lost = read_parts(parts)
        missing = _keys_of(lanes) - _keys_of(curves)
        owners = lanes[["unit_id", "phase", "trial", "seed"]].itertuples(index=False, name=None)
        units = sorted({int(unit_id) for unit_id, *key in owners if tuple(key) in missing})
        for unit_id in units:
            with self._write() as connection:
                self._forget(connection, unit_id, {int(t) for t in lanes[lanes["unit_id"] == unit_id]["trial"]})
        if not units:
            return []
        what = lost[0] if lost else f"curves of wave {units[0]} are missing"
        return [f"{what}: the lanes of {len(units)} waves run again, with the same numbers"]

    def _forget(self, connection: sa.Connection, unit_id: int, trials: set[int]) -> None:
        """All that a unit has found, and what it did to its trials."""
        t = self._tables
        extra = {"curves_digest": None} if self._has_digests else {}
        phase = connection.execute(_select(t.units.c.phase).where(*self._is_unit(unit_id))).scalar_one()
        connection.execute(t.units.update().where(*self._is_unit(unit_id)).values(done=False, **extra))
        lanes, _ = (
            connection.execute(table.delete().where(table.c.study_id == self._study, table.c.unit_id == unit_id))
            for table in (t.lanes, t.curves)
        )
        if self._has_digests:
            self._note_digest(connection, lanes_recorded=t.sweeps.c.lanes_recorded - lanes.rowcount)
        if phase == PHASES[0]:
            ids = [trial_id for number, trial_id in self._trial_ids(connection).items() if number in trials]
            self._reset_trials(connection, ids)

    # -- running

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only process that runs the sweep of this directory; any kind of death ends it.

        What an earlier process left leased is free again. A sweep at a URL has no such lock: leases do for it.

        Raises:
          ConfigError: if another process runs it.
        """
        if self.directory is None:
            yield
            return
        with contextlib.ExitStack() as held:
            with self._clear_errors():
                held.enter_context(lock(self.directory, "sweep"))
                clear_unfinished(self.directory)
            self.release()
            yield

    # -- inside a transaction

    @contextlib.contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        sweeps = self._tables.sweeps
        with self._connect() as connection, connection.begin():
            # A write comes first: from here on the writers of this sweep take turns (in SQLite, those of the file).
            connection.execute(
                sweeps.update().where(sweeps.c.study_id == self._study).values(revision=sweeps.c.revision + 1)
            )
            yield connection

    @contextlib.contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        """One instant of the database, however many statements look at it."""
        from dqn_jax.sweep.database import clear_decoding

        with self._connect() as connection, clear_decoding(self._where):
            if self._is_file:
                connection.exec_driver_sql("BEGIN")  # Python's driver begins none for reads
            else:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sa.Connection]:
        from dqn_jax.sweep.database import connect

        with self._clear_errors(), connect(self._engine, 0 if self._is_file else _PATIENCE_SECONDS) as connection:
            yield connection

    def _clear_errors(self) -> contextlib.AbstractContextManager[None]:
        from dqn_jax.sweep.database import clear_errors

        return clear_errors(self._where, self._engine.url)

    def _is_unit(self, unit_id: int) -> tuple[Any, Any]:
        table = self._tables.units
        return table.c.study_id == self._study, table.c.id == unit_id

    def _units(self, connection: sa.Connection) -> list[tuple[Unit, UnitState]]:
        now = _clock(connection)
        rows = self._unit_rows(connection)
        self._check(connection, "units_digest", lambda: _digest_of_units(rows), "its waves")

        def state(row: Any) -> UnitState:
            if row.done:
                return "done"
            return "running" if row.lease_until is not None and row.lease_until > now else "waiting"

        return [(_unit(row), state(row)) for row in rows]

    def _unit_rows(self, connection: sa.Connection) -> Sequence[Any]:
        table = self._tables.units
        return connection.execute(table.select().where(table.c.study_id == self._study).order_by(table.c.id)).all()

    def _note_digest(self, connection: sa.Connection, **values: Any) -> None:
        if self._has_digests:
            sweeps = self._tables.sweeps
            connection.execute(sweeps.update().where(sweeps.c.study_id == self._study).values(**values))

    def _check(self, connection: sa.Connection, column: str, now: Callable[[], Any], what: str) -> None:
        """Hold what is read against what was noted when it was written."""
        from dqn_jax.sweep.database import damaged

        if self._has_digests:
            sweeps = self._tables.sweeps
            noted = connection.execute(_select(sweeps.c[column]).where(sweeps.c.study_id == self._study)).scalar_one()
            if noted != now():
                raise damaged(self._where, what)

    def _insert_units(self, connection: sa.Connection, units: Sequence[Unit]) -> None:
        rows = [
            {"study_id": self._study, "id": u.id, "phase": u.phase, "lanes": json.dumps(u.lanes), "done": False}
            for u in units
        ]
        _insert(connection, self._tables.units, rows)
        self._note_digest(connection, units_digest=_digest_of_units(self._unit_rows(connection)))

    def _recorded(self, connection: sa.Connection, trials: set[int] | None = None) -> set[LaneKey]:
        c = self._tables.lanes.c
        which = [] if trials is None else [c.trial.in_(sorted(trials))]
        rows = connection.execute(_select(c.phase, c.trial, c.seed).where(c.study_id == self._study, *which))
        return {tuple(row) for row in rows}

    def _lanes(self, connection: sa.Connection, with_unit: bool = False) -> pd.DataFrame:
        import pandas as pd

        c = self._tables.lanes.c
        columns = {**LANE_COLUMNS, **({"unit_id": "int64"} if with_unit else {})}
        rows = connection.execute(self._tables.lanes.select().where(c.study_id == self._study)).all()
        self._check_lanes(rows)
        self._check(connection, "lanes_recorded", lambda: len(rows), "lanes are missing")
        values = [[getattr(row, name) for name in columns] for row in rows]
        return in_order([pd.DataFrame.from_records(values, columns=list(columns))], columns)

    def _check_lanes(self, rows: Iterable[Any]) -> None:
        from dqn_jax.sweep.database import damaged

        for row in rows if self._has_digests else ():
            if row.digest != digest([getattr(row, name) for name in LANE_COLUMNS]):
                raise damaged(self._where, f"trial {row.trial}, seed {row.seed}")

    def _digest(self, value: Any) -> dict[str, str]:
        """As a column, where there is one."""
        return {"digest": digest(value)} if self._has_digests else {}

    def _curve_parts(self, connection: sa.Connection) -> list[Part]:
        """To be read once the database is free again; the files of done units never change."""
        parts = self._blobs(connection)
        if self.directory is not None:
            done = [row for row in self._unit_rows(connection) if row.done]
            parts += [Part(row.id, self._curve_file(row.id), row._mapping.get("curves_digest")) for row in done]
        return parts

    def _blobs(self, connection: sa.Connection, unit_id: int | None = None) -> list[Part]:
        blobs = self._tables.curves
        which = [] if unit_id is None else [blobs.c.unit_id == unit_id]
        rows = connection.execute(blobs.select().where(blobs.c.study_id == self._study, *which).order_by(blobs.c.id))
        return [Part(row.unit_id, row.data, row._mapping.get("digest")) for row in rows]

    def _read_curves(self, parts: list[Part], lanes: pd.DataFrame, warn: Callable[[str], None]) -> pd.DataFrame:
        """The curves of recorded lanes, as far as they can be read."""
        curves, lost = read_parts(parts)
        count = len(_keys_of(lanes) - _keys_of(curves))
        if count:
            why = f" ({lost[0]}{f', and {len(lost) - 1} more' if len(lost) > 1 else ''})" if lost else ""
            warn(f"store: the curves of {count} lanes in {self._where} are lost{why}; 'sweep --resume' runs them again")
        return curves

    def _curve_file(self, unit_id: int) -> Path:
        assert self.directory is not None
        return self.directory / "curves" / f"unit-{unit_id:05d}.parquet"

    def _trial_ids(self, connection: sa.Connection) -> dict[int, int]:
        """Optuna's key of each trial, by its number."""
        c = self._tables.trials.c
        rows = connection.execute(_select(c.number, c.trial_id).where(c.study_id == self._study).order_by(c.number))
        return {row.number: row.trial_id for row in rows}

    def _point_rows(self, connection: sa.Connection) -> Sequence[Any]:
        trials, params = self._tables.trials, self._tables.trial_params
        return connection.execute(
            _select(trials.c.number, params.c.param_name, params.c.param_value)
            .join(params, params.c.trial_id == trials.c.trial_id)
            .where(trials.c.study_id == self._study)
            .order_by(trials.c.number)
        ).all()

    def _points(self, connection: sa.Connection) -> list[Point]:
        rows = self._point_rows(connection)
        self._check(connection, "trials_digest", lambda: _digest_of_points(rows), "its points")
        points: dict[int, Point] = {}
        for number, name, value in rows:
            points.setdefault(number, {})[name] = self.space[name].decode(value)
        return [{name: point[name] for name in self.space} for _, point in sorted(points.items())]

    def _trial_table(self, points: list[Point]) -> pd.DataFrame:
        import pandas as pd

        def column(name: str) -> Any:
            values = [point[name] for point in points]
            if any(value is None or isinstance(value, tuple) for value in values):
                return pd.Series(values, dtype=object)  # or None became NaN
            return pd.Series(values)

        return pd.DataFrame({name: column(name) for name in self.space}, index=pd.RangeIndex(len(points), name="trial"))

    def _insert_trials(self, connection: sa.Connection, points: Sequence[Point], generation: int | None = None) -> None:
        """Add Optuna trials: rows of its tables, where its own interface takes seconds for each hundred."""
        from optuna.distributions import distribution_to_json

        tables = self._tables
        first = len(self._trial_ids(connection))
        numbers = range(first, first + len(points))
        rows: list[dict[str, Any]]
        rows = [{"study_id": self._study, "number": number, "state": "WAITING"} for number in numbers]
        _insert(connection, tables.trials, rows)
        ids = self._trial_ids(connection)
        for name, dimension in self.space.items():
            same = {"param_name": name, "distribution_json": distribution_to_json(distribution(dimension))}
            rows = [
                {"trial_id": ids[number], "param_value": dimension.encode(point[name]), **same}
                for number, point in zip(numbers, points, strict=True)
            ]
            _insert(connection, tables.trial_params, rows)
        self._note_digest(connection, trials_digest=_digest_of_points(self._point_rows(connection)))
        if generation is not None:
            rows = [{"trial_id": ids[i], "key": _GENERATION, "value_json": json.dumps(generation)} for i in numbers]
            _insert(connection, tables.trial_system_attributes, rows)

    def _complete_trials(self, connection: sa.Connection, numbers: set[int]) -> None:
        """Give those trials their value whose seeds are all in."""
        tables, trials = self._tables, self._tables.trials
        ended = self._ended(connection, numbers)
        unfinished = connection.execute(
            _select(trials.c.number, trials.c.trial_id).where(
                trials.c.study_id == self._study,
                trials.c.number.in_(sorted(ended)),
                trials.c.state.in_(["WAITING", "RUNNING"]),
            )
        ).all()
        now = _utc_now()
        for number, trial_id in unfinished:
            state, value, lanes = ended[number]
            is_it = trials.c.trial_id == trial_id
            if value is not None:
                row = {"trial_id": trial_id, "objective": 0, "value": value, "value_type": "FINITE"}
                _insert(connection, tables.trial_values, [row])
            converged = sum(lane.converged for lane in lanes)
            summary = {
                "converged": converged,
                "censored": converged < len(lanes),  # the value counts the whole budget for the others: it is a bound
                "share_converged": converged / len(lanes),
                "final_return": _mean(lane.final_return for lane in lanes),
                "device_seconds": sum(lane.device_seconds or 0.0 for lane in lanes),
                "seeds": len(lanes),
            }
            rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(x)} for key, x in summary.items()]
            _insert(connection, tables.trial_user_attributes, rows)
            # A setting of which no seed converged has no time to convergence: to Optuna it is infeasible, never best.
            infeasible = {"trial_id": trial_id, "key": _CONSTRAINTS, "value_json": json.dumps([float(not converged)])}
            _insert(connection, tables.trial_system_attributes, [infeasible])
            connection.execute(
                trials.update().where(is_it, trials.c.datetime_start.is_(None)).values(datetime_start=now)
            )
            connection.execute(trials.update().where(is_it).values(state=state, datetime_complete=now))

    def _ended(self, connection: sa.Connection, numbers: set[int]) -> dict[int, tuple[str, float | None, list[Any]]]:
        """State, value and lanes of those trials whose seeds are all in."""
        c = self._tables.lanes.c
        which = (c.study_id == self._study, c.phase == PHASES[0], c.trial.in_(sorted(numbers)))
        rows = connection.execute(self._tables.lanes.select().where(*which).order_by(c.trial, c.seed)).all()
        self._check_lanes(rows)
        seeds_of: dict[int, dict[int, Any]] = {}
        for lane in rows:
            seeds_of.setdefault(lane.trial, {})[lane.seed] = lane
        ended: dict[int, tuple[str, float | None, list[Any]]] = {}
        for number, seeds in seeds_of.items():
            lanes = list(seeds.values())
            if self._seeds <= set(seeds):
                pruned = any(lane.status == "pruned" for lane in lanes)
                value = None if pruned else sum(self._restricted(lane) for lane in lanes) / len(lanes)
                ended[number] = ("PRUNED" if pruned else "COMPLETE", value, lanes)
        return ended

    def _reset_trials(self, connection: sa.Connection, ids: Sequence[int]) -> None:
        """Trials wait for lanes again, and have no value until these are there."""
        t = self._tables
        constraints = t.trial_system_attributes
        connection.execute(
            constraints.delete().where(constraints.c.trial_id.in_(ids), constraints.c.key == _CONSTRAINTS)
        )
        for table in (t.trial_values, t.trial_user_attributes):
            connection.execute(table.delete().where(table.c.trial_id.in_(ids)))
        waiting = {"state": "WAITING", "datetime_complete": None}
        connection.execute(t.trials.update().where(t.trials.c.trial_id.in_(ids)).values(waiting))

    def _restricted(self, lane: Any) -> float:
        return min(lane.converged_env_steps, self._horizon) if lane.converged else self._horizon

    def _history(self, connection: sa.Connection) -> list[Past]:
        from dqn_jax.sweep.adaptive import Past
        from dqn_jax.sweep.database import clear_decoding, damaged

        trials, values, attributes = (
            self._tables.trials,
            self._tables.trial_values,
            self._tables.trial_system_attributes,
        )
        of_trial = attributes.c.trial_id == trials.c.trial_id
        rows = connection.execute(
            _select(trials.c.state, values.c.value, attributes.c.value_json)
            .outerjoin(values, values.c.trial_id == trials.c.trial_id)
            .outerjoin(attributes, of_trial & (attributes.c.key == _GENERATION))
            .where(trials.c.study_id == self._study)
            .order_by(trials.c.number)
        )
        with clear_decoding(self._where):
            history = [
                Past(point, state, value, None if generation is None else json.loads(generation))
                for point, (state, value, generation) in zip(self._points(connection), rows, strict=True)
            ]
            if self._has_digests:
                ended = self._ended(connection, set(range(len(history))))
                for number, past in enumerate(history):
                    if (past.state, past.value) != ended.get(number, (past.state, None))[:2]:
                        raise damaged(self._where, f"the value of trial {number}")
        return history


# -- making and opening -------------------------------------------------------------------------------------


def _create_directory(directory: Path, definition: dict[str, Any], origin: str | None) -> Store:
    """The database under a temporary name first: a folder has all of it or none, and with it, it is a sweep."""
    from dqn_jax.sweep import database

    beside = (_COPY, "plan.json", "provenance.json") if origin is not None else ()  # of a mirror that lost its store
    with _claimed(directory, beside), database.clear_errors(str(directory)), atomic(directory / _SQLITE) as temporary:
        database.create_sweep(database.sqlite_url(temporary), definition, origin)
    return _open(directory, None)


def _open(where: Path | str, name: str | None) -> Store:
    from dqn_jax.sweep.database import check_file, clear_errors, make_engine, sqlite_url

    if isinstance(where, str) and re.match(r"\w+(\+\w+)?://|env:", where):
        return Store(make_engine(where), None, name)
    directory = Path(where)
    path = directory / _SQLITE
    if not path.is_file():
        if (directory / _COPY).is_file():
            raise ConfigError(
                f"sweep: {path} is missing, and with it all that was found; start again in another folder."
            )
        if directory.is_dir() and any(directory.iterdir()) and not _foreign(directory):
            raise ConfigError(f"sweep: {directory} was left before its sweep began; start it there without --resume.")
        raise ConfigError(f"sweep: {directory} is not a sweep; give the folder that 'dqn-jax sweep' printed.")
    engine = make_engine(sqlite_url(path))
    with clear_errors(str(directory)):
        check_file(engine, str(directory))
    store = Store(engine, directory, name)
    with contextlib.suppress(OSError):  # a folder that can only be read
        copy = directory / _COPY
        text = json.dumps(store.definition, indent=1) + "\n"
        if not copy.is_file() or copy.read_text(errors="replace") != text:
            write_json(copy, store.definition)
    return store


@contextlib.contextmanager
def _claimed(directory: Path, beside: Sequence[str] = ()) -> Iterator[None]:
    """The folder of a sweep that has no store yet: created, cleared of what a killed creation left, and ours alone.

    Args:
      directory: the folder.
      beside: names of files that may be in it.
    """
    is_new = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        occupied = _foreign(directory, beside)
    except OSError as error:
        raise RunError(f"out: cannot create {directory} ({error.strerror}); choose another folder.") from error
    if not occupied:
        with lock(directory, "sweep"):
            occupied = _foreign(directory, beside)  # another may have been faster
            if not occupied:
                try:
                    for path in filter(_is_debris, directory.iterdir()):
                        path.unlink()
                    yield
                    return
                except BaseException:
                    if is_new:
                        with contextlib.suppress(OSError):  # nothing was there a moment ago
                            (directory / LOCK).unlink()
                            directory.rmdir()
                    raise
    raise ConfigError(
        f"out: {directory} is not empty; choose another folder, or go on with the sweep in it by --resume."
    )


def _foreign(directory: Path, beside: Sequence[str] = ()) -> bool:
    """Whether a folder holds anything but what is there before its store is."""
    return any(path.name not in (LOCK, *beside) and not _is_debris(path) for path in directory.iterdir())


def _is_debris(path: Path) -> bool:
    """Whether a kill left it: `files.atomic` writes under such names."""
    return re.fullmatch(r"\.\w+\.[0-9a-f]+\.tmp\.(sqlite|json)(-\w+)?", path.name) is not None


# -- values -------------------------------------------------------------------------------------------------


def _utc_now() -> datetime.datetime:
    """As Optuna keeps times: in UTC, without saying so."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def _select(*columns: Any) -> sa.Select[Any]:
    import sqlalchemy as sa

    return sa.select(*columns)


def _clock(connection: sa.Connection) -> float:
    """Seconds since 1970 by the clock of the database: workers' own may differ."""
    sqlite = connection.dialect.name == "sqlite"
    query = "(julianday('now') - 2440587.5) * 86400.0" if sqlite else "extract(epoch from clock_timestamp())"
    return float(connection.exec_driver_sql(f"SELECT {query}").scalar_one())


def _insert(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:  # an empty list would insert a row of defaults
        connection.execute(table.insert(), rows)


def _unit(row: Any) -> Unit:
    return Unit(row.id, row.phase, tuple((trial, seed) for trial, seed in json.loads(row.lanes)))


def _redacted(provenance: dict[str, Any]) -> dict[str, Any]:
    """Without the passwords that earlier versions kept among the flags."""
    return {
        k: [redact(str(x)) for x in v] if k == "flags" and isinstance(v, list) else v for k, v in provenance.items()
    }


def _key(lane: dict[str, Any]) -> LaneKey:
    return str(lane["phase"]), int(lane["trial"]), int(lane["seed"])


def _row(lane: dict[str, Any]) -> dict[str, Any]:
    """A lane in Python's own types, NaN as NULL."""
    casts: dict[str, Callable[[Any], Any]] = {"int64": int, "float64": _number, "bool": bool, "str": str}
    return {name: casts[kind](lane[name]) for name, kind in LANE_COLUMNS.items()}


def _number(x: Any) -> float | None:
    return None if x is None or math.isnan(x) else float(x) + 0.0  # SQLite has no -0.0


def _digest_of_units(rows: Iterable[Any]) -> str:
    return digest([[row.id, row.phase, row.lanes] for row in rows])


def _digest_of_points(rows: Iterable[Any]) -> str:
    return digest(sorted([list(row) for row in rows]))


def _keys_of(table: pd.DataFrame) -> set[LaneKey]:
    return set(table[["phase", "trial", "seed"]].drop_duplicates().itertuples(index=False, name=None))


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _write_durably(path: Path, data: bytes) -> None:
    """Write a file that is there, whole, even after a power cut."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
