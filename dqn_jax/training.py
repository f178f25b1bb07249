"""Train a population on the device, chunk by chunk; the host reads, judges, saves and goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax import convergence, devices, files, runs
from dqn_jax._import_time import import_seconds
from dqn_jax.config import Config, ConfigError, HParams, seeds_from, validate
from dqn_jax.envs.bounds import value_bound
from dqn_jax.interrupt import Interrupt
from dqn_jax.lanes import memory
from dqn_jax.lanes.driver import Driver, Population, driver_for
from dqn_jax.lanes.history import History
from dqn_jax.lanes.lane import Watch
from dqn_jax.lanes.population import stack_hparams
from dqn_jax.pace import Pace
from dqn_jax.presets import Preset, with_overrides
from dqn_jax.runs import going_on, play
from dqn_jax.runs.best import Best
from dqn_jax.runs.checkpoint import Allowance
from dqn_jax.runs.recorder import Recorder
from dqn_jax.types import Params

if TYPE_CHECKING:
    import pandas as pd

_CHECKPOINT_SHARE = 0.05  # of the run's time that checkpoints may take


Phase = Literal["compile", "step", "evaluate", "train"]


@dataclasses.dataclass(frozen=True)
class Progress:
    """What is known after a chunk, or within one ("step", or "evaluate" in its evaluation), for a display."""

    phase: Phase
    env_steps: int  # per seed
    total_steps: int
    share_done: float  # of the budget, 0 to 1
    seconds: float  # of running, compilation excluded
    lane_steps_per_second: float
    train_return: np.ndarray  # [L], mean of each seed's last episodes; NaN before the first
    eval_return: np.ndarray  # [L]
    converged: np.ndarray  # [L], bool, by the first criterion
    diverged: np.ndarray  # [L], bool
    games: tuple[int, int] = dataclasses.field(default=(0, 0), kw_only=True)  # ended, of all of an evaluation
    above_bound: np.ndarray  # [L], bool, whether its mean Q-value has been beyond `bounds.value_bound`
    judged: bool = True  # whether there is a criterion; without one nothing converges


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a run ended with."""

    summary: dict[str, Any]  # as in summary.json
    history: History
    converged: np.ndarray  # [L], bool, by the first criterion
    params: Params  # online networks, leaves [L, ...], on the host
    best_params: Params | None  # each seed's at its best evaluation (`best_eval_return` in the summary); None without
    settings: runs.RunSettings
    run: Path | None  # folder, where one was written
    interrupted: bool  # stopped by a signal; `resume=True` goes on

    @functools.cached_property
    def metrics(self) -> pd.DataFrame:
        """As in metrics.csv: one row per seed and evaluation."""
        return self.history.metrics_table()

    @functools.cached_property
    def episodes(self) -> pd.DataFrame:
        """One row per finished training episode."""
        return self.history.episodes_table()


