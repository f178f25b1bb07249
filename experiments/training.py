"""What experiments that train populations share: a run that is kept, and goes on where it was stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import dqn_jax


def trained(out: Path, preset: str, **arguments: Any) -> dqn_jax.TrainResult:
    """Train a population that is kept in `out`: what was trained before is not again.

    Args:
      out: its folder, for these arguments and no others.
      preset: a preset's or an environment's name.
      arguments: those of `dqn_jax.train`.
    """
    result = dqn_jax.train(preset, out=out, resume=(out / "config.json").is_file(), **arguments)
    if result.interrupted:
        sys.exit(130)
    return result
