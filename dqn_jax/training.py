"""Train a population on the device, chunk by chunk; the host reads, judges, saves and goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dqn_jax import convergence, devices, files, runs
from dqn_jax.config import ConfigError, seeds_from, validate
from dqn_jax.drive import Allowance, Ears, Pace, Phase, Terms, Work, new_history, run_chunks
from dqn_jax.envs.bounds import value_bound
from dqn_jax.interrupt import Interrupt
from dqn_jax.lanes import memory
from dqn_jax.lanes.driver import Driver, driver_for
from dqn_jax.lanes.history import History
from dqn_jax.lanes.lane import stack_hparams
from dqn_jax.presets import Preset, with_overrides
from dqn_jax.runs import going_on
from dqn_jax.runs.best import Best
from dqn_jax.runs.recorder import Recorder
from dqn_jax.runs.summary import converged, lane_steps, summarize
from dqn_jax.runs.weights import load_weights, weights_run
from dqn_jax.types import Params

if TYPE_CHECKING:
    import pandas as pd

_CHECKPOINT_SHARE = 0.05  # of the run's time that checkpoints may take


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
    """What a run ended with: tables, networks, and whether it is complete."""

    summary: dict[str, Any]  # as in summary.json
    history: History
    converged: np.ndarray  # [L], bool, by the first criterion
    params: Params  # networks that are played, leaves [L, ...], on the host
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
    source = weights_run(weights, own)
    settings = runs.RunSettings(
        chosen.name,
        lane_seeds,
        chosen.config,
        chosen.hparams,
        tuple(criterion.name for criterion in parsed),
        weights=None if source is None else str(source),
        checkpoint="last" if source is None else checkpoint,
        stop=stop,
        max_minutes=max_minutes,
        save_episodes=save_episodes,
    )
    if found is not None and own is not None:
        going_on.check(found[0], own, settings)
    # Before anything is written: these refuse what the environment or the number of lanes does not allow.
    driver = driver_for(settings.config)
    stack_hparams(settings.hparams, len(lane_seeds))
    learnt = None if source is None else load_weights(source, checkpoint, driver, len(lane_seeds))
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
    everyone, max_minutes = np.arange(len(settings.seeds)), settings.max_minutes
    history = new_history(driver, settings.seeds)
    bound = value_bound(settings.config, settings.hparams, len(everyone))
    judge, best = _RunJudge(parsed, settings.stop), Best(len(everyone))
    told = _Told(on_progress, driver, history, parsed, bound, Pace(max_minutes))
    told("compile", 0, (0, 0))
    ears = Ears()
    population = driver.population(settings.hparams, len(everyone), from_weights=learnt is not None, watch=ears.watch)
    work = Work(driver, population, ears, history, settings.hparams)
    recorder = Recorder(run, settings, driver, population, save_episodes=settings.save_episodes) if run else None
    saved = recorder.load(warn) if recorder and resume else None
    if recorder:  # only now: a run that is refused keeps its own, and a new one leaves its folder empty
        runs.save_settings(recorder.run, settings)  # of one that goes on the budget or the criteria may have changed
        recorder.provenance(warn)
        interrupt.remedy = _remedy(recorder.run)
    interrupt.check()  # compiling takes long, and was not stopped
    keeper = _RunKeeper(best, recorder, trackers)
    pace = Pace(max_minutes)
    if saved is not None:
        unfinished = work.restore(saved)
        best.restore(saved.arrays, population.lane_shapes.agent.params)
        if recorder:
            recorder.best(best)  # it may be older than the checkpoint
        del saved  # replays are large, and these are copies
        pace = Pace(max_minutes, history.seconds, unfinished)
        if max_minutes is not None and pace.left() <= 0:
            warn(f"this run has had its {max_minutes:g} minutes: give more with --max-minutes")
    told.pace = pace
    terms = Terms(
        judge=judge,
        keeper=keeper,
        pace=pace,
        allowance=Allowance(_CHECKPOINT_SHARE),
        stopping=lambda: interrupt.requested,
        report=told,
        warn=warn,
    )
    with contextlib.closing(population):
        if not work.resumed:
            with ears.lent(terms):
                work.start(learnt)
            if resume:
                warn("there is no whole checkpoint to go on from: starting at the beginning")
        if judge.over(history):
            work.at_work = everyone[:0]
        interrupt.answer = pace.answer_within if driver.stops_within else pace.answer
        ending = run_chunks(work, terms)
    interrupt.answer = None  # all is saved
    if ending == "minutes":
        history.last_step = None  # the budget was of minutes, and is spent
    params = work.networks(everyone)
    summary = summarize(
        settings,
        parsed,
        history,
        best,
        bound=bound,
        compile_seconds=population.compile_seconds,
        complete=ending != "stopped",
    )
    if recorder:
        recorder.finish(summary, history, params, warn)
    return TrainResult(
        summary=summary,
        history=history,
        converged=converged(parsed, history),
        params=params,
        best_params=best.params,
        settings=settings,
        run=run,
        interrupted=ending == "stopped",
    )


class _RunJudge:
    """Ends a run for all of its lanes at once, when none has anything left to do: a `drive.Judge`."""

    def __init__(self, criteria: Sequence[convergence.Criterion], stop: Literal["budget", "converged"]):
        self._criteria, self._stop = criteria, stop

    def over(self, history: History) -> bool:
        """Whether every lane rests, or has converged or diverged where that is the end."""
        if np.all(history.at_rest()):
            return True
        if self._stop != "converged" or not history.env_steps:
            return False
        return bool(np.all(converged(self._criteria, history) | ~history.finite))

    def leaving(self, history: History, at_work: np.ndarray, *, last: bool) -> dict[int, str]:
        """All lanes at once, where nothing is left for them to do, and else none."""
        return dict.fromkeys(at_work.tolist(), "over") if self.over(history) else {}


class _RunKeeper:
    """Keeps each seed's best networks, and the files of a run that has a folder: a `drive.Keeper`."""

    def __init__(self, best: Best, recorder: Recorder | None, trackers: Sequence[Callable[[History], None]]):
        self.saves = recorder is not None
        self._best, self._recorder, self._trackers = best, recorder, trackers

    def chunk(self, work: Work, leaving: Mapping[int, str]) -> bool:
        """Take in a chunk that has ended."""
        self._best.update(work.env_steps, work.history.readings["eval_return"][-1], work.networks)
        for tracker in self._trackers:
            tracker(work.history)
        if self._recorder:
            self._recorder.chunk(work.history)
        return True

    def save(self, work: Work) -> None:
        """Write a checkpoint of all lanes, and the best networks."""
        if self._recorder:
            self._recorder.checkpoint(work.env_steps, work.lanes, work.history, self._best)

    def fresh_games(self, env_steps: int) -> str:
        """Note in the provenance that games begin anew here; gives the line to warn with."""
        assert self._recorder is not None  # where the checkpoint was
        return runs.note_fresh_games(self._recorder.run, env_steps)


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


