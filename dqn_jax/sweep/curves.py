"""Curves as Parquet, and the digests by which damage to what a sweep has recorded is told."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dqn_jax.config import RunError
from dqn_jax.sweep.tables import CURVE_COLUMNS, PHASES

if TYPE_CHECKING:
    import pandas as pd


class DamagedError(RunError):
    """What is read is not what was written."""


class Part(NamedTuple):
    """Curves of some lanes of a unit."""

    unit_id: int
    source: bytes | Path
    digest: str | None  # None: written before there were any


def digest(value: Any) -> str:
    """Of bytes, or of a value as JSON has it."""
    data = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def to_parquet(curves: pd.DataFrame) -> bytes:
    """A table of CURVE_COLUMNS as a file."""
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    table = pa.Table.from_pandas(curves[list(CURVE_COLUMNS)].astype(CURVE_COLUMNS), preserve_index=False)
    parquet.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def read_part(part: Part) -> pd.DataFrame:
    """The table.

    Raises:
      DamagedError: if it is not there, or not as it was written; the message says what it is.
    """
    import pyarrow as pa
    from pyarrow import parquet

    name = f"curves of wave {part.unit_id}"
    try:
        if isinstance(part.source, bytes):
            data = part.source
        else:
            name = f"{part.source.parent.name}/{part.source.name}"
            data = part.source.read_bytes()
        if part.digest is not None and digest(data) != part.digest:
            raise DamagedError(f"{name} is damaged")
        table = parquet.read_table(io.BytesIO(data), page_checksum_verification=True).to_pandas()
        if "q_mean" not in table:
            table["q_mean"] = np.nan  # of before there was the column
        if not table["phase"].isin(PHASES).all():
            raise ValueError("a phase that there is not")
        return table[list(CURVE_COLUMNS)].astype(CURVE_COLUMNS)
    except FileNotFoundError:
        raise DamagedError(f"{name} is missing") from None
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:  # Parquet's own checks
        raise DamagedError(f"{name} is damaged") from error


def read_parts(parts: Iterable[Part]) -> tuple[pd.DataFrame, list[str]]:
    """All that can be read, sorted, and what of it cannot."""
    tables, lost = [], []
    for part in parts:
        try:
            tables.append(read_part(part))
        except DamagedError as error:
            lost.append(str(error))
    return in_order(tables, CURVE_COLUMNS), lost


def in_order(parts: Iterable[pd.DataFrame], columns: dict[str, str]) -> pd.DataFrame:
    """Tables of lanes or curves as one, sorted by phase, trial, seed and environment steps."""
    import pandas as pd

    parts = [part for part in parts if len(part)]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(columns))
    table = table[list(columns)].astype(columns)
    keys = [table[name].to_numpy() for name in ("env_steps", "seed", "trial")]
    phase = table["phase"].map({name: i for i, name in enumerate(PHASES)}).to_numpy(np.int64)
    return table.iloc[np.lexsort((*keys, phase))].reset_index(drop=True)
