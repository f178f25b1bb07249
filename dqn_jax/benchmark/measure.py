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
import jax.numpy as jnp
import numpy as np

from dqn_jax import devices
from dqn_jax.config import Config, HParams, RunError
from dqn_jax.lanes.driver import driver_for
from dqn_jax.lanes.lane import stack_hparams


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


def population_rates(config: Config, hparams: HParams, lanes: int, repeats: int) -> list[float]:
    """Environment steps per second of a population, all lanes together, one chunk after another; the first is left out.

    Evaluations are part of a chunk: let them be few and short.
    """
    devices.configure()
    driver, stacked = driver_for(config), stack_hparams(hparams, lanes)
    population = driver.population(hparams, lanes)
    layout, rates = population.layout, []
    state, _ = population.start(range(lanes), stacked)
    placed, active = layout.place(stacked), layout.active(np.arange(lanes))
    for i in range(1 + repeats):
        env_steps = jnp.int32(driver.rhythm.warmup_steps + i * driver.rhythm.steps_per_chunk)
        began = time.perf_counter()
        state, _ = jax.block_until_ready(population.chunk(env_steps, state, placed, active))
        rates.append(lanes * driver.rhythm.steps_per_chunk / (time.perf_counter() - began))
    return rates[1:]
