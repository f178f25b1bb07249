"""The database under a sweep's records: how it is reached, its tables, and what it says when it fails.

SQLite (a file) or PostgreSQL (a server for several machines), both through SQLAlchemy. Optuna makes its tables and
keeps their version; ours stand beside them under names that begin with `dqn_jax_`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from dqn_jax.config import ConfigError, suggest
from dqn_jax.sweep.records.errors import clear_database_errors, damaged
from dqn_jax.sweep.records.url import engine_arguments, make_engine, shown
from dqn_jax.sweep.records.values import Definition, digest
from dqn_jax.sweep.tables import LANE_COLUMNS

FORMAT = 2  # of sweep.json, our tables and the curves; a newer one is refused
DIGESTS_SINCE = 2  # the format from which on rows and files have digests
_METRIC = "restricted mean of env_steps to convergence"
_OURS = {"sweeps": "dqn_jax_sweeps", "waves": "dqn_jax_units", "lanes": "dqn_jax_lanes", "curves": "dqn_jax_curves"}


Record = sa.Row[*tuple[Any, ...]]
"""A row as a database gives it."""


class Tables(NamedTuple):
    """Optuna's tables, under its names, and ours."""

    studies: sa.Table
    study_directions: sa.Table
    study_system_attributes: sa.Table
    trials: sa.Table
    trial_params: sa.Table
    trial_values: sa.Table
    trial_user_attributes: sa.Table
    trial_system_attributes: sa.Table
    sweeps: sa.Table
    waves: sa.Table
    lanes: sa.Table
    curves: sa.Table


def find_tables(engine: sa.Engine) -> Tables:
    """Optuna's tables as they are found there, and ours.

    Raises:
      ConfigError: if they are not there.
    """
    theirs = [name for name in Tables._fields if name not in _OURS]
    found, inspector = sa.MetaData(), sa.inspect(engine)
    found.reflect(engine, only=lambda name, _: name in theirs)
    missing = [name for name in theirs if name not in found.tables]
    if missing or not inspector.has_table(_OURS["sweeps"]):
        raise ConfigError(f"sweep: {shown(engine.url)} holds no sweep of dqn_jax; choose another.")
    ours = _metadata("digest" in {column["name"] for column in inspector.get_columns(_OURS["sweeps"])})
    tables = {name: found.tables[name] for name in theirs}
    return Tables(**tables, **{name: ours.tables[table] for name, table in _OURS.items()})


@functools.cache
def _metadata(digests: bool = True) -> sa.MetaData:
    """Our tables, as they are now or were before there were digests."""
    metadata = sa.MetaData()

    def added(*columns: str, kind: Any = sa.Text) -> Iterator[sa.Column[Any]]:
        return (sa.Column(column, kind) for column in columns if digests)

    kinds = {"int64": sa.BigInteger, "float64": sa.Double, "bool": sa.Boolean, "str": sa.Text}
    keys = ("phase", "trial", "seed")
    columns: dict[str, list[sa.Column[Any]]] = {
        "sweeps": [
            sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("format", sa.Integer, nullable=False),
            sa.Column("definition", sa.Text, nullable=False),
            sa.Column("origin", sa.Text),  # of a mirror: where the sweep is
            sa.Column("revision", sa.Integer, nullable=False),  # raised by each transaction that writes
            *added("digest", "trials_digest", "units_digest"),  # of what was asked, of all points, of all waves
            *added("lanes_recorded", kind=sa.Integer),
        ],
        "waves": [
            sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("phase", sa.Text, nullable=False),
            sa.Column("lanes", sa.Text, nullable=False),  # JSON [[trial, seed], ...]
            sa.Column("owner", sa.Text),
            sa.Column("lease_until", sa.Double),  # seconds of the database's clock
            sa.Column("done", sa.Boolean, nullable=False),
            *added("curves_digest"),  # of the file
        ],
        "lanes": [
            sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
            *(sa.Column(n, kinds[LANE_COLUMNS[n]], primary_key=True, autoincrement=False) for n in keys),
            *(sa.Column(n, kinds[kind]) for n, kind in LANE_COLUMNS.items() if n not in keys),
            sa.Column("unit_id", sa.Integer, nullable=False),
            *added("digest"),
        ],
        "curves": [
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("study_id", sa.Integer, nullable=False, index=True),
            sa.Column("unit_id", sa.Integer, nullable=False),
            sa.Column("data", sa.LargeBinary, nullable=False),  # Parquet
            *added("digest"),
        ],
    }
    for name, own in columns.items():
        sa.Table(_OURS[name], metadata, *own)
    return metadata


