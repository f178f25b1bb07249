"""One wave: lanes of one program that start together, and leave as they converge, diverge, are pruned or run out.

After every chunk the host judges the lanes still at work, records those that leave, and goes on with the rest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import numpy as np

from dqn_jax.config import Config, ConfigError, HParams
from dqn_jax.convergence import Criterion, Curve, Moment, stability, time_to
from dqn_jax.drive import Allowance, Ears, Pace, Phase, Terms, Work, new_history, run_chunks
from dqn_jax.files import clear_errors
from dqn_jax.lanes.driver import Driver, Population, driver_for
from dqn_jax.lanes.history import READINGS, History
from dqn_jax.runs.checkpoint import Checkpoints, Saved
from dqn_jax.sweep.judge import LaneJudge, Rules
from dqn_jax.sweep.pruning import Rung
from dqn_jax.sweep.tables import CURVE_COLUMNS
from dqn_jax.types import Params

if TYPE_CHECKING:
    import pandas as pd


class WaveLane(NamedTuple):
    """One lane of a wave: a trial with one seed, and its hyperparameters."""

    trial: int
    seed: int
    hparams: HParams  # scalars


class Programs(NamedTuple):
    """The compiled programs of a compile group."""

    config: Config
    driver: Driver
    population: Population
    ears: Ears  # of the population


class WaveProgress(NamedTuple):
    """Where a wave is after a chunk, and what that took."""

    env_steps: int
    total_steps: int
    running: int
    lane_steps: int  # taken in the last chunk, over all lanes
    seconds: float  # the last chunk took, its bookkeeping included
    program_seconds: float  # of that, in the compiled programs (with the first chunk, the warm-up too)


class Clerk(Protocol):
    """Records what a wave finds, and hears where it is."""

    keeps_networks: bool  # whether `keep` is to be called

    def recorded(self) -> set[tuple[str, int, int]]:
        """(phase, trial, seed) of the lanes that are recorded already; they do not run again."""
        ...

    def record(self, rows: list[dict[str, Any]], curves: pd.DataFrame) -> bool:
        """Take rows and curves of lanes that leave; False if the wave is no longer ours."""
        ...

    def keep(self, lanes: Sequence[tuple[int, int]], env_steps: int, eval_returns: np.ndarray, params: Params) -> None:
        """Take the networks of lanes that leave, before they are recorded.

        Args:
          lanes: (trial, seed) of each.
          env_steps: that they have taken.
          eval_returns: `[n]`, of their last evaluations.
          params: networks, leaves `[n, ...]`, on the host.
        """
        ...

    def fresh_games(self, env_steps: int) -> str:
        """Note that games, which cannot be saved, begin anew here; gives the line to warn with."""
        ...

    def progress(self, progress: WaveProgress) -> None:
        """Hear where the wave is, after every chunk."""
        ...


def make_programs(
    config: Config, hparams: HParams, lanes: int, devices: Sequence[jax.Device] | None = None
) -> Programs:
    """Compile for up to `lanes` lanes; `hparams` says which hyperparameters there are."""
    driver, ears = driver_for(config), Ears()
    return Programs(config, driver, driver.population(hparams, lanes, devices=devices, watch=ears.watch), ears)


def run_wave(
    programs: Programs,
    lanes: Sequence[WaveLane],
    rules: Rules,
    *,
    phase: str,
    clerk: Clerk,
    folder: Path | None,
    allowance: Allowance,
    stopping: Callable[[], bool],
    warn: Callable[[str], None],
    raced: Mapping[Rung, Sequence[float]] | None = None,
) -> bool:
    """Run the lanes until all have left; a wave that was stopped before goes on from its last checkpoint.

    Args:
      programs: of their compile group, for at least so many lanes.
      lanes: who takes part.
      rules: when they leave.
      phase: "search" or "confirm".
      clerk: records what is found.
      folder: where it is kept while it is in flight (None: nowhere).
      allowance: time that checkpoints may take.
      stopping: whether somebody has asked to stop.
      warn: called with one line for anything to know about.
      raced: with pruning, the scores of trials of earlier waves at their rungs.

    Returns:
      Whether all lanes have left.
    """
    population = programs.population
    judge = LaneJudge(rules, [lane.trial for lane in lanes], raced)
    checkpoints = None
    if folder is not None:
        checkpoints = Checkpoints(folder, population, rows_apart=programs.driver.appends_rows, kept=1)
    keeper = _WaveKeeper(lanes, phase, judge, clerk, checkpoints)
    done = clerk.recorded()
    unrecorded = np.array([i for i, lane in enumerate(lanes) if (phase, lane.trial, lane.seed) not in done], int)
    if len(unrecorded) == 0:
        keeper.clear()
        return True
    if rules.prune is not None:
        unrecorded = np.arange(len(lanes))  # trials are compared: whoever left after the last checkpoint does so again
    history = new_history(programs.driver, [lane.seed for lane in lanes])
    hparams = _stack([lane.hparams for lane in lanes])
    work = Work(programs.driver, population, programs.ears, history, hparams)
    saved, warmup_seconds = keeper.load(warn), 0.0
    began, pace = time.perf_counter(), LanePace(population.layout.devices)
    if saved is None:
        work.start()
        warmup_seconds = time.perf_counter() - began
        pace.lane_seconds(len(lanes))
    else:
        pace.go_on(work.restore(saved), history.seconds)
        judge.restore(history, saved.arrays)
        del saved  # replays are large, and these are copies
    work.at_work = np.intersect1d(unrecorded, work.at_work)

    def report(when: Phase, env_steps: int, games: tuple[int, int]) -> None:
        nonlocal warmup_seconds
        if when != "train":
            return
        spent = pace.in_chunk() + warmup_seconds, pace.chunk + warmup_seconds
        clerk.progress(WaveProgress(env_steps, work.last_step, len(work.at_work), keeper.lane_steps, *spent))
        warmup_seconds = 0.0

    terms = Terms(
        judge=judge,
        keeper=keeper,
        pace=pace,
        allowance=allowance,
        stopping=stopping,
        report=report,
        warn=warn,
    )
    ending = run_chunks(work, terms)
    if ending == "over":
        keeper.clear()
    return ending == "over"


class LanePace(Pace):
    """The pace of a wave, whose lanes share the seconds of their devices: lanes of one program cost the same.

    On CPU they are seconds of this process, as the system counts them, whoever else is busy there.
    """

    def __init__(self, devices: Sequence[jax.Device]):
        super().__init__()
        on_cpu = devices[0].platform == "cpu"
        self._clock = time.process_time if on_cpu else lambda: len(devices) * time.perf_counter()
        self._device_began, self._spent = self._clock(), 0.0

    def go_on(self, unfinished: float, earlier: Sequence[float]) -> None:
        """Count on, from the seconds at which chunks had ended, or one was stopped within."""
        self._spent = max(unfinished, earlier[-1] if len(earlier) else 0.0)

    def begin(self) -> None:
        """Take note that a chunk begins."""
        super().begin()
        self._device_began = self._clock()

    def lane_seconds(self, at_work: int) -> float:
        """Of the devices that each lane has had, with its share of the chunk that has just ended."""
        self._spent += (self._clock() - self._device_began) / at_work
        return self._spent


class _WaveKeeper:
    """Records the lanes that leave, and keeps the others' checkpoint: a `drive.Keeper`."""

    def __init__(
        self,
        lanes: Sequence[WaveLane],
        phase: str,
        judge: LaneJudge,
        clerk: Clerk,
        checkpoints: Checkpoints | None,
    ):
        self.saves = checkpoints is not None
        self.fresh_games = clerk.fresh_games
        self.lane_steps = 0  # taken in the last chunk, over all lanes
        self._lanes, self._phase, self._judge, self._clerk = lanes, phase, judge, clerk
        self._checkpoints = checkpoints

    def chunk(self, work: Work, leaving: Mapping[int, str]) -> bool:
        history = work.history
        began = history.env_steps[-2] if len(history.env_steps) > 1 else work.driver.rhythm.warmup_steps
        self.lane_steps = len(work.at_work) * (work.env_steps - began)
        if not leaving:
            return True
        numbers = np.array(sorted(leaving))
        own = [self._lanes[i] for i in numbers]
        rows = [
            lane_row(self._judge.rules.criteria, self._lanes[i], self._phase, leaving[i], curve, history.final_eval[i])
            for i, curve in zip(numbers, history.curves(numbers), strict=True)
        ]
        if self._clerk.keeps_networks:
            names = [(lane.trial, lane.seed) for lane in own]
            last = history.final_eval[numbers].mean(axis=1)
            self._clerk.keep(names, work.env_steps, last, work.networks(numbers))
        return self._clerk.record(rows, curve_rows(own, self._phase, history, numbers))

    def save(self, work: Work) -> None:
        if self._checkpoints is None or len(work.at_work) == 0:
            return
        folder = self._checkpoints.folder
        with clear_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            arrays = {**work.history.arrays(), **self._judge.arrays()}
            self._checkpoints.save(work.env_steps, work.lanes, arrays, work.at_work)

    def load(self, warn: Callable[[str], None]) -> Saved | None:
        """The last state, or None without a whole one: the wave starts again, and ends with the same numbers."""
        if self._checkpoints is None:
            return None
        again = "; its lanes start again, with the same numbers"
        try:
            saved = self._checkpoints.load(warn, again)
        except ConfigError:  # of another version
            warn(f"checkpoint {self._checkpoints.folder} does not fit this version of dqn_jax{again}")
            saved = None
        if saved is None:
            self._checkpoints.clear()
        return saved

    def clear(self) -> None:
        """The wave has ended: nothing to go on from."""
        if self._checkpoints is not None:
            self._checkpoints.clear()


