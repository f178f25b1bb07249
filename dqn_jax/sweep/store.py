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
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from dqn_jax.config import ConfigError, RunError
from dqn_jax.files import LOCK, atomic, lock, write_json
from dqn_jax.redact import redact
from dqn_jax.sweep.results import CURVE_COLUMNS, LANE_COLUMNS, PHASES, SWEEP_FILES, SweepData
from dqn_jax.sweep.space import Space, distribution, parse_space

if TYPE_CHECKING:  # slow to import, as pandas, SQLAlchemy and Optuna are wherever they are needed here
    import pandas as pd
    import sqlalchemy as sa

    from dqn_jax.sweep.adaptive import Past

_SQLITE, _COPY = SWEEP_FILES
_PATIENCE_SECONDS = 60  # how long a server that was there may be away, as while it restarts
_GENERATION = "dqn_jax:generation"  # which draw of CMA-ES a trial came from

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


def load_data(path: Path) -> SweepData:
    """All of a sweep that a report needs, at one instant; the sweep may be running.

    Raises:
      ConfigError: if there is no sweep, or a newer dqn_jax wrote it.
      RunError: if it cannot be read.
    """
    return _open(path, None).data(path)


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
        with self._clear_errors():
            self._tables = database.find_tables(engine)
            with engine.connect() as connection:
                row = database.find_sweep(connection, self._tables, self._where, name)
        self.name: str = row.study_name
        self.definition: dict[str, Any] = json.loads(row.definition)
        self.origin = None if row.origin is None else redact(row.origin)  # earlier versions kept passwords
        self._study: int = row.study_id
        self._seeds = frozenset(self.definition["seeds"])
        self._horizon = float(self.definition["config"]["total_steps"])

    @functools.cached_property
    def space(self) -> Space:
        """What varies."""
        return parse_space(self.definition["vary"])

    # -- trials

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
            _insert(connection, table, [{"study_id": self._study, "unit_id": unit_id, **row} for row in new.values()])
            theirs = curves[pd.MultiIndex.from_frame(curves[["phase", "trial", "seed"]]).isin(list(new))]
            if len(theirs):
                blob = {"study_id": self._study, "unit_id": unit_id, "data": _to_parquet(theirs)}
                _insert(connection, self._tables.curves, [blob])
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
                parts = connection.execute(_select(blobs.c.data).where(*of_unit).order_by(blobs.c.id)).scalars()
                path = self._curve_file(unit_id)
                path.parent.mkdir(exist_ok=True)
                _write_durably(path, _to_parquet(_sorted(map(_from_parquet, parts), CURVE_COLUMNS)))
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

    def curves(self) -> pd.DataFrame:
        """Their evaluations, CURVE_COLUMNS, sorted likewise, then by environment steps."""
        with self._read() as connection:
            parts = self._curve_parts(connection)
        return self._read_curves(parts)

    def of_unit(self, unit_id: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Lanes and curves of a unit that is done."""
        blobs = self._tables.curves
        with self._read() as connection:
            lanes = self._lanes(connection, with_unit=True)
            query = _select(blobs.c.data).where(blobs.c.study_id == self._study, blobs.c.unit_id == unit_id)
            parts: list[bytes | Path] = list(connection.execute(query.order_by(blobs.c.id)).scalars())
        if self.directory is not None:
            parts.append(self._curve_file(unit_id))
        return lanes[lanes["unit_id"] == unit_id], self._read_curves(parts)

    def data(self, directory: Path | None = None) -> SweepData:
        """All of the sweep at one instant; plan and provenance come from `directory`, if they are there."""

        def read_json(name: str) -> dict[str, Any]:
            path = directory / name if directory is not None else None
            return json.loads(path.read_text()) if path is not None and path.is_file() else {}

        with self._read() as connection:
            points, lanes, parts = self._points(connection), self._lanes(connection), self._curve_parts(connection)
        return SweepData(
            name=self.name,
            settings=self.definition,
            plan=read_json("plan.json"),
            provenance=_redacted(read_json("provenance.json")),
            trials=self._trial_table(points),
            lanes=lanes,
            curves=self._read_curves(parts),
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
        curves = self._read_curves(parts)
        mirror.add_trials(points)
        mirror.add_units(unit for unit, _ in units)
        known = mirror.recorded()
        curves_of = dict(iter(curves.groupby(["phase", "trial", "seed"])))
        for unit_id in sorted(set(lanes["unit_id"])):
            of_unit: list[dict[str, Any]] = lanes[lanes["unit_id"] == unit_id].to_dict("records")  # type: ignore[assignment]
            fresh = [lane for lane in of_unit if _key(lane) not in known]
            theirs = [curves_of[key] for key in map(_key, fresh) if key in curves_of]
            if fresh:
                mirror.record(int(unit_id), "", fresh, _sorted(theirs, CURVE_COLUMNS))
        for unit, state in units:
            if state == "done":
                mirror.finish(unit.id)

    def is_mirrored(self, directory: Path) -> bool:
        """Whether the sweep in a directory mirrors this one."""
        from dqn_jax.sweep.database import same_place

        mirror = _open(directory, None)
        return mirror.origin is not None and mirror.name == self.name and same_place(mirror.origin, self._where)

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
        with self._clear_errors(), lock(self.directory, "sweep"):
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
        with self._connect() as connection:
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
        table = self._tables.units
        now = _clock(connection)
        rows = connection.execute(table.select().where(table.c.study_id == self._study).order_by(table.c.id)).all()

        def state(row: Any) -> UnitState:
            if row.done:
                return "done"
            return "running" if row.lease_until is not None and row.lease_until > now else "waiting"

        return [(_unit(row), state(row)) for row in rows]

    def _insert_units(self, connection: sa.Connection, units: Sequence[Unit]) -> None:
        rows = [
            {"study_id": self._study, "id": u.id, "phase": u.phase, "lanes": json.dumps(u.lanes), "done": False}
            for u in units
        ]
        _insert(connection, self._tables.units, rows)

    def _recorded(self, connection: sa.Connection, trials: set[int] | None = None) -> set[LaneKey]:
        c = self._tables.lanes.c
        which = [] if trials is None else [c.trial.in_(sorted(trials))]
        rows = connection.execute(_select(c.phase, c.trial, c.seed).where(c.study_id == self._study, *which))
        return {tuple(row) for row in rows}

    def _lanes(self, connection: sa.Connection, with_unit: bool = False) -> pd.DataFrame:
        import pandas as pd

        c = self._tables.lanes.c
        columns = {**LANE_COLUMNS, **({"unit_id": "int64"} if with_unit else {})}
        rows = connection.execute(_select(*(c[name] for name in columns)).where(c.study_id == self._study)).all()
        return _sorted([pd.DataFrame.from_records(rows, columns=list(columns))], columns)

    def _curve_parts(self, connection: sa.Connection) -> list[bytes | Path]:
        """Parquet to be read once the database is free again; the files of done units never change."""
        blobs = self._tables.curves
        query = _select(blobs.c.data).where(blobs.c.study_id == self._study).order_by(blobs.c.id)
        parts: list[bytes | Path] = list(connection.execute(query).scalars())
        if self.directory is not None:
            done = [unit.id for unit, state in self._units(connection) if state == "done"]
            parts += [self._curve_file(unit_id) for unit_id in done]
        return parts

    def _read_curves(self, parts: list[bytes | Path]) -> pd.DataFrame:
        with self._clear_errors():
            return _sorted(map(_from_parquet, parts), CURVE_COLUMNS)

    def _curve_file(self, unit_id: int) -> Path:
        assert self.directory is not None
        return self.directory / "curves" / f"unit-{unit_id:05d}.parquet"

    def _trial_ids(self, connection: sa.Connection) -> dict[int, int]:
        """Optuna's key of each trial, by its number."""
        c = self._tables.trials.c
        rows = connection.execute(_select(c.number, c.trial_id).where(c.study_id == self._study).order_by(c.number))
        return {row.number: row.trial_id for row in rows}

    def _points(self, connection: sa.Connection) -> list[Point]:
        trials, params = self._tables.trials, self._tables.trial_params
        rows = connection.execute(
            _select(trials.c.number, params.c.param_name, params.c.param_value)
            .join(params, params.c.trial_id == trials.c.trial_id)
            .where(trials.c.study_id == self._study)
            .order_by(trials.c.number)
        ).all()
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
        if generation is not None:
            rows = [{"trial_id": ids[i], "key": _GENERATION, "value_json": json.dumps(generation)} for i in numbers]
            _insert(connection, tables.trial_system_attributes, rows)

    def _complete_trials(self, connection: sa.Connection, numbers: set[int]) -> None:
        """Give those trials their value whose seeds are all in."""
        tables, trials, c = self._tables, self._tables.trials, self._tables.lanes.c
        seeds_of: dict[int, dict[int, Any]] = {}
        of_trials = (c.study_id == self._study, c.phase == PHASES[0], c.trial.in_(sorted(numbers)))
        for lane in connection.execute(tables.lanes.select().where(*of_trials).order_by(c.trial, c.seed)):
            seeds_of.setdefault(lane.trial, {})[lane.seed] = lane
        whole = {number: list(seeds.values()) for number, seeds in seeds_of.items() if self._seeds <= set(seeds)}
        unfinished = connection.execute(
            _select(trials.c.number, trials.c.trial_id).where(
                trials.c.study_id == self._study,
                trials.c.number.in_(sorted(whole)),
                trials.c.state.in_(["WAITING", "RUNNING"]),
            )
        ).all()
        now = _utc_now()
        for number, trial_id in unfinished:
            lanes = whole[number]
            pruned = any(lane.status == "pruned" for lane in lanes)
            is_it = trials.c.trial_id == trial_id
            if not pruned:
                value = sum(self._restricted(lane) for lane in lanes) / len(lanes)
                row = {"trial_id": trial_id, "objective": 0, "value": value, "value_type": "FINITE"}
                _insert(connection, tables.trial_values, [row])
            summary = {
                "share_converged": sum(lane.converged for lane in lanes) / len(lanes),
                "final_return": _mean(lane.final_return for lane in lanes),
                "device_seconds": sum(lane.device_seconds or 0.0 for lane in lanes),
                "seeds": len(lanes),
            }
            rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(x)} for key, x in summary.items()]
            _insert(connection, tables.trial_user_attributes, rows)
            connection.execute(
                trials.update().where(is_it, trials.c.datetime_start.is_(None)).values(datetime_start=now)
            )
            state = "PRUNED" if pruned else "COMPLETE"
            connection.execute(trials.update().where(is_it).values(state=state, datetime_complete=now))

    def _restricted(self, lane: Any) -> float:
        return min(lane.converged_env_steps, self._horizon) if lane.converged else self._horizon

    def _history(self, connection: sa.Connection) -> list[Past]:
        from dqn_jax.sweep.adaptive import Past

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
        return [
            Past(point, state, value, None if generation is None else json.loads(generation))
            for point, (state, value, generation) in zip(self._points(connection), rows, strict=True)
        ]


