"""One wave: lanes of one program that start together, and leave as they converge, diverge, are pruned or run out.

After every chunk the host judges the lanes still at work, records those that leave, and goes on with the rest.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax.config import Config, HParams
from dqn_jax.convergence import Criterion, Curve, Moment, stability, time_to
from dqn_jax.lanes.driver import Driver, Population, driver_for
from dqn_jax.lanes.history import READINGS, History
from dqn_jax.lanes.population import stack_hparams
from dqn_jax.sweep.checkpoint import WaveCheckpoint
from dqn_jax.sweep.pruning import Prune, Rung, score
from dqn_jax.sweep.tables import CURVE_COLUMNS
from dqn_jax.types import Params

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Rules:
    """When lanes leave."""

    criteria: tuple[Criterion, ...]  # the first one decides
    stop: Literal["converged", "budget"] = "converged"  # whether lanes that have converged leave
    stability_steps: int = 0  # environment steps that they stay on, to see whether it lasts
    prune: Prune | None = None


class WaveLane(NamedTuple):
    """One trial with one seed."""

    trial: int
    seed: int
    hparams: HParams  # scalars


class Programs(NamedTuple):
    """The compiled programs of a compile group."""

    config: Config
    driver: Driver
    population: Population


class WaveProgress(NamedTuple):
    """Where a wave is."""

    env_steps: int
    total_steps: int
    running: int
    lane_steps: int  # taken in the last chunk, over all lanes
    seconds: float  # the last chunk took, its bookkeeping included
    program_seconds: float  # of that, in the compiled programs (with the first chunk, the warm-up too)


def make_programs(
    config: Config, hparams: HParams, lanes: int, devices: Sequence[jax.Device] | None = None
) -> Programs:
    """Compile for up to `lanes` lanes; `hparams` says which hyperparameters there are."""
    driver = driver_for(config)
    return Programs(config, driver, driver.population(hparams, lanes, devices=devices))


def run_wave(
    programs: Programs,
    lanes: Sequence[WaveLane],
    rules: Rules,
    *,
    phase: str,
    checkpoint: WaveCheckpoint | None,
    recorded: Callable[[], set[tuple[str, int, int]]],
    record: Callable[[list[dict[str, Any]], pd.DataFrame], bool],
    on_progress: Callable[[WaveProgress], bool],
    warn: Callable[[str], None],
    resumed: Callable[[int], None] = lambda env_steps: None,
    raced: Mapping[Rung, Sequence[float]] | None = None,
    keep: Callable[[Sequence[tuple[int, int]], int, np.ndarray, Params], None] | None = None,
) -> bool:
    """Run the lanes until all have left; a wave that was stopped before goes on from its last checkpoint.

    Args:
      programs: of their compile group, for at least so many lanes.
      lanes: who takes part.
      rules: when they leave.
      phase: "search" or "confirm".
      checkpoint: where it is kept while it is in flight (None: nowhere).
      recorded: (phase, trial, seed) of the lanes that are recorded already; they do not run again.
      record: takes rows and curves of lanes that leave; False if the wave is no longer ours.
      on_progress: called after every chunk; False asks to stop after it.
      warn: called with one line for anything to know about.
      resumed: called with the environment steps of the checkpoint that it goes on from, if it does.
      raced: with pruning, the scores of trials of earlier waves at their rungs.
      keep: takes the networks of lanes that leave, before they are recorded: (trial, seed) of each, environment steps,
        their last evaluations `[n]`, networks (leaves `[n, ...]`).

    Returns:
      Whether all lanes have left.
    """
    config, driver, population = programs
    layout, rhythm = population.layout, driver.rhythm
    seeds = [lane.seed for lane in lanes]
    history = History(seeds, rhythm.step, config.total_episodes, rows_before_acting=driver.rows_before_acting)
    stacked = stack_hparams(_stack([lane.hparams for lane in lanes]), len(lanes))
    hparams = layout.place(stacked)
    judge = _Judge(rules, lanes, raced)
    clock = _device_clock(layout.devices)
    done = recorded()
    alive = np.array([i for i, lane in enumerate(lanes) if (phase, lane.trial, lane.seed) not in done], int)
    if len(alive) == 0:
        if checkpoint is not None:
            checkpoint.clear()
        return True
    if rules.prune is not None:
        alive = np.arange(len(lanes))  # trials are compared: whoever left after the last checkpoint does so again
    saved = checkpoint.load(warn) if checkpoint is not None else None
    state: Any  # lanes as the population has them
    began, device_began, warmup_seconds = time.perf_counter(), clock(), 0.0
    if saved is None:
        everyone = np.arange(len(lanes))
        state, warmup = population.start([lane.seed for lane in lanes], HParams(*stacked))
        fetched = layout.fetch(warmup, everyone)
        warmup_seconds = time.perf_counter() - began
        history.add_warmup(fetched)
        env_steps = rhythm.warmup_steps
    else:
        env_steps, state = saved.env_steps, saved.lanes
        history.restore(saved.arrays)
        alive = np.intersect1d(alive, saved.alive)
        judge.restore(history, saved.arrays)
        resumed(env_steps)
    last_step = rhythm.last_step
    active = layout.active(alive)
    # What each lane took of the devices: lanes of one program cost the same.
    seconds = history.seconds[-1] if history.seconds else (clock() - device_began) / len(lanes)
    while len(alive) and env_steps < last_step:
        began, device_began = time.perf_counter(), clock()
        state, metrics = population.chunk(jnp.int32(env_steps), state, hparams, active)
        host = layout.fetch(metrics, alive)
        program_seconds = time.perf_counter() - began + warmup_seconds
        seconds += (clock() - device_began) / len(alive)
        history.add(env_steps, env_steps + rhythm.steps_per_chunk, seconds, host, alive)
        env_steps += rhythm.steps_per_chunk
        worked = len(alive)
        leaving = judge.leaving(history, alive, last=env_steps >= last_step)
        if leaving:
            numbers = np.array(sorted(leaving))
            curves = history.curves(numbers)
            rows = [
                lane_row(rules.criteria, lanes[i], phase, leaving[i], curve, history.final_eval[i])
                for i, curve in zip(numbers, curves, strict=True)
            ]
            if keep is not None:
                names = [(lanes[i].trial, lanes[i].seed) for i in numbers]
                networks = layout.fetch(population.networks(state), numbers)
                keep(names, env_steps, history.final_eval[numbers].mean(axis=1), networks)
            if not record(rows, curve_rows([lanes[i] for i in numbers], phase, history, numbers)):
                return False
            alive = np.setdiff1d(alive, numbers)
            active = layout.active(alive)
        if checkpoint is not None and len(alive) and checkpoint.due():
            checkpoint.save(env_steps, state, alive, {**history.arrays(), **judge.arrays()})
        go_on = on_progress(
            WaveProgress(
                env_steps,
                last_step,
                len(alive),
                worked * rhythm.steps_per_chunk,
                time.perf_counter() - began + warmup_seconds,
                program_seconds,
            )
        )
        warmup_seconds = 0.0
        if not go_on and len(alive):
            if checkpoint is not None and checkpoint.saved_at != env_steps:
                checkpoint.save(env_steps, state, alive, {**history.arrays(), **judge.arrays()})
            return False
    if checkpoint is not None:
        checkpoint.clear()
    return True


def _device_clock(devices: Sequence[jax.Device]) -> Callable[[], float]:
    """Seconds that all devices together have worked: on CPU as the system counts them, whoever else is busy there."""
    if devices[0].platform == "cpu":
        return time.process_time
    return lambda: len(devices) * time.perf_counter()


def _stack(hparams: Sequence[HParams]) -> HParams:
    stacked: list[Any] = [None if column[0] is None else np.array(column) for column in zip(*hparams, strict=True)]
    return HParams(*stacked)


class _Judge:
    """Decides after every chunk who leaves, and why."""

    def __init__(
        self,
        rules: Rules,
        lanes: Sequence[WaveLane],
        raced: Mapping[Rung, Sequence[float]] | None = None,
    ):
        self.rules = rules
        self._raced = raced or {}
        self.lanes = lanes
        self.trials = np.array([lane.trial for lane in lanes])
        self._converged_at = np.full(len(lanes), -1)  # environment steps
        self._rungs: dict[int, list[int]] = {}  # still ahead of each trial that has not been pruned
        if rules.prune is not None:
            self._rungs = {int(trial): rules.prune.rungs(int(trial)) for trial in np.unique(self.trials)}
        self._bracket = {trial: len(rungs) for trial, rungs in self._rungs.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """What cannot be told from the history, for a checkpoint."""
        return {"racing": np.array(list(self._rungs), int)}

    def restore(self, history: History, arrays: dict[str, np.ndarray]) -> None:
        """Know what was known after the chunks in `history`."""
        for lane, curve in enumerate(history.curves()):
            moment = time_to(self.rules.criteria[0], curve) if self.rules.criteria else None
            self._converged_at[lane] = -1 if moment is None else self._chunk_end(history, moment.env_steps)
        if self._rungs:
            racing = (int(trial) for trial in arrays["racing"])
            self._rungs = {t: [rung for rung in self._rungs[t] if rung > history.env_steps[-1]] for t in racing}

    @staticmethod
    def _chunk_end(history: History, env_steps: int) -> int:
        return int(history.env_steps[np.searchsorted(history.env_steps, env_steps)])

    def leaving(self, history: History, alive: np.ndarray, *, last: bool) -> dict[int, str]:
        """The lanes among `alive` that leave after this chunk, with their status."""
        now = history.env_steps[-1]
        self._note_converged(history, alive, now)
        leaving: dict[int, str] = {}
        resting = history.at_rest()
        for i in alive:
            converged = self._converged_at[i] >= 0
            stayed = converged and now >= self._converged_at[i] + self.rules.stability_steps
            if converged and ((stayed and self.rules.stop == "converged") or last or resting[i]):
                leaving[int(i)] = "converged"
            elif not history.finite[i]:
                leaving[int(i)] = "diverged"
            elif last or resting[i]:
                leaving[int(i)] = "budget"
        for i in self._hopeless(history, alive, now):
            leaving.setdefault(i, "pruned")
        return leaving

    def _note_converged(self, history: History, alive: np.ndarray, now: int) -> None:
        if not self.rules.criteria:
            return
        criterion = self.rules.criteria[0]
        waiting = alive[self._converged_at[alive] < 0]
        if criterion.kind in ("train", "epsilon"):
            curves = history.curves(waiting)
            met = np.array([time_to(criterion, curve) is not None for curve in curves], bool)
        else:
            readings = history.readings["eval_return" if criterion.kind == "eval" else criterion.kind]
            recent = np.array(readings[-criterion.window :])[:, waiting]
            met = np.all(criterion.holds(recent), axis=0) & (len(recent) == criterion.window)
        self._converged_at[waiting[met]] = now

    def _hopeless(self, history: History, alive: np.ndarray, now: int) -> list[int]:
        """Lanes of the trials that a rung reached in this chunk weeds out."""
        due = [trial for trial, rungs in self._rungs.items() if rungs and rungs[0] <= now]
        prune = self.rules.prune
        if not due or prune is None:
            return []
        reached: dict[Rung, list[int]] = {}
        for trial in due:
            passed = [rung for rung in self._rungs[trial] if rung <= now]
            reached.setdefault((self._bracket[trial], passed[-1]), []).append(trial)
            self._rungs[trial] = self._rungs[trial][len(passed) :]
        pruned: list[int] = []
        for rung, trials in reached.items():
            scores = {trial: self._score(history, trial) for trial in trials}
            staying = prune.go_on(scores, self._raced.get(rung, ()))
            for trial in trials:
                if trial in staying or np.isinf(scores[trial]):
                    continue  # who has converged has nothing left to be weeded out
                self._rungs.pop(trial)
                pruned += [int(i) for i in alive if self.trials[i] == trial]
        return pruned

    def _score(self, history: History, trial: int) -> float:
        own = np.flatnonzero(self.trials == trial)
        returns = history.final_eval[own].mean(axis=1)
        return score(returns.astype(np.float64), self._converged_at[own] >= 0, history.finite[own])


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
