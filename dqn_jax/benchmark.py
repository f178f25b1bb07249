"""Speed, measured: `dqn-jax benchmark`. Medians of several runs; ratios within one process or pinned pairs.

update      end-to-end updates per second against the same update alone on a fixed batch, one core
population  64 lanes on all cores against one lane on one core, pinned processes taking turns
cold        a fresh process: one CartPole seed from start to convergence, cold and warm compilation cache
env         environment steps per second of gymnax CartPole alone, the ceiling
sweep       whole sweeps on CartPole, with and without leaving early; how speed changes with lanes and devices; what
            storage costs, and how good the plan's estimate of memory is (half an hour: not part of the default)
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax import devices
from dqn_jax.config import Config, ConfigError, HParams
from dqn_jax.loop import make_loop
from dqn_jax.population import make_population, stack_hparams
from dqn_jax.presets import Preset, resolve_preset
from dqn_jax.prng import make_key
from dqn_jax.replay import make_replay
from dqn_jax.runs import RunError, atomic

# The setting of the first two: 120-84 network, batch 128, 10 environments, one update per vector step.
_SETTING = Config(
    num_envs=10, train_every=10, batch_size=128, hidden=(120, 84), replay_capacity=10_000, eval_every=20_000,
    eval_episodes=1, min_replay=1_000, total_steps=21_000,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    value: float
    unit: str
    low: float  # of the repeats
    high: float
    target: str = ""


def run(parts: Sequence[str], *, repeats: int, out: Path | None) -> None:
    """Measure `parts`, print the table, and write it to `out` if given."""
    unknown = [part for part in parts if part not in _PARTS]
    if unknown:
        raise ConfigError(f"parts: there is no benchmark '{unknown[0]}'; choose from {', '.join(_PARTS)}.")
    rows: list[Row] = []
    for part in parts:
        print(f"measuring {part} ...", file=sys.stderr)
        # Each part in a process of its own: device counts and pinning are fixed when jax starts.
        rows += [Row(**row) for row in _child(f"benchmark.rows_of({part!r}, {repeats})")]
    import pandas as pd

    table = pd.DataFrame([dataclasses.asdict(row) for row in rows])
    print(f"{'what':<74} {'median':>12} {'range':>25}  target")
    for row in rows:
        print(f"{row.what:<74} {_short(row.value):>12} {_short(row.low):>12} {_short(row.high):>12}  {row.target}")
    if out is not None:
        with atomic(out) as path:
            table.to_csv(path, index=False, float_format="%.6g")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _row(what: str, values: Sequence[float], unit: str, target: str = "") -> Row:
    return Row(what, median(values), unit, min(values), max(values), target)


def rows_of(part: str, repeats: int) -> list[dict[str, Any]]:
    """The rows of one part, as plain data."""
    return [dataclasses.asdict(row) for row in _PARTS[part](repeats)]


def _child(expression: str, *, environment: dict[str, str] | None = None, core: int | None = None) -> Any:
    """The value of an expression computed in a fresh process, pinned to one core if asked."""
    pin = f"import os; os.sched_setaffinity(0, {{{core}}}); " if core is not None else ""
    code = f"{pin}import json, dqn_jax; from dqn_jax import benchmark; print(json.dumps({expression}))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    )
    if done.returncode:
        raise RunError(f"benchmark: the measurement {expression} failed, as told above.")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - began


def _scalars(hparams: HParams) -> HParams:
    return jax.tree.map(lambda x: jnp.asarray(x[0]), stack_hparams(hparams, 1))


def _update(repeats: int) -> list[Row]:
    """Both programs in one process on one core, taking turns."""
    loop_rates, alone_rates = _child(f"benchmark.update_rates({repeats})", core=0)
    ratios = [a / b for a, b in zip(loop_rates, alone_rates, strict=True)]
    return [
        _row("updates/s, whole loop (CartPole, 120-84, batch 128, 10 envs), one core", loop_rates, "updates/s"),
        _row("updates/s, the same update alone on a fixed batch, one core", alone_rates, "updates/s"),
        _row("whole loop / update alone", ratios, "ratio", ">= 0.9"),
    ]


def update_rates(repeats: int) -> tuple[list[float], list[float]]:
    """Updates per second of the whole loop and of the update alone, in turn."""
    devices.configure()
    loop, hparams = make_loop(_SETTING), _scalars(HParams())
    lane, _ = jax.jit(loop.start)(jnp.int32(0), hparams)
    env_steps = jnp.int32(loop.warmup_steps)
    updates = loop.steps_per_chunk // _SETTING.train_every
    replay = make_replay(_SETTING.replay_capacity, _SETTING.batch_size, _SETTING.num_envs)
    batch = jax.jit(replay.sample)(lane.replay, make_key(1))

    @jax.jit
    def alone(state: Any, batch: Any) -> Any:
        return jax.lax.scan(lambda s, _: (loop.agent.update(s, batch, hparams)[0], None), state, length=updates)[0]

    whole = jax.jit(loop.chunk)
    jax.block_until_ready((whole(env_steps, lane, hparams), alone(lane.agent, batch)))
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        rates[0].append(updates / _seconds(whole, env_steps, lane, hparams))
        rates[1].append(updates / _seconds(alone, lane.agent, batch))
    return rates


def _population(repeats: int) -> list[Row]:
    """64 lanes on all cores and one lane on one core, in turn, each in processes of their own."""
    lanes = 64
    many, one = [], []
    for _ in range(repeats):
        one.append(_child("benchmark.lane_steps_per_second(1)", core=0))
        many.append(_child(f"benchmark.lane_steps_per_second({lanes})"))
    cores = devices.cpu_cores()
    return [
        _row("lane-steps/s, 1 lane on 1 core", one, "lane-steps/s"),
        _row(f"lane-steps/s, {lanes} lanes on {cores} cores", many, "lane-steps/s"),
        _row(f"{lanes} lanes on {cores} cores / 1 lane on 1 core",
             [a / b for a, b in zip(many, one, strict=True)], "ratio", ">= 1.8 on 2 cores"),
    ]  # fmt: skip


def lane_steps_per_second(lanes: int, chunks: int | None = None) -> float:
    """Environment steps per second over all lanes of a training population, over so many chunks."""
    devices.configure()
    config = dataclasses.replace(_SETTING, eval_every=5_000)
    loop = make_loop(config)
    population = make_population(config, loop, HParams(), lanes)
    hparams = population.layout.place(stack_hparams(HParams(), lanes))
    active = population.layout.active(np.arange(lanes))
    state, _ = population.start(range(lanes), HParams())
    chunks = chunks or (1 if lanes > 1 else 8)
    env_steps = jnp.int32(loop.warmup_steps)
    state, _ = jax.block_until_ready(population.chunk(env_steps, state, hparams, active))
    began = time.perf_counter()
    for _ in range(chunks):
        state, metrics = population.chunk(env_steps, state, hparams, active)
    jax.block_until_ready((state, metrics))
    return lanes * chunks * loop.steps_per_chunk / (time.perf_counter() - began)


def _cold(repeats: int) -> list[Row]:
    """From the start of the process to convergence of one CartPole seed, by the default criterion."""
    cold: list[float] = []
    warm: list[float] = []
    for seed in range(repeats):
        cache = tempfile.mkdtemp(prefix="dqn_jax_cache_")
        try:
            for values in (cold, warm):
                began = time.perf_counter()
                _child(
                    f"dqn_jax.train('cartpole', seeds=1, seed={seed}, stop='converged').summary['seconds']",
                    environment={"DQN_JAX_CACHE": cache},
                )
                values.append(time.perf_counter() - began)
        finally:
            shutil.rmtree(cache)
    return [
        _row("seconds, process start to convergence, one CartPole seed, empty cache", cold, "s", "<= 10"),
        _row("seconds, the same with a warm cache", warm, "s", "<= 5"),
    ]


def _env(repeats: int) -> list[Row]:
    """gymnax CartPole alone, random actions, through gymnax's own `step`."""
    import gymnax

    devices.configure()
    envs, steps = 4096, 500
    env, params = gymnax.make("CartPole-v1")

    @jax.jit
    def roll(key: jax.Array) -> Any:
        reset_key, loop_key = jax.random.split(key)
        _, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(reset_key, envs), params)

        def body(state: Any, key: jax.Array) -> Any:
            act_key, step_key = jax.random.split(key)
            action = jax.random.randint(act_key, (envs,), 0, 2)
            obs, state, reward, *_ = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
                jax.random.split(step_key, envs), state, action, params
            )
            return state, (obs.sum(), reward.sum())

        return jax.lax.scan(body, state, jax.random.split(loop_key, steps))

    jax.block_until_ready(roll(jax.random.key(0)))
    rates = [envs * steps / _seconds(roll, jax.random.key(i)) for i in range(repeats)]
    return [_row("gymnax CartPole steps/s alone, 4096 environments (the ceiling)", rates, "steps/s")]


