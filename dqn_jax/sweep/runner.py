"""A sweep from question to tables: draw, plan, run wave after wave, confirm the best on held-out seeds.

What is asked and what has been found live in a `Store`; this module only moves it forward. So a sweep that was
stopped, killed, or is shared with other machines goes on from whatever the store holds.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dqn_jax import devices, files, runs
from dqn_jax.config import ConfigError
from dqn_jax.interrupt import Interrupt
from dqn_jax.presets import Preset, resolve_preset, with_overrides
from dqn_jax.runs import schemas
from dqn_jax.sweep import going_on, records
from dqn_jax.sweep.definition import check_new, define, preset_of
from dqn_jax.sweep.plan import Plan, fitted_groups, make_plan
from dqn_jax.sweep.progress import OnProgress, Watch
from dqn_jax.sweep.results import ranked
from dqn_jax.sweep.space import ADAPTIVE, Range, Sampler, parse_space, points
from dqn_jax.sweep.tables import SweepData
from dqn_jax.sweep.worker import Worker, work

_POLL_SECONDS = 2.0
_PATIENCE_SECONDS = 60.0  # how long a joined worker waits for more to do


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """What a sweep has found so far."""

    data: SweepData
    directory: Path | None
    finished: bool  # False: stopped by a signal, or parts of it run elsewhere; `resume=True` goes on


def sweep(
    preset: str | Preset | None = None,
    vary: Sequence[str] | Mapping[str, str] = (),
    *,
    sampler: Sampler | None = None,
    samples: int | None = None,
    sample_seed: int | None = None,
    batch: int | None = None,
    seeds: int | Sequence[int] | None = None,
    seed: int | None = None,
    criteria: Sequence[str] | None = None,
    stop: Literal["converged", "budget"] | None = None,
    stability_steps: int | None = None,
    prune: Literal["halving", "hyperband"] | None = None,
    prune_eta: int | None = None,
    confirm: int | None = None,
    confirm_best: int | None = None,
    confirm_by: Sequence[str] | None = None,
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
    on_progress: OnProgress | None = None,
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    **overrides: Any,
) -> SweepResult:
    """Train many settings times many seeds as populations, and record how fast each converges.

    With `resume` what the sweep was asked takes the place of all these defaults.

    Args:
      preset: what is varied: a preset's or an environment's name, or a `Preset` (default: "cartpole").
      vary: the search space: "name=values" texts, or name to values; see `sweep.space`.
      sampler: "grid", "random", "sobol", or adaptive in batches: "tpe", "cmaes" (default: grid if every dimension is
        a list and no number of samples is given, else sobol).
      samples: how many points (a grid has its own number).
      sample_seed: of the draws.
      batch: points that an adaptive sampler draws at a time (default: 32).
      seeds: how many seeds (counted up from `seed`), or the seeds themselves; every point runs with the same ones
        (default: 5).
      seed: the first seed, if `seeds` is a number (default: 0).
      criteria: convergence criteria (default: the preset's); the first one decides.
      stop: "converged" (the default): lanes leave once they have converged; "budget" (the default where a criterion
        asks who settled): they stay to the end.
      stability_steps: environment steps that a converged lane stays on, to see whether it lasts (default: 0).
      prune: leave trials that look hopeless; it biases what is said of the others' speed.
      prune_eta: one trial in so many goes on at each rung (default: 3).
      confirm: run the best points again on so many held-out seeds (default: 0).
      confirm_best: how many of the best (default: 3), by each of
      confirm_by: what "best" means: env_steps (the default), updates, episodes, seconds, final_return, settled.
      wave: most lanes at once.
      memory_gb: memory for lanes (default: most of what is free).
      name: of the sweep (default: the preset's).
      out: folder of this sweep.
      root: folder under which `<name>/<stamp>/` is made, without `out`.
      url: keep the records in this database (SQLAlchemy URL, e.g. postgresql+psycopg://...), so that others can join.
      resume: go on with the sweep in `out` (or the newest in `root`). What is given must be what it was asked; more
        may be where it keeps the numbers: a confirmation, more seeds, more samples.
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
    given = {
        "vary": _texts(vary) or None,
        "name": name,
        "sampler": sampler,
        "samples": samples,
        "sample_seed": sample_seed,
        "batch": batch,
        "seeds": seeds,
        "seed": seed,
        "criteria": criteria,
        "stop": stop,
        "stability_steps": stability_steps,
        "prune": prune,
        "prune_eta": prune_eta,
        "confirm": confirm,
        "confirm_best": confirm_best,
        "confirm_by": confirm_by,
    }
    given = {field: value for field, value in given.items() if value is not None}
    found = going_on.find(preset, name, out, root, url) if resume else None
    own = None if found is None else found[0].definition
    if own is not None and not isinstance(preset, Preset):
        preset = preset_of(own)
    chosen = with_overrides(resolve_preset("cartpole" if preset is None else preset), overrides)
    definition = define(chosen, going_on.asked(own, given))
    more = None if found is None else going_on.amended(found[0], definition)
    if found is None:
        check_new(definition, overrides, given)
    plan = _first_plan(chosen, definition, wave=wave, memory_gb=memory_gb)
    _check_engine(engine, workers, url)
    if not on_plan(plan, definition):
        return SweepResult(_nothing_yet(definition, plan), None, False)
    store, directory = _create(definition, out, root, url) if found is None else found
    if found is not None and url is not None and directory is not None:
        records.export(store, directory)  # at once: its notes belong to this sweep or to none
    with store.lock(), Interrupt() as interrupt:
        if more is not None:
            store.amend(more)
        worker = Worker(store, directory, on_progress, warn)
        if directory is not None:
            _begin_notes(directory, definition["seeds"], warn)
        for line in store.reopen_lost() if resume else ():
            warn(line)
        worker.interrupt, interrupt.answer = interrupt, worker.answer
        limits = {"wave": wave, "memory": _in_bytes(memory_gb)}
        finished = _advance(worker, _runs_waiting(worker, engine, workers, wait=url is not None), **limits)
    worker.note_session()
    if url is not None and directory is not None:
        records.export(store, directory)
    return SweepResult(store.data(directory), directory, finished)


def join(
    url: str,
    name: str | None = None,
    *,
    on_progress: OnProgress | None = None,
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> tuple[int, bool]:
    """Work on a sweep whose records are at `url` until nothing is left to do.

    Whoever asked the sweep plans its waves; if nobody has for a minute, for that process has died, this one does.

    Returns:
      The number of waves run here, and whether it ended on its own (False: stopped by a signal).

    Raises:
      ConfigError: if there is no such sweep there.
      RunError: for what fails while running; what was recorded stays.
    """
    devices.configure()
    store = records.open_store(url, name)
    worker = Worker(store, None, on_progress, warn)
    with Interrupt() as interrupt:
        worker.interrupt, interrupt.answer = interrupt, worker.answer
        idle_since = time.monotonic()
        while not interrupt.requested and time.monotonic() - idle_since < _PATIENCE_SECONDS:
            done, began = worker.tally.waves, time.monotonic()
            if not work(worker, wait=True):
                break
            if worker.tally.waves > done or time.monotonic() - began > _POLL_SECONDS:  # others were at work
                idle_since = time.monotonic()
            elif _is_finished(store):
                break
            time.sleep(_POLL_SECONDS)
        else:
            if not interrupt.requested:
                warn("nobody plans what is left of this sweep: this worker does")
                _advance(worker, lambda: work(worker, wait=True), wave=None, memory=None)
    return worker.tally.waves, not interrupt.requested


def _texts(vary: Sequence[str] | Mapping[str, str]) -> tuple[str, ...]:
    """What varies, as texts "name=values", however it was given."""
    return tuple(f"{name}={values}" for name, values in vary.items()) if isinstance(vary, Mapping) else tuple(vary)


def _first_plan(preset: Preset, definition: dict[str, Any], *, wave: int | None, memory_gb: float | None) -> Plan:
    """The plan of what is drawn first, before anything is written: it must be possible, as must both ends of a range,
    and fit."""
    space, sampler, seed = parse_space(definition["vary"]), definition["sampler"], definition["sample_seed"]
    if sampler in ADAPTIVE:
        drawn = points(space, "random", min(definition["samples"] or 1, definition["batch"] or 1), seed)
    else:
        drawn = points(space, sampler, definition["samples"], seed)
    if memory_gb is not None and not 0 < memory_gb < np.inf:
        raise ConfigError(f"memory_gb: {memory_gb} is not possible; use a positive number of gigabytes.")
    ends = [{**drawn[0], key: end} for key, d in space.items() if isinstance(d, Range) for end in (d.low, d.high)]
    fitted_groups(preset, space, ends)
    groups = fitted_groups(preset, space, drawn)
    return make_plan(space, groups, definition["seeds"], wave=wave, memory=_in_bytes(memory_gb))


def _in_bytes(gigabytes: float | None) -> float | None:
    return None if gigabytes is None else gigabytes * 1e9


def _check_engine(engine: str, workers: int | None, url: str | None) -> None:
    if workers is not None and (engine != "ray" or workers < 1):
        remedy = "use 1 or more" if engine == "ray" else "only --engine ray has them; leave it out"
        raise ConfigError(f"workers: {workers} is not possible; {remedy}.")
    if engine == "ray" and url is None:
        raise ConfigError("engine: ray needs records that all nodes reach; give --store with a database's URL.")


def _begin_notes(directory: Path, seeds: Sequence[int], warn: Callable[[str], None]) -> None:
    """The notes of a sweep's folder, where there are none yet."""
    with files.clear_errors(directory):
        if not files.read_notes(directory / "plan.json", schemas.Plan, warn):
            files.write_json(directory / "plan.json", {})  # else every report would say that it is damaged
        if not files.read_notes(directory / "provenance.json", schemas.SweepProvenance, warn):
            files.write_json(directory / "provenance.json", runs.provenance_of(seeds))


def _runs_waiting(worker: Worker, engine: str, workers: int | None, *, wait: bool) -> Callable[[], bool]:
    """What runs all waves that are planned; False if it was stopped. `wait`: whether others may be at work too."""
    if engine != "ray":
        return lambda: work(worker, wait=wait)
    from dqn_jax.sweep.cluster import run_waves

    watch = Watch(worker.store, worker.tally, worker.on_progress)
    return lambda: run_waves(worker.store, workers=workers, stopping=lambda: worker.stopping, show=watch.show)


def _advance(worker: Worker, run_waiting: Callable[[], bool], **limits: Any) -> bool:
    """Take the sweep to its end, or to where somebody stops it; whether it is finished. `limits` are of the plan."""
    store, definition = worker.store, worker.store.definition
    space, seeds = store.space, definition["seeds"]
    adaptive = definition["sampler"] in ADAPTIVE
    while True:
        if not adaptive:
            store.add_trials(points(space, definition["sampler"], definition["samples"], definition["sample_seed"]))
        known = len(store.points())
        _add_waves(worker, "search", range(known), seeds, **limits)
        if not run_waiting():
            return False
        if not adaptive or known >= definition["samples"]:
            break
        count = min(definition["batch"], definition["samples"] - known)
        store.ask(count, definition["sampler"], definition["sample_seed"], after=known)
    confirm = definition["confirm"]
    if confirm is not None:
        data = store.data()
        best = {int(t) for by in confirm["by"] for t in ranked(data, by=by)["trial"].head(confirm["best"])}
        _add_waves(worker, "confirm", sorted(best), confirm["seeds"], **limits)
        if not run_waiting():
            return False
    return True


def _add_waves(worker: Worker, phase: str, trials: Sequence[int], seeds: Sequence[int], **limits: Any) -> None:
    """Plan waves for the lanes that are in none yet; where others plan too, the first one's waves count."""
    while not _planned(worker, phase, trials, seeds, **limits):
        pass


def _planned(worker: Worker, phase: str, trials: Sequence[int], seeds: Sequence[int], **limits: Any) -> bool:
    """Plan what is missing; False if others have planned meanwhile."""
    store = worker.store
    known = [wave for wave, _ in store.waves()]
    if phase == "confirm" and any(wave.phase == phase for wave in known):
        return True  # chosen before; what is best is not asked twice
    planned = {lane for wave in known if wave.phase == phase for lane in wave.lanes}
    missing: dict[tuple[int, ...], list[int]] = {}  # trials by the seeds that they lack: all, or those asked for later
    for trial in trials:
        lacking = tuple(seed for seed in seeds if (trial, seed) not in planned)
        if lacking:
            missing.setdefault(lacking, []).append(trial)
    if not missing:
        return True
    all_points, waves, preset = store.points(), [], preset_of(store.definition, phase)
    for lacking, theirs in missing.items():
        groups = fitted_groups(preset, store.space, [all_points[t] for t in theirs], theirs)
        plan = make_plan(store.space, groups, lacking, **limits)
        waves += [wave for group in plan.groups for wave in group.waves]
    if not store.plan(phase, waves, after=len(known)):
        return False
    if worker.directory is not None and phase == "search":
        with files.clear_errors(worker.directory):
            path = worker.directory / "plan.json"
            kept = files.read_notes(path, schemas.Plan, worker.warn)
            files.write_json(path, {**kept, **plan.as_json()})
    return True


def _create(
    definition: dict[str, Any], out: str | Path | None, root: str | Path | None, url: str | None
) -> tuple[records.Store, Path | None]:
    """A new sweep, and its folder if it has one."""
    if out is None and root is None and url is None:
        raise ConfigError("out: say where the sweep is kept; give a folder.")
    directory = Path(out) if out is not None else None
    if directory is None and root is not None:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        directory = next(
            path
            for suffix in ("", *(f"-{i}" for i in range(2, 1000)))
            if not (path := Path(root) / definition["name"] / (stamp + suffix)).exists()
        )
    return records.create(directory, url, definition), directory


def _is_finished(store: records.Store) -> bool:
    """Whether nothing will be added any more."""
    definition, waves = store.definition, store.waves()
    planned = {lane for wave, _ in waves if wave.phase == "search" for lane in wave.lanes}
    if definition["sampler"] in ADAPTIVE:
        trials = definition["samples"]
    else:
        trials = len(points(store.space, definition["sampler"], definition["samples"], definition["sample_seed"]))
    confirmed = definition["confirm"] is None or any(wave.phase == "confirm" for wave, _ in waves)
    everything = len(planned) >= trials * len(definition["seeds"])
    return everything and confirmed and all(state == "done" for _, state in waves)


def _nothing_yet(definition: dict[str, Any], plan: Plan) -> SweepData:
    import pandas as pd

    from dqn_jax.sweep.tables import CURVE_COLUMNS, LANE_COLUMNS

    empty = pd.DataFrame(columns=list(LANE_COLUMNS)), pd.DataFrame(columns=list(CURVE_COLUMNS))
    trials = pd.DataFrame([t.point for g in plan.groups for t in g.group.trials])
    planned = {**plan.as_json(), "confirmation": plan.confirmation(definition)._asdict()}
    return SweepData(definition["name"], definition, planned, {}, trials, *empty)
