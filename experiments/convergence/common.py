"""What the convergence experiments share: a sweep that goes on where it was, its figures and its page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import dqn_jax
from dqn_jax import convergence, files
from dqn_jax.cli.display import SweepDisplay
from dqn_jax.config import show
from dqn_jax.report import space_figures, sweep_figures
from dqn_jax.report.command import as_csv
from dqn_jax.report.values import estimate, number, percent
from dqn_jax.report.view import View
from dqn_jax.sweep import SweepResult, sweep
from dqn_jax.sweep.plan import describe
from experiments import pages

RESULTS = Path(__file__).parent / "results"
# Without the parts of the presets that make agents stay where they converged; a step's reward is scaled as it was then.
PLAIN: dict[str, Any] = {
    "double": True,
    "target": "greedy",
    "layer_norm": False,
    "average_decay": 0.0,
    "reward_shift": 0.0,
    "terminal_reward": None,
    "reward_scale": 0.1,
}


def run(name: str, preset: str | dqn_jax.Preset, vary: Mapping[str, str], **asked: Any) -> SweepResult:
    """The sweep `name`, kept in runs/convergence; what an earlier call has found is not found again."""
    out = Path("runs/convergence") / name

    def say(plan: Any, definition: dict[str, Any]) -> bool:
        print("\n".join(describe(plan, definition)), flush=True)
        return True

    with SweepDisplay(name, enabled=sys.stderr.isatty()) as display:
        result = sweep(
            preset,
            vary,
            out=out,
            resume=(out / "sweep.json").is_file(),
            name=name,
            on_plan=say,
            on_progress=display.update,
            warn=display.warn,
            **asked,
        )
    if not result.finished:
        sys.exit(130)
    return result


def write_results(name: str, view: View, draw: Mapping[str, Callable[[View], Figure | None]]) -> list[str]:
    """Write results/<name>/trials.csv and the figures; the names of those there was something to draw in."""
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    with files.atomic(folder / "trials.csv") as path:
        path.write_text(as_csv([view]))
    written = []
    for file, figure_of in draw.items():
        figure = figure_of(view)
        if figure is not None:
            with files.atomic(folder / f"{file}.png") as path:
                figure.savefig(path, dpi=80)
            written.append(file)
    return written


def improvement(own: np.ndarray, base: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Probability that `own` `[S]` is higher than `base` `[S]` on a random seed, seeds paired, and its interval."""
    interval = convergence.probability_of_improvement_interval(own, base, paired=True)
    return convergence.probability_of_improvement(own, base), interval


def task_rows(path: Path, new: pd.DataFrame) -> pd.DataFrame:
    """The rows of a CSV file whose `task` is not among the `new` ones, and those."""
    if not path.is_file():
        return new
    old = pd.read_csv(path)
    return pd.concat([old[~old["task"].isin(new["task"])], new], ignore_index=True)


def importances(view: View) -> Figure | None:
    """How much each hyperparameter matters, if that can be told."""
    return None if isinstance(view.importance, str) else space_figures.importances(view.importance)


FIGURES: dict[str, Callable[[View], Figure | None]] = {
    "slices": space_figures.slices,
    "survival": lambda view: sweep_figures.survival([view]),
    "importance": importances,
}


def ranking(
    table: pd.DataFrame, view: View, rows: int = 5, columns: Sequence[str] = ("time",)
) -> tuple[list[str], list[list[Any]]]:
    """The first rows of a ranked table as heading and lines of a page's."""
    words = {"time": f"mean {view.clock.replace('_', ' ')}", "final": "final return (IQM)", "worst": "worst 10 %"}
    words["per_solved"] = f"{view.clock.replace('_', ' ')} per solved seed"
    lines = []
    for row in table.head(rows).to_dict("records"):
        settings = ", ".join(f"{name} {show(row[name])}" for name in view.space)
        numbers = [estimate(row, column, number) for column in columns]
        share = f"{row['converged']} of {row['lanes']} ({estimate(row, 'share', percent)})"
        lines.append([row["trial"], share, *numbers, settings])
    return ["trial", "converged", *(words[column] for column in columns), "settings"], lines


def write_page(name: str, figures: Sequence[str], *, when: str = "", template: str | None = None, **facts: Any) -> None:
    """Write results/<name>/README.md.

    Args:
      name: of the experiment's module, and of its template unless another is given.
      figures: names of those that are shown at the end.
      when: it was measured, if not now.
      template: name of another one beside the module.
      facts: what the template asks for.
    """
    pages.write(
        RESULTS / name / "README.md",
        f"convergence/{template or name}.md.jinja",
        name=name,
        when=when or f"measured {pages.machine()}",
        pictures=figures,
        **facts,
    )
