"""The tables of a sweep: their columns and words."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import pandas as pd


SWEEP_FILES = ("store.sqlite", "sweep.json")
"""What makes a folder a sweep's, and its copy for people."""

PHASES = ("search", "confirm")
STATUSES = ("converged", "budget", "diverged", "pruned")

LANE_COLUMNS = {
    "trial": "int64",
    "seed": "int64",
    "phase": "str",  # "search", or "confirm": the best trials again, on seeds that played no part in choosing them
    "status": "str",  # why it left: it converged, it spent its budget, it diverged, or it was pruned
    "env_steps": "int64",  # environment steps taken in all, and likewise
    "updates": "int64",
    "episodes": "int64",
    "device_seconds": "float64",  # its share of the time that the devices worked, compilation apart
    "converged": "bool",  # by the sweep's first criterion (it may have gone on after that)
    "converged_env_steps": "float64",  # when; NaN if it did not (or, of settling, if it was not seen to its end)
    "converged_updates": "float64",
    "converged_episodes": "float64",
    "converged_seconds": "float64",  # device-seconds until then
    "stability": "float64",  # share of the evaluations after first passage that met the threshold; NaN without any
    "final_return": "float64",  # mean of the last evaluation
    "best_return": "float64",  # highest mean of an evaluation
    "moments": "str",  # JSON: for each criterion in order [env_steps, updates, episodes, seconds], or null
}
CURVE_COLUMNS = {
    "trial": "int64",
    "seed": "int64",
    "phase": "str",
    "env_steps": "int64",
    "updates": "int64",
    "episodes": "int64",
    "seconds": "float64",  # device-seconds so far
    "eval_return": "float64",
    "eval_length": "float64",
    "train_return": "float64",  # mean of the last 100 training episodes
    "loss": "float64",
    "td_error": "float64",
    "q_mean": "float64",  # NaN in sweeps from before it was kept
}


@dataclasses.dataclass(frozen=True)
class SweepData:
    """Everything that a report needs of a sweep (or of a run: a sweep with one trial), finished or not."""

    name: str
    settings: dict[str, Any]  # sweep.json: what was asked
    plan: dict[str, Any]  # plan.json: groups, waves, programs, memory
    provenance: dict[str, Any]
    trials: pd.DataFrame  # index `trial`; one column per setting that varies (values as in the space; 'none' is None)
    lanes: pd.DataFrame  # LANE_COLUMNS, finished lanes only, sorted by phase, trial and seed
    curves: pd.DataFrame  # CURVE_COLUMNS, likewise, then by env_steps


CLOCKS = {"env_steps": "env_steps", "updates": "updates", "episodes": "episodes", "seconds": "device_seconds"}
"""The clocks that tell a time to convergence, and the lane column that says how far a lane went on each."""

MEASURES = {
    "env_steps": "time",
    **{clock: "per_solved" for clock in CLOCKS if clock != "env_steps"},
    "final_return": "final",
    "settled": "time",
}
"""The column of `ranked` that each ranking is by.

A lane that never converges costs every trial the same environment steps, but not the same seconds, updates or episodes:
by what lanes take on average, settings whose failures are cheap would lead. By "settled" they are ranked by the time to
settle, as by env_steps where a sweep's first criterion is that.
"""

Ranking = Literal["env_steps", "updates", "episodes", "seconds", "final_return", "settled"]
"""What trials can be ranked by."""

RANKINGS: tuple[Ranking, ...] = get_args(Ranking)
