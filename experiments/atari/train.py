"""Train an Atari preset and record what came out: curves, score, frames and time.

    .venv/bin/python -m experiments.atari.train pong-fast
    .venv/bin/python -m experiments.atari.train pong-fast --name breakout-hour --env Breakout-v5 --minutes 60

Any option of `dqn-jax train` may follow. Without --minutes a run ends once it has converged. It is kept in
runs/atari/NAME and goes on where it was stopped (in fresh games).
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dqn_jax import files, report, runs
from dqn_jax.cli import main as cli
from dqn_jax.config import Config, HParams, show
from dqn_jax.envs import resolve_env
from dqn_jax.presets import ATARI_SCORES, resolve_preset
from experiments import pages

RESULTS = Path(__file__).parent / "results"
BIN = 100_000  # frames; ten make one of the published curves' million
_LIVES = {"ignore": "lives not told", "bootstrap": "a lost life ends the bootstrap", "episode": "a life is an episode"}


def main() -> None:
    """Train the preset named on the command line, and write results/NAME once it is done."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("preset")
    parser.add_argument("--name", help="of the result (default: the preset's)")
    parser.add_argument("--env", help="another game")
    parser.add_argument("--minutes", help="train for so long, converged or not")
    args, options = parser.parse_known_args()
    name = args.name or args.preset
    run = Path("runs/atari") / name
    given = ["--stop", "converged"] if args.minutes is None else ["--max-minutes", args.minutes]
    if args.env is not None:
        given += ["--env", args.env]
    if (run / "config.json").is_file():
        given.append("--resume")
    code = cli.main(["train", args.preset, "--save-episodes", "--out", str(run), *given, *options])
    if code:
        sys.exit(code)
    write(name, run, shlex.join(sys.argv[1:]))


def write(name: str, run: Path, arguments: str) -> None:
    """Write results/NAME from a finished run that kept its episodes."""
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    summary = files.read_json(run / "summary.json")
    settings = runs.load_settings(run)
    for file in ("config.json", "metrics.csv"):
        shutil.copyfile(run / file, folder / file)
    with files.atomic(folder / "training.csv") as path:
        returns = training_returns(pd.read_csv(run / "episodes.csv"), settings.config.action_repeat)
        returns.to_csv(path, index=False, float_format="%.7g")
    with files.atomic(folder / "curve.png") as path:
        report.plot_runs([report.RunData.load(run)], path, x="env_steps", y="eval_return", aggregate="mean")
    note = folder / "NOTE.md"  # what a reader must know of this run, written by hand
    pages.write(
        folder / "README.md",
        "atari/run.md.jinja",
        name=name,
        arguments=arguments,
        measured=pages.machine(),
        note=note.read_text().strip() if note.is_file() else "",
        **measure(settings, summary),
    )


def measure(settings: runs.RunSettings, summary: dict[str, Any]) -> dict[str, Any]:
    """What the page says of a run, from its settings and what it wrote at its end."""
    config, frames, env = settings.config, settings.config.action_repeat, resolve_env(settings.config.env)
    random, human = ATARI_SCORES.get(env, (None, None))
    return {
        "env": config.env,
        "preset": settings.name,
        "rules": rules(config, settings.hparams),
        "changed": changed(settings),
        "eval_episodes": config.eval_episodes,
        "frames": summary["env_steps"] * frames,
        "updates": sum(summary["updates"]),
        "minutes": summary["seconds"]["run"] / 60,
        "final": np.asarray(summary["final_eval_return"], float),
        "random": random,
        "human": human,
        "reached": [
            [seed, criterion["name"], _reached(criterion, i, frames)]
            for i, seed in enumerate(summary["seeds"])
            for criterion in summary["criteria"]
        ],
    }


def _reached(criterion: dict[str, Any], lane: int, frames: int) -> str:
    """When a seed met a criterion."""
    steps, seconds = criterion["env_steps"][lane], criterion["seconds"][lane]
    return "not reached" if steps is None else f"{steps * frames:,} frames, {seconds / 60:,.0f} minutes"


def training_returns(episodes: pd.DataFrame, frames_per_step: int) -> pd.DataFrame:
    """Training games in bins of `BIN` frames (a bin ends with its frames): seed, frames, games, mean_return.

    A game is in the bin that it ended in; returns are raw. Bins in which none ended are left out.
    """
    ends = -(-episodes.env_steps * frames_per_step // BIN) * BIN
    grouped = episodes.train_return.groupby([episodes.seed, ends.rename("frames")])
    return grouped.agg(games="count", mean_return="mean").reset_index()


def rules(config: Config, hparams: HParams) -> str:
    """What training scores depend on beside the agent: the game's rules and the exploration."""
    decay = hparams.epsilon_decay_steps * config.action_repeat / 1e6
    return (
        f"sticky actions {config.sticky_actions:g}, {_LIVES[config.life_loss]}, exploration to "
        f"{hparams.epsilon_end:g} over {decay:g}M frames"
    )


def changed(settings: runs.RunSettings) -> list[str]:
    """What was changed in the preset, as `name value`."""
    preset = resolve_preset(settings.name)
    own, as_given = ({**dataclasses.asdict(x.config), **x.hparams._asdict()} for x in (settings, preset))
    return [f"{field} {show(own[field])}" for field in own if show(own[field]) != show(as_given[field])]


if __name__ == "__main__":
    main()
