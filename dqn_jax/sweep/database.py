"""The database under a sweep's records: how it is reached, its tables, and what it says when it fails.

SQLite (a file) or PostgreSQL (a server for several machines), both through SQLAlchemy. Optuna makes its tables and
keeps their version; ours stand beside them under names that begin with `dqn_jax_`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

import sqlalchemy as sa

from dqn_jax.config import ConfigError, RunError, suggest
from dqn_jax.runs.redact import HIDDEN, names_secret
from dqn_jax.sweep.curves import DamagedError, digest
from dqn_jax.sweep.tables import LANE_COLUMNS

FORMAT = 2  # of sweep.json, our tables and the curves; a newer one is refused
DIGESTS_SINCE = 2  # the format from which on rows and files have digests
FROM_ENVIRONMENT = "env:"  # a URL that begins so is in the environment variable of that name
_BUSY_SECONDS = 60  # how long to wait for another writer of the same SQLite file
_CONNECT_SECONDS = 5
_METRIC = "restricted mean of env_steps to convergence"
_PREFIX = "dqn_jax_"
_OURS = ("sweeps", "units", "lanes", "curves")


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
    units: sa.Table
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
    if missing or not inspector.has_table(_PREFIX + "sweeps"):
        raise ConfigError(f"sweep: {shown(engine.url)} holds no sweep of dqn_jax; choose another.")
    ours = _metadata("digest" in {column["name"] for column in inspector.get_columns(_PREFIX + "sweeps")})
    tables = {name: found.tables[name] for name in theirs}
    return Tables(**tables, **{name: ours.tables[_PREFIX + name] for name in _OURS})


@functools.cache
def _metadata(digests: bool = True) -> sa.MetaData:
    """Our tables, as they are now or were before there were digests."""
    metadata = sa.MetaData()

    def added(*columns: str, kind: Any = sa.Text) -> Iterator[sa.Column[Any]]:
        return (sa.Column(column, kind) for column in columns if digests)

    kinds = {"int64": sa.BigInteger, "float64": sa.Double, "bool": sa.Boolean, "str": sa.Text}
    keys = ("phase", "trial", "seed")
    sa.Table(
        _PREFIX + "sweeps",
        metadata,
        sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("format", sa.Integer, nullable=False),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("origin", sa.Text),  # of a mirror: where the sweep is
        sa.Column("revision", sa.Integer, nullable=False),  # raised by each transaction that writes
        *added("digest", "trials_digest", "units_digest"),  # of what was asked, of all points, of all units
        *added("lanes_recorded", kind=sa.Integer),
    )
    sa.Table(
        _PREFIX + "units",
        metadata,
        sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("lanes", sa.Text, nullable=False),  # JSON [[trial, seed], ...]
        sa.Column("owner", sa.Text),
        sa.Column("lease_until", sa.Double),  # seconds of the database's clock
        sa.Column("done", sa.Boolean, nullable=False),
        *added("curves_digest"),  # of the file
    )
    sa.Table(
        _PREFIX + "lanes",
        metadata,
        sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
        *(sa.Column(n, kinds[LANE_COLUMNS[n]], primary_key=True, autoincrement=False) for n in keys),
        *(sa.Column(n, kinds[kind]) for n, kind in LANE_COLUMNS.items() if n not in keys),
        sa.Column("unit_id", sa.Integer, nullable=False),
        *added("digest"),
    )
    sa.Table(
        _PREFIX + "curves",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study_id", sa.Integer, nullable=False, index=True),
        sa.Column("unit_id", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),  # Parquet
        *added("digest"),
    )
    return metadata


def create_sweep(url: str, definition: dict[str, Any], origin: str | None) -> None:
    """Make the tables, where there are none, and an empty sweep of `definition`'s name.

    Raises:
      ConfigError: if there is a study of that name.
    """
    name = definition["name"]
    engine = make_engine(url)
    where = shown(engine.url)
    with clear_errors(where, engine.url):
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
                for table in (tables.sweeps, tables.units, tables.lanes, tables.curves):
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


def sweep_digest(row: Mapping[Any, Any]) -> str:
    """Of what was asked."""
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


def find_sweep(connection: sa.Connection, tables: Tables, where: str, name: str | None) -> Any:
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
    if (saved is not None) != (row.format >= DIGESTS_SINCE) or saved not in (None, sweep_digest(row._mapping)):
        raise damaged(where, "what was asked")
    return row


def damaged(where: str, what: str) -> DamagedError:
    """The error that says what of the records is not as it was written."""
    return DamagedError(f"store: {where} is damaged ({what}); put a copy of it in its place, or start a new sweep.")


@contextlib.contextmanager
def clear_decoding(where: str) -> Iterator[None]:
    """Turn whatever is wrong with values that are read, of any kind and in any place, into one line."""
    try:
        yield
    except (ConfigError, RunError, sa.exc.DBAPIError):
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise damaged(
            where, f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
        ) from error
    except sa.exc.SQLAlchemyError as error:
        raise damaged(where, str(error).splitlines()[0][:80]) from error


def check_file(engine: sa.Engine, where: str) -> None:
    """Let SQLite look through its file.

    Raises:
      DamagedError: if its pages do not fit together.
    """
    with engine.connect() as connection:
        found = str(connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one())
    if found != "ok":
        raise damaged(where, found.splitlines()[-1])


def sqlite_url(path: Path) -> str:
    """The URL of a file."""
    return sa.URL.create("sqlite", database=str(path.absolute())).render_as_string()


def shown(url: sa.URL) -> str:
    """A URL as it may be kept and shown: without passwords, also those among its parameters."""
    query = {name: HIDDEN if _is_secret(name, value) else value for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True).replace(quote_plus(HIDDEN), HIDDEN)


def same_place(one: str, other: str) -> bool:
    """Whether two URLs, as shown, are of the same database, whoever asks for it and wherever the password stands."""

    def place(text: str) -> tuple[Any, ...]:
        url = sa.make_url(text)
        query = {name: value for name, value in url.query.items() if not _is_secret(name, value)}
        return url.get_backend_name(), url.host, url.port, url.database, query

    return place(one) == place(other)


def _is_secret(name: str, value: str | Sequence[str]) -> bool:
    return names_secret(name) or any(map(names_secret, _listed(value)))


def _listed(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def _without_secrets(text: str, url: sa.URL | None) -> str:
    """What a driver says about a URL, without the passwords of that."""
    if url is None:
        return text
    secrets = [str(url.password or "")]
    for name, value in url.query.items():
        secrets += _listed(value) if _is_secret(name, value) else []
    spelled = {spell(secret) for secret in secrets if secret for spell in (str, quote, quote_plus)}
    for secret in sorted(spelled, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def with_password(url: str) -> str:
    """A URL for other machines, whose environment is another: with the password that $PGPASSWORD gives here."""
    location, password = sa.make_url(url), os.environ.get("PGPASSWORD")
    if password and location.password is None and "password" not in location.query:
        location = location.set(password=password)
    return location.render_as_string(hide_password=False)


def make_engine(url: str) -> sa.Engine:
    """What connects to a database.

    Raises:
      ConfigError: if the URL is none, or of a kind that is not supported.
    """
    location, arguments = _engine_arguments(url)
    try:
        return sa.create_engine(location, **arguments)
    except ImportError as error:
        raise ConfigError(f"store: the driver of {location.drivername} is missing ({error}); install it.") from None


def _engine_arguments(url: str) -> tuple[sa.URL, dict[str, Any]]:
    """Where a database is, and how SQLAlchemy is to speak to it; `env:NAME` is an environment variable's URL."""
    if url.startswith(FROM_ENVIRONMENT):
        variable = url.removeprefix(FROM_ENVIRONMENT)
        url = os.environ.get(variable, "")
        if not url:
            raise ConfigError(f"store: the environment variable '{variable}' holds no URL; set it, or give the URL.")
    try:
        location = sa.make_url(url)
        kind = location.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        kind = ""
    else:
        if "@" in (location.host or ""):
            raise ConfigError("store: a user name or password in a URL holds an '@'; write it as %40.")
    # No pool: a connection costs milliseconds, and one that nobody uses can go stale, or hold a file open.
    if kind == "postgresql":
        if "+" not in location.drivername:
            location = location.set(drivername="postgresql+psycopg")
        timeout = {} if "connect_timeout" in location.query else {"connect_timeout": _CONNECT_SECONDS}
        return location, {"connect_args": timeout, "poolclass": sa.pool.NullPool}
    if kind == "sqlite" and location.database not in (None, "", ":memory:"):
        # IMMEDIATE: a transaction that writes waits for its turn when it begins, not half-way, where it may not.
        connect = {"timeout": _BUSY_SECONDS, "isolation_level": "IMMEDIATE"}
        return location, {"connect_args": connect, "poolclass": sa.pool.NullPool}
    raise ConfigError("store: this is not the URL of a database that a sweep can use; give postgresql://HOST/NAME.")


def prepare_for_optuna(url: str) -> None:
    """Make Optuna's tables, if they are not there.

    Raises:
      ConfigError: if they are of a version that this Optuna does not know.
    """
    import optuna

    location, arguments = _engine_arguments(url)
    template = location.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    with clear_errors(shown(location), location), quiet_optuna():
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
def clear_errors(where: str, url: sa.URL | None = None) -> Iterator[None]:
    """Turn what a database (at `url`) or a file system refuses into one line, without the passwords of the URL."""
    try:
        yield
    except sa.exc.IntegrityError:
        raise  # a fault of ours, or of a caller who says what it means
    except (sa.exc.DBAPIError, OSError) as error:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error.strerror or error
        reason = _without_secrets((str(cause).strip() or "no reason given").splitlines()[0], url)
        remedies = {"full": "free space", "No space": "free space", "locked": "close the program that holds it"}
        remedy = next((remedies[word] for word in remedies if word in reason), "see that it is there and works")
        raise RunError(f"store: cannot use {where} ({reason}); {remedy}, then go on with --resume.") from (
            error if _without_secrets(str(error), url) == str(error) else None
        )


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Without the lines Optuna logs."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
