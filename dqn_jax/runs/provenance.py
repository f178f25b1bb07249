"""Where a run's numbers come from: machine, versions, commit."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from dqn_jax.config import ConfigError
from dqn_jax.files import Json, clear_errors, read_as, write_json
from dqn_jax.runs.redact import redact

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnax", "chex", "numpy", "envpool")


def provenance_of(seeds: Sequence[int]) -> Json:
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


def load_provenance(run: Path, warn: Callable[[str], None] = lambda line: None) -> Json:
    """Read provenance.json; empty where it is damaged, which `warn` is told: no number depends on it."""
    path = run / "provenance.json"
    if not path.exists():
        return {}
    try:
        return read_as(path, dict[str, object], "run", "it is begun anew")
    except ConfigError as error:
        warn(str(error).removeprefix("run: "))
        return {}


def note_fresh_games(folder: Path, at: object) -> str:
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
