"""The one loop over chunks of runs and waves, and who has a say in it.

    while lanes are at work:  may another chunk begin?  chunk -> history -> judge -> keeper -> display

The device owns what is within a chunk, the host what is between two: it reads the metrics once, judges who leaves,
keeps what is worth keeping, and goes on with the rest. Chunks of pools, which can be long, can be stopped within too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax.config import HParams
from dqn_jax.lanes.driver import Driver, Population
from dqn_jax.lanes.history import History
from dqn_jax.lanes.lane import Watch, stack_hparams
from dqn_jax.runs.checkpoint import Saved
from dqn_jax.types import Params, PyTree

Phase = Literal["compile", "step", "evaluate", "train"]
"""When a display hears: before compilation, within a chunk's training or its evaluation, after a chunk."""

Ending = Literal["over", "minutes", "stopped", "lost"]
"""Why the loop ended: nobody is at work any more, its minutes are over, somebody asked, it is no longer ours."""


class Judge(Protocol):
    """Decides who leaves: who has converged, diverged, is pruned or rests."""

    def leaving(self, history: History, at_work: np.ndarray, *, last: bool) -> Mapping[int, str]:
        """The lanes among `at_work` `[n]` that leave after the newest chunk, and why; `last` is that of the budget."""
        ...


class Keeper(Protocol):
    """Keeps what a chunk brings: records, networks, checkpoints."""

    saves: bool  # whether there is a place for checkpoints

    def chunk(self, work: Work, leaving: Mapping[int, str]) -> bool:
        """Take in a chunk that has ended, after which lanes leave; False if this work is no longer ours."""
        ...

    def save(self, work: Work) -> None:
        """Write all that going on needs; where nobody is at work any more, nothing is needed."""
        ...

    def fresh_games(self, env_steps: int) -> str:
        """Note that games, which cannot be saved, begin anew here; gives the line to warn with."""
        ...


class Pace:
    """The clock of one run, which stands still while it does not run: how long chunks take, what a stop waits for, and
    what still fits into the minutes that the run may take.
    """

    def __init__(self, max_minutes: float | None = None, earlier: Sequence[float] = (), unfinished: float = 0.0):
        """A run that goes on counts on: `earlier` are the seconds at which its chunks ended, and `unfinished` at which
        one was stopped within.
        """
        so_far = max(earlier[-1] if len(earlier) else 0.0, unfinished)
        self.budget = np.inf if max_minutes is None else 60 * max_minutes  # seconds
        self._began = time.perf_counter() - so_far
        self._chunk_began = self._saved = self._began + so_far
        self.chunk = earlier[-1] - earlier[-2] if len(earlier) > 1 else np.nan  # seconds that the last one took

    def seconds(self) -> float:
        """Seconds that it has run so far, compilation apart."""
        return time.perf_counter() - self._began

    def lane_seconds(self, at_work: int) -> float:
        """What a lane took of them, of so many at work in the chunk that has just ended: all run side by side."""
        return self.seconds()

    def left(self) -> float:
        """Seconds that are left of its minutes; negative once they are over."""
        return self.budget - self.seconds()

    def begin(self) -> None:
        """Take note that a chunk begins."""
        self._chunk_began = time.perf_counter()

    def in_chunk(self) -> float:
        """Seconds since the last one began."""
        return time.perf_counter() - self._chunk_began

    def end(self) -> None:
        """Take note that the chunk has ended, its metrics read."""
        self.chunk = self.in_chunk()

    def saved(self) -> None:
        """Take note that all so far is on disk."""
        self._saved = time.perf_counter()

    def over(self) -> bool:
        """Whether the time is over, or will be before another chunk like the last one has ended."""
        return self.left() <= 0 or np.nan_to_num(self.chunk) > self.left()

    def answer_within(self) -> str:
        """To somebody who asks to stop where a chunk can be stopped within."""
        lost = time.perf_counter() - self._saved
        return f"stopping here, once all is saved; Ctrl-C again stops now and loses the last {lost:.0f} s"

    def answer(self) -> str:
        """To somebody who asks to stop within a chunk."""
        now = time.perf_counter()
        left = self.chunk - (now - self._chunk_began)
        about = "" if np.isnan(left) else f" (about {max(left, 1):.0f} s)"
        return f"stopping after this chunk{about}; Ctrl-C again stops now and loses the last {now - self._saved:.0f} s"