def train(
    preset: str | Preset | None = None,
    *,
    seeds: int | Sequence[int] | None = None,
    seed: int | None = None,
    criteria: Sequence[str] | None = None,
    stop: Literal["budget", "converged"] | None = None,
    max_minutes: float | None = None,
    out: str | Path | None = None,
    root: str | Path | None = None,
    resume: bool = False,
    weights: str | Path | None = None,
    checkpoint: Literal["last", "best"] | None = None,
    save_episodes: bool | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    trackers: Sequence[Callable[[History], None]] = (),
    **overrides: Any,
) -> TrainResult:
    """Train one agent per seed, all at once.

    With `resume` the run's own settings take the place of all these defaults.

    Args:
      preset: a preset's or an environment's name, or a `Preset` (default: "cartpole").
      seeds: how many seeds (counted up from `seed`), or the seeds themselves (default: the preset's number).
      seed: the first seed, if `seeds` is a number (default: 0).
      criteria: convergence criteria as text (default: the preset's); the first one decides `stop`.
      stop: "converged" ends the run once every lane has converged or diverged; "budget" (the default) does not.
      max_minutes: of running, evaluations included, compilation and the film at the end apart; a run that is resumed
        counts on, and with infinity has no such limit any more. Its first chunk apart, a run on the device ends where
        another chunk would take too long; over a pool a chunk's training ends early, so that its evaluation fits in,
        or all of it does, to be gone on with.
      out: folder of this run. Without `out` and `root` nothing is written.
      root: folder under which `<name>/<stamp>/` is made.
      resume: go on with the run in `out`, or the newest in `root` (of this preset, if one is given). What is given must
        be what the run has, but for `total_steps`, `max_minutes`, `stop` and `criteria`, which change no number.
      weights: start from the networks of this run, seed by seed (or all seeds from its only one), instead of
        fresh ones. Replay, optimiser and exploration start anew.
      checkpoint: which of its networks: the last, or each seed's best by evaluation.
      save_episodes: also write `episodes.csv`, one row per finished training episode.
      on_progress: called before compilation and after every chunk; over a pool, whose chunks can be long, every second
        within them too.
      warn: called with one line for anything to know about.
      trackers: called with the history after every chunk (Weights & Biases, say).
      **overrides: any field of `Config` or `HParams`; an HParams field may have one value per lane.

    Raises:
      ConfigError: for settings that are wrong or impossible.
      RunError: for what fails while running (a full disk, say); what was saved stays.
    """
    devices.configure()
    found = going_on.find(preset, out, root) if resume else None
    own = None if found is None else found[1]
    chosen = with_overrides(going_on.asked(preset, own), overrides)
    validate(chosen.config, chosen.hparams)
    default = chosen.seeds if own is None else own.seeds
    wanted = default if seeds is None else seeds
    lanes = wanted if isinstance(wanted, int) else np.size(wanted)
    memory.check_run(chosen.config, chosen.hparams, lanes)  # before the seeds are counted up: there may be a billion
    lane_seeds = _seeds(seeds, seed, default)
    parsed = convergence.parse_criteria(chosen.criteria if criteria is None else criteria)
    stop = stop or (own.stop if own else "budget")
    if stop == "converged" and not parsed:
        raise ConfigError("stop: 'converged' needs a criterion; add one, e.g. --criteria eval:475x3.")
    if max_minutes is not None and not max_minutes > 0:
        raise ConfigError(f"max_minutes: {max_minutes} is not possible; use a positive number, or leave it out.")
    max_minutes = own.max_minutes if own and max_minutes is None else max_minutes
    save_episodes = bool(own and own.save_episodes) if save_episodes is None else save_episodes
    checkpoint = checkpoint or (own.checkpoint if own else "last")
    source = _weights_run(weights, own)
    settings = runs.RunSettings(
        chosen.name,
        lane_seeds,
        chosen.config,
        chosen.hparams,
        tuple(criterion.name for criterion in parsed),
        None if source is None else str(source),
        "last" if source is None else checkpoint,
        stop,
        max_minutes,
        save_episodes,
    )
    if found is not None and own is not None:
        going_on.check(found[0], own, settings)
    # Before anything is written: these refuse what the environment or the number of lanes does not allow.
    driver = driver_for(settings.config)
    stack_hparams(settings.hparams, len(lane_seeds))
    learnt = None if source is None else _load_weights(source, checkpoint, driver, len(lane_seeds))
    if chosen.note:
        warn(chosen.note)
    run = _new_run(settings.name, out, root) if found is None else found[0]
    with Interrupt() as interrupt, _alone(run, resume):
        begun = found is not None and own is not None
        if run is not None:
            interrupt.remedy = _remedy(run) if begun else "nothing was begun: the same command begins it"
        return _run(
            settings,
            parsed,
            driver,
            learnt,
            run,
            interrupt,
            resume=resume,
            on_progress=on_progress,
            warn=warn,
            trackers=trackers,
        )


def _remedy(run: Path) -> str:
    return f"go on with: {going_on.command('train', run)}"


