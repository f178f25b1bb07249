"""What the tutorial experiments share: populations on held-out seeds, figures, films, and the page."""

from __future__ import annotations

import functools
import json
import re
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
from experiments import pages
from experiments.figures import COLOURS
from experiments.training import trained

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
    result = trained(out, preset, **arguments)
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


# -- reading


def criterion(result: dqn_jax.TrainResult, name: str) -> dict[str, Any]:
    """One criterion's entry of the summary."""
    return next(c for c in result.summary["criteria"] if c["name"] == name)


def reached(result: dqn_jax.TrainResult, name: str) -> list[bool]:
    """Whether each seed reached a criterion."""
    return [value is not None for value in criterion(result, name)["env_steps"]]


# -- what is written


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of one set of columns as CSV, atomically, with six digits."""
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


def write_page(name: str, *, preset: str, figure: str, pictures: Sequence[str] = (), **facts: Any) -> None:
    """Write results/<name>/README.md, and what the gallery needs of it to summary.json beside it.

    Args:
      name: of the experiment's module and of its template beside it, which has a block for each part of the page
        and, for the gallery, `claimed`, `measured_in_short` and `lessons`: a line each, `Topic (figure): text`.
      preset: the preset with the document's settings.
      figure: file shown in the gallery and at the top of the page.
      pictures: films shown below it.
      facts: what the template asks for.
    """
    template, measured = f"tutorials/{name}.md.jinja", pages.machine()
    facts |= {"name": name, "preset": preset, "figure": figure, "pictures": pictures, "measured": measured}
    facts |= {"seeds": SEEDS, "first_seed": FIRST_SEED}
    pages.write(RESULTS / name / "README.md", template, **facts)
    title, claim, in_short, lessons = (
        pages.block(template, part, **facts) for part in ("title", "claimed", "measured_in_short", "lessons")
    )
    summary = {
        "name": name,
        "title": title,
        "preset": preset,
        "claim": claim,
        "measured": in_short,
        "lessons": dict(map(_lesson, lessons.splitlines())),
        "figure": figure,
        "film": next((picture for picture in pictures if "trained" in picture), None),
        "when": measured,
    }
    files.write_json(RESULTS / name / "summary.json", summary)


def _lesson(line: str) -> tuple[str, tuple[str, str]]:
    """Topic, text and the figure that shows it, of `Topic (figure): text`."""
    found = re.fullmatch(r"(?P<topic>.+?) \((?P<figure>\S+)\): (?P<text>.+)", line)
    if found is None:
        raise ValueError(f"'{line}' is no lesson: Topic (figure): text")
    return found["topic"], (found["text"], found["figure"])


def load_summaries() -> list[dict[str, Any]]:
    """What has been measured so far, for the gallery."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*/summary.json"))]