class Allowance:
    """Time that checkpoints may take: a small share of all that passes.

    With a share of 1 %, chunks that take longer than 100 checkpoints are all saved, and a kill loses the one in flight;
    of shorter ones not every one is, and it loses what 100 checkpoints take, at most.
    """

    def __init__(self, share: float):
        self._share = share
        self._began = time.perf_counter()
        self._spent = self._last = 0.0

    def left(self) -> bool:
        """Whether there is time for another one like the last; for the first there always is."""
        return self._spent + self._last <= self._share * (time.perf_counter() - self._began)

    @contextlib.contextmanager
    def spend(self) -> Iterator[None]:
        """Count what the block takes, in which a checkpoint is written."""
        began = time.perf_counter()
        yield
        self._last = time.perf_counter() - began
        self._spent += self._last


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms:
    """Who has a say in a run or a wave: who leaves, when it stops, what is kept, and who hears of it."""

    judge: Judge
    keeper: Keeper
    pace: Pace
    allowance: Allowance
    stopping: Callable[[], bool]  # whether somebody has asked to stop
    report: Callable[[Phase, int, tuple[int, int]], None]  # with environment steps, and games of evaluation: ended, all
    warn: Callable[[str], None]


class Ears:
    """What a population tells and asks while a chunk goes on, for whoever drives it at the time.

    Programs are compiled before it is known on what terms they run, and may run on several, one after another.
    """

    def __init__(self) -> None:
        self._terms: Terms | None = None
        self.watch = Watch(
            on_step=lambda env_steps: self._tell("step", env_steps, (0, 0)),
            on_game=lambda env_steps, ended, games: self._tell("evaluate", env_steps, (ended, games)),
            stop=lambda: self._terms is not None and (self._terms.stopping() or self._terms.pace.left() <= 0),
            seconds_left=lambda: np.inf if self._terms is None else self._terms.pace.left(),
        )

    def _tell(self, phase: Phase, env_steps: int, games: tuple[int, int]) -> None:
        if self._terms is not None:
            self._terms.report(phase, env_steps, games)

    @contextlib.contextmanager
    def lent(self, terms: Terms) -> Iterator[None]:
        """Whoever has these terms hears, and is asked."""
        self._terms = terms
        try:
            yield
        finally:
            self._terms = None


def new_history(driver: Driver, seeds: Sequence[int]) -> History:
    """An empty history of lanes of `seeds` `[L]`."""
    before_acting, rhythm = driver.rows_before_acting, driver.rhythm
    return History(
        seeds,
        rhythm.step,
        driver.config.total_episodes,
        rows_before_acting=before_acting,
        last_step=rhythm.last_step,
    )


class Work:
    """A population at work: what it is made of, and where it has come to.

    Attributes:
      history: what it has seen so far.
      hparams: of its lanes, as the population has them.
      lanes: their state, as the population has it; None before `start` or `restore`.
      at_work: `[n]`, the lanes that have not left.
      env_steps: that each of those has taken.
      resumed: whether it goes on from a checkpoint.
    """

    def __init__(self, driver: Driver, population: Population, ears: Ears, history: History, hparams: HParams):
        """Lanes of the seeds `[L]` of an empty `history`, with `hparams` (one value, or leaves `[L]`); `start` or
        `restore` begin them. `ears` are the population's.
        """
        self.driver, self.population, self.ears, self.history = driver, population, ears, history
        self._hparams = stack_hparams(hparams, len(history.seeds))
        self.hparams = population.layout.place(self._hparams)
        self.at_work = np.arange(len(history.seeds))
        self.lanes: PyTree = None
        self.env_steps = 0
        self.resumed = False

    @property
    def last_step(self) -> int:
        """Environment steps of the whole budget."""
        return self.driver.rhythm.last_step

    def start(self, weights: Params | None = None) -> None:
        """Begin with fresh lanes and their warm-up, from the networks `weights` (leaves `[L, ...]`) if given."""
        self.lanes, warmup = self.population.start(self.history.seeds.tolist(), self._hparams, weights)
        self.history.add_warmup(self.population.layout.fetch(warmup, self.at_work))
        self.env_steps = self.driver.rhythm.warmup_steps

    def restore(self, saved: Saved) -> float:
        """Go on from a checkpoint; gives the seconds at which a chunk of it was stopped within (0 if none was)."""
        self.resumed = True
        self.history.restore(saved.arrays)
        self.at_work = saved.at_work
        self.lanes = self.population.layout.place(spread(saved.lanes, saved.at_work, len(self.history.seeds)))
        unfinished = self.history.unfinished
        seconds = float(unfinished.pop("seconds", 0.0))
        self.env_steps = saved.env_steps
        if unfinished:
            self.population.go_on(unfinished)
            self.env_steps -= self.steps_of(unfinished["epsilon"])
        return seconds

    def steps_of(self, epsilon: np.ndarray) -> int:
        """Environment steps of a chunk that noted exploration `[L, T]` at each of its iterations."""
        return int(epsilon.shape[1]) * self.driver.rhythm.step

    def networks(self, lanes: np.ndarray) -> Params:
        """Networks of the lanes that are played `[n]`, on the host: leaves `[n, ...]`."""
        networks: Params = self.population.layout.fetch(self.population.networks(self.lanes), lanes)
        return networks


