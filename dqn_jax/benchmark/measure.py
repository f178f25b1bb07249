"""What every part of the benchmark needs: rows of the table, and values computed in fresh processes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from dqn_jax.config import RunError


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, its median and range, and what it should be."""

    what: str
    value: float
    unit: str
    low: float  # of the repeats
    high: float
    target: str = ""


def row_of(what: str, values: Sequence[float] | np.ndarray, unit: str, target: str = "") -> Row:
    """The row of a value measured several times."""
    return Row(what, float(np.median(values)), unit, float(min(values)), float(max(values)), target)


def child(expression: str, *, environment: dict[str, str] | None = None, core: int | None = None) -> Any:
    """The value of an expression computed in a fresh process, pinned to one core if asked."""
    pin = f"import os; os.sched_setaffinity(0, {{{core}}}); " if core is not None else ""
    code = f"{pin}import json, dqn_jax; from dqn_jax import benchmark; print(json.dumps({expression}))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    )
    if done.returncode:
        raise RunError(f"benchmark: the measurement {expression} failed, as told above.")
    return json.loads(done.stdout.strip().splitlines()[-1])


def seconds_of(function: Callable[..., Any], *arguments: Any) -> float:
    """How long a call takes, until its results are there."""
    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - began
