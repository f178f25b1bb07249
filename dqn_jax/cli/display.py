"""What a person sees while something runs: live progress on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import progress as rich_progress
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dqn_jax.cli.words import STATUSES, duration_text, mean_text, point_text, rate_text, seeds_text
from dqn_jax.training import Progress

if TYPE_CHECKING:  # the other commands do without it
    from dqn_jax.sweep import SweepProgress


class TrainDisplay:
    """A few live lines on a terminal; plain lines, few of them, where there is none."""

    def __init__(self, name: str, seeds: int, *, enabled: bool):
        self._console = Console(stderr=True)
        self._name, self._seeds, self._enabled = name, seeds, enabled
        self._tenths = 0
        self._state, self._share = "compiling ...", 0.0
        self._ends_at: float | None = None  # on this process's clock
        self._live = Live(console=self._console, get_renderable=self._screen)

    def __enter__(self) -> TrainDisplay:
        if self._enabled:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._enabled:
            self._live.stop()

    def warn(self, line: str) -> None:
        """One line for anything to know about."""
        self._console.print(f"dqn-jax: {line}", highlight=False, markup=False, soft_wrap=True)

    def update(self, progress: Progress) -> None:
        """Show where the run is: redrawn on a terminal, a line for every tenth elsewhere."""
        if progress.phase == "compile":
            if not self._enabled:
                print(f"{self._name} x {self._seeds} seeds: compiling", file=sys.stderr)
            return
        # Steps are per seed, the rate is over all seeds, returns are means over seeds: short enough for one line.
        state = (
            f"{progress.env_steps:,} steps | {rate_text(progress.lane_steps_per_second)}/s"
            f" | train {mean_text(progress.train_return)} eval {mean_text(progress.eval_return)}"
        )
        if progress.judged:
            state += f" | {progress.converged.mean():.0%} converged"
        if progress.phase == "evaluate":
            state = f"evaluating: {progress.games[0]:,} of {progress.games[1]:,} games | {state}"
        if progress.diverged.any():
            state += f" | diverged {progress.diverged.sum()}"
        if progress.above_bound.any():
            state += f" | Q above its bound: {seeds_text(int(progress.above_bound.sum()))}"
        left = progress.seconds * (1 / progress.share_done - 1) if progress.share_done else float("nan")
        if self._enabled:
            self._state, self._share, self._ends_at = state, progress.share_done, time.monotonic() + left
            self._live.refresh()
            return
        tenths = int(10 * progress.share_done)
        if tenths > self._tenths:
            self._tenths = tenths
            print(f"{tenths * 10:3d}% {state} | {left:.0f} s left", file=sys.stderr)

    def _screen(self) -> Group:
        """The bar on a line of its own, so that no text can push it, the percentage or the time off the screen."""
        left = "" if self._ends_at is None else f"{duration_text(max(0.0, self._ends_at - time.monotonic()))} left"
        return Group(_bar_line(f"{self._name} x {self._seeds} seeds", self._share, left), _diverged_red(self._state))


def _bar_line(name: str, share: float, rest: str) -> Table:
    """A name, which is cut where there is too little room, a bar, its percentage and something short."""
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_column()
    for _ in range(3):
        line.add_column(no_wrap=True)
    bar = rich_progress.ProgressBar(total=1, completed=share, width=16)
    line.add_row(Text(name, "bold", no_wrap=True, overflow="ellipsis"), bar, f"{share:4.0%}", Text(rest))
    return line


def _diverged_red(state: str) -> Text:
    text = Text(state)
    text.highlight_regex(r"[\d,]* ?diverged( \d+)?", "red")
    return text


class SweepDisplay:
    """One screen that says where a sweep is; plain lines, few of them, where there is no terminal."""

    def __init__(self, name: str, *, enabled: bool, above: Sequence[str] = ()):
        """Lines `above` are printed once there is something to show, so that a refusal stands alone."""
        self._console = Console(stderr=True)
        self.name, self._enabled, self._above = name, enabled, above
        self._tenths, self._group = -1, ""
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> SweepDisplay:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live.is_started:
            self._live.stop()

    def warn(self, line: str) -> None:
        """One line for anything to know about."""
        self._console.print(f"dqn-jax: {line}", highlight=False, markup=False, soft_wrap=True)

    def update(self, progress: SweepProgress) -> None:
        """Show where the sweep is: redrawn on a terminal, a line for every tenth elsewhere."""
        for line in self._above:
            print(line, file=sys.stderr)
        self._above = ()
        if self._enabled:
            if not self._live.is_started:
                self._live.start()  # not before: what is printed earlier stays above
            self._live.update(self._screen(progress), refresh=True)
            return
        group = point_text(progress.group)
        if progress.phase == "compile" and group != self._group:
            self._group = group
            print(
                f"{self.name}: wave {progress.wave + 1} of {progress.waves}, {group or 'one program'}", file=sys.stderr
            )
        tenths = int(10 * _share(progress))
        if tenths != self._tenths and progress.phase == "run":  # it falls where the best are to be confirmed
            self._tenths = tenths
            counts = ", ".join(f"{n:,} {STATUSES[status]}" for status, n in progress.lanes.items() if n)
            rate = rate_text(progress.lane_steps_per_second)
            print(
                f"{tenths * 10:3d}% {counts or 'none left yet'} | {progress.running:,} running, {progress.waiting:,}"
                f" waiting | {rate} lane-steps/s | {duration_text(progress.seconds_left)} left",
                file=sys.stderr,
            )

    def _screen(self, progress: SweepProgress) -> Group:
        share = _share(progress)
        left = f"{duration_text(progress.seconds_left)} left"
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        group = point_text(progress.group) or "one program for all"
        doing = (
            "compiling" if progress.phase == "compile" else f"{progress.env_steps:,} of {progress.total_steps:,} steps"
        )
        table.add_row("program", Text(f"wave {progress.wave + 1} of {progress.waves}, {group}: {doing}"))
        counts = [f"{progress.running:,} running"]
        for status, words in STATUSES.items():
            if count := progress.lanes.get(status, 0):
                counts.append(f"{count:,} {words}")
        table.add_row("lanes", _diverged_red(", ".join([*counts, f"{progress.waiting:,} waiting"])))
        table.add_row(
            "speed",
            f"{rate_text(progress.lane_steps_per_second)} lane-steps/s, {duration_text(progress.seconds)} so far",
        )
        best = "none has converged yet"
        if progress.best is not None:
            best = f"{progress.best[1]:,.0f} environment steps: {point_text(progress.best[0])}"
        table.add_row("best so far", Text(best))
        return Group(_bar_line(f"sweep {self.name}", share, left), table)


def _share(progress: SweepProgress) -> float:
    finished = sum(progress.lanes.values())
    total = finished + progress.running + progress.waiting
    return (finished + progress.running * progress.env_steps / progress.total_steps) / max(total, 1)
