"""When has an agent converged, how fast, and how sure are we? On curves and tables of any origin."""

from dqn_jax.convergence.criteria import (
    KINDS,
    Collapse,
    Criterion,
    Curve,
    Moment,
    collapses,
    first_run,
    parse_criterion,
    stability,
    summarize,
    time_to,
    trailing_mean,
)
from dqn_jax.convergence.statistics import (
    bootstrap_interval,
    interquartile_mean,
    median_interval,
    median_with_censored,
    share_interval,
)

__all__ = [
    "KINDS",
    "Collapse",
    "Criterion",
    "Curve",
    "Moment",
    "bootstrap_interval",
    "collapses",
    "first_run",
    "interquartile_mean",
    "median_interval",
    "median_with_censored",
    "parse_criterion",
    "share_interval",
    "stability",
    "summarize",
    "time_to",
    "trailing_mean",
]
