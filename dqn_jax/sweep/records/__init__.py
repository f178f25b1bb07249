"""The records of a sweep: one database, whole at any instant, whoever dies when.

    <directory>/  store.sqlite      Optuna's tables, and ours: what makes the folder a sweep
                  sweep.json        what was asked (a copy for people, made again if it is missing)
                  curves/unit-00003.parquet
                  lock              held by the process that runs the sweep

Optuna's trials are the configurations: one trial for each point of the space, under its number, so that Optuna and its
dashboard open the database too. Beside them stand tables of ours: lanes (trial x seed), waves (lanes that run together,
leased to one worker at a time; on disk they are called units) and the curves of waves that are not done. A PostgreSQL
server can hold them in place of the file: then several machines join a sweep by its URL, and `export` mirrors it into
a directory.

Two rules keep it whole. What belongs together is written in one transaction: a lane, its curve, and its trial's value
once the last seed is in. And a transaction that writes begins by raising the sweep's revision, which makes the writers
of a sweep take turns.

Each table has a module that reads and writes it inside a transaction (`trials`, `waves`, `lanes`, `curves`); `store`
joins them. What this face gives is imported when it is asked for: SQLAlchemy and Optuna are slow to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from dqn_jax.sweep.records.values import DamagedError, LaneKey, Point, Wave, WaveState

if TYPE_CHECKING:
    from dqn_jax.sweep.records.mirror import create, export, is_mirror_of
    from dqn_jax.sweep.records.opening import load_data, open_store
    from dqn_jax.sweep.records.store import Store

__all__ = [
    "DamagedError",
    "LaneKey",
    "Point",
    "Store",
    "Wave",
    "WaveState",
    "create",
    "export",
    "is_mirror_of",
    "load_data",
    "open_store",
]

_LATE = {
    "Store": "store",
    **dict.fromkeys(("load_data", "open_store"), "opening"),
    **dict.fromkeys(("create", "export", "is_mirror_of"), "mirror"),
}


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
