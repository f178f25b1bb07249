"""A sweep's records as one thing: what is written together, and what is read at one instant."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from dqn_jax.config import RunError
from dqn_jax.files import clear_unfinished, lock, read_notes, write_json
from dqn_jax.runs import schemas
from dqn_jax.runs.redact import redact
from dqn_jax.sweep.records import adaptive, curves, database, lanes, trials, url, waves
from dqn_jax.sweep.records.curves import Part
from dqn_jax.sweep.records.errors import clear_database_errors, clear_decoding
from dqn_jax.sweep.records.study import find_study
from dqn_jax.sweep.records.values import Definition, LaneKey, Point, Wave, WaveState, key_of, row_of
from dqn_jax.sweep.space import Adaptive, Space
from dqn_jax.sweep.tables import PHASES, SWEEP_FILES, SweepData

if TYPE_CHECKING:
    import pandas as pd

_PATIENCE_SECONDS = 60  # how long a server that was there may be away, as while it restarts


def tell(line: str) -> None:
    """Say a line to whoever sits at the terminal."""
    print(f"dqn-jax: {line}", file=sys.stderr)


class Store:
    """A sweep's records; made by `create` and `open_store`. Safe to use from several threads.

    All its methods raise RunError, in one line, if the database cannot be reached or written; what was recorded before
    stays whole.
    """

    def __init__(self, engine: sa.Engine, directory: Path | None, name: str | None):
        self.directory = directory
        self.url = engine.url.render_as_string(hide_password=False)
        self.where = url.shown(engine.url) if directory is None else str(directory)
        self.engine = engine
        self._is_file = engine.dialect.name == "sqlite"
        self._study = find_study(engine, self.where, name)
        self.name = self._study.name
        self.origin = self._study.origin

    @property
    def definition(self) -> Definition:
        """What was asked of the sweep, as plain JSON."""
        return self._study.definition

    @property
    def space(self) -> Space:
        """What varies in the sweep, by name."""
        return self._study.space

    # -- trials

    def amend(self, definition: Definition) -> None:
        """Ask more of the sweep: the same definition with more seeds or samples, or a confirmation.

        With more seeds its trials wait for these and then get their values anew.
        """
        definition = {"format": self.definition["format"], **definition}
        with self._write() as connection:
            self._study.amend(connection, json.dumps(definition))
            if frozenset(definition["seeds"]) != self._study.seeds:
                trials.reset(connection, self._study, trials.ids(connection, self._study))
        self._study = dataclasses.replace(self._study, definition=definition)
        if self.directory is not None:
            write_json(self.directory / SWEEP_FILES[1], definition)

    def add_trials(self, points: Sequence[Point]) -> None:
        """Make `points` the sweep's trials 0, 1, ...; those that are there already stay."""
        with self._write() as connection:
            trials.add(connection, self._study, points[len(trials.ids(connection, self._study)) :])

    def ask(self, count: int, sampler: Adaptive, seed: int, after: int | None = None) -> list[tuple[int, Point]]:
        """Add `count` trials that the values so far suggest, all or none; the same for the same records and seed.

        Args:
          count: how many.
          sampler: which suggests them.
          seed: of its draws.
          after: how many trials there are; if there are more by now, another has asked, and none are added.

        Raises:
          ConfigError: if "cmaes" is asked and nothing varies over a range.
        """
        with self._write() as connection:
            history = trials.history(connection, self._study)
            if after is not None and len(history) != after:
                return []
            seed = int(np.random.SeedSequence([seed, len(history)]).generate_state(1)[0])
            if sampler == "tpe":
                drawn, generation = adaptive.ask_tpe(self.space, history, count, seed), None
            else:
                drawn, generation = adaptive.ask_cmaes(self.space, history, count, seed)
            trials.add(connection, self._study, drawn, generation)
        return list(enumerate(drawn, start=len(history)))

    def points(self) -> list[Point]:
        """The point of each trial, in their order."""
        with self._read() as connection:
            return trials.points(connection, self._study)

    def trials(self) -> pd.DataFrame:
        """The points as a table: index `trial`, one column per setting that varies."""
        return trials.table_of(self.space, self.points())

    # -- waves

    def add_waves(self, added: Iterable[Wave]) -> None:
        """Add waves; those that are there already stay.

        Raises:
          ValueError: if a wave of that id has other lanes.
        """
        with self._write() as connection:
            known = {wave.id: wave for wave, _ in waves.read(connection, self._study)}
            added = list(added)
            for wave in added:
                if known.get(wave.id, wave) != wave:
                    raise ValueError(f"wave {wave.id} is there already, with other lanes")
            waves.add(connection, self._study, [wave for wave in added if wave.id not in known])

    def plan(self, phase: str, planned: Sequence[tuple[tuple[int, int], ...]], after: int) -> bool:
        """Add waves of these lanes (trial, seed), all or none: none if there are not `after` waves, for then others
        have planned.

        Returns:
          Whether they were added.
        """
        with self._write() as connection:
            if len(waves.read(connection, self._study)) != after:
                return False
            waves.add(connection, self._study, [Wave(after + i, phase, own) for i, own in enumerate(planned)])
            return True

    def waves(self) -> list[tuple[Wave, WaveState]]:
        """All waves by id, and whether each is waiting for a worker, leased to one, or done."""
        with self._read() as connection:
            return waves.read(connection, self._study)

    def claim(self, owner: str, lease_seconds: float) -> Wave | None:
        """Lease the first wave that is neither done nor leased; None if there is none. Time is the database's."""
        with self._write() as connection:
            wave = waves.lease(connection, self._study, owner, lease_seconds)
            if wave is not None and wave.phase == PHASES[0]:
                trials.begin(connection, self._study, (trial for trial, _ in wave.lanes))
            return wave

    def renew(self, wave_id: int, owner: str, lease_seconds: float) -> bool:
        """Lease the wave for longer; False if it is done, or someone else's by now."""
        with self._write() as connection:
            return waves.renew(connection, self._study, wave_id, owner, lease_seconds)

    def release(self, owner: str | None = None) -> None:
        """Give back what `owner` has leased (None: what anyone has), for others to claim at once."""
        with self._write() as connection:
            waves.release(connection, self._study, owner)

    def record(self, wave_id: int, owner: str, left: Sequence[Mapping[str, Any]], evaluations: pd.DataFrame) -> bool:
        """Record lanes that have left, and their curves: once each. A lane that is there already stays as it is.

        The last seed of a trial gives the trial its value (see `trials.complete`).

        Args:
          wave_id: the wave they belong to.
          owner: the worker that ran them. They count even if it has lost its lease: they are the numbers that any
            other worker would have found.
          left: the lanes, with the entries LANE_COLUMNS.
          evaluations: their curves, CURVE_COLUMNS.

        Returns:
          Whether the wave is still the owner's.
        """
        import pandas as pd

        with self._write() as connection:
            known = lanes.recorded(connection, self._study, {int(lane["trial"]) for lane in left})
            new = {key_of(lane): row_of(lane) for lane in reversed(left) if key_of(lane) not in known}
            lanes.add(connection, self._study, wave_id, new.values())
            theirs = pd.MultiIndex.from_frame(evaluations[["phase", "trial", "seed"]]).isin(list(new))
            curves.add(connection, self._study, wave_id, evaluations[theirs])
            trials.complete(connection, self._study, {trial for phase, trial, _ in new if phase == PHASES[0]})
            return waves.is_held(connection, self._study, wave_id, owner)

    def finish(self, wave_id: int) -> None:
        """Mark a wave done, once all its lanes are recorded; in a directory its curves become a file.

        Raises:
          ValueError: if a lane is missing.
        """
        with self._write() as connection:
            wave, is_done = waves.find(connection, self._study, wave_id)
            if is_done:
                return
            recorded = lanes.recorded(connection, self._study, {trial for trial, _ in wave.lanes})
            missing = {(wave.phase, *lane) for lane in wave.lanes} - recorded
            if missing:
                raise ValueError(f"wave {wave_id} is not done: {len(missing)} of its lanes are not recorded")
            written = None
            if self.directory is not None:
                written = curves.to_file(connection, self._study, wave_id, self.directory)
            waves.finish(connection, self._study, wave_id, written)

    # -- results

    def recorded(self) -> set[LaneKey]:
        """The lanes that are recorded: (phase, trial, seed)."""
        with self._read() as connection:
            return lanes.recorded(connection, self._study)

    def lanes(self) -> pd.DataFrame:
        """The recorded lanes, LANE_COLUMNS, sorted by phase, trial and seed."""
        with self._read() as connection:
            return lanes.read(connection, self._study)

    def curves(self, warn: Callable[[str], None] = tell) -> pd.DataFrame:
        """Their evaluations, CURVE_COLUMNS, sorted likewise, then by environment steps; `warn` is told what is lost."""
        with self._read() as connection:
            own, parts = lanes.read(connection, self._study), self._curve_parts(connection)
        return self._read_curves(parts, own, warn)

    def of_wave(self, wave_id: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Lanes (with the column `wave`) and curves of a wave that is done.

        Raises:
          RunError: if they cannot be read.
        """
        with self._read() as connection:
            own = lanes.read(connection, self._study, with_wave=True)
            parts = [part for part in self._curve_parts(connection) if part.wave_id == wave_id]
        evaluations, lost = curves.read_parts(parts)
        if lost:
            raise RunError(f"store: {lost[0]} in {self.where}, which others are compared with; go on with --resume.")
        return own[own["wave"] == wave_id], evaluations

    def snapshot(self) -> tuple[list[Point], list[tuple[Wave, WaveState]], pd.DataFrame, pd.DataFrame]:
        """Points, waves, lanes (with the column `wave`) and curves at one instant; curves that are lost are told."""
        with self._read() as connection:
            points, planned = trials.points(connection, self._study), waves.read(connection, self._study)
            own, parts = lanes.read(connection, self._study, with_wave=True), self._curve_parts(connection)
        return points, planned, own, self._read_curves(parts, own, tell)

    def data(self, directory: Path | None = None, warn: Callable[[str], None] = tell) -> SweepData:
        """All of the sweep at one instant; plan and provenance come from `directory`, if they are there.

        Curves that are damaged or missing are left out, and `warn` is told.
        """

        def notes(name: str, kind: type) -> dict[str, Any]:
            return {} if directory is None else read_notes(directory / name, kind, warn)

        with self._read() as connection:
            points, own = trials.points(connection, self._study), lanes.read(connection, self._study)
            parts = self._curve_parts(connection)
        return SweepData(
            name=self.name,
            settings=self.definition,
            plan=notes("plan.json", schemas.Plan),
            provenance=_redacted(notes("provenance.json", schemas.SweepProvenance)),
            trials=trials.table_of(self.space, points),
            lanes=own,
            curves=self._read_curves(parts, own, warn),
        )

    def reopen_lost(self) -> list[str]:
        """Have waves run again whose curves are damaged or missing, with all their lanes; says which in lines.

        For the one process at work (see `lock`): a lane's numbers come out the same.
        """
        with self._read() as connection:
            own, parts = lanes.read(connection, self._study, with_wave=True), self._curve_parts(connection)
        evaluations, lost = curves.read_parts(parts)
        missing = curves.keys_of(own) - curves.keys_of(evaluations)
        owners = own[["wave", "phase", "trial", "seed"]].itertuples(index=False, name=None)
        again = sorted({int(wave_id) for wave_id, *key in owners if tuple(key) in missing})
        for wave_id in again:
            with self._write() as connection:
                self._forget(connection, wave_id, {int(t) for t in own[own["wave"] == wave_id]["trial"]})
        if not again:
            return []
        what = lost[0] if lost else f"curves of wave {again[0]} are missing"
        return [f"{what}: the lanes of {len(again)} waves run again, with the same numbers"]

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
            with clear_database_errors(self.where, self.engine.url):
                held.enter_context(lock(self.directory, "sweep"))
                clear_unfinished(self.directory)
            self.release()
            yield

    # -- inside a transaction

    @contextlib.contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with self._connect() as connection, connection.begin():
            self._study.begin_write(connection)
            yield connection

    @contextlib.contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        """One instant of the database, however many statements look at it."""
        with self._connect() as connection, clear_decoding(self.where):
            if self._is_file:
                connection.exec_driver_sql("BEGIN")  # Python's driver begins none for reads
            else:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sa.Connection]:
        patience = 0 if self._is_file else _PATIENCE_SECONDS
        with (
            clear_database_errors(self.where, self.engine.url),
            database.connect(self.engine, patience) as connection,
        ):
            yield connection

    def _forget(self, connection: sa.Connection, wave_id: int, numbers: set[int]) -> None:
        """All that a wave has found, and what it did to its trials (their numbers)."""
        wave, _ = waves.find(connection, self._study, wave_id)
        waves.reopen(connection, self._study, wave_id)
        lanes.forget(connection, self._study, wave_id)
        curves.forget(connection, self._study, wave_id)
        if wave.phase == PHASES[0]:
            trials.reset(connection, self._study, numbers)

    def _curve_parts(self, connection: sa.Connection) -> list[Part]:
        """To be read once the database is free again; the files of waves that are done never change."""
        parts = curves.blobs(connection, self._study)
        if self.directory is not None:
            for wave_id, written in waves.file_digests(connection, self._study).items():
                parts.append(Part(wave_id, curves.file_of(self.directory, wave_id), written))
        return parts

    def _read_curves(self, parts: list[Part], own: pd.DataFrame, warn: Callable[[str], None]) -> pd.DataFrame:
        """The curves of recorded lanes, as far as they can be read."""
        evaluations, lost = curves.read_parts(parts)
        count = len(curves.keys_of(own) - curves.keys_of(evaluations))
        if count:
            why = f" ({lost[0]}{f', and {len(lost) - 1} more' if len(lost) > 1 else ''})" if lost else ""
            warn(f"store: the curves of {count} lanes in {self.where} are lost{why}; 'sweep --resume' runs them again")
        return evaluations


def _redacted(provenance: dict[str, Any]) -> dict[str, Any]:
    """Without the passwords that earlier versions kept among the flags."""
    return {
        k: [redact(str(x)) for x in v] if k == "flags" and isinstance(v, list) else v for k, v in provenance.items()
    }
