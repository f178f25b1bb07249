"""A run on disk: its folder, its settings and provenance, and checkpoints that survive a kill.

    runs/<name>/<stamp>/  config.json  provenance.json  metrics.csv  summary.json  curve.png  film.gif (or .mp4)
                          tensorboard/  checkpoints/<env_steps>.npz

Every file is written whole or not at all (`files`).
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from dqn_jax import schemas
from dqn_jax.config import Config, ConfigError, HParams, RunError, validate
from dqn_jax.files import clear_errors, digest_of, plain, read_as, sealed, unused, write_json
from dqn_jax.redact import redact

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1  # of config.json; a newer one is refused
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnax", "chex", "numpy", "envpool")


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


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What config.json holds: all that a run's numbers depend on, and when it ends."""

    name: str
    seeds: tuple[int, ...]
    config: Config
    hparams: HParams
    criteria: tuple[str, ...]
    weights: str | None = None  # the run whose networks this one started from
    checkpoint: Literal["last", "best"] = "last"  # which of them: "last" or "best"
    stop: Literal["budget", "converged"] = "budget"
    max_minutes: float | None = None
    save_episodes: bool = False


def save_settings(run: Path, settings: RunSettings) -> None:
    """Write config.json."""
    value = {
        "format": FORMAT,
        "name": settings.name,
        "seeds": settings.seeds,
        "criteria": settings.criteria,
        "weights": settings.weights,
        "checkpoint": settings.checkpoint,
        "stop": settings.stop,
        "max_minutes": settings.max_minutes,
        "save_episodes": settings.save_episodes,
        "config": dataclasses.asdict(settings.config),
        "hparams": settings.hparams._asdict(),
    }
    write_json(run / "config.json", sealed(value))


def load_settings(run: Path) -> RunSettings:
    """Read config.json.

    Raises:
      ConfigError: if it is damaged, from a newer version, not ours, or of settings that are not possible.
    """
    path = run / "config.json"
    remedy = 'choose another run, or mend it by hand and delete its line "digest"'
    value = read_as(path, schemas.Settings, "run", remedy, FORMAT)
    try:
        config, hparams = settings_from(value["config"], value["hparams"])
        validate(config, hparams)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"run: {path} is damaged or not ours ({str(error).rstrip('.')}); {remedy}.") from error
    return RunSettings(
        value["name"],
        tuple(value["seeds"]),
        config,
        hparams,
        tuple(value["criteria"]),
        value.get("weights"),
        value.get("checkpoint", "last"),
        value.get("stop", "budget"),
        value.get("max_minutes"),
        value.get("save_episodes", False),
    )


def settings_from(config: dict[str, Any], hparams: dict[str, Any]) -> tuple[Config, HParams]:
    """Both parts of the settings from their JSON form.

    Raises:
      ValueError: if they are not of this version, or of wrong types.
    """
    values = schemas.hparams_from(hparams)
    arrays: dict[str, Any] = {k: np.asarray(v) if isinstance(v, list) else v for k, v in values.items()}
    return schemas.config_from(config), HParams(**arrays)


def save_summary(run: Path, summary: dict[str, Any]) -> None:
    """Write summary.json, with a digest of the metrics beside it."""
    write_json(run / "summary.json", sealed({**summary, "metrics_digest": digest_of(run / "metrics.csv")}))


def load_summary(run: Path) -> dict[str, Any] | None:
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


def differences(saved: RunSettings, wanted: RunSettings) -> list[tuple[str, Any, Any]]:
    """Settings that a run's numbers depend on and that differ: (field, saved, wanted).

    The budget and the criteria may change when a run goes on; they change none of its numbers.
    """

    def flat(settings: RunSettings) -> dict[str, Any]:
        values = {
            "seeds": settings.seeds,
            "weights": settings.weights,
            "checkpoint": settings.checkpoint,
            **dataclasses.asdict(settings.config),
            **settings.hparams._asdict(),
        }
        return plain({k: v for k, v in values.items() if k != "total_steps"})

    old, new = flat(saved), flat(wanted)
    return [(field, old[field], new[field]) for field in old if old[field] != new[field]]


def provenance(seeds: Sequence[int]) -> dict[str, Any]:
    """Where a run's numbers come from: versions, devices, commit, seeds and flags (without passwords)."""

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    devices = jax.devices()
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "dqn_jax": version("dqn_jax"),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}},
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "devices": {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)},
        "git_commit": _git_commit(),
        "seeds": seeds,
        "flags": [Path(sys.argv[0]).name, *map(redact, sys.argv[1:])],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


FRESH_GAMES = "fresh_games_after_env_steps"
"""Where provenance.json notes that emulators, which cannot be saved, began anew."""


def load_provenance(run: Path, warn: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Read provenance.json; empty where it is damaged, which `warn` is told: no number depends on it."""
    path = run / "provenance.json"
    if not path.exists():
        return {}
    try:
        return read_as(path, dict[str, Any], "run", "it is begun anew")
    except ConfigError as error:
        warn(str(error).removeprefix("run: "))
        return {}


def note_fresh_games(folder: Path, at: Any) -> str:
    """Note in the provenance that games began anew `at` some environment steps; gives the line to warn with."""
    path = folder / "provenance.json"
    with clear_errors(folder):
        noted = load_provenance(folder)
        earlier = noted.get(FRESH_GAMES)
        write_json(path, {**noted, FRESH_GAMES: [*(earlier if isinstance(earlier, list) else ()), at]})
    return "emulators cannot be saved: going on in fresh games, with all else as it was"


def _git_commit() -> str | None:
    try:
        out = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
        return out.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
