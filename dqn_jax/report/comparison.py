"""What a report says of two sweeps or runs side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from dqn_jax import convergence
from dqn_jax.config import show
from dqn_jax.report import sweep_figures as figures
from dqn_jax.report.caveats import caveats
from dqn_jax.report.drawn import pictures
from dqn_jax.report.origin import provenance
from dqn_jax.report.page import Cell, Content, Paragraph, Points, Section, Table
from dqn_jax.report.values import (
    converged_text,
    estimate,
    first_row,
    median_text,
    number,
    percent,
    settled_text,
    settled_time_text,
    time_text,
)
from dqn_jax.report.view import View
from dqn_jax.runs.figures import X_AXES
from dqn_jax.sweep import results, ruler, tables
from dqn_jax.sweep.rejudged import settling_of


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How likely a seed of the first does better than one of the second, on one measure."""

    measure: str
    probability: float  # ties count half
    low: float | None  # None where there is one seed
    high: float | None
    paired: bool  # the same seeds on both sides


def comparisons(a: View, b: View) -> list[Comparison]:
    """Probability that the best trial of `a` does better than that of `b`, on every measure that can be compared.

    On times, not to have converged is worse than any time, whatever the budget.
    """
    first, second = (view.lanes(view.best[0]).sort_values("seed") for view in (a, b))
    paired = first["seed"].tolist() == second["seed"].tolist()
    found = []

    def add(measure: str, x: np.ndarray, y: np.ndarray) -> None:
        probability = convergence.probability_of_improvement(x, y)
        several = min(len(x), len(y)) > 1
        interval = convergence.probability_of_improvement_interval(x, y, paired=paired) if several else (None, None)
        low, high = (None if end is None else float(end) for end in interval)
        found.append(Comparison(measure, probability, low, high, paired))

    if a.criterion is not None and not _why_no_times(a, b):
        goal = "to settle" if a.settles else "to convergence"
        for clock in tables.CLOCKS:
            x, y = (
                -np.nan_to_num(lanes[f"converged_{clock}"].to_numpy(np.float64), nan=np.inf)
                for lanes in (first, second)
            )
            add(
                f"fewer {X_AXES[clock] if clock != 'seconds' else 'device-seconds'} {goal}",
                x,
                y,
            )
    if not _why_no_scores(a, b):
        x, y = (
            results.with_scores(v.data).loc[lanes.index, "score"].to_numpy() for v, lanes in ((a, first), (b, second))
        )
        if not (np.isnan(x).any() or np.isnan(y).any()):
            add("higher final return", x, y)
    return found


def _why_no_times(a: View, b: View) -> str:
    own, other = (view.data.settings["config"] for view in (a, b))
    if differ := ruler.different(own, other, ruler.TASK):
        return f"The two played different tasks ({differ}), so neither times nor returns are compared."
    if a.criterion != b.criterion:
        return f"Converged means {a.criterion} in A and {b.criterion} in B, so times are not compared."
    # Other starts are a sample of the same ones: a confirmation has its own.
    if differ := ruler.different(own, other, [name for name in ruler.READING if name != "eval_seed"]):
        return f"The two were evaluated differently ({differ}), so times are not compared."
    if differ := ruler.different(own, other, ruler.BUDGET):
        return f"The budgets differ ({differ}): to have converged within one or the other is not the same."
    for view in (a, b):
        if names := ruler.varied(view.space):
            return f"{view.label} varied how it measures ({', '.join(names)}), so times are not compared."
    return ""


def _why_no_settling(a: View, b: View) -> str:
    own, other = (settling_of(view.data) for view in (a, b))
    if own is None or other is None:
        return ""  # there is nothing that could be compared
    if own != other or _why_no_times(a, b):
        return (
            "Who settled is not compared: it depends on the budget, on the threshold and on how often it is looked, "
            "and these differ."
        )
    return ""


def _why_no_scores(a: View, b: View) -> str:
    own, other = (view.data.settings["config"] for view in (a, b))
    if ruler.different(own, other, ruler.TASK):
        return "The two played different tasks."
    if not (a.with_budget and b.with_budget):
        return "Final returns are not compared: lanes left when they converged."
    if results.horizon(a.data) != results.horizon(b.data) or ruler.different(own, other, ruler.BUDGET):
        return "Final returns are not compared: the budgets differ."
    if differ := ruler.different(own, other, ["eval_epsilon"]):
        return f"Final returns are not compared: evaluations explored differently ({differ})."
    for view in (a, b):
        if names := ruler.varied(view.space):
            return f"Final returns are not compared: {view.label} varied how it measures ({', '.join(names)})."
    if any((view.lanes(view.best[0])["status"] == "pruned").any() for view in (a, b)):
        return "Final returns are not compared: lanes were pruned."
    return ""


def content_of(a: View, b: View) -> Content:
    """Title, subtitle, sections and footer of the page on two sweeps or runs."""
    sections = [
        _result(a, b),
        *_drawn(a, b),
        Section("differences", "Settings that differ", [_differences(a, b)]),
        *(
            dataclasses.replace(
                provenance(view), anchor=f"provenance-{letter}", title=f"Provenance of {letter.upper()}"
            )
            for letter, view in (("a", a), ("b", b))
        ),
    ]
    title = f"{a.data.name} against {b.data.name}"
    subtitle = f"{a.label} and {b.label}, compared by {a.clock_words}"
    footer = (
        "Every interval is a 95 % interval. Where trials were chosen on the seeds shown, their numbers are too good."
    )
    return title, subtitle, [section for section in sections if section.items], footer


