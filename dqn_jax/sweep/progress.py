"""How far a sweep is: what its records say, and what the process at work has seen since."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from dqn_jax.config import HParams
from dqn_jax.sweep import records
from dqn_jax.sweep.records import Wave
from dqn_jax.sweep.wave import WaveProgress


@dataclasses.dataclass(frozen=True)
class SweepProgress:
    """Where a sweep is, for a display."""

    phase: Literal["compile", "run"]
    group: dict[str, Any]  # what is static in the program at work and varies in the sweep
    wave: int  # at work
    waves: int  # known so far
    lanes: dict[str, int]  # finished lanes by status
    running: int
    waiting: int
    env_steps: int  # of the wave at work
    total_steps: int
    lane_steps_per_second: float
    seconds: float  # since this process began
    seconds_left: float  # nan before the first chunk
    best: tuple[dict[str, Any], float] | None  # point, and mean environment steps to convergence


OnProgress = Callable[[SweepProgress], None]


@dataclasses.dataclass
class Tally:
    """What one process has done so far, and how long it took."""

    began: float = dataclasses.field(default_factory=time.perf_counter)
    waves: int = 0
    lane_steps: int = 0
    work_seconds: float = 0.0  # for them, bookkeeping included
    program_seconds: float = 0.0  # of these, in the compiled programs
    compile_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """How many seconds ago the process began."""
        return time.perf_counter() - self.began


class Watch:
    """What is known of a sweep, for the display: read from the records, then kept up as lanes leave."""

    def __init__(self, store: records.Store, tally: Tally, on_progress: OnProgress | None):
        self.store = store
        self.tally = tally
        self.on_progress = on_progress
        self.lanes: dict[str, int] = {}  # finished, by status
        self.lane_steps = 0  # that they took
        self.total = self.waves = self.done = 0
        self.best: tuple[dict[str, Any], float] | None = None
        self._horizon = float(store.definition["config"]["total_steps"])
        self._seeds = len(store.definition["seeds"])
        self._points: list[dict[str, Any]] = []
        self._times: dict[int, list[float]] = {}  # of each trial, to convergence

    @property
    def mean_steps(self) -> float:
        """Environment steps that a lane takes, over those that have left; NaN before any."""
        finished = sum(self.lanes.values())
        return self.lane_steps / finished if finished else np.nan

    def read(self) -> None:
        """Take from the records how far the sweep is."""
        waves = self.store.waves()
        self.waves, self.done = len(waves), sum(state == "done" for _, state in waves)
        self.total = sum(len(wave.lanes) for wave, _ in waves)
        self.lanes, self.lane_steps, self.best, self._times = {}, 0, None, {}
        self._points = self.store.points()
        self.add(self.store.lanes().to_dict("records"))

    def add(self, rows: Sequence[Mapping[Any, Any]]) -> None:
        """Count lanes that have left (with the entries LANE_COLUMNS)."""
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
        if self.on_progress is None:
            return
        self.read()
        seconds, finished = self.tally.seconds, sum(self.lanes.values())
        rate = finished * self.mean_steps / seconds if finished else 0.0
        waiting = self.total - finished
        self.report(
            phase="run",
            group={},
            wave=self.done,
            running=0,
            waiting=waiting,
            steps=(0, 1),
            rate=rate,
            seconds_left=waiting * self.mean_steps / rate if rate else np.nan,
        )

    def report(
        self,
        *,
        phase: Literal["compile", "run"],
        group: dict[str, Any],
        wave: int,
        running: int,
        waiting: int,
        steps: tuple[int, int],
        rate: float,
        seconds_left: float,
    ) -> None:
        """Tell the display, with what is known from the records and the fields of `SweepProgress` given here.

        Of these `steps` are `env_steps` and `total_steps`, and `rate` is `lane_steps_per_second`.
        """
        assert self.on_progress is not None
        self.on_progress(
            SweepProgress(
                phase=phase,
                group=group,
                wave=wave,
                waves=self.waves,
                lanes=dict(self.lanes),
                running=running,
                waiting=waiting,
                env_steps=steps[0],
                total_steps=steps[1],
                lane_steps_per_second=rate,
                seconds=self.tally.seconds,
                seconds_left=seconds_left,
                best=self.best,
            )
        )


class Meter:
    """Counts what this process does in a wave, and tells the display."""

    def __init__(
        self,
        store: records.Store,
        tally: Tally,
        on_progress: OnProgress | None,
        wave: Wave,
        all_points: list[dict[str, Any]],
    ):
        self.tally = tally
        self.on_progress = on_progress
        self.wave = wave
        self.group = {k: v for k, v in all_points[wave.lanes[0][0]].items() if k not in HParams._fields}
        self.done = store.recorded() if on_progress else set()
        running = sum((wave.phase, *lane) not in self.done for lane in wave.lanes)
        self.reached = WaveProgress(0, 1, running, 0, 0.0, 0.0)
        self.watch = Watch(store, tally, on_progress)
        if on_progress:
            self.watch.read()

    def left(self, rows: Sequence[dict[str, Any]]) -> None:
        """Lanes that have left; some may be in the records already."""
        if self.on_progress:
            self.watch.add([row for row in rows if (row["phase"], row["trial"], row["seed"]) not in self.done])

    def chunk(self, progress: WaveProgress) -> None:
        """Count a chunk that has ended, and tell the display."""
        self.tally.lane_steps += progress.lane_steps
        self.tally.work_seconds += progress.seconds
        self.tally.program_seconds += progress.program_seconds
        self.reached = progress
        self.show("run")

    def show(self, phase: Literal["compile", "run"]) -> None:
        """Tell the display where this process is, and how long the rest may take."""
        tally, reached, watch = self.tally, self.reached, self.watch
        if not self.on_progress:
            return
        waiting = watch.total - sum(watch.lanes.values()) - reached.running
        rate = tally.lane_steps / tally.work_seconds if tally.work_seconds else 0.0
        each = watch.mean_steps if np.isfinite(watch.mean_steps) else reached.total_steps
        left = max(each - reached.env_steps, (reached.total_steps - reached.env_steps) / 2)
        ahead = waiting * each + reached.running * left
        watch.report(
            phase=phase,
            group=self.group,
            wave=self.wave.id,
            running=reached.running,
            waiting=waiting,
            steps=(reached.env_steps, reached.total_steps),
            rate=rate,
            seconds_left=ahead / rate if rate else np.nan,
        )
