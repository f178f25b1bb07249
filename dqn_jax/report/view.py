"""What the sections and figures of a report look at: one sweep's finished trials, ranked."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from dqn_jax.config import ConfigError, show
from dqn_jax.convergence import parse_criterion
from dqn_jax.report.importance import Importance, importance_of
from dqn_jax.report.values import converged_text, estimate, first_row, number, time_text
from dqn_jax.runs.figures import X_AXES
from dqn_jax.sweep import results, tables
from dqn_jax.sweep.rejudged import judged, settling_of, with_settling
from dqn_jax.sweep.space import Space, parse_space
from dqn_jax.sweep.tables import SweepData

if TYPE_CHECKING:
    import pandas as pd

_BEST = 4  # trials drawn in colour


@dataclasses.dataclass(frozen=True)
class View:
    """One sweep, or a run as a sweep of one trial, as it is reported."""

    label: str
    data: SweepData  # trials with all their seeds only
    left_out: int  # lanes of trials that still run
    by: str  # what the ranking is by
    clock: str  # that, or env_steps when ranked by final return
    end: float  # how long the longest lane had on this clock: where axes end
    space: Space
    table: pd.DataFrame  # the search, ranked
    confirmed: pd.DataFrame  # likewise on the held-out seeds that are reported; may be empty
    choice: pd.DataFrame  # likewise on those that chose among the finalists; the same in sweeps without halves
    importance: Importance | str
    shown: tuple[int, ...] | None = None  # the trials to be shown (default: the best few)

    @staticmethod
    def of(data: SweepData, by: str = "env_steps", label: str | None = None) -> View:
        """Rank what has finished.

        Raises:
          ConfigError: if nothing has, or it cannot be ranked by this.
        """
        data, by = judged(data, by)
        whole = with_settling(results.finished(data))
        if not (whole.lanes["phase"] == "search").any():
            lacking = "finished lanes" if data.lanes.empty else "trial with all its seeds finished"
            raise ConfigError(f"report: {data.name} has no {lacking} yet; let it run on, then report again.")
        clock = "env_steps" if by == "final_return" else by
        varied = data.settings["vary"]
        space = parse_space(varied) if varied else {}
        table = results.ranked(whole, by)
        losses = -table["final"] if by == "final_return" else table[tables.MEASURES[by]]  # smaller is better
        if np.isfinite(losses).any():  # without any solved seed the cost of one is infinite
            losses = losses.replace(np.inf, 2 * losses[np.isfinite(losses)].max())
        known = losses.notna().to_numpy()
        return View(
            label=data.name if label is None else label,
            data=whole,
            left_out=len(data.lanes) - len(whole.lanes),
            by=by,
            clock=clock,
            end=results.horizon(whole, clock),
            space=space,
            table=table,
            confirmed=results.ranked(whole, by, "confirm"),
            choice=results.ranked(whole, by, "choice"),
            importance=importance_of(space, table[known], losses[known]),
        )

    @property
    def criterion(self) -> str | None:
        """What converged means; None without a criterion."""
        return next(iter(self.data.settings["criteria"]), None)

    @property
    def settles(self) -> bool:
        """Whether converged means settled."""
        return self.criterion is not None and parse_criterion(self.criterion).settles

    @property
    def converged_word(self) -> str:
        """What a seed has done that met the criterion, in a word."""
        return "settled" if self.settles else "converged"

    @property
    def settling(self) -> View | None:
        """The same trials by when their seeds settled; None where that was not seen, or is what they are ranked by."""
        if self.settles or settling_of(self.data) is None or (self.data.lanes["status"] == "pruned").any():
            return None
        data, by = judged(self.data, "settled")
        return dataclasses.replace(
            self,
            data=data,
            by=by,
            clock=by,
            end=results.horizon(data),
            table=results.ranked(data, by),
            confirmed=results.ranked(data, by, "confirm"),
            shown=tuple(self.best),
        )

    @property
    def env(self) -> str:
        """The environment's name, or words in its place."""
        return str(self.data.settings["config"].get("env", "The environment"))

    @functools.cached_property
    def bounds(self) -> np.ndarray:
        """`[lanes]`, what their mean Q-values cannot pass; NaN where nothing bounds them or it cannot be known here."""
        try:
            return results.value_bounds(self.data)
        except (ConfigError, TypeError):  # an environment of another machine's, settings of another version
            return np.full(len(self.data.lanes), np.nan)

    @functools.cached_property
    def above_bound(self) -> np.ndarray:
        """`[lanes]`, bool, whether their mean Q-values passed their bounds."""
        return results.above_bound(self.data) if self.bounded else np.zeros(len(self.data.lanes), bool)

    @property
    def bounded(self) -> bool:
        """Whether any lane's values are bounded."""
        return bool(np.isfinite(self.bounds).any())

    @property
    def clock_words(self) -> str:
        """What the ranking is by, in words."""
        if self.by == "final_return":
            return "final return"
        if self.criterion is None:
            return "their best evaluations, for want of a criterion"
        to = "to settle" if self.settles else "to convergence"
        return f"{X_AXES[self.clock]} {to if self.measure == 'time' else 'per solved seed'}"

    def point_text(self, row: Any) -> str:
        """The settings of a trial that vary."""
        return ", ".join(f"{name} {show(row[name])}" for name in self.space)

    def row_text(self, row: Any) -> str:
        """A trial of the search or on held-out seeds: its number, what it reached, and its settings that vary."""
        who = f"trial {row['trial']}" if self.space else self.label
        if self.criterion is not None:
            reached = f"{converged_text(row)} {self.converged_word}, mean {X_AXES[self.clock]} {time_text(row)}"
        else:
            reached = f"{row['lanes']} seeds, final return {estimate(row, 'final')}"
        return "; ".join(filter(None, (f"{who}: {reached}", self.point_text(row))))

    def trial_text(self, trial: Any) -> str:
        """The same of a trial by its number, on held-out seeds where it has some."""
        for table in (self.confirmed, self.table):
            if not table.empty and len(own := table[table["trial"] == trial]):
                return self.row_text(first_row(own))
        return f"trial {trial}"

    def lane_text(self, lane: Any) -> str:
        """What one seed did: when it converged, how it ended."""
        last = f"last evaluation {number(lane['final_return'])}"
        if lane["converged"]:
            return f"{self.converged_word} at {number(lane[f'converged_{self.clock}'])} {X_AXES[self.clock]}, {last}"
        return ", ".join(
            [*([f"not {self.converged_word}"] if self.criterion is not None else []), last, str(lane["status"])]
        )

    @property
    def measure(self) -> str:
        """The column of the table that it is ranked by."""
        return tables.MEASURES[self.by]

    @property
    def measure_words(self) -> str:
        """The column of the table that it is ranked by, in words."""
        mean = f"mean {X_AXES[self.clock]}\nto convergence"
        return {"final": "final return (IQM)", "time": mean}.get(self.measure, f"{X_AXES[self.clock]}\nper solved seed")

    @property
    def phase(self) -> str:
        """Where the best few are shown: on held-out seeds, if there are any."""
        return "search" if self.confirmed.empty else "confirm"

    @property
    def chosen_on_reported(self) -> bool:
        """Whether all held-out seeds chose among the finalists and are shown: as it was before there were halves."""
        choosing, reported = results.halves(self.data.settings)
        return choosing == reported

    @property
    def best(self) -> list[int]:
        """The best few trials, best first: by the held-out seeds, if there are any."""
        if self.shown is not None:
            return list(self.shown)
        table = self.table if self.confirmed.empty else self.confirmed
        return [int(trial) for trial in table["trial"][:_BEST]]

    @property
    def with_budget(self) -> bool:
        """Whether lanes ran on to the end of their budget, so that final returns and areas can be compared."""
        return bool(self.data.settings["stop"] == "budget")

    def lanes(self, trial: int | None = None, phase: str | None = None) -> pd.DataFrame:
        """Lanes of a phase (default: where the best few are shown), of one trial or of all."""
        lanes = results.in_phase(self.data.settings, self.data.lanes, phase or self.phase)
        return lanes if trial is None else lanes[lanes["trial"] == trial]

    def outcomes(self, trial: int | None = None, phase: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Times and whether converged, of these lanes on the clock."""
        lanes = self.lanes(trial, phase)
        times, converged, ends = results.outcomes(lanes, self.clock, self.data.settings["config"]["total_steps"])
        return np.where(~converged & (times >= ends), self.end, times), converged  # it never will be, to the axis's end

    def name(self, trial: int) -> str:
        """What a trial is called in a legend, with its number of seeds."""
        if not self.space:
            return self.label
        seeds = len(self.lanes(trial))
        return f"trial {trial}, {seeds} {'held-out ' if self.phase == 'confirm' else ''}seed{'s' * (seeds != 1)}"
