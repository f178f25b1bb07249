"""Train an Atari preset and record what came out: curve, score, frames and time.

    .venv/bin/python -m experiments.atari.train pong-fast

The run is kept in runs/atari/NAME and goes on where it was stopped (in fresh games).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

import dqn_jax
from dqn_jax import report, runs
from dqn_jax.display import TrainDisplay
from experiments.common import machine, markdown_table

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Train and write results/NAME."""
    name, *seeds = sys.argv[1:]
    out = Path("runs/atari") / name
    with TrainDisplay(name, int(seeds[0]) if seeds else 1, enabled=sys.stderr.isatty()) as display:
        result = dqn_jax.train(
            name,
            seeds=int(seeds[0]) if seeds else 1,
            out=out,
            resume=(out / "config.json").is_file(),
            stop="converged",
            on_progress=display.update,
            warn=display.warn,
        )
    if result.interrupted:
        sys.exit(130)
    write(name, out)


def write(name: str, run: Path) -> None:
    """Write results/NAME from a finished run."""
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    summary = runs.read_json(run / "summary.json")
    settings = runs.load_settings(run)
    frames = settings.config.action_repeat
    shutil.copyfile(run / "metrics.csv", folder / "metrics.csv")
    with runs.atomic(folder / "curve.png") as path:
        report.plot_runs([report.RunData.load(run)], path, x="env_steps", y="eval_return", aggregate="mean")
    rows = []
    for i, seed in enumerate(summary["seeds"]):
        for criterion in summary["criteria"]:
            steps, seconds = criterion["env_steps"][i], criterion["seconds"][i]
            reached = "not reached" if steps is None else f"{steps * frames:,} frames, {seconds / 60:,.0f} minutes"
            rows.append([seed, criterion["name"], reached])
    final = ", ".join(f"{x:.1f}" for x in np.asarray(summary["final_eval_return"], float))
    text = [
        f"# {name}",
        f"`.venv/bin/python -m experiments.atari.train {name}`, measured {machine()}. "
        f"{summary['env_steps'] * frames:,} frames and {sum(summary['updates']):,.0f} updates in "
        f"{summary['seconds']['run'] / 60:,.0f} minutes of wall time, evaluations included. "
        f"Last evaluation (mean of {settings.config.eval_episodes} games): {final}.",
        "![evaluation score](curve.png)",
        markdown_table(["seed", "criterion", "reached after"], rows),
    ]
    note = folder / "NOTE.md"  # what a reader must know of this run, written by hand
    if note.is_file():
        text.append(note.read_text().strip())
    with runs.atomic(folder / "README.md") as path:
        path.write_text("\n\n".join(text) + "\n")


if __name__ == "__main__":
    main()
