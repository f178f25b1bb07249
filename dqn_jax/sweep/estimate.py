"""How long a sweep may take, from what is known: earlier sweeps kept beside it, or one chunk that is measured now."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax.config import HParams, steps_between, transitions_drawn
from dqn_jax.lanes.driver import driver_for
from dqn_jax.lanes.lane import count_weights, stack_hparams
from dqn_jax.sweep.plan import Plan
from dqn_jax.sweep.wave import make_programs

_CHUNK_BLOCKS = 4  # lanes that are measured, for each device of a CPU: a block of tiny networks
_MOST_WORK = 1e11  # updates x weights x batch of a chunk that are worth waiting for: about half a minute
_GROWS = 2.0  # how much longer a chunk may take with agents that play longer games than fresh ones


class Speed(NamedTuple):
    """What a sweep does in a second, and what a program costs before that."""

    lane_steps_per_second: tuple[float, float]  # slowest, fastest
    compile_seconds: float  # of a program
    source: str  # where that is from, in words


def recorded(root: Path, definition: dict[str, Any], plan: Plan) -> Speed | None:
    """Of earlier sweeps of the same environment in `root`, on as many devices of this kind and cores; None without."""
    rates, compiled, sweeps = [], [], 0
    for path in root.glob("*/*/plan.json"):
        try:
            earlier, asked, machine = (
                json.loads((path.parent / name).read_text()) for name in ("plan.json", "sweep.json", "provenance.json")
            )
            same = (
                asked["config"]["env"] == definition["config"]["env"]
                and (earlier["devices"], earlier["device_kind"]) == (plan.devices, plan.device_kind)
                and machine["machine"]["cores"] == os.cpu_count()
            )
            own = [s["lane_steps"] / (s["seconds"] - s["compile_seconds"]) for s in earlier["sessions"]]
            spent = [program["seconds"] for program in earlier["compiled"]]
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            continue  # of another version, or damaged: it has nothing to tell
        if same and own:
            rates += own
            compiled += spent
            sweeps += 1
    if not sweeps:
        return None
    words = f"as in {sweeps} earlier sweep{'s' * (sweeps != 1)} of {definition['config']['env']} in {root}"
    return Speed((min(rates), max(rates)), float(np.median(compiled)) if compiled else 0.0, words)


def measured(plan: Plan) -> Speed | None:
    """One chunk of the largest group, compiled and run now with fresh agents; None where that would take minutes: over
    pools, and with large networks.

    On CPU blocks of lanes follow one another, so a few tell the speed of all.
    """
    group = max(plan.groups, key=lambda group: group.lanes)
    config, trial = group.group.config, group.group.trials[0]
    driver = driver_for(config)
    if driver.stops_within:
        return None
    weights = count_weights(driver.agent, jax.tree.map(lambda x: x[0], stack_hparams(trial.hparams, 1)))
    updates = driver.rhythm.steps_per_chunk / steps_between(config) * config.updates_per_train
    if updates * weights * transitions_drawn(config) > _MOST_WORK:
        return None
    on_cpu = jax.local_devices()[0].platform == "cpu"
    lanes = min(group.capacity, plan.devices * _CHUNK_BLOCKS) if on_cpu else group.capacity
    population = make_programs(config, trial.hparams, lanes).population
    hparams = stack_hparams(trial.hparams, lanes)
    layout, everyone = population.layout, np.arange(lanes)
    state, _ = population.start(list(range(lanes)), HParams(*hparams))
    jax.block_until_ready(state.agent)
    began = time.perf_counter()
    env_steps = jnp.int32(driver.rhythm.warmup_steps)
    _, metrics = population.chunk(env_steps, state, layout.place(hparams), layout.active(everyone))
    layout.fetch(metrics, everyone)
    rate = lanes * driver.rhythm.steps_per_chunk / (time.perf_counter() - began)
    words = f"from one chunk of {lanes} lanes of fresh agents, measured now; trained ones may play longer games"
    return Speed((rate / _GROWS, rate), population.compile_seconds, words)


def describe(plan: Plan, definition: dict[str, Any], speed: Speed | None) -> str:
    """How long it may take, in a line."""
    if speed is None:
        return "time: not known before something has run here; the display tells it after the first chunk"
    confirmation = plan.confirmation(definition)
    steps = plan.lane_steps + confirmation.lane_steps
    compiling = speed.compile_seconds * (len(plan.groups) + confirmation.programs)
    slow, fast = (steps / rate + compiling for rate in speed.lane_steps_per_second)
    span = _time(fast) if _time(fast) == _time(slow) else f"{_time(fast)} to {_time(slow)}"
    return f"time: at most about {span} (estimated {speed.source})"


def _time(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