def _run(
    settings: runs.RunSettings,
    parsed: Sequence[convergence.Criterion],
    driver: Driver,
    learnt: Params | None,
    run: Path | None,
    interrupt: Interrupt,
    *,
    resume: bool,
    on_progress: Callable[[Progress], None] | None,
    warn: Callable[[str], None],
    trackers: Sequence[Callable[[History], None]],
) -> TrainResult:
    """Train with settings that are possible: `learnt` are the networks to start from, `parsed` the criteria."""
    lane_seeds, stop, max_minutes = settings.seeds, settings.stop, settings.max_minutes
    best = Best(len(lane_seeds))
    rhythm = driver.rhythm
    rows_before_acting = driver.rows_before_acting
    history = History(lane_seeds, rhythm.step, settings.config.total_episodes, rows_before_acting=rows_before_acting)
    bound = value_bound(settings.config, settings.hparams, len(lane_seeds))

    def report(phase: Phase, env_steps: int, games: tuple[int, int] = (0, 0)) -> None:
        if on_progress:
            after_chunk = history.seconds[-1] if history.seconds else 0.0
            seconds = pace.seconds() if phase in ("step", "evaluate") else after_chunk
            now = _progress(phase, settings.config, driver, history, parsed, bound, env_steps, seconds, pace.budget)
            on_progress(dataclasses.replace(now, games=games))

    pace = Pace(max_minutes)

    report("compile", 0)
    everyone = np.arange(len(lane_seeds))
    watch = Watch(
        on_step=lambda env_steps: report("step", env_steps),
        on_game=lambda env_steps, *games: report("evaluate", env_steps, games),
        stop=lambda: interrupt.requested or pace.left() <= 0,
        seconds_left=lambda: pace.left(),
    )
    population = driver.population(settings.hparams, len(lane_seeds), from_weights=learnt is not None, watch=watch)
    layout = population.layout
    hparams, active = layout.place(stack_hparams(settings.hparams, len(everyone))), layout.active(everyone)
    recorder = Recorder(run, settings, driver, population, save_episodes=settings.save_episodes) if run else None
    resumed = recorder.load(warn) if recorder and resume else None
    if recorder:  # only now: a run that is refused keeps its own, and a new one leaves its folder empty
        runs.save_settings(recorder.run, settings)  # of one that goes on the budget or the criteria may have changed
        recorder.provenance(warn)
        interrupt.remedy = _remedy(recorder.run)
    new_games = run if resumed is not None and driver.restarts_games else None  # where to note them
    interrupt.check()  # compiling takes long, and was not stopped
    pace = Pace(max_minutes)
    if resumed is None:
        lanes, warmup = population.start(lane_seeds, settings.hparams, learnt)
        env_steps = rhythm.warmup_steps
        history.add_warmup(layout.fetch(warmup, everyone))
        if resume:
            warn("there is no whole checkpoint to go on from: starting at the beginning")
    else:
        env_steps, saved, arrays = resumed
        history.restore(arrays)
        best.restore(arrays, population.lane_shapes.agent.params)
        if recorder:
            recorder.best(best)  # it may be older than the checkpoint
        lanes = layout.place(saved)
        del resumed, saved  # replays are large, and these are copies
        pace = Pace(max_minutes, history.seconds, float(history.unfinished.pop("seconds", 0.0)))
        if max_minutes is not None and pace.left() <= 0:
            warn(f"this run has had its {max_minutes:g} minutes: give more with --max-minutes")
        if history.unfinished:
            population.go_on(history.unfinished)
            env_steps -= _steps_of(history.unfinished["epsilon"], rhythm.step)
    allowance, saved_at = Allowance(_CHECKPOINT_SHARE), env_steps
    stopped = False
    interrupt.answer = pace.answer_within if driver.stops_within else pace.answer
    with contextlib.closing(population):
        while env_steps < rhythm.last_step:
            if stop == "converged" and history.env_steps and np.all(_settled(parsed, history)):
                break
            if np.all(history.at_rest()):
                break
            if interrupt.requested:
                stopped = True
                break
            if driver.stops_within and pace.left() <= population.evaluation_seconds:
                break
            if not driver.stops_within and history.env_steps and pace.over():
                if pace.seconds() < pace.budget:
                    warn(f"max_minutes: {pace.left():.0f} s are left, and a chunk takes {pace.chunk:.0f}: ending here")
                break
            if new_games is not None:
                into = _steps_of(population.unfinished["epsilon"], rhythm.step) if population.unfinished else 0
                warn(runs.note_fresh_games(new_games, env_steps + into))
                new_games = None
            pace.begin()
            lanes, metrics = population.chunk(jnp.int32(env_steps), lanes, hparams, active)
            if metrics is None:
                history.unfinished = {**population.unfinished, "seconds": np.asarray(pace.seconds())}
                env_steps += _steps_of(population.unfinished["epsilon"], rhythm.step)
                stopped = interrupt.requested
                if not stopped:
                    warn("max_minutes: over before an evaluation had ended; --resume with more goes on there")
                break
            host = layout.fetch(metrics, everyone)
            ended_at = env_steps + _steps_of(host.epsilon, rhythm.step)
            history.add(env_steps, ended_at, pace.seconds(), host)
            history.unfinished = {}
            pace.end()
            env_steps = ended_at
            best.update(
                env_steps,
                history.readings["eval_return"][-1],
                functools.partial(layout.fetch, population.networks(lanes)),
            )
            for tracker in trackers:
                tracker(history)
            if recorder:
                recorder.chunk(history)
                if allowance.left():
                    with allowance.spend():
                        recorder.checkpoint(env_steps, lanes, history, best)
                    saved_at = env_steps
                    pace.saved()
            report("train", env_steps)
        if recorder and saved_at != env_steps:
            recorder.checkpoint(env_steps, lanes, history, best)
    interrupt.answer = None  # all is saved
    params = layout.fetch(population.networks(lanes), everyone)
    summary = _summary(settings, parsed, history, best, bound, population, complete=not stopped)
    if recorder:
        recorder.finish(summary, history, params, warn)
    return TrainResult(
        summary=summary,
        history=history,
        converged=_converged(parsed, history),
        params=params,
        best_params=best.params,
        settings=settings,
        run=run,
        interrupted=stopped,
    )


