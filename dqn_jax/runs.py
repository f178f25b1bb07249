"""A run on disk: its folder, its settings and provenance, and checkpoints that survive a kill.

    runs/<name>/<stamp>/  config.json  provenance.json  metrics.csv  summary.json  curve.png  film.gif (or .mp4)
                          tensorboard/  checkpoints/<env_steps>.npz

Every file is written whole or not at all (`files`).
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from dqn_jax.config import Config, ConfigError, HParams, RunError
from dqn_jax.files import clear_errors, plain, read_json, unused, write_json
from dqn_jax.redact import redact

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
    write_json(run / "config.json", value)


def load_settings(run: Path) -> RunSettings:
    """Read config.json.

    Raises:
      ConfigError: if it is unreadable, from a newer version, or not ours.
    """
    path = run / "config.json"
    try:
        value = json.loads(path.read_text())
        if value["format"] > FORMAT:
            raise ConfigError(f"run: {run} was written by a newer dqn_jax (format {value['format']}); update dqn_jax.")
        config, hparams = settings_from(value["config"], value["hparams"])
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
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"run: {path} is not a readable run of dqn_jax ({error}); choose another run.") from error


def settings_from(config: dict[str, Any], hparams: dict[str, Any]) -> tuple[Config, HParams]:
    """Both parts of the settings from their JSON form."""
    fields = dict(config)
    fields["hidden"] = tuple(fields["hidden"])
    fields["env_params"] = tuple((str(k), float(v)) for k, v in fields["env_params"])
    fields["pool_options"] = tuple((str(k), str(v)) for k, v in fields.get("pool_options", ()))
    arrays: dict[str, Any] = {k: np.asarray(v) if isinstance(v, list) else v for k, v in hparams.items()}
    return Config(**fields), HParams(**arrays)


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


def note_fresh_games(folder: Path, at: Any) -> str:
    """Note in the provenance that games began anew `at` some environment steps; gives the line to warn with."""
    path = folder / "provenance.json"
    with clear_errors(folder):
        noted = read_json(path)
        noted.setdefault(FRESH_GAMES, []).append(at)
        write_json(path, noted)
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