def run_chunks(work: Work, terms: Terms) -> Ending:
    """Run chunk after chunk from where `work` is, until nobody is at work or somebody ends it; all is saved then."""
    population, history, pace, keeper = work.population, work.history, terms.pace, terms.keeper
    layout = population.layout
    active, saved_at, games_noted = layout.active(work.at_work), work.env_steps, not work.resumed
    with work.ears.lent(terms):
        while (ending := _ended(work, terms)) is None:
            if work.driver.restarts_games and not games_noted:
                into = work.steps_of(history.unfinished["epsilon"]) if history.unfinished else 0
                terms.warn(keeper.fresh_games(work.env_steps + into))
                games_noted = True
            pace.begin()
            work.lanes, metrics = population.chunk(jnp.int32(work.env_steps), work.lanes, work.hparams, active)
            if metrics is None:
                seconds = np.asarray(pace.lane_seconds(len(work.at_work)))
                history.unfinished = {**population.unfinished, "seconds": seconds}
                work.env_steps += work.steps_of(history.unfinished["epsilon"])
                ending = "stopped" if terms.stopping() else "minutes"
                if ending == "minutes":
                    terms.warn("max_minutes: over before an evaluation had ended; --resume with more goes on there")
                break
            host = layout.fetch(metrics, work.at_work)
            pace.end()
            before, work.env_steps = work.env_steps, work.env_steps + work.steps_of(host.epsilon)
            history.add(before, work.env_steps, pace.lane_seconds(len(work.at_work)), host, work.at_work)
            history.unfinished = {}
            leaving = terms.judge.leaving(history, work.at_work, last=work.env_steps >= work.last_step)
            if not keeper.chunk(work, leaving):
                return "lost"
            if leaving:
                work.at_work = np.setdiff1d(work.at_work, list(leaving))
                active = layout.active(work.at_work)
            if keeper.saves and len(work.at_work) and terms.allowance.left():
                with terms.allowance.spend():
                    keeper.save(work)
                saved_at = work.env_steps
                pace.saved()
            terms.report("train", work.env_steps, (0, 0))
        if keeper.saves and saved_at != work.env_steps:
            with terms.allowance.spend():
                keeper.save(work)
    return ending


def _ended(work: Work, terms: Terms) -> Ending | None:
    """Why no other chunk begins, if none does. The first one does on a device, however few minutes are left."""
    pace = terms.pace
    if len(work.at_work) == 0 or work.env_steps >= work.last_step:
        return "over"
    if terms.stopping():
        return "stopped"
    if work.driver.stops_within:
        return "minutes" if pace.left() <= work.population.evaluation_seconds else None
    if not work.history.env_steps or not pace.over():
        return None
    if pace.seconds() < pace.budget:
        terms.warn(f"max_minutes: {pace.left():.0f} s are left, and a chunk takes {pace.chunk:.0f}: ending here")
    return "minutes"


def spread(lanes: PyTree, numbers: np.ndarray, count: int) -> PyTree:
    """Lanes `[n]` (their `numbers`, ascending) at their own places among `count`; what lies in others says nothing."""
    if len(numbers) == count:
        return lanes
    place = np.searchsorted(numbers, np.arange(count)).clip(max=len(numbers) - 1)
    return jax.tree.map(lambda x: x[place], lanes)
