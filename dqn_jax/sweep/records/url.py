"""URLs of databases: what may be shown of them, which are of the same place, and how each is connected to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import sqlalchemy as sa

from dqn_jax.config import ConfigError
from dqn_jax.runs.redact import HIDDEN, names_secret

FROM_ENVIRONMENT = "env:"  # a URL that begins so is in the environment variable of that name
_BUSY_SECONDS = 60  # how long to wait for another writer of the same SQLite file
_CONNECT_SECONDS = 5


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite file."""
    return sa.URL.create("sqlite", database=str(path.absolute())).render_as_string()


def shown(url: sa.URL) -> str:
    """A URL as it may be kept and shown: without passwords, also those among its parameters."""
    query = {name: HIDDEN if _is_secret(name, value) else value for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True).replace(quote_plus(HIDDEN), HIDDEN)


def same_place(one: str, other: str) -> bool:
    """Whether two URLs, as shown, are of the same database, whoever asks for it and wherever the password stands."""

    def place(text: str) -> tuple[object, ...]:
        url = sa.make_url(text)
        query = {name: value for name, value in url.query.items() if not _is_secret(name, value)}
        return url.get_backend_name(), url.host, url.port, url.database, query

    return place(one) == place(other)


def _is_secret(name: str, value: str | Sequence[str]) -> bool:
    return names_secret(name) or any(map(names_secret, _listed(value)))


def _listed(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def without_secrets(text: str, url: sa.URL | None) -> str:
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
    location, arguments = engine_arguments(url)
    try:
        return sa.create_engine(location, **arguments)
    except ImportError as error:
        raise ConfigError(f"store: the driver of {location.drivername} is missing ({error}); install it.") from None


def engine_arguments(url: str) -> tuple[sa.URL, dict[str, Any]]:
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
