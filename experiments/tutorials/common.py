"""What the tutorial experiments share: populations on held-out seeds, statistics as text, figures, films, the page."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

import dqn_jax
from dqn_jax import convergence, files
from dqn_jax.lanes.driver import Driver, driver_for
from dqn_jax.runs.play import film_policy
from experiments.common import COLOURS, machine, markdown_table, save_figure

__all__ = ["COLOURS", "machine", "markdown_table", "save_figure"]  # with the rest of what is here

RESULTS = Path(__file__).parent / "results"
SEEDS = 20
FIRST_SEED = 10_000  # no setting was chosen on seeds from here on
WINDOW = 100


# -- running


def run_folder(experiment: str, label: str) -> Path:
    """Where a population is kept, so that an experiment that was stopped goes on where it was."""
    return Path("runs/tutorials") / experiment / re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-")


def population(experiment: str, label: str, preset: str, **arguments: Any) -> dqn_jax.TrainResult:
    """Train 20 held-out seeds of a preset, with a line when it is done; what was trained before is not again."""
    out = run_folder(experiment, label)
    arguments = {"seeds": SEEDS, "seed": FIRST_SEED, **arguments}
    result = dqn_jax.train(preset, out=out, resume=(out / "config.json").is_file(), **arguments)
    if result.interrupted:
        sys.exit(130)
    summary = result.summary
    seconds, final = summary["seconds"]["run"], summary["final_eval"]["mean"]
    print(f"{label}: {len(summary['seeds'])} seeds, {seconds:.0f} s, final greedy mean {final:.1f}", flush=True)
    return result


@functools.cache
def driver_of(config: dqn_jax.Config) -> Driver:
    """What a result's agents were trained with: their environment and functions."""
    return driver_for(config)


def greedy_tests(result: dqn_jax.TrainResult, episodes: int, *, start: int = 2_000_003) -> np.ndarray:
    """`[S, episodes]`, raw returns of new greedy episodes of every seed's agent."""
    driver = driver_of(result.settings.config)
    return np.asarray(driver.play(result.params, episodes=episodes, epsilon=0.0, seed=start).returns)


def scores(result: dqn_jax.TrainResult, episodes: int) -> np.ndarray:
    """`[S, episodes]`, score of each training episode; NaN where a seed played fewer."""
    return _by_episode([curve.episode_return for curve in result.history.curves()], episodes)


def epsilons(result: dqn_jax.TrainResult, episodes: int) -> np.ndarray:
    """`[S, episodes]`, exploration at the end of each training episode; NaN where a seed played fewer."""
    return _by_episode([curve.episode_epsilon for curve in result.history.curves()], episodes)


def _by_episode(readings: Sequence[np.ndarray], episodes: int) -> np.ndarray:
    table = np.full((len(readings), episodes), np.nan)
    for row, own in zip(table, readings, strict=True):
        row[: len(own)] = own[:episodes]
    return table


# -- statistics as text; brackets are 95 % intervals over seeds: Wilson's for shares, bootstrap for all else


def mean_text(values: Any, digits: int = 1) -> str:
    """`12.3 [11.0, 13.9]`, or `-` of nothing."""
    values = np.asarray(values, np.float64)
    if not len(values):
        return "-"
    low, high = convergence.mean_interval(values)
    return f"{values.mean():,.{digits}f}" + ("" if np.isnan(low) else f" [{low:,.{digits}f}, {high:,.{digits}f}]")


def share_text(flags: Any) -> str:
    """`85% [64%, 95%]`, or `-` of nothing."""
    if not len(flags):
        return "-"
    low, high = convergence.share_interval(flags)
    return f"{np.mean(flags):.0%} [{low:.0%}, {high:.0%}]"


def median_text(values: Sequence[float | None], unit: str = "") -> str:
    """`180 [150, not reached]`; None counts as later than all others."""
    if not len(values):
        return "-"
    low, high = convergence.median_interval(values)
    middle = convergence.median_with_censored(values)
    interval = "" if low is None and middle is not None else f" [{_reached(low)}, {_reached(high)}]"
    return f"{_reached(middle)}{interval}{unit if middle is not None else ''}"


def _reached(value: float | None) -> str:
    return "not reached" if value is None else f"{value:,.0f}"


def criterion(result: dqn_jax.TrainResult, name: str) -> dict[str, Any]:
    """One criterion's entry of the summary."""
    return next(c for c in result.summary["criteria"] if c["name"] == name)


def reached(result: dqn_jax.TrainResult, name: str) -> list[bool]:
    """Whether each seed reached a criterion."""
    return [value is not None for value in criterion(result, name)["env_steps"]]


# -- what is written


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A small table, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6g")


def score_rows(variant: str, table: np.ndarray) -> list[dict[str, Any]]:
    """Mean, interval and range over seeds of the score of each episode, for a CSV file."""
    rows = []
    for episode, column in enumerate(table.T, start=1):
        played = column[~np.isnan(column)]
        if len(played):
            low, high = convergence.mean_interval(played)
            numbers = {"mean": played.mean(), "low95": low, "high95": high, "worst": played.min(), "best": played.max()}
            rows.append({"variant": variant, "episode": episode, "seeds": len(played), **numbers})
    return rows


