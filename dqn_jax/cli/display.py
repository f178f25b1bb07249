"""What a person sees: live progress on standard error, and tables on standard output at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import progress as rich_progress
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dqn_jax import convergence
from dqn_jax.config import show
from dqn_jax.runs import best
from dqn_jax.training import Progress, TrainResult

if TYPE_CHECKING:  # the other commands do without it
    from dqn_jax.sweep import SweepProgress, SweepResult


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
        """Show where the run is."""
        if progress.phase == "compile":
            if not self._enabled:
                print(f"{self._name} x {self._seeds} seeds: compiling", file=sys.stderr)
            return
        # Steps are per seed, the rate is over all seeds, returns are means over seeds: short enough for one line.
        state = (
            f"{progress.env_steps:,} steps | {_rate(progress.lane_steps_per_second)}/s"
            f" | train {_mean(progress.train_return)} eval {_mean(progress.eval_return)}"
        )
        if progress.judged:
            state += f" | {progress.converged.mean():.0%} converged"
        if progress.phase == "evaluate":
            state = f"evaluating: {progress.games[0]:,} of {progress.games[1]:,} games | {state}"
        if progress.diverged.any():
            state += f" | diverged {progress.diverged.sum()}"
        if progress.above_bound.any():
            state += f" | Q above its bound: {_seeds(int(progress.above_bound.sum()))}"
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
        left = "" if self._ends_at is None else f"{_duration(max(0.0, self._ends_at - time.monotonic()))} left"
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


_STATUSES = {"converged": "converged", "budget": "spent their budget", "diverged": "diverged", "pruned": "pruned"}


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
        """Show where the sweep is."""
        for line in self._above:
            print(line, file=sys.stderr)
        self._above = ()
        if self._enabled:
            if not self._live.is_started:
                self._live.start()  # not before: what is printed earlier stays above
            self._live.update(self._screen(progress), refresh=True)
            return
        group = _settings(progress.group)
        if progress.phase == "compile" and group != self._group:
            self._group = group
            print(
                f"{self.name}: wave {progress.wave + 1} of {progress.waves}, {group or 'one program'}", file=sys.stderr
            )
        tenths = int(10 * _share(progress))
        if tenths != self._tenths and progress.phase == "run":  # it falls where the best are to be confirmed
            self._tenths = tenths
            counts = ", ".join(f"{n:,} {_STATUSES[status]}" for status, n in progress.lanes.items() if n)
            rate = _rate(progress.lane_steps_per_second)
            print(
                f"{tenths * 10:3d}% {counts or 'none left yet'} | {progress.running:,} running, {progress.waiting:,}"
                f" waiting | {rate} lane-steps/s | {_duration(progress.seconds_left)} left",
                file=sys.stderr,
            )

    def _screen(self, progress: SweepProgress) -> Group:
        share = _share(progress)
        left = f"{_duration(progress.seconds_left)} left"
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        group = _settings(progress.group) or "one program for all"
        doing = (
            "compiling" if progress.phase == "compile" else f"{progress.env_steps:,} of {progress.total_steps:,} steps"
        )
        table.add_row("program", Text(f"wave {progress.wave + 1} of {progress.waves}, {group}: {doing}"))
        counts = [f"{progress.running:,} running"]
        for status, words in _STATUSES.items():
            if count := progress.lanes.get(status, 0):
                counts.append(f"{count:,} {words}")
        table.add_row("lanes", _diverged_red(", ".join([*counts, f"{progress.waiting:,} waiting"])))
        table.add_row(
            "speed", f"{_rate(progress.lane_steps_per_second)} lane-steps/s, {_duration(progress.seconds)} so far"
        )
        best = "none has converged yet"
        if progress.best is not None:
            best = f"{progress.best[1]:,.0f} environment steps: {_settings(progress.best[0])}"
        table.add_row("best so far", Text(best))
        return Group(_bar_line(f"sweep {self.name}", share, left), table)


def _share(progress: SweepProgress) -> float:
    finished = sum(progress.lanes.values())
    total = finished + progress.running + progress.waiting
    return (finished + progress.running * progress.env_steps / progress.total_steps) / max(total, 1)


def _settings(point: dict[str, Any]) -> str:
    return ", ".join(f"{name}={show(value)}" for name, value in point.items())


def _duration(seconds: float) -> str:
    if np.isnan(seconds):
        return "?"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if hours < 2 else f"{hours} h {minutes % 60} min"


def sweep_tables(result: SweepResult) -> None:
    """Print the best trials, what became of the lanes, and where the files are."""
    from dqn_jax.sweep.results import halves, ranked

    console, data = Console(), result.data
    for phase, title in (("confirm", "on held-out seeds"), ("search", "in the search")):
        rows = ranked(data, phase=phase)
        if rows.empty:
            continue
        console.print(f"best {title}, by environment steps to {data.settings['criteria'][0]}", highlight=False)
        choosing, reported = halves(data.settings)
        if phase == "confirm" and choosing and choosing != reported:
            console.print(f"(in the order of {len(choosing)} other held-out seeds, which choose)", highlight=False)
        table = Table(box=None, show_edge=False, pad_edge=False)
        for column in ("trial", "converged", "env steps (95%)"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("settings")
        for row in rows.head(5).to_dict("records"):
            point = {name: row[name] for name in data.trials.columns}
            interval = "" if np.isnan(row["time_low"]) else f" ({row['time_low']:,.0f} to {row['time_high']:,.0f})"
            # The mean of seeds that spent their budget is the budget, which is no measurement of a time.
            steps = f"{row['time']:,.0f}{interval}" if row["converged"] else f"> {row['time']:,.0f} (none converged)"
            table.add_row(str(row["trial"]), f"{row['converged']} of {row['lanes']}", steps, _settings(point))
        console.print(table)
        console.print()
    words = f"{_dated(data.settings['criteria'][:1])} A seed that never converged counts with its budget."
    console.print(f"{words.strip()}\n", highlight=False, markup=False)
    counts = data.lanes["status"].value_counts()
    console.print(
        "lanes   " + ", ".join(f"{count:,} {_STATUSES[str(status)]}" for status, count in counts.items()),
        highlight=False,
    )
    if result.directory is not None:
        console.print(f"files   {result.directory}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"report  dqn-jax report {result.directory}", highlight=False, markup=False, soft_wrap=True)


def _rate(value: float) -> str:
    return f"{value / 1e6:.1f}M" if value >= 1e6 else f"{value / 1e3:.0f}k" if value >= 1e4 else f"{value:.0f}"


def _mean(values: np.ndarray) -> str:
    return "-" if np.isnan(values).all() else f"{np.nanmean(values):.1f}"


_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def _dated(criteria: Sequence[str]) -> str:
    """When criteria of several readings count as met; nothing to say of others."""
    return " ".join(
        criterion.dated
        for criterion in map(convergence.parse_criterion, criteria)
        if criterion.window > 1 and criterion.kind != "train"
    )


def summary_tables(result: TrainResult) -> None:
    """Print how it went: convergence by criterion, the final evaluation, time, and where the files are."""
    console, summary = Console(), result.summary
    seeds = len(summary["seeds"])
    judged = bool(summary["criteria"])
    whose = f"{_seeds(seeds)} (medians over all of them)" if judged else _seeds(seeds)
    console.print(f"{summary['preset']} on {summary['env']}, {whose}", soft_wrap=True, markup=False)
    table = Table(box=None, show_edge=False, pad_edge=False)
    table.add_column("criterion", no_wrap=True)
    for column in ("converged", "env steps", "updates", "episodes", "seconds", "stays"):
        table.add_column(column, justify="right", no_wrap=True)
    for criterion in summary["criteria"]:
        steps = convergence.median_with_censored(criterion["env_steps"])
        others = [convergence.median_with_censored(criterion[f]) for f in ("updates", "episodes", "seconds")]
        stable = [s for s in criterion["stability"] if s is not None]
        table.add_row(
            criterion["name"],
            f"{round(criterion['converged'] * seeds) or 'none'} of {seeds}",
            f"> {summary['env_steps']:,}" if steps is None else f"{steps:,.0f}",
            *["-" if m is None else f"{m:,.0f}" for m in others],
            f"{np.mean(stable):.0%}" if stable else "-",
        )
    if judged:
        console.print(table)
    else:
        words = "none for this environment; --criteria gives one, such as 'eval>=475'"
        console.print(f"criteria          {words}", **_PLAIN)
    if words := _dated([criterion["name"] for criterion in summary["criteria"]]):
        console.print(words, highlight=False, markup=False)
    final = summary["final_eval"]
    low, high = final["interval95"]
    interval = "" if low is None or np.isnan(low) else f" (95% {_number(low)} to {_number(high)})"
    console.print(
        f"\nfinal evaluation  mean {_number(final['mean'])}{interval}, "
        f"worst {_number(final['worst'])} (seed {final['worst_seed']})",
        highlight=False,
    )
    highest = [x for x in summary["best_eval_return"] if np.isfinite(x)]
    if highest:
        when = best.describe(summary["best_env_steps"])
        console.print(
            f"best evaluations  mean {_number(float(np.mean(highest)))}, after {when}\n"
            "                  (the highest of each seed; 'evaluate --checkpoint best' plays it anew)",
            highlight=False,
            soft_wrap=True,
        )
    rates, spent = summary["throughput"], summary["seconds"]
    console.print(
        f"speed             {rates['env_steps_per_second'] or 0:,.0f} env steps/s, "
        f"{rates['updates_per_second'] or 0:,.0f} updates/s over all seeds; import {spent['import']:.1f} s, "
        f"compile {spent['compile']:.1f} s, run {spent['run']:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    for line in _in_short(summary):
        console.print(f"in short          {line}", highlight=False, markup=False, soft_wrap=True)
    if summary["diverged"]:
        console.print(f"[red]diverged[/red]          seeds {', '.join(map(str, summary['diverged']))}", highlight=False)
    if result.run:
        console.print(f"files             {result.run}", highlight=False, markup=False, soft_wrap=True)


def _in_short(summary: dict[str, Any]) -> list[str]:
    """What a mean hides: agents that were good once, and Q-values that are no values."""
    lines = []
    seeds = len(summary["seeds"])
    if summary["criteria"] and summary["fell_back"]:
        criterion = convergence.parse_criterion(summary["criteria"][0]["name"])
        side = "below" if ">" in criterion.comparison else "above"
        lines.append(
            f"converged {round(summary['criteria'][0]['converged'] * seeds)} of {seeds}, "
            f"{len(summary['fell_back'])} of them ended {side} {criterion.threshold:g}"
        )
    if summary["above_bound"]:
        bounds = sorted({bound for bound in summary["value_bound"] if bound is not None})
        bound = f"{bounds[0]:,.4g}" + (f" to {bounds[-1]:,.4g}" if len(bounds) > 1 else "")
        furthest = max(abs(q) for q in summary["q_mean"] if q is not None)
        lines.append(
            f"mean Q above its bound in {len(summary['above_bound'])} of {seeds} seeds: up to {furthest:,.4g}, where "
            f"no policy is worth more than {bound} (largest reward / (1 - discount))"
        )
    return lines


def _seeds(count: int) -> str:
    return f"{count} seed" + "s" * (count != 1)


def _number(value: Any) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.1f}"
