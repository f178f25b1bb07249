"""What a sweep asks, in the one form that the Python call, the command line and the records share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal

from dqn_jax.config.fields import EACH, Flag
from dqn_jax.sweep.space import Sampler
from dqn_jax.sweep.tables import Ranking


@dataclasses.dataclass(frozen=True)
class Question:
    """What varies and how its points are drawn, on which seeds, when lanes leave, and what is confirmed.

    `definition.define` checks it and puts it beside a preset's settings, as plain JSON; `definition.question_of` is the
    way back. The text below a field is that of its option.
    """

    vary: Annotated[tuple[str, ...], EACH] = ()
    """NAME=VALUES, once for each setting: learning_rate=log(1e-4,1e-2), discount=uniform(0.9,0.999),
    target_period=int(1,100), epsilon_decay_steps=logint(1000,50000), batch_size=32,64, hidden=64x64,120x84. Ranges
    have parentheses: put them in quotes for the shell."""
    name: str | None = None
    """Name of the sweep (default: the preset's)."""
    sampler: Sampler | None = None
    """How points are drawn (default: grid if only lists vary and --samples is not given, else sobol). tpe and cmaes
    learn from what they found, --sampler-batch points at a time."""
    samples: int | None = None
    """How many points to draw; a grid has its own number."""
    sample_seed: int = 0
    """Seed of the draws."""
    batch: Annotated[int, Flag("--sampler-batch")] = 32
    """Points that tpe and cmaes draw at a time; they train together."""
    seeds: int | Sequence[int] = 5
    """Seeds of every point, the same for all points."""
    seed: int = 0
    """The first seed."""
    criteria: tuple[str, ...] | None = None
    """Convergence criteria; the first one decides when a lane leaves. E.g. eval:475x3, or in quotes 'eval>=475x3'."""
    stop: Literal["converged", "budget"] | None = None
    """'converged': lanes leave once they meet the first criterion; 'budget': all stay to the end (default: converged,
    but budget where a criterion asks who settled, which only the end can tell)."""
    stability_steps: int = 0
    """Environment steps that a converged lane stays on, to see whether it lasts."""
    prune: Literal["halving", "hyperband"] | None = None
    """Leave trials whose evaluations look hopeless (default: none, for it biases what is said of the others)."""
    prune_eta: int = 3
    """With --prune, one trial in so many goes on at each rung."""
    confirm: int = 0
    """Run the best points again on so many held-out seeds."""
    confirm_best: int = 3
    """How many of the best points to confirm, by each of --confirm-by."""
    confirm_by: tuple[Ranking, ...] = ("env_steps",)
    """What 'best' means: the time to the first criterion on a clock, the time to settle, or the final return; the last
    two need --stop budget."""
