"""The seeds of lanes, as people give them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dqn_jax.config.errors import ConfigError
from dqn_jax.config.values import INT_MAX, UnfitError, as_type

MOST_SEEDS = 1_000_000  # at once


def seeds_from(seeds: int | Sequence[int], first: int = 0) -> tuple[int, ...]:
    """The seeds of lanes: so many, counted up from `first`, or those given.

    Raises:
      ConfigError: if they are no seeds, too many, or two are the same.
    """
    try:
        first = as_type(int, first)
    except UnfitError as unfit:
        raise ConfigError(f"seed: {first!r} is not possible; {unfit}.") from None
    try:
        if isinstance(seeds, str | bytes) or (np.ndim(seeds) == 0 and not isinstance(seeds, Iterable)):
            seeds = as_type(int, seeds)
        if isinstance(seeds, int):
            if seeds > MOST_SEEDS:
                raise UnfitError(f"that is too many: use {MOST_SEEDS} or fewer")
            if seeds < 1:
                raise UnfitError("use 1 or more")
            chosen = tuple(range(first, first + seeds))
        else:
            chosen = tuple(as_type(int, seed) for seed in seeds)
    except UnfitError as unfit:
        raise ConfigError(f"seeds: {seeds!r} is not possible; {unfit}.") from None
    if not chosen:
        raise ConfigError("seeds: at least one seed is needed; use 1 or more.")
    if min(chosen) < 0 or max(chosen) > INT_MAX:
        raise ConfigError(f"seed: seeds must lie between 0 and {INT_MAX}.")
    if len(set(chosen)) < len(chosen):
        raise ConfigError("seeds: a seed is given twice; two equal seeds are one sample.")
    return chosen


def check_seed(field: str, seed: Any) -> None:
    """Raises a ConfigError that names `field` unless `seed` is an integer that seeds something."""
    try:
        possible = as_type(int, seed) >= 0
    except UnfitError:
        possible = False
    if not possible:
        raise ConfigError(f"{field}: {seed!r} is not possible; use 0 to {INT_MAX}.")