def _stack(hparams: Sequence[HParams]) -> HParams:
    stacked: list[Any] = [None if column[0] is None else np.array(column) for column in zip(*hparams, strict=True)]
    return HParams(*stacked)


def lane_row(
    criteria: Sequence[Criterion], lane: WaveLane, phase: str, status: str, curve: Curve, final_eval: np.ndarray
) -> dict[str, Any]:
    """A lane that has left, as in `results.LANE_COLUMNS`."""
    moments = [time_to(criterion, curve) for criterion in criteria]
    first: Moment | None = moments[0] if moments else None
    stays = stability(criteria[0], curve) if criteria else None
    reached = first if first is not None else Moment(*[np.nan] * 4)  # type: ignore[arg-type]
    return {
        "trial": lane.trial,
        "seed": lane.seed,
        "phase": phase,
        "status": status,
        "env_steps": int(curve.env_steps[-1]),
        "updates": int(curve.updates[-1]),
        "episodes": int(curve.episodes[-1]),
        "device_seconds": float(curve.seconds[-1]),
        "converged": first is not None,
        "converged_env_steps": float(reached.env_steps),
        "converged_updates": float(reached.updates),
        "converged_episodes": float(reached.episodes),
        "converged_seconds": float(reached.seconds),
        "stability": np.nan if stays is None else stays,
        "final_return": float(np.mean(final_eval)),
        "best_return": float(np.max(curve.eval_return)),
        "moments": json.dumps([None if m is None else list(m) for m in moments]),
    }


def curve_rows(lanes: Sequence[WaveLane], phase: str, history: History, numbers: np.ndarray) -> pd.DataFrame:
    """The evaluations of lanes that have left, as in `results.CURVE_COLUMNS`."""
    import pandas as pd

    chunks = history.chunks[numbers]
    taken = np.arange(len(history.env_steps))[None] < chunks[:, None]
    columns: dict[str, Any] = {
        "trial": np.repeat([lane.trial for lane in lanes], chunks),
        "seed": np.repeat([lane.seed for lane in lanes], chunks),
        "phase": np.full(chunks.sum(), phase),
        "env_steps": np.broadcast_to(history.env_steps, taken.shape)[taken],
        "seconds": np.broadcast_to(history.seconds, taken.shape)[taken],
        **{name: history.reading(name)[numbers][taken] for name in CURVE_COLUMNS if name in READINGS},
    }
    return pd.DataFrame({name: columns[name] for name in CURVE_COLUMNS}).astype(
        {name: kind for name, kind in CURVE_COLUMNS.items() if kind != "str"}
    )
