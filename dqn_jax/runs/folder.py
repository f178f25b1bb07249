"""A run on disk: its folder, its settings and provenance, and checkpoints that survive a kill.

    runs/<name>/<stamp>/  config.json  provenance.json  metrics.csv  summary.json  curve.png  film.gif (or .mp4)
                          tensorboard/  checkpoints/<env_steps>.npz

Every file is written whole or not at all (`files`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dqn_jax.config import ConfigError, RunError
from dqn_jax.files import Json, digest_of, read_as, sealed, unused, write_json
from dqn_jax.runs import schemas

if TYPE_CHECKING:
    import pandas as pd


def new_run_dir(root: Path, name: str) -> Path:
    """Create `root/name/<stamp>`, never one that exists."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 100))):
        path = root / name / (stamp + suffix)
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"out: cannot create {path} ({error.strerror}); choose another with --out.") from error
    raise RunError(f"out: too many runs at once in {root / name}; choose another folder with --out.")


def claim_run_dir(path: Path) -> Path:
    """Create `path` for a new run; it may exist if it is empty, or one was killed there before it began."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        occupied = not unused(path)
    except OSError as error:
        raise RunError(f"out: cannot create {path} ({error.strerror}); choose another folder.") from error
    if occupied:
        raise ConfigError(f"out: {path} is not empty; choose another folder, or go on with the run in it by --resume.")
    return path


def never_begun(path: Path) -> bool:
    """Whether a run was to be made at `path`, and was stopped before anything of it was there."""
    try:
        return path.is_dir() and unused(path)
    except OSError:
        return False


def find_run(path: str | Path, field: str = "run") -> Path:
    """The run at `path`, or the newest one below it.

    Raises:
      ConfigError: if there is none; `field` is the setting that gave the path.
    """
    path = Path(path)
    if (path / "config.json").is_file():
        return path
    if not path.exists():
        raise ConfigError(f"{field}: {path} does not exist; give the folder that 'dqn-jax train' printed.")
    found = [p.parent for pattern in ("*/config.json", "*/*/config.json") for p in path.glob(pattern)]
    if not found:
        raise ConfigError(
            f"{field}: {path} holds no run (no config.json); give the folder that 'dqn-jax train' printed."
        )
    return max(found, key=lambda run: (run.name, run.stat().st_mtime))


def save_summary(run: Path, summary: Json) -> None:
    """Write summary.json, with a digest of the metrics beside it."""
    write_json(run / "summary.json", sealed({**summary, "metrics_digest": digest_of(run / "metrics.csv")}))


def load_summary(run: Path) -> Json | None:
    """Read summary.json; None where a run has not ended.

    Raises:
      ConfigError: if it is damaged.
    """
    path = run / "summary.json"
    return read_as(path, schemas.Summary, "run", f"{_AGAIN} {run}") if path.exists() else None


def load_metrics(run: Path, seeds: Sequence[int], columns: Iterable[str]) -> pd.DataFrame:
    """Read metrics.csv, which must have the `columns`, of numbers, and for each of the `seeds` as many rows, in order.

    Raises:
      ConfigError: if it is missing, empty, damaged, or not what the summary was made of.
    """
    import pandas as pd

    path, summary = run / "metrics.csv", load_summary(run)
    if not path.exists():
        raise ConfigError(f"run: {run} has no metrics yet; train for longer.")
    try:
        if summary is not None and summary.get("metrics_digest") not in (None, digest_of(path)):
            raise ValueError("it is not what was written: its digest differs")
        metrics = pd.read_csv(path)
        if missing := sorted({"seed", *columns} - set(metrics.columns)):
            raise ValueError(f"it lacks {', '.join(missing)}")
        words = [name for name in metrics.columns if not pd.api.types.is_numeric_dtype(metrics[name])]
        if words:
            raise ValueError(f"{words[0]} is no number everywhere")
        if metrics["seed"].tolist() != np.repeat(seeds, len(metrics) // len(seeds)).tolist():
            raise ValueError("it has not as many rows for each seed")
    except (OSError, ValueError) as error:
        raise ConfigError(f"run: {path} is damaged ({' '.join(str(error).split())}); {_AGAIN} {run}.") from error
    if metrics.empty:
        raise ConfigError(f"run: {run} has no metrics yet; train for longer.")
    return metrics


_AGAIN = "write it again from the last checkpoint with --resume --out"
