"""How fast and how reliably do the presets converge? Measured on seeds that played no part in choosing them.

    .venv/bin/python -m experiments.presets.measure [PRESET ...]
    .venv/bin/python -m experiments.presets.measure --from-records   # shares and medians anew from results/*.csv

Claim checked: each preset reaches its first criterion within its budget in most seeds, and stays there.
Writes results/<preset>.csv (one row per seed and criterion), results/<preset>.png, and the table in
results/README.md, one preset at a time.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import dqn_jax
from dqn_jax import convergence, files, report
from experiments import pages

RESULTS = Path(__file__).parent / "results"
FIRST_SEED = 10_000
SEEDS = {
    "cartpole": 100,
    "cartpole-fast": 64,
    "pendulum": 64,
    "acrobot": 100,
    "mountaincar": 100,
    "dqn-no-replay": 16,
    "dqn-no-target": 16,
}
LONGER: dict[str, dict[str, Any]] = {"cartpole": {"total_steps": 200_000}}  # than the preset trains, to see who stays


def measure(name: str) -> None:
    """Train one preset on held-out seeds and write its results."""
    seeds = SEEDS.get(name, 16)
    result = dqn_jax.train(
        name, seeds=seeds, seed=FIRST_SEED, root="runs/measure", on_progress=_show, **LONGER.get(name, {})
    )
    if result.interrupted:
        sys.exit(130)
    summary = result.summary
    rows = [
        {
            "criterion": criterion["name"],
            "seed": seed,
            **{field: criterion[field][i] for field in _PER_SEED},
            "final_return": summary["final_eval_return"][i],
        }
        for criterion in summary["criteria"]
        for i, seed in enumerate(summary["seeds"])
    ]
    pd.DataFrame(rows).to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.6g")
    data = report.RunData.of(result.settings, result.metrics, summary)
    report.plot_runs([data], RESULTS / f"{name}.png")
    if result.run is not None and (result.run / "film.gif").is_file():
        shutil.copyfile(result.run / "film.gif", RESULTS / f"{name}.gif")
    files.write_json(RESULTS / f"{name}.json", {**_row(name, summary), "measured": pages.machine()})
    write_page()


_PER_SEED = ("env_steps", "updates", "episodes", "seconds", "stability")


def _show(progress: Any) -> None:
    if progress.phase == "train":
        print(f"{progress.env_steps:,} of {progress.total_steps:,} steps, {progress.converged.mean():.0%}", flush=True)


def reanalyse(name: str) -> None:
    """What can be told from results/<preset>.csv, with today's statistics; runs from before 2026-11-24 have no final
    returns there, so the interval of their mean, a bootstrap's that was too narrow, is left out."""
    own = pd.read_csv(RESULTS / f"{name}.csv")
    own = own[own["criterion"] == own["criterion"][0]]
    times = [None if np.isnan(t) else float(t) for t in own["env_steps"]]
    row = json.loads((RESULTS / f"{name}.json").read_text()) | _speed(times)
    row["final95"] = [None, None]
    if "final_return" in own:
        row["final95"] = convergence.mean_interval(own["final_return"])
    files.write_json(RESULTS / f"{name}.json", row)


def _speed(times: list[float | None]) -> dict[str, Any]:
    return {
        "converged95": list(convergence.share_interval([t is not None for t in times])),
        "median_env_steps": convergence.median_with_censored(times),
        "median95": convergence.median_interval(times),
    }


def _row(name: str, summary: dict[str, Any]) -> dict[str, Any]:
    criterion = summary["criteria"][0]
    settled = next(own for own in summary["criteria"] if own["name"].startswith("settled"))
    seeds = len(summary["seeds"])
    stable = [s for s in criterion["stability"] if s is not None]
    return {
        "preset": name,
        "criterion": criterion["name"],
        "seeds": seeds,
        "budget": summary["env_steps"],
        "converged": criterion["converged"],
        **_speed(criterion["env_steps"]),
        "stability": float(np.mean(stable)) if stable else None,
        "settled": _speed(settled["env_steps"]) | {"converged": settled["converged"]},
        "final_mean": summary["final_eval"]["mean"],
        "final95": summary["final_eval"]["interval95"],
        "worst": summary["final_eval"]["worst"],
        "seconds": summary["seconds"]["run"],
    }


def write_page() -> None:
    """Write results/README.md from what is recorded of each preset."""
    rows = [json.loads((RESULTS / f"{name}.json").read_text()) for name in SEEDS if (RESULTS / f"{name}.json").exists()]
    pages.write(RESULTS / "README.md", "presets/page.md.jinja", rows=[_line(row) for row in rows])


def _line(row: dict[str, Any]) -> list[Any]:
    """What is recorded of a preset as a line of the page's table."""
    low, high = row["median95"]
    return [
        f"`{row['preset']}`",
        f"`{row['criterion']}`",
        row["seeds"],
        f"{row['budget']:,}",
        "{:.0%} [{:.0%}, {:.0%}]".format(row["converged"], *row["converged95"]),
        f"{_steps(row['median_env_steps'])} [{_steps(low)}, {_steps(high)}]",
        "-" if row["stability"] is None else f"{row['stability']:.1%}",
        *_settled(row.get("settled")),
        f"{row['final_mean']:.1f}{_interval(row['final95'])}",
        f"{row['worst']:.1f}",
        f"{row['seconds']:.0f}",
        row["measured"],
    ]


def _settled(settled: dict[str, Any] | None) -> tuple[str, str]:
    """Share of seeds and median steps; of runs from before it was asked, nothing."""
    if settled is None:
        return "-", "-"
    (low, high), share = settled["median95"], "{:.0%} [{:.0%}, {:.0%}]"
    return (
        share.format(settled["converged"], *settled["converged95"]),
        f"{_steps(settled['median_env_steps'])} [{_steps(low)}, {_steps(high)}]",
    )


def _interval(ends: list[float | None]) -> str:
    return "" if ends[0] is None or ends[1] is None else f" [{ends[0]:.1f}, {ends[1]:.1f}]"


def _steps(value: float | None) -> str:
    return "not reached" if value is None else f"{value:,.0f}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--from-records"]:
        for preset in SEEDS:
            reanalyse(preset)
        write_page()
    else:
        for preset in sys.argv[1:] or SEEDS:
            measure(preset)
