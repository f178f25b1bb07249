"""Writes a run's files while it goes: tables, TensorBoard events, checkpoints, and the figures at the end."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from dqn_jax import convergence, files
from dqn_jax.config import RunError
from dqn_jax.lanes.driver import Driver, Population
from dqn_jax.lanes.history import History
from dqn_jax.runs import checkpoint
from dqn_jax.runs.best import Best
from dqn_jax.runs.checkpoint import Checkpoints, Saved
from dqn_jax.runs.figures import RunData, plot_runs
from dqn_jax.runs.folder import save_summary
from dqn_jax.runs.play import film_policy, film_title, median_lane
from dqn_jax.runs.provenance import FRESH_GAMES, load_provenance, provenance_of
from dqn_jax.runs.settings import RunSettings
from dqn_jax.types import Params, PyTree

if TYPE_CHECKING:  # slow to import
    from tensorboardX import SummaryWriter

_TAGS = {  # of TensorBoard, which groups them by what is before the slash
    "eval_return": "eval/return",
    "eval_length": "eval/length",
    "train_return": "train/return",
    "loss": "train/loss",
    "td_error": "train/td_error",
    "q_mean": "train/q_mean",
    "epsilon": "train/epsilon",
    "updates": "time/updates",
    "episodes": "time/episodes",
}


class Recorder:
    """The files of one run. Everything it writes can be written again from the history in a checkpoint."""

    def __init__(
        self,
        run: Path,
        settings: RunSettings,
        driver: Driver,
        population: Population,
        *,
        save_episodes: bool = False,
    ):
        self.run = run
        self._driver = driver
        self._everyone = np.arange(len(settings.seeds))
        self._checkpoints = Checkpoints(checkpoint.folder_of(run), population, rows_apart=driver.rows_apart)
        self.settings = settings
        self.save_episodes = save_episodes
        self._writers: list[SummaryWriter] = []
        self._events_written = 0
        self._best_written = np.zeros(0, np.int64)  # environment steps of the best networks in the file

    def provenance(self, warn: Callable[[str], None]) -> None:
        """Write where the numbers come from; what was noted of an earlier part of the run stays."""
        path = self.run / "provenance.json"
        earlier = load_provenance(self.run, warn)
        kept = {FRESH_GAMES: earlier[FRESH_GAMES]} if FRESH_GAMES in earlier else {}
        files.write_json(path, {**provenance_of(self.settings.seeds), **kept})

    def chunk(self, history: History) -> None:
        """Write the tables and events as of now."""
        with files.clear_errors(self.run):
            (self.run / "summary.json").unlink(missing_ok=True)  # of a run that has ended, and goes on now
            self._tables(history)
            self._events(history)

    def checkpoint(self, env_steps: int, lanes: PyTree, history: History, best: Best) -> None:
        """Save everything that going on needs (`lanes` as the population has them), then the best networks."""
        with files.clear_errors(self.run):
            self._checkpoints.save(env_steps, lanes, history.arrays() | best.arrays(), self._everyone)
            self.best(best)

    def best(self, best: Best) -> None:
        """Write the best networks, where they have changed."""
        if not np.array_equal(best.env_steps, self._best_written):
            best.save(self.run, self.settings.seeds)
            self._best_written = best.env_steps.copy()

    def load(self, warn: Callable[[str], None]) -> Saved | None:
        """What the run goes on from, as `checkpoint.load`."""
        files.clear_unfinished(self.run)
        return self._checkpoints.load(warn)

    def finish(self, summary: files.Json, history: History, params: Params, warn: Callable[[str], None]) -> None:
        """Write the summary, the figure and, where the environment can be drawn, the median seed's film."""
        with files.clear_errors(self.run):
            self._tables(history)
            save_summary(self.run, summary)
            if history.env_steps:
                with files.atomic(self.run / "curve.png") as path:
                    plot_runs([RunData.of(self.settings, history.metrics_table(), summary, self.run)], path)
            for writer in self._writers:
                writer.close()
            if summary["complete"] and history.env_steps:
                self.film(median_lane(summary["final_eval_return"]), params, warn)

    def film(self, lane: int, params: Params, warn: Callable[[str], None]) -> None:
        """Film one of the agents `params` (leaves `[L, ...]`), if its environment can be drawn."""
        if not self._driver.can_film():
            warn(f"no film: {self.settings.config.env} cannot be drawn; all else is written")
            return
        own = jax.tree.map(lambda x: x[lane], params)
        title = film_title(self._driver, f"seed {self.settings.seeds[lane]}")
        path = self.run / f"film{self._driver.film_suffix}"
        try:
            film_policy(self._driver, own, path, start=0, title=title)
        except RunError as error:  # all else is written
            warn(str(error))

    def _tables(self, history: History) -> None:
        with files.atomic(self.run / "metrics.csv", durable=False) as path:
            history.metrics_table().to_csv(path, index=False, float_format="%.7g")
        if self.save_episodes:
            with files.atomic(self.run / "episodes.csv", durable=False) as path:
                history.episodes_table().to_csv(path, index=False, float_format="%.7g")

    def _events(self, history: History) -> None:
        """TensorBoard: a run for each seed, and of several one for their mean; a stock TensorBoard compares them.

        The mean is over all seeds or there is none: over those that have a value it would not be comparable.
        """
        from tensorboardX import SummaryWriter  # slow to import

        folder, seeds = self.run / "tensorboard", self.settings.seeds
        if not self._writers:
            # After a resume the events are written anew from the history: none twice, none missing.
            shutil.rmtree(folder, ignore_errors=True)
            names = [f"seed_{seed}" for seed in seeds] + (["mean"] if len(seeds) > 1 else [])
            self._writers = [SummaryWriter(str(folder / name)) for name in names]
        shares = _shares_converged(self.settings.criteria, history)
        for chunk in range(self._events_written, len(history.env_steps)):
            step = history.env_steps[chunk]
            for reading, tag in _TAGS.items():
                values = history.readings[reading][chunk]
                for value, writer in zip([*values, values.mean()], self._writers, strict=False):
                    if np.isfinite(value):
                        writer.add_scalar(tag, float(value), step)
            for criterion, share in shares.items():
                if len(seeds) > 1:
                    tag = re.sub(r"[^\w.]+", "_", criterion)  # TensorBoard allows no more
                    self._writers[-1].add_scalar(f"converged/{tag}", share[chunk], step)
            self._writers[-1].add_scalar("time/seconds", history.seconds[chunk], step)
        self._events_written = len(history.env_steps)


def _shares_converged(criteria: Sequence[str], history: History) -> dict[str, np.ndarray]:
    """`[C]`, for each criterion of first passage the share of seeds that had met it by the end of each chunk.

    Events are written as chunks end, and settling is known at the end only.
    """
    curves, ends = history.curves(), np.asarray(history.env_steps)
    shares = {}
    for name in criteria:
        criterion = convergence.parse_criterion(name)
        if criterion.settles:
            continue
        moments = [convergence.time_to(criterion, curve) for curve in curves]
        met = [np.inf if moment is None else moment.env_steps for moment in moments]
        shares[name] = (np.array(met)[:, None] <= ends).mean(axis=0)
    return shares
