"""Numbers, settings and counts as a person reads them in a terminal."""

from __future__ import annotations

from typing import Any

import numpy as np

from dqn_jax.config import show

STATUSES = {"converged": "converged", "budget": "spent their budget", "diverged": "diverged", "pruned": "pruned"}
"""What became of a lane, in words."""


def point_text(point: dict[str, Any]) -> str:
    """What a point of a sweep sets: name=value, ..."""
    return ", ".join(f"{name}={show(value)}" for name, value in point.items())


def duration_text(seconds: float) -> str:
    """A time as short as it may be: 59 s, 7 min, 2 h 1 min; ? of NaN."""
    if np.isnan(seconds):
        return "?"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if hours < 2 else f"{hours} h {minutes % 60} min"


def rate_text(value: float) -> str:
    """A number per second: 950, 12k, 1.2M."""
    return f"{value / 1e6:.1f}M" if value >= 1e6 else f"{value / 1e3:.0f}k" if value >= 1e4 else f"{value:.0f}"


def mean_text(values: np.ndarray) -> str:
    """The mean of `[S]` returns, NaN apart; - of none."""
    return "-" if np.isnan(values).all() else f"{np.nanmean(values):.1f}"


def return_text(value: Any) -> str:
    """A return, with one digit; - of none."""
    return "-" if value is None or np.isnan(value) else f"{value:.1f}"


def seeds_text(count: int) -> str:
    """A number of seeds: 1 seed, 2 seeds."""
    return f"{count} seed" + "s" * (count != 1)