class _Told:
    """Tells a display where a run is."""

    def __init__(
        self,
        on_progress: Callable[[Progress], None] | None,
        driver: Driver,
        history: History,
        criteria: Sequence[convergence.Criterion],
        bound: np.ndarray,
        pace: Pace,
    ):
        self.pace = pace
        self._on_progress, self._driver, self._history = on_progress, driver, history
        self._criteria, self._bound = criteria, bound

    def __call__(self, phase: Phase, env_steps: int, games: tuple[int, int]) -> None:
        if self._on_progress is None:
            return
        history, lanes = self._history, len(self._history.seeds)
        after_chunk = history.seconds[-1] if history.seconds else 0.0
        seconds = self.pace.seconds() if phase in ("step", "evaluate") else after_chunk
        steps = lanes * env_steps if phase == "step" else lane_steps(history).sum()

        def last(name: str) -> np.ndarray:
            return history.readings[name][-1] if history.env_steps else np.full(lanes, np.nan)

        total_steps, total_episodes = self._driver.rhythm.last_step, self._driver.config.total_episodes
        share_done = max(env_steps / total_steps, min(1.0, seconds / self.pace.budget))
        if total_episodes is not None and history.env_steps:
            share_done = max(share_done, min(1.0, last("episodes").min() / total_episodes))
        self._on_progress(
            Progress(
                phase=phase,
                env_steps=env_steps,
                total_steps=total_steps,
                share_done=share_done,
                seconds=seconds,
                lane_steps_per_second=steps / seconds if seconds else 0.0,
                train_return=last("train_return"),
                eval_return=last("eval_return"),
                converged=converged(self._criteria, history),
                judged=bool(self._criteria),
                diverged=~history.finite,
                games=games,
                above_bound=history.above_bound(self._bound),
            )
        )