def draw_scores(axis: Any, own: np.ndarray, everyone: np.ndarray, *, label: str, line: float = 195.0) -> None:
    """Score per episode of one seed and its 100-episode mean, the mean of all seeds, and the line to reach."""
    episodes = np.arange(1, len(own) + 1)
    axis.plot(episodes, own, color=COLOURS[0], lw=0.7, alpha=0.6, label=f"score, {label}")
    axis.plot(episodes, convergence.trailing_mean(own, WINDOW), color=COLOURS[1], lw=2, label="its 100-episode mean")
    played = ~np.isnan(everyone).all(axis=0)
    axis.plot(
        np.arange(1, everyone.shape[1] + 1)[played], np.nanmean(everyone[:, played], axis=0),
        color="0.55", lw=0.8, label=f"mean score of {len(everyone)} seeds",
    )  # fmt: skip
    axis.axhline(line, color="0.2", lw=0.9, ls="--", label=f"{line:g}")
    axis.set_xlabel("episode")
    axis.set_ylabel("score")
    axis.set_xlim(0, everyone.shape[1])
    axis.set_ylim(bottom=0)


def draw_strips(axis: Any, groups: dict[str, np.ndarray], *, named: bool = True, marker: str = "o", bars: bool = True,
                colour: str | None = None, label: str | None = None) -> None:  # fmt: skip
    """A line of dots for each group, one per seed, with a bar for their mean; the first group on top."""
    rng = np.random.default_rng(0)
    for i, (name, values) in enumerate(groups.items()):
        values = np.asarray(values, np.float64)
        values = values[~np.isnan(values)]
        y = len(groups) - 1 - i
        heights = y + rng.uniform(-0.2, 0.2, len(values))
        own = colour or COLOURS[i % len(COLOURS)]
        style = {"lw": 1.0} if marker == "x" else {"lw": 0, "alpha": 0.75}
        axis.scatter(values, heights, s=15, marker=marker, color=own, label=None if i else label, **style)
        if bars and len(values):
            axis.plot([values.mean()] * 2, [y - 0.35, y + 0.35], color="0.15", lw=2)
        if named:
            place: dict[str, Any] = {
                "xycoords": ("axes fraction", "data"),
                "ha": "right",
                "va": "center",
                "fontsize": 8,
            }
            axis.annotate(name, (-0.01, y), **place)
    axis.set_yticks([])
    axis.set_ylim(-0.6, len(groups) - 0.4)


def film(result: dqn_jax.TrainResult, path: Path, *, lane: int | None, start: int = 0, title: str = "") -> float:
    """Film one greedy episode of a lane, or a random policy's (None); gives its return."""
    driver = driver_of(result.settings.config)
    own = None if lane is None else jax.tree.map(lambda x: x[lane], result.params)
    path.parent.mkdir(parents=True, exist_ok=True)
    return film_policy(driver, own, path, start=start, title=title)[0]


def write_page(
    name: str,
    *,
    title: str,
    preset: str,
    asks: str,
    claims: Sequence[tuple[str, str]],
    sections: Sequence[str],
    deviations: Sequence[tuple[str, str, str]],
    summary: tuple[str, str],
    lessons: dict[str, tuple[str, str]],
    figure: str,
    pictures: Sequence[str] = (),
) -> None:
    """Write results/<name>/README.md and what the gallery needs of it.

    Args:
      name: of the experiment's module.
      title: of the page.
      preset: the preset with the document's settings.
      asks: what the document does, in a sentence or two.
      claims: what it claims, and what was measured.
      sections: further Markdown.
      deviations: setting, the document's, ours and why.
      summary: the claim and the measurement in one line each, for the gallery.
      lessons: by topic, what one can learn here, in a line with its numbers, and the figure that shows it.
      figure: file shown in the gallery and at the top of the page.
      pictures: films shown below it.
    """
    folder = RESULTS / name
    parts = [
        f"# {title}",
        asks,
        f"Everything here: `.venv/bin/python -m experiments.tutorials.{name}`. One population: `dqn-jax train "
        f"{preset}` (or `{preset}-vectorised`). {SEEDS} seeds from {FIRST_SEED} up, each population as one program; "
        "brackets are 95 % intervals over seeds (of shares and medians exact, of means Student's t, further where "
        "seeds are skewed; none where all agree); seeds that never got there count as later than all others. Measured "
        f"{machine()}. How long it takes: "
        "[the gallery](../../README.md).",
        f"![{title}]({figure})",
        *[f"![{picture}]({picture})" for picture in pictures],
        "## Claimed and measured",
        markdown_table(["the document", "measured"], claims),
        *sections,
        "## Deviations from the document",
        markdown_table(["what", "document", "here"], deviations),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with files.atomic(folder / "README.md") as temporary:
        temporary.write_text("\n\n".join(parts) + "\n")
    files.write_json(
        folder / "summary.json",
        {
            "name": name,
            "title": title,
            "preset": preset,
            "claim": summary[0],
            "measured": summary[1],
            "lessons": lessons,
            "figure": figure,
            "film": next((p for p in pictures if "trained" in p), None),
            "when": machine(),
        },
    )


TIME_LIMIT = (
    "time limit",
    "taken for a terminal state",
    "the target bootstraps from the last state; the document's way is measured beside it",
)
KERAS = [
    ("loss", "Keras's mean squared error over both actions", "0.5 TD error^2: the same gradient for two actions"),
    ("random numbers, floats", "NumPy, Python, TensorFlow", "JAX's; the environment is gymnax's, equal to Gymnasium's"),
]
"""Deviations that several documents share."""


def load_summaries() -> list[dict[str, Any]]:
    """What has been measured so far, for the gallery."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*/summary.json"))]
