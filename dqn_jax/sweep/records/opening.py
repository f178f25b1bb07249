"""Sweeps are made in a folder, and opened wherever they are."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from dqn_jax.config import ConfigError
from dqn_jax.files import atomic, write_json
from dqn_jax.sweep.records import database, folder, url
from dqn_jax.sweep.records.errors import clear_database_errors, clear_decoding
from dqn_jax.sweep.records.store import Store, tell
from dqn_jax.sweep.records.values import Definition
from dqn_jax.sweep.tables import SWEEP_FILES, SweepData

_SQLITE, _COPY = SWEEP_FILES


def create_in_folder(directory: Path, definition: Definition, origin: str | None) -> Store:
    """A new sweep in a folder; with an `origin` it is a mirror of the sweep there.

    The database is under a temporary name first: a folder has all of it or none, and with it, it is a sweep.

    Raises:
      ConfigError: if the folder is occupied.
      RunError: if it cannot be written.
    """
    beside = (_COPY, "plan.json", "provenance.json") if origin is not None else ()  # of a mirror that lost its store
    with (
        folder.claimed(directory, beside),
        clear_database_errors(str(directory)),
        atomic(directory / _SQLITE) as temporary,
    ):
        database.create_sweep(url.sqlite_url(temporary), definition, origin)
    return open_any(directory)


def open_any(where: Path | str, name: str | None = None) -> Store:
    """An existing sweep, or the mirror of one, by its directory or by a database's URL.

    Raises:
      ConfigError: if there is no such sweep there, or a newer dqn_jax wrote it.
      RunError: if the database cannot be reached.
    """
    if isinstance(where, str) and re.match(r"\w+(\+\w+)?://|env:", where):
        return Store(url.make_engine(where), None, name)
    directory = Path(where)
    path = directory / _SQLITE
    if not path.is_file():
        if (directory / _COPY).is_file():
            raise ConfigError(
                f"sweep: {path} is missing, and with it all that was found; start again in another folder."
            )
        if directory.is_dir() and any(directory.iterdir()) and not folder.is_foreign(directory):
            raise ConfigError(f"sweep: {directory} was left before its sweep began; start it there without --resume.")
        raise ConfigError(f"sweep: {directory} is not a sweep; give the folder that 'dqn-jax sweep' printed.")
    engine = url.make_engine(url.sqlite_url(path))
    with clear_database_errors(str(directory)), clear_decoding(str(directory)):
        database.check_file(engine, str(directory))
    store = Store(engine, directory, name)
    with contextlib.suppress(OSError):  # a folder that can only be read
        copy = directory / _COPY
        text = json.dumps(store.definition, indent=1) + "\n"
        if not copy.is_file() or copy.read_text(errors="replace") != text:
            write_json(copy, store.definition)
    return store


def open_store(where: Path | str, name: str | None = None) -> Store:
    """An existing sweep, by its directory or by a database's URL (with its name, where that database has several).

    Raises:
      ConfigError: if there is no such sweep there, it is a mirror of another, or a newer dqn_jax wrote it.
      RunError: if the database cannot be reached.
    """
    store = open_any(where, name)
    database.prepare_for_optuna(store.url)
    if store.origin is not None:
        raise ConfigError(f"sweep: {where} mirrors '{store.name}' at {store.origin}; go on with it by --store URL.")
    return store


def load_data(path: Path, warn: Callable[[str], None] = tell) -> SweepData:
    """All of a sweep that a report needs, at one instant; the sweep may be running. `warn` is told what is lost.

    Raises:
      ConfigError: if there is no sweep, or a newer dqn_jax wrote it.
      RunError: if it cannot be read.
    """
    return open_any(path).data(path, warn)