# -- making and opening -------------------------------------------------------------------------------------


def _create_directory(directory: Path, definition: dict[str, Any], origin: str | None) -> Store:
    """The database under a temporary name first: a folder has all of it or none, and with it, it is a sweep."""
    from dqn_jax.sweep import database

    beside = (_COPY, "plan.json", "provenance.json") if origin is not None else ()  # of a mirror that lost its store
    with _claimed(directory, beside), database.clear_errors(str(directory)), atomic(directory / _SQLITE) as temporary:
        database.create_sweep(database.sqlite_url(temporary), definition, origin)
    return _open(directory, None)


def _open(where: Path | str, name: str | None) -> Store:
    from dqn_jax.sweep.database import make_engine, sqlite_url

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
    store = Store(make_engine(sqlite_url(path)), directory, name)
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
    return None if x is None or math.isnan(x) else float(x)


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _sorted(parts: Iterable[pd.DataFrame], columns: dict[str, str]) -> pd.DataFrame:
    import pandas as pd

    parts = [part for part in parts if len(part)]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(columns))
    table = table[list(columns)].astype(columns)
    keys = [table[name].to_numpy() for name in ("env_steps", "seed", "trial")]
    phase = table["phase"].map({name: i for i, name in enumerate(PHASES)}).to_numpy(np.int64)
    return table.iloc[np.lexsort((*keys, phase))].reset_index(drop=True)


def _to_parquet(curves: pd.DataFrame) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    table = pa.Table.from_pandas(curves[list(CURVE_COLUMNS)].astype(CURVE_COLUMNS), preserve_index=False)
    parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


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


def _from_parquet(source: bytes | Path) -> pd.DataFrame:
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(source) if isinstance(source, bytes) else source).to_pandas()
    return table if "q_mean" in table else table.assign(q_mean=np.nan)  # of before there was the column