def _steps_of(epsilon: np.ndarray, step: int) -> int:
    """Environment steps of a chunk that noted exploration `[L, T]` at each of its iterations."""
    return int(epsilon.shape[1]) * step


def _seeds(seeds: int | Sequence[int] | None, first: int | None, default: int | tuple[int, ...]) -> tuple[int, ...]:
    """The seeds that are asked for, counted up from `first` where they are a number; `default` where nothing is."""
    if isinstance(default, tuple) and (first is not None or isinstance(seeds, int)):
        first, default = default[0] if first is None else first, len(default)
    seeds, first = default if seeds is None else seeds, first or 0
    return seeds_from(seeds, first)


def _new_run(name: str, out: str | Path | None, root: str | Path | None) -> Path | None:
    """The folder to write to; None if nothing is to be written."""
    if out is None and root is None:
        return None
    return runs.claim_run_dir(Path(out)) if out is not None else runs.new_run_dir(Path(root or ""), name)


@contextlib.contextmanager
def _alone(run: Path | None, resume: bool) -> Iterator[None]:
    """Be the only process that writes to this run."""
    if run is None:
        yield
        return
    with contextlib.ExitStack() as held:
        with files.clear_errors(run):
            held.enter_context(files.lock(run, "out"))
            files.clear_unfinished(run)
        if not resume:
            runs.claim_run_dir(run)  # another may have come and gone since
        yield


def _weights_run(path: str | Path | None, own: runs.RunSettings | None) -> Path | None:
    """The run to take networks from: at `path` or the newest below it, or, going on, the one taken then."""
    taken = None if own is None or own.weights is None else Path(own.weights)
    if path is None or (taken is not None and taken.is_relative_to(path)):
        return taken
    return runs.find_run(path, "weights")


def _load_weights(run: Path, which: Literal["last", "best"], driver: Driver, lanes: int) -> Params:
    """Networks of a run, leaves `[lanes, ...]`, on the host."""
    agents = play.load_agents(run, which)
    settings, params = agents.settings, agents.params
    if len(settings.seeds) not in (1, lanes):
        raise ConfigError(f"weights: {run} has {len(settings.seeds)} agents for {lanes} seeds; use as many, or one.")
    wanted = jax.eval_shape(lambda: driver.agent.init(jax.random.key(0), HParams()).params)

    def shapes(tree: Any, skip: int) -> Any:
        return jax.tree.structure(tree), [x.shape[skip:] for x in jax.tree.leaves(tree)]

    if shapes(params, 1) != shapes(wanted, 0):
        raise ConfigError(
            f"weights: the networks in {run} have another shape; use its env, torso, hidden and dueling "
            f"({settings.config.env}, hidden {' '.join(map(str, settings.config.hidden))})."
        )
    return jax.tree.map(lambda x: np.broadcast_to(x, (lanes, *x.shape[1:])), params)


def _converged(criteria: Sequence[convergence.Criterion], history: History) -> np.ndarray:
    """`[L]`, bool, by the first criterion."""
    if not criteria:
        return np.zeros(len(history.seeds), bool)
    return np.array([convergence.time_to(criteria[0], curve) is not None for curve in history.curves()])


def _lane_steps(history: History) -> np.ndarray:
    """`[L]`, environment steps each seed has taken: those of the run, or up to the end of its last episode."""
    steps = np.full(len(history.seeds), history.env_steps[-1] if history.env_steps else 0)
    resting = history.at_rest()
    if resting.any():
        curves = history.curves()
        steps[resting] = [curves[lane].episode_env_steps[-1] for lane in np.flatnonzero(resting)]
    return steps


