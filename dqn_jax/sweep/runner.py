"""A sweep from question to tables: draw, plan, run wave after wave, confirm the best on held-out seeds.

What is asked and what has been found live in a `Store`; this module only moves it forward. So a sweep that was
stopped, killed, or is shared with other machines goes on from whatever the store holds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dqn_jax import devices, runs
from dqn_jax.config import ConfigError, HParams
from dqn_jax.convergence import parse_criterion
from dqn_jax.interrupt import Interrupt
from dqn_jax.presets import Preset, resolve_preset, with_overrides
from dqn_jax.sweep import store as stores
from dqn_jax.sweep.checkpoint import WaveCheckpoint
from dqn_jax.sweep.plan import Plan, fitted, make_plan
from dqn_jax.sweep.results import RANKINGS, SweepData, ranked
from dqn_jax.sweep.space import Choice, Group, Range, Space, compile_groups, parse_space, points
from dqn_jax.sweep.store import Store, Unit
from dqn_jax.sweep.wave import Programs, Prune, Rules, WaveLane, WaveProgress, make_programs, run_wave

if TYPE_CHECKING:
    import pandas as pd

ADAPTIVE = ("tpe", "cmaes")
Sampler = Literal["grid", "random", "sobol", "tpe", "cmaes"]

_CONFIRM_SEED = 1_000_000  # held-out seeds are counted up from here
_CHECKPOINT_SHARE = 0.02  # of the time that checkpoints of waves may take
_LEASE_SECONDS = 60.0
_POLL_SECONDS = 2.0
_PATIENCE_SECONDS = 60.0  # how long a joined worker waits for more to do


@dataclasses.dataclass(frozen=True)
class SweepProgress:
    """Where a sweep is, for a display."""

    phase: Literal["compile", "run"]
    group: dict[str, Any]  # what is static in the program at work and varies in the sweep
    unit: int  # the wave at work
    units: int  # waves known so far
    lanes: dict[str, int]  # finished lanes by status
    running: int
    waiting: int
    env_steps: int  # of the wave at work
    total_steps: int
    lane_steps_per_second: float
    seconds: float  # since this process began
    seconds_left: float  # nan before the first chunk
    best: tuple[dict[str, Any], float] | None  # point, and mean environment steps to convergence


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """What a sweep has found so far."""

    data: SweepData
    directory: Path | None
    finished: bool  # False: stopped by a signal, or parts of it run elsewhere; `resume=True` goes on


def sweep(
    preset: str | Preset = "cartpole",
    vary: Sequence[str] | Mapping[str, str] = (),
    *,
    sampler: Sampler | None = None,
    samples: int | None = None,
    sample_seed: int = 0,
    batch: int = 32,
    seeds: int | Sequence[int] = 5,
    seed: int = 0,
    criteria: Sequence[str] | None = None,
    stop: Literal["converged", "budget"] = "converged",
    stability_steps: int = 0,
    prune: Literal["halving", "hyperband"] | None = None,
    prune_eta: int = 3,
    confirm: int = 0,
    confirm_best: int = 3,
    confirm_by: Sequence[str] = ("env_steps",),
    wave: int | None = None,
    memory_gb: float | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    root: str | Path | None = None,
    url: str | None = None,
    resume: bool = False,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    on_plan: Callable[[Plan, dict[str, Any]], bool] = lambda plan, definition: True,
    on_progress: Callable[[SweepProgress], None] | None = None,
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    **overrides: Any,
) -> SweepResult:
    """Train many settings times many seeds as populations, and record how fast each converges.

    Args:
      preset: what is varied: a preset's or an environment's name, or a `Preset`.
      vary: the search space: "name=values" texts, or name to values; see `sweep.space`.
      sampler: "grid", "random", "sobol", or adaptive in batches: "tpe", "cmaes" (default: grid if every dimension is
        a list and no number of samples is given, else sobol).
      samples: how many points (a grid has its own number).
      sample_seed: of the draws.
      batch: points that an adaptive sampler draws at a time.
      seeds: how many seeds (counted up from `seed`), or the seeds themselves; every point runs with the same ones.
      seed: the first seed, if `seeds` is a number.
      criteria: convergence criteria (default: the preset's); the first one decides.
      stop: "converged": lanes leave once they have converged; "budget": they stay to the end.
      stability_steps: environment steps that a converged lane stays on, to see whether it lasts.
      prune: leave trials that look hopeless; it biases what is said of the others' speed.
      prune_eta: one trial in so many goes on at each rung.
      confirm: run the best points again on so many held-out seeds.
      confirm_best: how many of the best, by each of
      confirm_by: what "best" means: env_steps, updates, episodes, seconds, final_return.
      wave: most lanes at once.
      memory_gb: memory for lanes (default: most of what is free).
      name: of the sweep (default: the preset's).
      out: folder of this sweep.
      root: folder under which `<name>/<stamp>/` is made, without `out`.
      url: keep the records in this database (SQLAlchemy URL, e.g. postgresql+psycopg://...), so that others can join.
      resume: go on with the sweep in `out` (or the newest in `root`).
      engine: "local", or "ray": waves as tasks of a Ray cluster, over the records at `url`.
      workers: Ray tasks at once (default: one for each node).
      on_plan: called with the plan and the definition before anything is written; False ends it there.
      on_progress: called before compilation and after every chunk.
      warn: called with one line for anything to know about.
      **overrides: any field of `Config` or `HParams`, for all points.

    Raises:
      ConfigError: for settings that are wrong or impossible.
      RunError: for what fails while running; what was recorded stays.
    """
    devices.configure()
    chosen = with_overrides(resolve_preset(preset) if isinstance(preset, str) else preset, overrides)
    texts = [f"{key}={text}" for key, text in vary.items()] if isinstance(vary, Mapping) else list(vary)
    space = parse_space(texts)
    if prune is not None:
        Prune(prune, prune_eta)
    drawing = _sampler(space, sampler, samples)
    lane_seeds = list(range(seed, seed + seeds)) if isinstance(seeds, int) else [int(s) for s in seeds]
    _check_seeds(lane_seeds, confirm)
    chosen_criteria = [parse_criterion(text).name for text in (chosen.criteria if criteria is None else criteria)]
    _check_rules(chosen_criteria, stop, stability_steps, prune, confirm, confirm_best, confirm_by, batch)
    held_out = list(range(_CONFIRM_SEED, _CONFIRM_SEED + confirm))
    definition = {
        "name": name or chosen.name,
        "preset": chosen.name,
        "vary": {text.partition("=")[0].strip().replace("-", "_"): text.partition("=")[2].strip() for text in texts},
        "sampler": drawing,
        "samples": samples,
        "sample_seed": sample_seed,
        "batch": batch if drawing in ADAPTIVE else None,
        "seeds": lane_seeds,
        "criteria": chosen_criteria,
        "stop": stop,
        "stability_steps": stability_steps,
        "prune": None if prune is None else {"rule": prune, "eta": prune_eta},
        "confirm": {"seeds": held_out, "best": confirm_best, "by": list(confirm_by)} if confirm else None,
        "config": runs.plain(dataclasses.asdict(chosen.config)),
        "hparams": runs.plain(chosen.hparams._asdict()),
    }
    # Before anything is written: what is drawn first must be possible, as must both ends of a range, and fit.
    sample = points(space, "random", min(samples or 1, batch), sample_seed) if drawing in ADAPTIVE else None
    drawn = sample or points(space, drawing, samples, sample_seed)  # type: ignore[arg-type]
    if memory_gb is not None and not 0 < memory_gb < np.inf:
        raise ConfigError(f"memory_gb: {memory_gb} is not possible; use a positive number of gigabytes.")
    ends = [{**drawn[0], key: end} for key, d in space.items() if isinstance(d, Range) for end in (d.low, d.high)]
    _groups(chosen, space, ends)
    memory = None if memory_gb is None else memory_gb * 1e9
    plan = make_plan(space, _groups(chosen, space, drawn), lane_seeds, wave=wave, memory=memory)
    if engine == "ray" and url is None:
        raise ConfigError("engine: ray needs records that all nodes reach; give --store with a database's URL.")
    if not on_plan(plan, definition):
        return SweepResult(_nothing_yet(definition, plan), None, False)
    store, directory = _open(definition, out, root, url, resume, warn)
    context = _Context(store, directory, chosen, wave, memory, on_progress, warn)
    with store.lock(), Interrupt() as interrupt:
        if directory is not None:
            with runs.clear_errors(directory):
                if not (directory / "provenance.json").is_file():
                    runs.write_json(directory / "provenance.json", runs.provenance(lane_seeds))
        context.interrupt = interrupt
        if engine == "ray":
            from dqn_jax.sweep.cluster import run_units

            watch = _Watch(context)
            finished = _advance(
                context,
                lambda: run_units(store, workers=workers, stopping=lambda: context.stopping, show=watch.show),
            )
        else:
            finished = _advance(context, lambda: work(context, wait=url is not None))
    _note_session(context)
    if url is not None and directory is not None:
        store.export(directory)
    return SweepResult(store.data(directory), directory, finished)


def join(
    url: str,
    name: str | None = None,
    *,
    on_progress: Callable[[SweepProgress], None] | None = None,
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> tuple[int, bool]:
    """Work on a sweep whose records are at `url` until nothing is left to do.

    Returns:
      The number of waves run here, and whether it ended on its own (False: stopped by a signal).

    Raises:
      ConfigError: if there is no such sweep there.
      RunError: for what fails while running; what was recorded stays.
    """
    devices.configure()
    store = stores.open_store(url, name)
    context = _Context(store, None, preset_of(store.definition), None, None, on_progress, warn)
    with Interrupt() as interrupt:
        context.interrupt = interrupt
        idle_since = time.monotonic()
        while not interrupt.requested and time.monotonic() - idle_since < _PATIENCE_SECONDS:
            done = context.waves_run
            if not work(context, wait=True):
                break
            if context.waves_run > done:
                idle_since = time.monotonic()
            elif _is_finished(store):
                break
            time.sleep(_POLL_SECONDS)
    return context.waves_run, not interrupt.requested


def preset_of(definition: dict[str, Any]) -> Preset:
    """What a sweep varies, from its definition."""
    config, hparams = runs.settings_from(definition["config"], definition["hparams"])
    return Preset(definition["preset"], "", config, hparams, tuple(definition["criteria"]))


def rules_of(definition: dict[str, Any]) -> Rules:
    """When lanes leave, from a sweep's definition."""
    prune = definition["prune"]
    return Rules(
        tuple(parse_criterion(text) for text in definition["criteria"]),
        definition["stop"],
        definition["stability_steps"],
        None if prune is None else Prune(prune["rule"], prune["eta"]),
    )


class _Context:
    """One process at work on a sweep."""

    def __init__(
        self,
        store: Store,
        directory: Path | None,
        preset: Preset,
        wave: int | None,
        memory: float | None,
        on_progress: Callable[[SweepProgress], None] | None,
        warn: Callable[[str], None],
    ):
        self.store = store
        self.directory = directory
        self.preset = preset
        self.wave = wave
        self.memory = memory
        self.on_progress = on_progress
        self.warn = warn
        self.rules = rules_of(store.definition)
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.interrupt: Interrupt | None = None
        self.waves_run = 0
        self.began = time.perf_counter()
        self.allowance = runs.Allowance(_CHECKPOINT_SHARE)
        self.lane_steps = 0  # taken by this process
        self.work_seconds = 0.0  # for them, bookkeeping included
        self.program_seconds = 0.0  # of these, in the compiled programs
        self.compile_seconds = 0.0
        self._programs: tuple[Any, Programs] | None = None

    @property
    def stopping(self) -> bool:
        return self.interrupt is not None and self.interrupt.requested

    def programs(self, group: Group, unit: Unit) -> Programs:
        """The programs of a group for a unit's lanes; those of the last one are kept."""
        left_out = tuple(value is None for value in group.trials[0].hparams)
        if self._programs is not None:
            key, programs = self._programs
            if key == (group.config, left_out) and programs.population.layout.lanes >= len(unit.lanes):
                return programs
        self._programs = None  # frees their memory first
        programs = make_programs(group.config, group.trials[0].hparams, len(unit.lanes))
        self._programs = ((group.config, left_out), programs)
        self.compile_seconds += programs.population.compile_seconds
        _note_compiled(self, programs, unit)
        return programs


def _advance(context: _Context, run_waiting: Callable[[], bool]) -> bool:
    """Take the sweep to its end, or to where somebody stops it; whether it is finished."""
    store, definition = context.store, context.store.definition
    space, seeds = store.space, definition["seeds"]
    adaptive = definition["sampler"] in ADAPTIVE
    while True:
        if not adaptive:
            store.add_trials(points(space, definition["sampler"], definition["samples"], definition["sample_seed"]))
        _add_units(context, "search", range(len(store.points())), seeds)
        if not run_waiting():
            return False
        if not adaptive or len(store.points()) >= definition["samples"]:
            break
        count = min(definition["batch"], definition["samples"] - len(store.points()))
        store.ask(count, definition["sampler"], definition["sample_seed"])
    confirm = definition["confirm"]
    if confirm is not None:
        data = store.data()
        best = {int(t) for by in confirm["by"] for t in ranked(data, by=by)["trial"].head(confirm["best"])}
        _add_units(context, "confirm", sorted(best), confirm["seeds"])
        if not run_waiting():
            return False
    return True


def _add_units(context: _Context, phase: str, trials: Sequence[int], seeds: Sequence[int]) -> None:
    """Plan waves for the lanes that are in no unit yet."""
    store = context.store
    known = [unit for unit, _ in store.units()]
    if phase == "confirm" and any(unit.phase == phase for unit in known):
        return  # chosen before; what is best is not asked twice
    planned = {lane for unit in known if unit.phase == phase for lane in unit.lanes}
    missing = [trial for trial in trials if (trial, seeds[0]) not in planned]
    if not missing:
        return
    all_points = store.points()
    groups = _groups(context.preset, store.space, [all_points[t] for t in missing], missing)
    plan = make_plan(store.space, groups, seeds, wave=context.wave, memory=context.memory)
    waves = [wave for group in plan.groups for wave in group.waves]
    first = max((unit.id for unit in known), default=-1) + 1
    store.add_units(Unit(first + i, phase, wave) for i, wave in enumerate(waves))
    if context.directory is not None and phase == "search":
        with runs.clear_errors(context.directory):
            path = context.directory / "plan.json"
            kept = runs.read_json(path) if path.is_file() else {}
            runs.write_json(path, {**kept, **plan.as_json()})


def work(context: _Context, *, wait: bool) -> bool:
    """Run units until none is to be had; False if stopped.

    Args:
      context: this process.
      wait: whether others may be at work: then go on until their units are done too, for they may die.
    """
    store = context.store
    while not context.stopping:
        unit = store.claim(context.owner, _LEASE_SECONDS)
        if unit is not None:
            if run_unit(context, unit):
                continue
            if context.stopping:
                store.release(context.owner)
                return False
            context.warn(f"wave {unit.id} has gone to another worker: this one's lease ran out")
        elif wait and any(state == "running" for _, state in store.units()):
            time.sleep(_POLL_SECONDS)
        else:
            return True
    return False


def work_one(url: str, name: str, owner: str) -> int:
    """Run the next unit that nobody has, of the sweep at `url`; 0 if there is none.

    A task that is started again after its death has the same `owner`, and takes up what it had then.
    """
    devices.configure()
    store = stores.open_store(url, name)
    store.release(owner)
    context = _Context(store, None, preset_of(store.definition), None, None, None, lambda line: None)
    context.owner = owner
    unit = store.claim(context.owner, _LEASE_SECONDS)
    if unit is not None:
        run_unit(context, unit)
    return context.waves_run


def run_unit(context: _Context, unit: Unit) -> bool:
    """Run one claimed unit to its end; False if it was stopped or lost."""
    store = context.store
    all_points = store.points()
    numbers = sorted({trial for trial, _ in unit.lanes})
    group, *others = _groups(context.preset, store.space, [all_points[t] for t in numbers], numbers)
    if others:
        raise runs.RunError(f"unit {unit.id} holds trials of several programs; it was planned by another version.")
    trials = {trial.number: trial for trial in group.trials}
    lanes = [WaveLane(trial, seed, trials[trial].hparams) for trial, seed in unit.lanes]
    meter = _Meter(context, unit, all_points)
    meter.show("compile")
    programs = context.programs(group, unit)
    checkpoint = None
    if context.directory is not None:
        folder = context.directory / "units" / f"{unit.id:05d}"
        checkpoint = WaveCheckpoint(folder, programs.population, group.config, context.allowance)

    def record(rows: list[dict[str, Any]], curves: pd.DataFrame) -> bool:
        meter.left(rows)
        return store.record(unit.id, context.owner, rows, curves) and held()

    with _lease(store, unit, context.owner) as held:
        ended = run_wave(
            programs,
            lanes,
            # What is confirmed is measured to the end: pruning would bias it.
            context.rules if unit.phase == "search" else dataclasses.replace(context.rules, prune=None),
            phase=unit.phase,
            checkpoint=checkpoint,
            recorded=store.recorded,
            record=record,
            on_progress=meter.chunk,
            warn=context.warn,
        )
    if ended:
        store.finish(unit.id)
        context.waves_run += 1
    return ended


@contextlib.contextmanager
def _lease(store: Store, unit: Unit, owner: str) -> Iterator[Callable[[], bool]]:
    """Keeps a unit leased while its wave runs, however long a chunk takes; the value says whether it still is."""
    ended = threading.Event()
    lost = threading.Event()

    def keep() -> None:
        while not ended.wait(_LEASE_SECONDS / 3):
            try:
                if not store.renew(unit.id, owner, _LEASE_SECONDS):
                    lost.set()
                    return
            except runs.RunError:
                continue  # the next record says so, if the database stays away

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield lambda: not lost.is_set()
    finally:
        ended.set()
        thread.join()


class _Watch:
    """What is known of a sweep, for the display: read from the records, then kept up as lanes leave."""

    def __init__(self, context: _Context):
        self.context = context
        self.lanes: dict[str, int] = {}  # finished, by status
        self.lane_steps = 0  # that they took
        self.total = self.units = self.done = 0
        self.best: tuple[dict[str, Any], float] | None = None
        self._horizon = float(context.store.definition["config"]["total_steps"])
        self._seeds = len(context.store.definition["seeds"])
        self._points: list[dict[str, Any]] = []
        self._times: dict[int, list[float]] = {}  # of each trial, to convergence

    @property
    def mean_steps(self) -> float:
        """That a lane takes."""
        finished = sum(self.lanes.values())
        return self.lane_steps / finished if finished else np.nan

    def read(self) -> None:
        """Start from the records."""
        store = self.context.store
        units = store.units()
        self.units, self.done = len(units), sum(state == "done" for _, state in units)
        self.total = sum(len(unit.lanes) for unit, _ in units)
        self.lanes, self.lane_steps, self.best, self._times = {}, 0, None, {}
        self._points = store.points()
        self.add(store.lanes().to_dict("records"))

    def add(self, rows: Sequence[Mapping[Any, Any]]) -> None:
        """Lanes that have left."""
        for row in rows:
            self.lanes[row["status"]] = self.lanes.get(row["status"], 0) + 1
            self.lane_steps += row["env_steps"]
            if row["phase"] != "search":
                continue
            times = self._times.setdefault(row["trial"], [])
            times.append(row["converged_env_steps"] if row["converged"] else self._horizon)
            mean = float(np.mean(times))
            if len(times) == self._seeds and mean < (self._horizon if self.best is None else self.best[1]):
                self.best = (self._points[row["trial"]], mean)

    def show(self) -> None:
        """Report from the records alone: others do the work."""
        context = self.context
        if not context.on_progress:
            return
        self.read()
        seconds, finished = time.perf_counter() - context.began, sum(self.lanes.values())
        rate = finished * self.mean_steps / seconds if finished else 0.0
        waiting = self.total - finished
        self.report(
            "run", {}, self.done, 0, waiting, (0, 1), rate, waiting * self.mean_steps / rate if rate else np.nan
        )

    def report(
        self,
        phase: Literal["compile", "run"],
        group: dict[str, Any],
        unit: int,
        running: int,
        waiting: int,
        steps: tuple[int, int],
        rate: float,
        seconds_left: float,
    ) -> None:
        """Tell the display."""
        assert self.context.on_progress is not None
        self.context.on_progress(
            SweepProgress(
                phase=phase,
                group=group,
                unit=unit,
                units=self.units,
                lanes=dict(self.lanes),
                running=running,
                waiting=waiting,
                env_steps=steps[0],
                total_steps=steps[1],
                lane_steps_per_second=rate,
                seconds=time.perf_counter() - self.context.began,
                seconds_left=seconds_left,
                best=self.best,
            )
        )


class _Meter:
    """Counts what this process does in a wave, and tells the display."""

    def __init__(self, context: _Context, unit: Unit, all_points: list[dict[str, Any]]):
        self.context = context
        self.unit = unit
        self.group = {k: v for k, v in all_points[unit.lanes[0][0]].items() if k not in HParams._fields}
        self.done = context.store.recorded() if context.on_progress else set()
        running = sum((unit.phase, *lane) not in self.done for lane in unit.lanes)
        self.wave = WaveProgress(0, 1, running, 0, 0.0, 0.0)
        self.watch = _Watch(context)
        if context.on_progress:
            self.watch.read()

    def left(self, rows: Sequence[dict[str, Any]]) -> None:
        """Lanes that have left; some may be in the records already."""
        if self.context.on_progress:
            self.watch.add([row for row in rows if (row["phase"], row["trial"], row["seed"]) not in self.done])

    def chunk(self, progress: WaveProgress) -> bool:
        context = self.context
        context.lane_steps += progress.lane_steps
        context.work_seconds += progress.seconds
        context.program_seconds += progress.program_seconds
        self.wave = progress
        self.show("run")
        return not context.stopping

    def show(self, phase: Literal["compile", "run"]) -> None:
        context, wave, watch = self.context, self.wave, self.watch
        if not context.on_progress:
            return
        waiting = watch.total - sum(watch.lanes.values()) - wave.running
        rate = context.lane_steps / context.work_seconds if context.work_seconds else 0.0
        each = watch.mean_steps if np.isfinite(watch.mean_steps) else wave.total_steps
        ahead = waiting * each + wave.running * max(each - wave.env_steps, (wave.total_steps - wave.env_steps) / 2)
        watch.report(
            phase,
            self.group,
            self.unit.id,
            wave.running,
            waiting,
            (wave.env_steps, wave.total_steps),
            rate,
            ahead / rate if rate else np.nan,
        )


def _groups(
    preset: Preset, space: Space, drawn: Sequence[dict[str, Any]], numbers: Sequence[int] | None = None
) -> list[Group]:
    """Compile groups of points, under their numbers; replays no larger than they can fill."""
    numbers = range(len(drawn)) if numbers is None else numbers
    groups = compile_groups(preset, space, drawn)
    return [
        Group(fitted(group.config), tuple(trial._replace(number=numbers[trial.number]) for trial in group.trials))
        for group in groups
    ]


def _sampler(space: Space, sampler: str | None, samples: int | None) -> str:
    if sampler is None:
        listed = all(isinstance(dimension, Choice) for dimension in space.values())
        sampler = "grid" if listed and samples is None else "sobol"
    if sampler in ADAPTIVE and (samples is None or samples < 1):
        raise ConfigError(f"samples: say how many points {sampler} draws in all, e.g. --samples 64.")
    if sampler == "cmaes" and not any(isinstance(dimension, Range) for dimension in space.values()):
        raise ConfigError("sampler: cmaes needs a setting that varies over a range; use tpe.")
    if sampler not in ("grid", "random", "sobol", *ADAPTIVE):
        raise ConfigError(f"sampler: there is no '{sampler}'; use grid, random, sobol, tpe or cmaes.")
    return sampler


def _check_seeds(seeds: Sequence[int], confirm: int) -> None:
    if not seeds:
        raise ConfigError("seeds: at least one seed is needed; use 1 or more.")
    if len(set(seeds)) < len(seeds):
        raise ConfigError("seeds: a seed is given twice; two equal seeds are one sample.")
    if min(seeds) < 0 or max(seeds) >= 2**31:
        raise ConfigError("seed: seeds must lie between 0 and 2147483647.")
    if confirm < 0:
        raise ConfigError(f"confirm: {confirm} is not possible; use 0 or more held-out seeds.")
    if confirm and max(seeds) >= _CONFIRM_SEED:
        raise ConfigError(f"seed: seeds from {_CONFIRM_SEED} on are held out for --confirm; use lower ones.")


def _check_rules(
    criteria: Sequence[str],
    stop: str,
    stability_steps: int,
    prune: str | None,
    confirm: int,
    confirm_best: int,
    confirm_by: Sequence[str],
    batch: int,
) -> None:
    if stop not in ("converged", "budget"):
        raise ConfigError(f"stop: '{stop}' is not possible; use converged or budget.")
    if not criteria:
        raise ConfigError("criteria: a sweep measures convergence; give a criterion, e.g. --criteria eval>=475x3.")
    if stability_steps < 0:
        raise ConfigError(f"stability_steps: {stability_steps} is not possible; use 0 or more environment steps.")
    if confirm and not confirm_by:
        raise ConfigError(f"confirm_by: say what is best, one or more of {', '.join(RANKINGS)}.")
    unknown = [by for by in confirm_by if by not in RANKINGS]
    if unknown:
        raise ConfigError(f"confirm_by: there is no ranking by '{unknown[0]}'; use {', '.join(RANKINGS)}.")
    if "final_return" in confirm_by and stop != "budget":
        raise ConfigError("confirm_by: lanes that leave on convergence have no final return; use --stop budget.")
    if confirm and confirm_best < 1:
        raise ConfigError(f"confirm_best: {confirm_best} is not possible; use 1 or more.")
    if batch < 1:
        raise ConfigError(f"batch: {batch} is not possible; use 1 or more points.")


def _open(
    definition: dict[str, Any],
    out: str | Path | None,
    root: str | Path | None,
    url: str | None,
    resume: bool,
    warn: Callable[[str], None],
) -> tuple[Store, Path | None]:
    name = definition["name"]
    if out is None and root is None and url is None:
        raise ConfigError("out: say where the sweep is kept; give a folder.")
    if resume:
        directory = Path(out) if out is not None else None
        if directory is None and root is not None:
            found = [p.parent for p in (Path(root) / name).glob("*/sweep.json")]
            if not found:
                raise ConfigError(f"resume: {Path(root) / name} holds no sweep; drop --resume to start one.")
            directory = max(found, key=lambda path: (path.name, path.stat().st_mtime))
        store = stores.open_store(url, name) if url is not None else stores.open_store(directory or "")
        differences = stores.differences(store.definition, definition)
        if differences:
            field, saved, wanted = differences[0]
            raise ConfigError(
                f"{field}: this sweep has {_shown(saved)}, not {_shown(wanted)}"
                + (f" (and {len(differences) - 1} more settings differ)" if len(differences) > 1 else "")
                + "; a sweep goes on only as it was asked: drop --resume to start a new one."
            )
        return store, directory
    directory = Path(out) if out is not None else None
    if directory is None and root is not None:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        directory = next(
            path
            for suffix in ("", *(f"-{i}" for i in range(2, 1000)))
            if not (path := Path(root) / name / (stamp + suffix)).exists()
        )
    return stores.create(directory, url, definition), directory


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _note(context: _Context, what: str, entry: dict[str, Any]) -> None:
    """Add an entry to a list in plan.json: what really happened, beside what was planned."""
    if context.directory is None:
        return
    path = context.directory / "plan.json"
    with runs.clear_errors(context.directory):
        plan = runs.read_json(path) if path.is_file() else {}
        plan.setdefault(what, []).append(entry)
        runs.write_json(path, plan)


def _note_compiled(context: _Context, programs: Programs, unit: Unit) -> None:
    population = programs.population
    entry = {
        "unit": unit.id,
        "phase": unit.phase,
        "capacity": population.layout.lanes,
        "seconds": population.compile_seconds,
        "temporary_bytes": population.temporary_bytes,
    }
    _note(context, "compiled", entry)


def _note_session(context: _Context) -> None:
    entry = {
        "seconds": time.perf_counter() - context.began,
        "compile_seconds": context.compile_seconds,
        "program_seconds": context.program_seconds,
        "lane_steps": context.lane_steps,
        "waves": context.waves_run,
        "peak_memory_bytes": devices.peak_memory_bytes(),
    }
    if context.lane_steps:
        _note(context, "sessions", entry)


def _is_finished(store: Store) -> bool:
    """Whether nothing will be added any more."""
    definition, units = store.definition, store.units()
    wanted = {"search", "confirm"} if definition["confirm"] else {"search"}
    return all(state == "done" for _, state in units) and {unit.phase for unit, _ in units} >= wanted


def _nothing_yet(definition: dict[str, Any], plan: Plan) -> SweepData:
    import pandas as pd

    from dqn_jax.sweep.results import CURVE_COLUMNS, LANE_COLUMNS

    empty = pd.DataFrame(columns=list(LANE_COLUMNS)), pd.DataFrame(columns=list(CURVE_COLUMNS))
    trials = pd.DataFrame([t.point for g in plan.groups for t in g.group.trials])
    return SweepData(definition["name"], definition, plan.as_json(), {}, trials, *empty)
