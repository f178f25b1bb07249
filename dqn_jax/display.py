"""What a person sees: live progress on standard error, and tables on standard output at the end."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from rich import progress as rich_progress
from rich.console import Console
from rich.table import Table

from dqn_jax import convergence
from dqn_jax.train import Progress, TrainResult


class TrainDisplay:
    """A live line on a terminal; plain lines, few of them, where there is none."""

    def __init__(self, name: str, seeds: int, *, enabled: bool):
        self._console = Console(stderr=True)
        self._name, self._seeds, self._enabled = name, seeds, enabled
        self._tenths = 0
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("[b]{task.description}"),
            rich_progress.BarColumn(bar_width=16),
            rich_progress.TaskProgressColumn(),
            rich_progress.TextColumn("{task.fields[state]}"),
            rich_progress.TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task(f"{name} x {seeds} seeds", total=1, state="compiling ...")

    def __enter__(self) -> TrainDisplay:
        if self._enabled:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._enabled:
            self._bar.stop()

    def warn(self, line: str) -> None:
        """One line for anything to know about."""
        self._console.print(f"dqn-jax: {line}", highlight=False, soft_wrap=True)

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
            f" | {progress.converged.mean():.0%} converged"
        )
        if progress.diverged.any():
            state += f" | [red]diverged {progress.diverged.sum()}[/red]"
        if self._enabled:
            self._bar.update(self._task, completed=progress.share_done, total=1, state=state)
            return
        tenths = int(10 * progress.share_done)
        if tenths > self._tenths:
            self._tenths = tenths
            plain = state.replace("[red]", "").replace("[/red]", "")
            left = progress.seconds * (1 / progress.share_done - 1)
            print(f"{tenths * 10:3d}% {plain} | {left:.0f} s left", file=sys.stderr)


def _rate(value: float) -> str:
    return f"{value / 1e6:.1f}M" if value >= 1e6 else f"{value / 1e3:.0f}k" if value >= 1e4 else f"{value:.0f}"


def _mean(values: np.ndarray) -> str:
    return "-" if np.isnan(values).all() else f"{np.nanmean(values):.1f}"


def summary_tables(result: TrainResult) -> None:
    """Print how it went: convergence by criterion, the final evaluation, time, and where the files are."""
    console, summary = Console(), result.summary
    seeds = len(summary["seeds"])
    console.print(f"{summary['preset']} on {summary['env']}, {seeds} seeds (medians over all of them)", soft_wrap=True)
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
            f"{round(criterion['converged'] * seeds)} of {seeds}",
            f"> {summary['env_steps']:,}" if steps is None else f"{steps:,.0f}",
            *["-" if m is None else f"{m:,.0f}" for m in others],
            f"{np.mean(stable):.0%}" if stable else "-",
        )
    console.print(table)
    final = summary["final_eval"]
    console.print(
        f"\nfinal evaluation  mean {_number(final['mean'])} (95% {_number(final['interval95'][0])} to "
        f"{_number(final['interval95'][1])}), worst {_number(final['worst'])} (seed {final['worst_seed']})",
        highlight=False,
    )
    rates, spent = summary["throughput"], summary["seconds"]
    console.print(
        f"speed             {rates['env_steps_per_second'] or 0:,.0f} env steps/s, "
        f"{rates['updates_per_second'] or 0:,.0f} updates/s over all seeds; import {spent['import']:.1f} s, "
        f"compile {spent['compile']:.1f} s, run {spent['run']:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    if summary["diverged"]:
        console.print(f"[red]diverged[/red]          seeds {', '.join(map(str, summary['diverged']))}", highlight=False)
    if result.run:
        console.print(f"files             {result.run}", highlight=False, soft_wrap=True)


def _number(value: Any) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.1f}"
