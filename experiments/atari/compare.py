"""Set training returns beside Dopamine's published curves, at the frames that both have.

    .venv/bin/python -m experiments.atari.compare breakout-hour ms-pacman-hour

Names are of results/ here, or folders of runs that kept their episodes. Writes results/comparison.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dqn_jax import convergence, files, runs
from dqn_jax.config import ConfigError
from dqn_jax.envs import resolve_env
from dqn_jax.presets import apply_protocol, resolve_preset
from experiments import pages
from experiments.atari.train import RESULTS, rules, training_returns
from experiments.figures import COLOURS, save_figure

FOLDER = RESULTS / "comparison"
PUBLISHED = Path(__file__).parent / "published" / "dopamine.csv"
PUBLISHED_RULES = rules(  # as in the configuration files of Dopamine's DQN
    apply_protocol(resolve_preset("pong").config, "dopamine"),
    resolve_preset("pong").hparams._replace(epsilon_end=0.01, epsilon_decay_steps=250_000),
)
MILLION = 1_000_000  # frames, one iteration of Dopamine


@dataclasses.dataclass(frozen=True)
class Run:
    """What is compared of one run."""

    name: str
    game: str  # by its published name
    rules: str
    returns: pd.DataFrame  # as `training_returns` gives
    frames: int  # trained, per seed

    @staticmethod
    def load(name: str) -> Run:
        """From results/NAME or a run's folder.

        Raises:
          ConfigError: if it is no run, or has no training returns.
        """
        folder = RESULTS / name if (RESULTS / name).is_dir() else runs.find_run(name)
        settings = runs.load_settings(folder)
        frames = settings.config.action_repeat
        if (folder / "training.csv").is_file():
            returns = pd.read_csv(folder / "training.csv")
        elif (folder / "episodes.csv").is_file():
            returns = training_returns(pd.read_csv(folder / "episodes.csv"), frames)
        else:
            raise ConfigError(f"run: {folder} kept no training games; train it again, with --save-episodes.")
        trained = int(pd.read_csv(folder / "metrics.csv").env_steps.max()) * frames
        game = resolve_env(settings.config.env).split("-")[0]
        return Run(folder.name, game, rules(settings.config, settings.hparams), returns, trained)

    def per_million(self) -> pd.DataFrame:
        """Mean return of the games that ended in each whole million of frames: one row each, one column per seed."""
        million = -(-self.returns.frames // MILLION)
        groups = [million.rename("million"), self.returns.seed]
        games = self.returns.games.groupby(groups).sum()
        total = (self.returns.games * self.returns.mean_return).groupby(groups).sum()
        table = (total / games).unstack().dropna()
        return table[table.index <= self.frames // MILLION]


def main() -> None:
    """Compare the runs named on the command line."""
    try:
        compare([Run.load(name) for name in sys.argv[1:]], shlex.join(sys.argv[1:]))
    except ConfigError as error:
        sys.exit(str(error))


def compare(chosen: Sequence[Run], arguments: str) -> None:
    """Write the figure, the table and the page."""
    published = pd.read_csv(PUBLISHED)
    check(chosen, published)
    table = pd.concat([beside(run, published[published.game == run.game]) for run in chosen], ignore_index=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with files.atomic(FOLDER / "comparison.csv") as path:
        table.to_csv(path, index=False, float_format="%.6g")
    columns, lines = _panels(chosen)
    width, height = max(6.0, 4.4 * columns), 3.8 * lines
    save_figure(FOLDER / "comparison.png", width, height, lambda figure: draw(figure, chosen, published))
    pages.write(
        FOLDER / "README.md",
        "atari/comparison.md.jinja",
        arguments=arguments,
        rows=[_row(row) for row in table.itertuples()],
        rules=[*((run.name, run.rules) for run in chosen), ("published", PUBLISHED_RULES)],
    )


def check(chosen: Sequence[Run], published: pd.DataFrame) -> None:
    """Refuse what cannot be compared.

    Raises:
      ConfigError: if no run is named, or one has no published curve, or has not come to where those begin.
    """
    without = [run.game for run in chosen if run.game not in set(published.game)]
    if without or not chosen:
        raise ConfigError(
            f"run: {f'{without[0]} has no published curve' if without else 'name at least one'}; "
            f"there are curves of {', '.join(published.game.unique())}."
        )
    short = [run for run in chosen if run.per_million().empty]
    if short:
        raise ConfigError(f"run: {short[0].name} has no million frames yet, and published curves begin there; go on.")


def beside(run: Run, published: pd.DataFrame) -> pd.DataFrame:
    """One row for each number of frames that both have."""
    ours, theirs = run.per_million(), published.set_index("frames_millions")
    rows = []
    for million in ours.index.intersection(theirs.index):
        values, there = ours.loc[million].to_numpy(), theirs.loc[million]
        low, high = convergence.mean_interval(values) if len(values) > 1 else (np.nan, np.nan)
        rows.append(
            dict(
                game=run.game, run=run.name, frames=int(million * MILLION), seeds=len(values), ours=values.mean(),
                low=low, high=high, published=there.mean_return, published_std=there.std_return,
                published_runs=there.runs, difference=values.mean() - there.mean_return, rules=run.rules,
                published_rules=PUBLISHED_RULES,
            )
        )  # fmt: skip
    return pd.DataFrame(rows)


def _row(r: Any) -> list[str]:
    """A row of `beside` as one of the page."""
    return [
        r.game,
        r.run,
        f"{r.frames / MILLION:g}M",
        f"{r.ours:.4g} " + ("(one seed)" if r.seeds == 1 else f"[{r.low:.4g}, {r.high:.4g}]"),
        f"{r.published:.4g} ± {r.published_std:.3g}",
        f"{r.difference:+.3g}",
        "yes" if r.rules == r.published_rules else "no",
    ]


def _panels(chosen: Sequence[Run]) -> tuple[int, int]:
    """Columns and lines of panels, one for each game."""
    games = len({run.game for run in chosen})
    columns = min(games, 3)
    return columns, -(-games // columns)


def draw(figure: Figure, chosen: Sequence[Run], published: pd.DataFrame) -> None:
    """A panel for each game: its runs over the published curve."""
    games = list(dict.fromkeys(run.game for run in chosen))
    columns, lines = _panels(chosen)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, game in zip(panels, games, strict=False):
        draw_game(panel, [run for run in chosen if run.game == game], published[published.game == game])
    for panel in panels[len(games) :]:
        panel.remove()


def draw_game(axis: Any, chosen: Sequence[Run], published: pd.DataFrame) -> None:
    """One game's runs over the published curve, twice as far as they went."""
    shown = published[published.frames_millions <= max(4, 2 * max(run.frames for run in chosen) / MILLION)]
    x, mean, std = (shown[name].to_numpy(float) for name in ("frames_millions", "mean_return", "std_return"))
    axis.plot(x, mean, color="0.35", lw=1.6, label=f"published: mean ± std, {int(shown.runs.max())} runs")
    axis.fill_between(x, mean - std, mean + std, color="0.35", alpha=0.2, lw=0)
    for run, colour in zip(chosen, COLOURS, strict=False):
        for _, own in run.returns.groupby("seed"):
            axis.plot(own.frames / MILLION, own.mean_return, color=colour, lw=0.6, alpha=0.45)
        table = run.per_million()
        seeds = table.shape[1]
        label = f"{run.name}, {'one seed' if seeds == 1 else f'{seeds} seeds'}"
        axis.plot(table.index, table.mean(axis=1), color=colour, lw=1.8, marker="o", ms=4, label=label)
        if seeds > 1:
            low, high = convergence.mean_interval(table.to_numpy().T)
            axis.fill_between(table.index, low, high, color=colour, alpha=0.25, lw=0)
    axis.set_title(chosen[0].game, fontsize=11)
    axis.set_xlabel("million frames, per seed")
    axis.set_ylabel("training return")
    axis.set_xlim(left=0)
    axis.grid(alpha=0.25, lw=0.6)
    axis.legend(fontsize=8, frameon=False)


if __name__ == "__main__":
    main()
