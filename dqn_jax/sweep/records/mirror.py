"""A sweep on a server, mirrored into a folder, so that a report needs no database; and where a new sweep is made."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from dqn_jax.config import ConfigError
from dqn_jax.sweep.records import database, folder
from dqn_jax.sweep.records.curves import in_order
from dqn_jax.sweep.records.opening import create_in_folder, open_any
from dqn_jax.sweep.records.store import Store
from dqn_jax.sweep.records.url import same_place
from dqn_jax.sweep.records.values import Definition, key_of
from dqn_jax.sweep.tables import CURVE_COLUMNS, SWEEP_FILES


def create(directory: Path | None, url: str | None, definition: Definition) -> Store:
    """A new sweep in a directory, or at a URL (then a directory, if given, gets a mirror of it).

    Args:
      directory: the sweep's folder; it must be empty or not exist.
      url: a database by its SQLAlchemy URL, or None for a file in the directory.
      definition: what was asked, as plain JSON. The store reads its `name`, `vary`, `seeds` and `config.total_steps`.

    Raises:
      ConfigError: if the directory is occupied, or the database has a sweep of that name.
      RunError: if it cannot be written.
    """
    definition = json.loads(json.dumps({"format": database.FORMAT, **definition}, allow_nan=False))
    if url is None:
        if directory is None:
            raise ConfigError("out: say where the sweep is kept; give a folder or the URL of a database.")
        return create_in_folder(directory, definition, origin=None)
    with contextlib.nullcontext() if directory is None else folder.claimed(directory):
        database.create_sweep(url, definition, origin=None)
    store = open_any(url, definition["name"])
    if directory is not None:
        export(store, directory)
    return store


def export(store: Store, directory: Path) -> None:
    """Mirror a sweep into a directory; again, to bring it up to date.

    Raises:
      ConfigError: if the directory holds another sweep.
    """
    if not (directory / SWEEP_FILES[0]).is_file():
        mirror = create_in_folder(directory, store.definition, store.where)
    elif is_mirror_of(store, directory):
        mirror = open_any(directory)
    else:
        raise ConfigError(f"out: {directory} holds another sweep; choose another folder.")
    points, waves, lanes, curves = store.snapshot()
    mirror.add_trials(points)
    mirror.add_waves(wave for wave, _ in waves)
    known = mirror.recorded()
    curves_of = dict(iter(curves.groupby(["phase", "trial", "seed"])))
    for wave_id in sorted(set(lanes["wave"])):
        rows = lanes[lanes["wave"] == wave_id].to_dict("records")
        fresh = [{str(name): value for name, value in row.items()} for row in rows]
        fresh = [row for row in fresh if key_of(row) not in known]
        theirs = [curves_of[key] for key in map(key_of, fresh) if key in curves_of]
        if fresh:
            mirror.record(int(wave_id), "", fresh, in_order(theirs, CURVE_COLUMNS))
    for wave, state in waves:
        if state == "done":
            mirror.finish(wave.id)


def is_mirror_of(store: Store, directory: Path) -> bool:
    """Whether the sweep in a directory mirrors `store`.

    Raises:
      ConfigError: if there is no sweep in the directory.
    """
    mirror = open_any(directory)
    return mirror.origin is not None and mirror.name == store.name and same_place(mirror.origin, store.where)
