"""Whole sweeps: what leaving early saves, lanes and devices bring, storage costs, and memory takes."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from dqn_jax import devices
from dqn_jax.benchmark.measure import Row, child, row_of
from dqn_jax.benchmark.programs import SETTING, lane_steps_per_second
from dqn_jax.config import Config, HParams
from dqn_jax.lanes.lane import stack_hparams
from dqn_jax.presets import Preset


def sweep_rows(repeats: int) -> list[Row]:
    """The whole sweeps once each, in processes of their own; ratios of small populations `repeats` times, in turn."""

    def measured(expression: str) -> Any:
        value = child(f"benchmark.sweeps.{expression}")
        print(f"  {expression}: {value}", file=sys.stderr, flush=True)  # half an hour is long to wait for all of them
        return value

    landscape, memory = measured("landscape_facts()"), measured("memory_facts()")
    early = measured("sweep_facts('near', 256, 4, 'converged')")
    ratios, speedups = [], []
    for _ in range(repeats):
        few, many = child("benchmark.sweeps.rates_by_lanes()")
        ratios.append(many / few)
        one = child("benchmark.programs.lane_steps_per_second(32)", core=0)
        speedups.append(child("benchmark.programs.lane_steps_per_second(32)") / one)

    def fact(what: str, value: float, unit: str, target: str = "") -> Row:
        return row_of(what, [value], unit, target)

    saved = []
    for space in _SPACES:
        part, whole = (measured(f"sweep_facts({space!r}, 32, 4, {stop!r})") for stop in ("converged", "budget"))
        saved += [
            fact(f"32 settings x 4 seeds from {space} ranges: time without leaving early / with",
                 whole["seconds"] / part["seconds"], "ratio", "2 where half converge"),
            fact("  the same of lane-steps", whole["lane_steps"] / part["lane_steps"], "ratio"),
            fact("  share of its lanes that converged", part["converged"], "share"),
        ]  # fmt: skip
    return [
        fact("256 settings x 4 seeds, CartPole, 64-64, up to 200k steps: wall time", early["seconds"], "s", "<= 1200"),
        fact("  share of its lanes that converged", early["converged"], "share"),
        *saved,
        fact("256 settings x 10 seeds, 100k steps, 10 evaluations: wall time", landscape["seconds"], "s", "<= 600"),
        fact("  programs compiled, one bucket size", landscape["programs"], "programs", "1"),
        fact("  lane-steps/s", landscape["rate"], "lane-steps/s"),
        row_of("lane-steps/s, 256 lanes / 16 lanes, same total work", ratios, "ratio", ">= 0.9"),
        row_of("lane-steps/s, 32 lanes on two devices / one", speedups, "ratio", ">= 1.8"),
        fact("records, metrics, progress, checkpoints of 256 x 4: share of wall time", early["overhead"], "share",
             "<= 0.05"),
        fact("  the same of 256 x 10", landscape["overhead"], "share", "<= 0.05"),
        fact("  importing, planning, opening the records of 256 x 10: share", landscape["starting"], "share"),
        fact("peak memory / the plan's estimate", memory["ratio"], "ratio", "0.8 to 1.2"),
    ]  # fmt: skip


_SPACES = {
    "near": {"learning_rate": "log(3e-4,5e-3)", "discount": "uniform(0.98,0.999)",
             "epsilon_decay_steps": "logint(1000,30000)", "target_mixing": "log(0.003,0.2)"},
    "wide": {"learning_rate": "log(1e-4,1e-2)", "discount": "uniform(0.95,0.999)",
             "epsilon_decay_steps": "logint(1000,50000)", "target_mixing": "log(0.003,0.3)"},
}  # fmt: skip
"""What is varied: around settings that work, as in experiments/convergence/cartpole.py, or far from them too."""


def sweep_facts(space: str, samples: int, seeds: int, stop: str) -> dict[str, float]:
    """A whole sweep with storage, from an empty folder and an empty compilation cache."""
    config = Config(
        env="CartPole-v1", num_envs=4, train_every=4, batch_size=64, hidden=(64, 64), double=True, reward_scale=0.1,
        total_steps=201_000, eval_every=5_000, eval_episodes=20, replay_capacity=20_000,
    )  # fmt: skip
    hparams = HParams(target_period=1, learning_rate_end=5e-5, learning_rate_decay_updates=30_000)
    preset = Preset("cartpole", "", config, hparams, ("eval>=475x3",))
    return _timed_sweep(preset, _SPACES[space], samples=samples, seeds=seeds, stop=stop)


def landscape_facts() -> dict[str, float]:
    """The protocol of ARLBench's landscapes of DQN on CartPole (Becktepe et al. 2024)."""
    config = Config(
        env="CartPole-v1", num_envs=10, train_every=40, batch_size=16, hidden=(64, 64), replay_capacity=100_000,
        total_steps=101_000, eval_every=10_000, eval_episodes=100,
    )  # fmt: skip
    preset = Preset("cartpole", "", config, HParams(target_period=1), ("eval>=475",))
    return _timed_sweep(preset, _SPACES["wide"], samples=256, seeds=10, stop="budget")


def _timed_sweep(preset: Preset, vary: dict[str, str], **asked: Any) -> dict[str, float]:
    from dqn_jax.sweep import sweep

    folder = Path(tempfile.mkdtemp(prefix="dqn_jax_sweep_"))
    try:
        began = time.perf_counter()
        result = sweep(preset, vary, out=folder / "sweep", on_progress=lambda progress: None, **asked)
        seconds = time.perf_counter() - began
        session = result.data.plan["sessions"][-1]
        return {
            "seconds": seconds,
            "converged": float(result.data.lanes["converged"].mean()),
            "programs": len(result.data.plan["compiled"]),
            "starting": 1.0 - session["seconds"] / seconds,
            "overhead": (session["seconds"] - session["compile_seconds"] - session["program_seconds"]) / seconds,
            "lane_steps": session["lane_steps"],
            "rate": session["lane_steps"] / session["program_seconds"],
        }
    finally:
        shutil.rmtree(folder)


def rates_by_lanes() -> tuple[float, float]:
    """Lane-steps per second of 16 and of 256 lanes, the same total work."""
    return lane_steps_per_second(16, chunks=16), lane_steps_per_second(256, chunks=1)


def memory_facts() -> dict[str, float]:
    """What a population of about 2 GB really takes beside the process without it, against the plan."""
    import psutil

    from dqn_jax.sweep.plan import make_plan
    from dqn_jax.sweep.space import compile_groups, parse_space, points
    from dqn_jax.sweep.wave import make_programs

    devices.configure()
    config = dataclasses.replace(SETTING, replay_capacity=100_000, eval_every=1_000)
    space = parse_space(["learning_rate=log(1e-4,1e-2)"])
    groups = compile_groups(Preset("memory", "", config), space, points(space, "sobol", 512))
    plan = make_plan(space, groups, [0], wave=512)
    programs = make_programs(config, HParams(), 512)
    layout, rhythm, process = programs.population.layout, programs.driver.rhythm, psutil.Process()
    before = process.memory_info().rss
    hparams, active = layout.place(stack_hparams(HParams(), 512)), layout.active(np.arange(512))
    state, _ = programs.population.start(range(512), HParams())
    peak = process.memory_info().rss
    for i in range(2):
        env_steps = jnp.int32(rhythm.warmup_steps + i * rhythm.steps_per_chunk)
        state, metrics = programs.population.chunk(env_steps, state, hparams, active)
        layout.fetch(metrics, np.arange(512))
        peak = max(peak, process.memory_info().rss)
    return {"ratio": (peak - before) / plan.peak_bytes}