def _sweep(repeats: int) -> list[Row]:
    """The whole sweeps once each, in processes of their own; ratios of small populations `repeats` times, in turn."""

    def measured(expression: str) -> Any:
        value = _child(f"benchmark.{expression}")
        print(f"  {expression}: {value}", file=sys.stderr, flush=True)  # half an hour is long to wait for all of them
        return value

    landscape, memory = measured("landscape_facts()"), measured("memory_facts()")
    early = measured("sweep_facts('near', 256, 4, 'converged')")
    ratios, speedups = [], []
    for _ in range(repeats):
        few, many = _child("benchmark.rates_by_lanes()")
        ratios.append(many / few)
        one = _child("benchmark.lane_steps_per_second(32)", core=0)
        speedups.append(_child("benchmark.lane_steps_per_second(32)") / one)

    def fact(what: str, value: float, unit: str, target: str = "") -> Row:
        return _row(what, [value], unit, target)

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
        _row("lane-steps/s, 256 lanes / 16 lanes, same total work", ratios, "ratio", ">= 0.9"),
        _row("lane-steps/s, 32 lanes on two devices / one", speedups, "ratio", ">= 1.8"),
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
    config = dataclasses.replace(_SETTING, replay_capacity=100_000, eval_every=1_000)
    space = parse_space(["learning_rate=log(1e-4,1e-2)"])
    groups = compile_groups(Preset("memory", "", config), space, points(space, "sobol", 512))
    plan = make_plan(space, groups, [0], wave=512)
    programs = make_programs(config, HParams(), 512)
    layout, process = programs.population.layout, psutil.Process()
    before = process.memory_info().rss
    hparams, active = layout.place(stack_hparams(HParams(), 512)), layout.active(np.arange(512))
    state, _ = programs.population.start(range(512), HParams())
    peak = process.memory_info().rss
    for i in range(2):
        env_steps = jnp.int32(programs.loop.warmup_steps + i * programs.loop.steps_per_chunk)
        state, metrics = programs.population.chunk(env_steps, state, hparams, active)
        layout.fetch(metrics, np.arange(512))
        peak = max(peak, process.memory_info().rss)
    return {"ratio": (peak - before) / plan.peak_bytes}


