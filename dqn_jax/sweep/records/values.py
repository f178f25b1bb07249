"""What the records are told and tell, as values: points, waves, keys of lanes; and how they become rows."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dqn_jax.config import RunError
from dqn_jax.sweep.tables import LANE_COLUMNS

if TYPE_CHECKING:  # slow to import, as pandas and Optuna are: whoever opens a database has them
    import sqlalchemy as sa

Definition = dict[str, Any]
"""What was asked of a sweep and the settings it varies, as plain JSON."""

Point = dict[str, Any]
"""A value for each setting that varies, in the setting's own type."""

LaneKey = tuple[str, int, int]
"""Phase, trial, seed."""

WaveState = Literal["waiting", "running", "done"]


class Wave(NamedTuple):
    """Lanes that run together, in one program."""

    id: int
    phase: str
    lanes: tuple[tuple[int, int], ...]  # (trial, seed)


class DamagedError(RunError):
    """What is read is not what was written."""


def digest(value: object) -> str:
    """A digest of bytes, or of a value as JSON has it, by which damage to what was recorded is told."""
    data = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def key_of(lane: Mapping[str, Any]) -> LaneKey:
    """The key of a lane (with the entries LANE_COLUMNS)."""
    return str(lane["phase"]), int(lane["trial"]), int(lane["seed"])


def row_of(lane: Mapping[str, Any]) -> dict[str, object]:
    """A lane (with the entries LANE_COLUMNS) in Python's own types, NaN as NULL."""
    casts: dict[str, Callable[[Any], object]] = {"int64": int, "float64": _nullable, "bool": bool, "str": str}
    return {name: casts[kind](lane[name]) for name, kind in LANE_COLUMNS.items()}


def _nullable(x: float | None) -> float | None:
    return None if x is None or math.isnan(x) else float(x) + 0.0  # SQLite has no -0.0


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that there are; None without any."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def utc_now() -> datetime.datetime:
    """The time as Optuna keeps it: in UTC, without saying so."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def clock(connection: sa.Connection) -> float:
    """Seconds since 1970 by the clock of the database: workers' own may differ."""
    sqlite = connection.dialect.name == "sqlite"
    query = "(julianday('now') - 2440587.5) * 86400.0" if sqlite else "extract(epoch from clock_timestamp())"
    return float(connection.exec_driver_sql(f"SELECT {query}").scalar_one())


def insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Add rows to a table; none of none."""
    if rows:  # an empty list would insert a row of defaults
        connection.execute(table.insert(), list(rows))