def _result(a: View, b: View) -> Section:
    """The best trial of each side by side, how likely one does better, and what to bear in mind."""
    side = Table(("", a.label, b.label), [_side_by_side(name, texts) for name, texts in _sides((a, b))])
    items: list[Any] = [side]
    if found := comparisons(a, b):
        words = (
            "The same seeds were used on both sides; they are compared as pairs."
            if found[0].paired
            else "The seeds differ, so each side is taken on its own."
        )
        items.append(
            Paragraph(
                "Probability that a seed of A's best trial does better than one of B's; 50 % is no difference, ties "
                f"count half, and never to converge is worse than any time. {words}"
            )
        )
        cells = [[Cell.of(one.measure), Cell.of(_probability_text(one), one.probability)] for one in found]
        items.append(Table(("A has", "probability"), cells, numeric=[False, True]))
    if notes := _notes(a, b):
        items.append(Points(notes, "warn"))
    return Section("result", "Side by side", items)


def _notes(a: View, b: View) -> list[str]:
    """What is not compared and why, whom the comparison flatters, and what is said of each alone."""
    notes = [
        text for text in dict.fromkeys((_why_no_times(a, b), _why_no_settling(a, b), _why_no_scores(a, b))) if text
    ]
    for view, other in ((a, b), (b, a)):
        if len(view.table) > 1 and view.phase == "search" and (not other.space or other.phase == "confirm"):
            notes.append(
                f"{view.label} is flattered: its numbers are of the seeds on which its best trial was chosen, those of "
                f"{other.label} are not."
            )
        if (view.lanes(view.best[0])["status"] == "pruned").any():
            notes.append(f"{view.label}: pruned seeds count as not converged in the probabilities.")
        notes += [f"{view.label}: {text}" for text in caveats(view)]
    return notes


def _drawn(a: View, b: View) -> list[Section]:
    """Both in one figure, wherever both can be."""
    views = (a, b)
    survival, profile = [], []
    comparable = not ((a.settles or b.settles) and _why_no_times(a, b))
    if a.criterion is not None and b.criterion is not None and comparable:
        survival = pictures(
            "survival",
            partial(figures.survival, views),
            "Share of seeds that had not converged yet: the best trial of each, and all trials pooled where there "
            "are several; pointwise 95 % bands.",
            "Survival curves of both",
        )
    learning = pictures(
        "learning", partial(figures.learning_curves, views), "The best trial of each.", "Learning curves of both"
    )
    if not _why_no_scores(a, b):
        profile = pictures("profile", partial(figures.profile, views), "Final returns.", "Profiles of both")
    return [
        Section("survival", "Time to settle" if a.settles else "Time to convergence", survival),
        Section("learning", "Learning curves", learning),
        Section("final", "Final return", profile),
    ]


def _probability_text(one: Comparison) -> str:
    value = percent(one.probability)
    return value if one.low is None or one.high is None else f"{value} [{percent(one.low)}, {percent(one.high)}]"


def _sides(views: Sequence[View]) -> list[tuple[str, list[str]]]:
    """What is shown of the best trial of each."""
    best = [first_row(view.table if view.confirmed.empty else view.confirmed) for view in views]
    sides = list(zip(views, best, strict=True))

    def numbers(view: View, row: Any) -> str:
        seeds = f"{row['lanes']} seeds"
        if not view.space:
            return seeds
        return f"{seeds}, {'held-out' if not view.confirmed.empty else 'those of the search'}"

    return [
        ("trials", [f"{len(view.table):,}" for view in views]),
        ("best trial", [view.point_text(row) or "-" for view, row in sides]),
        ("its numbers are of", [numbers(view, row) for view, row in sides]),
        ("converged means", [view.criterion or "-" for view in views]),
        (views[0].converged_word, [converged_text(row) for row in best]),
        (f"mean {X_AXES[views[0].clock]}", [f"{time_text(row)} of {number(view.end)}" for view, row in sides]),
        ("median", [median_text(row) for row in best]),
        ("later ones that hold", [estimate(row, "stability", percent) for row in best]),
        *(
            [
                ("settled", [settled_text(row) for row in best]),
                ("mean environment steps to settle", [settled_time_text(row) for row in best]),
            ]
            if not views[0].settles and not _why_no_settling(*views)
            else []
        ),
        ("final mean", [estimate(row, "final_mean") for row in best]),
        ("worst seed", [number(row["lowest"]) for row in best]),
        ("final return, IQM", [estimate(row, "final") for row in best]),
        ("worst 10 % of seeds", [estimate(row, "worst") for row in best]),
        ("area under the curve", [estimate(row, "area") for row in best]),
        ("device-seconds per lane", [estimate(row, "lane_seconds") for row in best]),
    ]


def _side_by_side(name: str, texts: Sequence[str]) -> list[Cell]:
    return [Cell.of(name), *map(Cell.of, texts)]


def _differences(a: View, b: View) -> Table | Paragraph:
    own = [{**v.data.settings["config"], **v.data.settings["hparams"], **v.data.settings["vary"]} for v in (a, b)]
    names = [name for name in {**own[0], **own[1]} if show(own[0].get(name)) != show(own[1].get(name))]
    if not names:
        return Paragraph("None: they differ in seeds, if in anything.")
    rows = [_side_by_side(name, [show(side.get(name)) for side in own]) for name in names]
    return Table(("", a.label, b.label), rows)
