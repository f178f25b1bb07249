"""Speed, measured: `dqn-jax benchmark`. Medians of several runs; ratios within one process or pinned pairs.

update      end-to-end updates per second against the same update alone on a fixed batch, one core
population  64 lanes on all cores against one lane on one core, pinned processes taking turns
cold        a fresh process: one CartPole seed from start to convergence, cold and warm compilation cache
env         environment steps per second of gymnax CartPole alone, the ceiling
sweep       whole sweeps on CartPole, with and without leaving early; how speed changes with lanes and devices; what
            storage costs, and how good the plan's estimate of memory is (half an hour: not part of the default)
family      an update of each member of the family against plain DQN's, on CartPole and on MinAtar (not part of the
            default)
minatar     DQN on MinAtar's Breakout, with its convolution and with a small network (not part of the default)
pqn         PQN on CartPole and MinAtar, one seed and 16, and how much of it is learning (not part of the default)
replay      a batch drawn by priority, with its new priorities, against one drawn uniformly, by capacity (not part of
            the default)
atari       the loop over a pool of games against its parts, and the replay of frames (not part of the default)
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dqn_jax.benchmark.atari import atari_rows
from dqn_jax.benchmark.family import family_rows
from dqn_jax.benchmark.measure import Row, child
from dqn_jax.benchmark.minatar import minatar_rows
from dqn_jax.benchmark.pqn import pqn_rows
from dqn_jax.benchmark.programs import cold_rows, env_rows, population_rows, update_rows
from dqn_jax.benchmark.replay import replay_rows
from dqn_jax.benchmark.sweeps import sweep_rows
from dqn_jax.config import ConfigError
from dqn_jax.files import atomic, check_writable, clear_errors


def run(parts: Sequence[str], *, repeats: int, out: Path | None) -> None:
    """Measure `parts`, print the table, and write it to `out` if given."""
    unknown = [part for part in parts if part not in _PARTS]
    if unknown:
        raise ConfigError(f"parts: there is no benchmark '{unknown[0]}'; choose from {', '.join(_PARTS)}.")
    if out is not None:
        check_writable(out, "out")
    rows: list[Row] = []
    for part in parts:
        print(f"measuring {part} ...", file=sys.stderr)
        # Each part in a process of its own: device counts and pinning are fixed when jax starts.
        rows += [Row(**row) for row in child(f"benchmark.rows_of({part!r}, {repeats})")]
    import pandas as pd

    table = pd.DataFrame([dataclasses.asdict(row) for row in rows])
    print(f"{'what':<74} {'median':>12} {'range':>25}  target")
    for row in rows:
        print(f"{row.what:<74} {_short(row.value):>12} {_short(row.low):>12} {_short(row.high):>12}  {row.target}")
    if out is not None:
        with clear_errors(out, "measure again"), atomic(out) as path:
            table.to_csv(path, index=False, float_format="%.6g")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def rows_of(part: str, repeats: int) -> list[dict[str, Any]]:
    """The rows of one part, as plain data."""
    return [dataclasses.asdict(row) for row in _PARTS[part](repeats)]


_PARTS: dict[str, Callable[[int], list[Row]]] = {
    "update": update_rows,
    "population": population_rows,
    "cold": cold_rows,
    "env": env_rows,
    "sweep": sweep_rows,
    "family": family_rows,
    "minatar": minatar_rows,
    "pqn": pqn_rows,
    "atari": atari_rows,
    "replay": replay_rows,
}
