"""The evaluations of lanes as Parquet: in the database while their wave runs, then in a file of the sweep's folder."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dqn_jax.files import atomic
from dqn_jax.sweep.records.values import DamagedError, LaneKey, digest, insert
from dqn_jax.sweep.tables import CURVE_COLUMNS, PHASES

if TYPE_CHECKING:
    import pandas as pd
    import sqlalchemy as sa

    from dqn_jax.sweep.records.study import Study


class Part(NamedTuple):
    """Curves of some lanes of a wave, as they are kept."""

    wave_id: int
    source: bytes | Path
    digest: str | None  # None: written before there were any


def to_parquet(curves: pd.DataFrame) -> bytes:
    """A table of CURVE_COLUMNS as the bytes of a file."""
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    table = pa.Table.from_pandas(curves[list(CURVE_COLUMNS)].astype(CURVE_COLUMNS), preserve_index=False)
    parquet.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def read_part(part: Part) -> pd.DataFrame:
    """The curves of a part, CURVE_COLUMNS.

    Raises:
      DamagedError: if it is not there, or not as it was written; the message says what it is.
    """
    import pyarrow as pa
    from pyarrow import parquet

    name = f"curves of wave {part.wave_id}"
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
    """All curves that can be read, sorted (see `in_order`), and in words what of them cannot."""
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


def keys_of(table: pd.DataFrame) -> set[LaneKey]:
    """Whose rows of lanes or curves they are."""
    return set(table[["phase", "trial", "seed"]].drop_duplicates().itertuples(index=False, name=None))


def blobs(connection: sa.Connection, study: Study, wave_id: int | None = None) -> list[Part]:
    """What the database holds of a wave, or of all that are not done."""
    table = study.tables.curves
    which = [] if wave_id is None else [table.c.unit_id == wave_id]
    rows = connection.execute(table.select().where(study.owns(table), *which).order_by(table.c.id))
    return [Part(row.unit_id, row.data, row._mapping.get("digest")) for row in rows]


def add(connection: sa.Connection, study: Study, wave_id: int, curves: pd.DataFrame) -> None:
    """Keep curves of a wave in the database."""
    if len(curves):
        data = to_parquet(curves)
        row = {"study_id": study.id, "unit_id": wave_id, "data": data, **study.digest_column(data)}
        insert(connection, study.tables.curves, [row])


def forget(connection: sa.Connection, study: Study, wave_id: int) -> None:
    """Take the curves of a wave out of the database."""
    table = study.tables.curves
    connection.execute(table.delete().where(study.owns(table), table.c.unit_id == wave_id))


def file_of(directory: Path, wave_id: int) -> Path:
    """The file of the curves of a wave that is done, in the sweep's folder."""
    return directory / "curves" / f"unit-{wave_id:05d}.parquet"


def to_file(connection: sa.Connection, study: Study, wave_id: int, directory: Path) -> str | None:
    """Move the curves of a wave from the database to their file, which counts only once the wave is done.

    Returns:
      The digest of the file, if it was written: one that is there stays where the database has none.
    """
    curves, _ = read_parts(blobs(connection, study, wave_id))
    path, written = file_of(directory, wave_id), None
    if len(curves) or not path.is_file():
        path.parent.mkdir(exist_ok=True)
        data = to_parquet(curves)
        _write_durably(path, data)
        written = digest(data)
    forget(connection, study, wave_id)
    return written


def _write_durably(path: Path, data: bytes) -> None:
    """Write a file that is there, whole, even after a power cut."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
