"""One sweep in a database: which rows are its own, what was asked, and the digests by which damage is told."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import sqlalchemy as sa

from dqn_jax.convergence import parse_criterion
from dqn_jax.runs import schemas
from dqn_jax.runs.redact import redact
from dqn_jax.sweep.records.database import DIGESTS_SINCE, Tables, find_sweep, find_tables, sweep_digest
from dqn_jax.sweep.records.errors import clear_database_errors, clear_decoding, damaged
from dqn_jax.sweep.records.values import Definition, digest
from dqn_jax.sweep.space import Space, parse_space


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """A sweep, as Optuna calls it; what all that reads and writes tables is told, beside a connection."""

    tables: Tables
    id: int  # `study_id` in every table
    name: str
    definition: Definition
    origin: str | None  # of a mirror: where the sweep is
    where: str  # for messages
    has_digests: bool  # earlier versions wrote none

    @functools.cached_property
    def space(self) -> Space:
        """What varies in the sweep, by name."""
        return parse_space(self.definition["vary"])

    @functools.cached_property
    def seeds(self) -> frozenset[int]:
        """The seeds with which every trial runs."""
        return frozenset(self.definition["seeds"])

    @property
    def horizon(self) -> float:
        """The budget of environment steps: what a seed that does not converge counts."""
        return float(self.definition["config"]["total_steps"])

    @functools.cached_property
    def settles(self) -> bool:
        """Whether a seed converges by settling."""
        return any(parse_criterion(text).settles for text in self.definition.get("criteria", [])[:1])

    def owns(self, table: sa.Table) -> sa.ColumnElement[bool]:
        """Which rows of a table are its own."""
        own: sa.ColumnElement[bool] = table.c.study_id == self.id
        return own

    def begin_write(self, connection: sa.Connection) -> None:
        """Raise the revision: from here on the writers of this sweep take turns (in SQLite, those of the file)."""
        sweeps = self.tables.sweeps
        connection.execute(sweeps.update().where(self.owns(sweeps)).values(revision=sweeps.c.revision + 1))

    def amend(self, connection: sa.Connection, text: str) -> None:
        """Put another definition, as JSON of the same format, in the place of what was asked."""
        sweeps, row = self.tables.sweeps, {"study_name": self.name, "format": self.definition["format"]}
        asked = sweep_digest({**row, "definition": text, "origin": self.origin})
        digests = {"digest": asked} if self.has_digests else {}
        connection.execute(sweeps.update().where(self.owns(sweeps)).values(definition=text, **digests))

    def note(self, connection: sa.Connection, **values: object) -> None:
        """Note a digest of what has been written, by its column; `check` holds it against that."""
        if self.has_digests:
            sweeps = self.tables.sweeps
            connection.execute(sweeps.update().where(self.owns(sweeps)).values(**values))

    def count(self, connection: sa.Connection, column: str, more: int) -> None:
        """Note that there are so many more rows (or, below 0, fewer) of what a column counts; `check` reads that."""
        if self.has_digests:  # stores of before have no such column either
            self.note(connection, **{column: self.tables.sweeps.c[column] + more})

    def check(self, connection: sa.Connection, column: str, now: Callable[[], object], what: str) -> None:
        """Hold what is read, or its digest (`now`), against what was noted when it was written.

        Raises:
          DamagedError: if they differ; `what` says of what they are.
        """
        if self.has_digests:
            sweeps = self.tables.sweeps
            noted = connection.execute(sa.select(sweeps.c[column]).where(self.owns(sweeps))).scalar_one()
            if noted != now():
                raise damaged(self.where, what)

    def digest_column(self, value: object) -> dict[str, str]:
        """The digest of a value as a column of its row, where there is one."""
        return {"digest": digest(value)} if self.has_digests else {}


def find_study(engine: sa.Engine, where: str, name: str | None) -> Study:
    """The sweep of that name in a database, or the only one there.

    Raises:
      ConfigError: if there is none, or several, or a newer dqn_jax wrote it.
      DamagedError: if what was asked is not as it was written.
      RunError: if the database cannot be reached.
    """
    with clear_database_errors(where, engine.url), clear_decoding(where):
        tables = find_tables(engine)
        with engine.connect() as connection:
            row = find_sweep(connection, tables, where, name)
        definition = schemas.definition_from(row.definition)
    return Study(
        tables=tables,
        id=row.study_id,
        name=row.study_name,
        definition=definition,
        origin=None if row.origin is None else redact(row.origin),  # earlier versions kept passwords
        where=where,
        has_digests=row.format >= DIGESTS_SINCE,
    )