def _settled(criteria: Sequence[convergence.Criterion], history: History) -> np.ndarray:
    return _converged(criteria, history) | ~history.finite


def _progress(
    phase: Phase,
    config: Config,
    driver: Driver,
    history: History,
    criteria: Sequence[convergence.Criterion],
    bound: np.ndarray,
    env_steps: int,
    seconds: float,
    budget_seconds: float,
) -> Progress:
    lanes = len(history.seeds)
    lane_steps = lanes * env_steps if phase == "step" else _lane_steps(history).sum()

    def last(name: str) -> np.ndarray:
        return history.readings[name][-1] if history.env_steps else np.full(lanes, np.nan)

    total_steps = driver.rhythm.last_step
    share_done = max(env_steps / total_steps, min(1.0, seconds / budget_seconds))
    if config.total_episodes is not None and history.env_steps:
        share_done = max(share_done, min(1.0, last("episodes").min() / config.total_episodes))
    return Progress(
        phase=phase,
        env_steps=env_steps,
        total_steps=total_steps,
        share_done=share_done,
        seconds=seconds,
        lane_steps_per_second=lane_steps / seconds if seconds else 0.0,
        train_return=last("train_return"),
        eval_return=last("eval_return"),
        converged=_converged(criteria, history),
        judged=bool(criteria),
        diverged=~history.finite,
        above_bound=history.above_bound(bound),
    )


def _summary(
    settings: runs.RunSettings,
    criteria: Sequence[convergence.Criterion],
    history: History,
    best: Best,
    bound: np.ndarray,
    population: Population,
    *,
    complete: bool,
) -> dict[str, Any]:
    """summary.json: lists have one entry per seed, null where something was not reached."""
    curves = history.curves()
    seconds = history.seconds[-1] if history.seconds else 0.0
    lanes = len(settings.seeds)
    lane_steps = _lane_steps(history)
    updates = history.reading("updates")[:, -1:].sum()
    final = history.reading("eval_return")[:, -1] if history.env_steps else np.full(lanes, np.nan)
    low, high = convergence.mean_interval(final)
    worst = int(np.argmin(np.where(np.isnan(final), -np.inf, final)))

    def seeds_where(flags: np.ndarray) -> list[int]:
        return [seed for seed, flag in zip(settings.seeds, flags, strict=True) if flag]

    fell_back = np.zeros(lanes, bool)
    if criteria and criteria[0].kind in ("eval", "train"):
        fell_back = _converged(criteria, history) & ~criteria[0].holds(final)
    return {
        "env": settings.config.env,
        "preset": settings.name,
        "seeds": list(settings.seeds),
        "complete": complete,
        "env_steps": int(lane_steps.max()),
        "updates": history.reading("updates")[:, -1].tolist() if history.env_steps else [0] * lanes,
        "criteria": [convergence.summarize(criterion, curves) for criterion in criteria],
        "final_eval_return": final.tolist(),
        "final_eval": {
            "mean": float(np.mean(final)),
            "interval95": [None if np.isnan(end) else float(end) for end in (low, high)],
            "iqm": float(convergence.interquartile_mean(final)),
            "worst": float(final[worst]),
            "worst_seed": settings.seeds[worst],
        },
        "best_eval_return": best.eval_return.tolist(),
        "best_env_steps": best.env_steps.tolist(),  # when each was made
        "final_train_return": history.reading("train_return")[:, -1].tolist() if history.env_steps else [],
        # Of the seeds that met the first criterion, those whose last evaluation is on the wrong side of its threshold.
        "fell_back": seeds_where(fell_back),
        "diverged": seeds_where(~history.finite),
        "value_bound": [None if np.isnan(b) else float(b) for b in bound],
        "q_mean": _furthest(history.reading("q_mean")),  # of all chunks, the one furthest from zero
        "above_bound": seeds_where(history.above_bound(bound)),
        "throughput": {
            "env_steps_per_second": float(lane_steps.sum()) / seconds if seconds else None,
            "updates_per_second": float(updates) / seconds if seconds else None,
        },
        "seconds": {"import": import_seconds(), "compile": population.compile_seconds, "run": seconds},
        "peak_memory_bytes": devices.peak_memory_bytes(),
    }


def _furthest(values: np.ndarray) -> list[float | None]:
    """Of each row of `values` `[L, C]` the one furthest from zero; None if there is none."""
    found = (row[np.isfinite(row)] for row in values)
    return [float(row[np.argmax(np.abs(row))]) if len(row) else None for row in found]