def _atari(repeats: int) -> list[Row]:
    """The loop over a pool against its parts, in turn in one process. One seed, Pong, Nature network."""
    from dqn_jax.pool_loop import make_pool_loop
    from dqn_jax.pool_population import PoolPopulation, Timeline

    devices.configure()
    config = dataclasses.replace(
        resolve_preset("pong").config, num_envs=16, train_every=4, replay_capacity=20_000, min_replay=1_600
    )
    loop, envs, steps = make_pool_loop(config), config.num_envs, 100
    population = PoolPopulation(loop, HParams(), 1)
    lanes, _ = population.start([0], HParams())
    placed = population.layout.place(stack_hparams(HParams(), 1))
    pool: Any = population.pools[0]
    rng = np.random.default_rng(0)
    env_steps = loop.warmup_steps

    def environment() -> None:
        for _ in range(steps):
            pool.recv()
            pool.send(rng.integers(0, loop.spec.num_actions, envs))

    def acting() -> None:
        for _ in range(steps):
            lanes[0], *_ = population.act_on(0, output, env_steps, lanes[0], placed[0])

    def learning() -> None:
        for _ in range(steps):
            lanes[0], sums = population.learn(0, envs // config.train_every, lanes[0], placed[0])
            jax.block_until_ready(sums)

    def loop_of(learning: bool) -> None:
        population.advance(env_steps, steps, lanes, placed, [0], learning=learning)
        jax.block_until_ready(lanes)

    output = pool.recv()
    pool.send(rng.integers(0, loop.spec.num_actions, envs))
    parts = {"environment": environment, "act": acting, "learn": learning}
    parts |= {"acting loop": lambda: loop_of(False), "full loop": lambda: loop_of(True)}
    took: dict[str, list[float]] = {name: [] for name in parts}
    for repeat in range(repeats + 1):
        for name, part in parts.items():
            seconds = _seconds(part) / steps
            if repeat:  # the first round warms up
                took[name].append(seconds)
    frames = envs * config.action_repeat
    acting_sum = [e + a for e, a in zip(took["environment"], took["act"], strict=True)]
    full_sum = [s + x for s, x in zip(acting_sum, took["learn"], strict=True)]
    slower = [max(e, a + x) for e, a, x in zip(took["environment"], took["act"], took["learn"], strict=True)]

    def ratios(numerator: str, denominator: list[float]) -> list[float]:
        return [a / b for a, b in zip(took[numerator], denominator, strict=True)]

    def rate(what: str, name: str) -> Row:
        return _row(what, [frames / t for t in took[name]], "frames/s")

    population.timeline = timeline = Timeline()
    loop_of(True)
    shares = {what: seconds / sum(timeline.seconds.values()) for what, seconds in timeline.seconds.items()}
    return [
        rate("frames/s, EnvPool alone, random actions, 16 Pong games", "environment"),
        rate("frames/s, acting loop (policy on, learner off)", "acting loop"),
        rate("frames/s, full loop (one update of 32 every 16 frames)", "full loop"),
        _row("updates/s in the full loop", [envs / config.train_every / t for t in took["full loop"]], "updates/s"),
        _row("acting loop: step time / (EnvPool alone + acting alone)", ratios("acting loop", acting_sum), "ratio",
             "<= 1.15 on CPU"),
        _row("full loop: step time / (EnvPool + acting + learning, each alone)", ratios("full loop", full_sum), "ratio",
             "<= 1.15 on CPU"),
        _row("full loop: speed / the slower of the two", [1 / x for x in ratios("full loop", slower)], "ratio",
             ">= 0.9 on an accelerator"),
        *(_row(f"  {text}", [shares[what]], "share") for what, text in _TIMELINE.items()),
        _row("bytes to the device per agent step and environment", [loop.frame_bytes], "bytes", f"<= {84 * 84 + 16}"),
        *_frame_replay(repeats),
    ]  # fmt: skip


_TIMELINE = {
    "environment": "of its time bound by the environment: waiting for the pool",
    "learning": "bound by the learner: waiting for what is still being learnt",
    "transfer": "waiting for the frames' transfer to the device",
    "acting": "acting, and the actions' way back",
    "host": "the host's own part, in which pool and device may be idle",
}


def _frame_replay(repeats: int) -> list[Row]:
    """A Nature replay: its size at a million transitions, and what sampling costs in small and large ones."""
    from dqn_jax.frame_replay import make_frame_replay
    from dqn_jax.types import FrameRow

    envs = 16
    flag = jnp.zeros((envs,), bool)
    row = FrameRow(
        jnp.zeros((envs, 84, 84), jnp.uint8), jnp.zeros((envs,), jnp.int32), jnp.zeros((envs,)), flag, flag, flag
    )
    million = jax.eval_shape(lambda: make_frame_replay(1_000_000, 32, envs, frame_stack=4).init(row))
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(million))
    took = {}
    for capacity in (10_000, 200_000):
        replay = make_frame_replay(capacity, 32, envs, frame_stack=4)
        state = replay.init(row)._replace(rows_added=jnp.int32(2 * capacity // envs))
        sample = jax.jit(replay.sample)
        jax.block_until_ready(sample(state, make_key(0), 0.99))
        took[capacity] = [min(_seconds(sample, state, make_key(i), 0.99) for i in range(50)) for _ in range(repeats)]
    ratio = [b / a for a, b in zip(*took.values(), strict=True)]
    return [
        _row("replay of 1,000,000 Nature transitions", [size / 1e9], "GB", "<= 7.5"),
        _row("sampling 32: time in a replay of 200,000 / of 10,000", ratio, "ratio", "1"),
    ]


_PARTS: dict[str, Callable[[int], list[Row]]] = {
    "update": _update,
    "population": _population,
    "cold": _cold,
    "env": _env,
    "sweep": _sweep,
    "atari": _atari,
}
