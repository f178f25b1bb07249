"""Figures of runs: learning curves with intervals, and how many seeds had converged by when."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from dqn_jax import convergence
from dqn_jax.files import Json
from dqn_jax.runs.folder import load_metrics, load_summary
from dqn_jax.runs.labels import literal, ranges, telling_labels
from dqn_jax.runs.provenance import load_provenance
from dqn_jax.runs.settings import RunSettings, load_settings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Aggregate = Literal["mean", "iqm"]
X_AXES = {"env_steps": "environment steps", "updates": "updates", "episodes": "episodes", "seconds": "seconds"}
Y_AXES = {
    "eval_return": "evaluation return",
    "train_return": "training return (last 100 episodes)",
    "eval_length": "evaluation episode length",
    "loss": "loss",
    "td_error": "mean absolute TD error",
    "q_mean": "mean Q-value",
    "epsilon": "epsilon",
}
COLOURS = ("#1f6fb4", "#d1601f", "#2a8f57", "#8a4fb0", "#b03060", "#6b6b2f")


@dataclasses.dataclass(frozen=True)
class RunData:
    """What a figure needs of one run."""

    label: str
    seeds: int
    metrics: pd.DataFrame
    criteria: list[Json]  # as in summary.json
    settings: Json = dataclasses.field(default_factory=dict)  # of Config and HParams, and the seeds
    stamp: str = ""  # of its folder
    date: str = ""  # when it was begun

    @staticmethod
    def of(settings: RunSettings, metrics: pd.DataFrame, summary: Json, run: Path | None = None) -> RunData:
        """From a run still in memory, which is written to the folder `run`."""
        return RunData(
            settings.name,
            len(settings.seeds),
            metrics,
            summary["criteria"],
            {**dataclasses.asdict(settings.config), **settings.hparams._asdict(), "seeds": ranges(settings.seeds)},
            stamp="" if run is None else run.name,
            date="" if run is None else _date(run),
        )

    @staticmethod
    def load(run: Path) -> RunData:
        """From a run's folder, finished or not.

        Raises:
          ConfigError: if it has no readable metrics yet.
        """
        settings = load_settings(run)
        metrics = load_metrics(run, settings.seeds, {*X_AXES, *Y_AXES})
        summary = load_summary(run) or {"criteria": []}
        return RunData.of(settings, metrics, summary, run)


def _date(run: Path) -> str:
    """When a run was begun, as its provenance says; of one without, when its settings were written."""
    started = load_provenance(run).get("started")
    if isinstance(started, str):
        return started[:10]
    return datetime.date.fromtimestamp((run / "config.json").stat().st_mtime).isoformat()


def plot_runs(
    runs: Sequence[RunData],
    path: Path,
    *,
    x: str = "env_steps",
    y: str = "eval_return",
    aggregate: Aggregate = "mean",
    labels: Sequence[str] = (),
) -> None:
    """Draw the runs over one another and write the figure (format by the path's suffix).

    Each is called what `labels` say, or by its name; runs of one name by what sets them apart.

    Above: thin lines per seed, a thick one for the mean (or interquartile mean) with its 95 % band,
    thresholds dashed. Below: the share of seeds that had met each criterion by then; seeds that never did
    count as not converged.
    """
    from matplotlib.figure import Figure  # slow to import; and no pyplot, so no global state

    with_criteria = any(run.criteria for run in runs)
    figure = Figure(figsize=(8, 6.4 if with_criteria else 4.2), dpi=110, layout="constrained")
    rows, heights = (2, [2, 1]) if with_criteria else (1, [1])
    axes = list(figure.subplots(rows, 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0])
    names = [run.label for run in runs]
    called = telling_labels(names, [run.settings for run in runs], [run.stamp for run in runs], labels)
    for i, (run, label) in enumerate(zip(runs, map(literal, called), strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        _draw_curves(axes[0], run, label, colour, (x, y), aggregate)
        if with_criteria:
            _draw_converged(axes[1], run, label if len(runs) > 1 else "", colour, x, solo=len(runs) == 1)
    if y in ("eval_return", "train_return"):
        for threshold in sorted({c["threshold"] for run in runs for c in run.criteria if c["name"].startswith(y[:4])}):
            axes[0].axhline(threshold, color="0.35", lw=0.9, ls="--", zorder=1)
            axes[0].annotate(
                f"{threshold:g}", (1, threshold), (-3, 2), xycoords=("axes fraction", "data"),
                textcoords="offset points", ha="right", va="bottom", fontsize=8, color="0.35",
            )  # fmt: skip
    axes[0].set_title(literal(_title(runs)), loc="left", fontsize=10)
    axes[0].set_ylabel(Y_AXES[y])
    axes[0].legend(loc="best", fontsize=8, frameon=False)
    if with_criteria:
        axes[1].set_ylabel("share of seeds\nconverged")
        axes[1].set_ylim(-0.04, 1.04)
        axes[1].legend(loc="best", fontsize=8, frameon=False)
    axes[-1].xaxis.set_major_formatter("{x:,.0f}")
    axes[-1].set_xlabel(X_AXES[x] + ("" if x == "seconds" else ", per seed"))
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, lw=0.6)
        axis.set_xlim(left=0)
    with without_warnings_of_glyphs():
        figure.savefig(path)


@contextlib.contextmanager
def without_warnings_of_glyphs() -> Iterator[None]:
    """A name may have letters that the font lacks; they are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _title(runs: Sequence[RunData]) -> str:
    """Environments and dates of the runs."""
    environments = dict.fromkeys(str(run.settings["env"]) for run in runs if "env" in run.settings)
    dates = sorted({run.date for run in runs if run.date})
    return ", ".join([*environments, *([" to ".join(dates[:1] + dates[1:][-1:])] if dates else [])])


def _draw_curves(axis: Axes, run: RunData, label: str, colour: str, of: tuple[str, str], aggregate: Aggregate) -> None:
    xs, ys = (_by_seed(run, column) for column in of)  # each [S, C]
    single = xs.shape[1] == 1  # then there is no line, but a point
    for seed_x, seed_y in zip(xs, ys, strict=True):
        axis.plot(seed_x, seed_y, color=colour, lw=0.6, alpha=0.35, zorder=2, marker="o" if single else "", ms=4)
    iqm = aggregate == "iqm"
    statistic = convergence.interquartile_mean if iqm else np.mean
    interval = convergence.interquartile_mean_interval if iqm else convergence.mean_interval
    known = ~np.isnan(ys).any(axis=0)  # a statistic over some of the seeds only would not be comparable
    middle_x, middle = xs[:, known].mean(axis=0), statistic(ys[:, known], axis=0)
    name = {"mean": "mean", "iqm": "interquartile mean"}[aggregate]
    whose = f"{name} of {run.seeds} seeds" if run.seeds > 1 else "one seed"
    axis.plot(middle_x, middle, color=colour, lw=2, zorder=4, marker="D" if single else "", label=f"{label}: {whose}")
    if run.seeds > 1 and known.any():
        low, high = (np.where(np.isnan(end), middle, end) for end in interval(ys[:, known]))  # a point where all agree
        axis.fill_between(middle_x, low, high, color=colour, alpha=0.25, lw=0, zorder=3)
        if single:
            axis.vlines(middle_x, low, high, color=colour, lw=2, zorder=3)


def _draw_converged(axis: Axes, run: RunData, label: str, colour: str, x: str, *, solo: bool) -> None:
    end = _by_seed(run, x).max()
    for i, criterion in enumerate(run.criteria):
        if criterion["converged"] is None:
            continue  # settling, which only the end of the budget could tell
        times = np.sort([t for t in criterion[x] if t is not None])
        shares = np.arange(1, len(times) + 1) / run.seeds
        style = (COLOURS[i % len(COLOURS)], "-") if solo else (colour, ("-", "--", ":", "-.")[i % 4])
        name = f"{label} {criterion['name']}: {len(times)} of {run.seeds}".strip()
        steps = np.r_[0, times, end], np.r_[0, shares, len(times) / run.seeds]
        axis.step(*steps, where="post", lw=1.6, label=name, color=style[0], ls=style[1])


def _by_seed(run: RunData, column: str) -> np.ndarray:
    """`[S, C]`, a column of the metrics of S seeds and C evaluations."""
    return run.metrics[column].to_numpy(np.float64).reshape(run.seeds, -1)