def create_sweep(url: str, definition: Definition, origin: str | None) -> None:
    """Make the tables, where there are none, and an empty sweep of `definition`'s name.

    Raises:
      ConfigError: if there is a study of that name.
    """
    name = definition["name"]
    engine = make_engine(url)
    where = shown(engine.url)
    with clear_database_errors(where, engine.url):
        _metadata().create_all(engine)
        _add_columns(engine)
        prepare_for_optuna(url)
        tables = find_tables(engine)
        studies = tables.studies
        try:
            with engine.begin() as connection:
                connection.execute(studies.insert().values(study_name=name))
                study = connection.execute(
                    sa.select(studies.c.study_id).where(studies.c.study_name == name)
                ).scalar_one()
                for table in (tables.sweeps, tables.waves, tables.lanes, tables.curves):
                    # What Optuna left of a study it deleted, whose number may come again.
                    old = ~table.c.study_id.in_(sa.select(studies.c.study_id)) | (table.c.study_id == study)
                    connection.execute(table.delete().where(old))
                connection.execute(
                    tables.study_directions.insert().values(study_id=study, direction="MINIMIZE", objective=0)
                )
                connection.execute(
                    tables.study_system_attributes.insert().values(
                        study_id=study, key="study:metric_names", value_json=json.dumps([_METRIC])
                    )
                )
                row = {"format": FORMAT, "definition": json.dumps(definition), "origin": origin}
                digests = {"digest": sweep_digest({"study_name": name, **row}), "lanes_recorded": 0}
                digests |= {"trials_digest": digest([]), "units_digest": digest([])}
                connection.execute(tables.sweeps.insert().values(study_id=study, revision=0, **row, **digests))
        except sa.exc.IntegrityError:
            raise ConfigError(
                f"name: {where} has a study '{name}' already; choose another name, or go on with it by --resume."
            ) from None


def sweep_digest(row: Mapping[str, object]) -> str:
    """The digest of what was asked, from the columns that say it."""
    return digest([row[name] for name in ("study_name", "format", "definition", "origin")])


def _add_columns(engine: sa.Engine) -> None:
    """Where an earlier version made our tables, add what they lack."""
    inspector = sa.inspect(engine)
    for table in _metadata().sorted_tables:
        known = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                kind = column.type.compile(engine.dialect)
                with engine.begin() as connection:
                    connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")


def find_sweep(connection: sa.Connection, tables: Tables, where: str, name: str | None) -> Record:
    """The row of the sweep of that name, or of the only one, with its `study_name`.

    Raises:
      ConfigError: if there is none, or several, or a newer dqn_jax wrote it.
    """
    sweeps, study_name = tables.sweeps, tables.studies.c.study_name
    joined = sweeps.join(tables.studies, sweeps.c.study_id == tables.studies.c.study_id)
    query = sa.select(study_name, sweeps.c.format).select_from(joined).order_by(sweeps.c.study_id)
    formats = {row.study_name: row.format for row in connection.execute(query)}
    if name is None and len(formats) != 1:
        raise ConfigError(f"name: {where} has {len(formats)} sweeps ({', '.join(formats)}); choose one by its name.")
    chosen = next(iter(formats)) if name is None else name
    if chosen not in formats:
        raise ConfigError(
            f"name: {where} has no sweep '{chosen}'.{suggest(chosen, formats)} It has {', '.join(formats)}."
        )
    if formats[chosen] > FORMAT:
        raise ConfigError(f"sweep: {where} was written by a newer dqn_jax (format {formats[chosen]}); update dqn_jax.")
    row = connection.execute(sa.select(study_name, sweeps).select_from(joined).where(study_name == chosen)).one()
    saved = row._mapping.get("digest")
    if (saved is not None) != (row.format >= DIGESTS_SINCE) or saved not in (None, sweep_digest(dict(row._mapping))):
        raise damaged(where, "what was asked")
    return row


def check_file(engine: sa.Engine, where: str) -> None:
    """Let SQLite look through its file.

    Raises:
      DamagedError: if its pages do not fit together.
    """
    with engine.connect() as connection:
        found = str(connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one())
    if found != "ok":
        raise damaged(where, found.splitlines()[-1])


def prepare_for_optuna(url: str) -> None:
    """Make Optuna's tables, if they are not there.

    Raises:
      ConfigError: if they are of a version that this Optuna does not know.
    """
    import optuna

    location, arguments = engine_arguments(url)
    template = location.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    with clear_database_errors(shown(location), location), quiet_optuna():
        try:
            storage = optuna.storages.RDBStorage(template, engine_kwargs=arguments)
        except optuna.exceptions.StorageInternalError as error:
            raise error.__cause__ or error from None
        except RuntimeError as error:
            raise ConfigError(f"store: {str(error).splitlines()[0]}") from None
        storage.remove_session()


def connect(engine: sa.Engine, patience: float) -> sa.Connection:
    """A connection; tries again for `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return engine.connect()
        except sa.exc.OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(1)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Inside, Optuna logs nothing but errors."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
