"""What a run has seen so far, on the host: one reading per chunk and one per finished training episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from dqn_jax.convergence import Curve
from dqn_jax.lanes.lane import ChunkMetrics, WarmupMetrics

if TYPE_CHECKING:  # slow to import, and a run without tables does not need it
    import pandas as pd

READINGS = (
    "updates",
    "episodes",
    "epsilon",
    "loss",
    "td_error",
    "q_mean",
    "train_return",
    "eval_return",
    "eval_length",
)
EPISODE_FIELDS = ("lane", "env_steps", "updates", "epsilon", "train_return")
_TRAIN_WINDOW = 100  # episodes averaged in `train_return`, as the published curves do


class History:
    """Readings of a population of L lanes.

    `readings[name]` is a list of `[L]` arrays, one per chunk; `episodes` is a list of `[e, 5]` float64 arrays (one
    for the warm-up, one per chunk) with the columns `EPISODE_FIELDS`, ordered by lane and then by time.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        num_envs: int,
        total_episodes: int | None = None,
        *,
        rows_before_acting: bool = False,
        last_step: int | None = None,
    ):
        """For lanes of `seeds`, each of which takes `num_envs` environment steps at a time, and rests after so many
        episodes. With `rows_before_acting` an iteration reports the row it acted on, as pools do, and else the one
        that its action led to: episodes ended that much earlier. The budget ends at `last_step` (None: wherever it
        ends).
        """
        self.seeds = np.asarray(seeds, np.int64)
        self.num_envs = num_envs
        self._reported = 0 if rows_before_acting else 1  # iterations, this one included, that led to its row
        self._rests_after = np.inf if total_episodes is None else total_episodes  # episodes
        self.last_step = last_step  # of the budget; None where it ends with what there is
        self.env_steps: list[int] = []
        self.seconds: list[float] = []
        self.readings: dict[str, list[np.ndarray]] = {name: [] for name in READINGS}
        self.finite = np.ones(len(self.seeds), bool)
        self.episodes: list[np.ndarray] = []
        self.chunks = np.zeros(len(self.seeds), np.int64)  # that each lane took part in
        self._finished = np.zeros(len(self.seeds), np.int64)  # episodes
        self._recent: list[np.ndarray] = [np.empty(0) for _ in self.seeds]
        self.final_eval = np.empty((len(self.seeds), 0), np.float32)
        self.unfinished: dict[str, np.ndarray] = {}  # of a chunk that was stopped within, as its population noted it

    def add_warmup(self, metrics: WarmupMetrics) -> None:
        """Take in the episodes before learning (leaves `[L, ...]`, on the host)."""
        everyone = np.arange(len(self.seeds))
        self._add_episodes(everyone, 0, metrics.epsilon, np.zeros(metrics.epsilon.shape), metrics.episode_return)

    def add(
        self,
        env_steps_before: int,
        env_steps: int,
        seconds: float,
        metrics: ChunkMetrics,
        lanes: np.ndarray | None = None,
    ) -> None:
        """Take in one chunk's metrics (leaves `[n, ...]`, on the host) of the lanes `[n]` in it (default: all).

        A lane that has left does not come back; its readings are NaN from then on.
        """
        lanes = np.arange(len(self.seeds)) if lanes is None else lanes
        self._add_episodes(lanes, env_steps_before, metrics.epsilon, metrics.updates, metrics.episode_return)
        self.env_steps.append(env_steps)
        self.seconds.append(seconds)
        self.chunks[lanes] += 1
        self.finite[lanes] &= np.asarray(metrics.finite)
        if self.final_eval.shape[1] == 0:
            self.final_eval = np.full((len(self.seeds), metrics.eval_returns.shape[1]), np.nan, np.float32)
        self.final_eval[lanes] = metrics.eval_returns
        values = {
            "updates": metrics.updates[:, -1],
            "episodes": self._finished[lanes],
            "epsilon": metrics.epsilon[:, -1],
            "loss": metrics.loss,
            "td_error": metrics.td_error,
            "q_mean": metrics.q_mean,
            "train_return": [r.mean() if len(r) else np.nan for r in (self._recent[lane] for lane in lanes)],
            "eval_return": metrics.eval_returns.mean(axis=1),
            "eval_length": metrics.eval_lengths.mean(axis=1),
        }
        for name, value in values.items():
            reading = np.full(len(self.seeds), np.nan)
            reading[lanes] = value
            self.readings[name].append(reading)

    def _add_episodes(
        self,
        lanes: np.ndarray,
        env_steps_before: int,
        epsilon: ArrayLike,
        updates: ArrayLike,
        episode_return: ArrayLike,
    ) -> None:
        """`lanes` `[n]`, `epsilon` and `updates` `[n, T]`, `episode_return` `[n, T, N]`, NaN where no episode ended."""
        epsilon, updates, episode_return = np.asarray(epsilon), np.asarray(updates), np.asarray(episode_return)
        row, step, env = np.nonzero(~np.isnan(episode_return))
        returns = episode_return[row, step, env]
        ended_at = env_steps_before + (step + self._reported) * self.num_envs
        columns = [lanes[row], ended_at, updates[row, step], epsilon[row, step], returns]
        self.episodes.append(np.stack(columns, axis=1).astype(np.float64))
        counts = np.bincount(row, minlength=len(lanes))
        self._finished[lanes] += counts
        for lane, new in zip(lanes, np.split(returns, np.cumsum(counts)[:-1]), strict=True):
            self._recent[lane] = np.concatenate([self._recent[lane], new])[-_TRAIN_WINDOW:]

    def reading(self, name: str) -> np.ndarray:
        """`[L, C]`, a reading over all chunks."""
        if not self.env_steps:
            return np.empty((len(self.seeds), 0))
        return np.stack(self.readings[name], axis=1)

    def above_bound(self, bound: np.ndarray) -> np.ndarray:
        """`[L]`, bool, whether a chunk's mean Q-value was ever beyond `bound` (`[L]`, NaN where nothing bounds it)."""
        return np.any(np.abs(self.reading("q_mean")) > bound[:, None], axis=1)

    def at_rest(self) -> np.ndarray:
        """`[L]`, bool, whether the seed has played all its episodes."""
        return self._finished >= self._rests_after

    def curves(self, lanes: np.ndarray | None = None) -> list[Curve]:
        """One `Curve` for each of the lanes `[n]` (default: all), in their order.

        It ends where the lane left or came to rest: that others go on must not change its numbers.
        """
        lanes = np.arange(len(self.seeds)) if lanes is None else lanes
        if len(lanes) == 0:
            return []
        episodes = np.concatenate(self.episodes) if self.episodes else np.empty((0, len(EPISODE_FIELDS)))
        place = np.full(len(self.seeds), -1)
        place[lanes] = np.arange(len(lanes))
        owner = place[episodes[:, 0].astype(int)]
        episodes, owner = episodes[owner >= 0], owner[owner >= 0]
        by_lane = np.split(
            episodes[np.argsort(owner, kind="stable")], np.cumsum(np.bincount(owner, minlength=len(lanes)))[:-1]
        )
        names = ("updates", "episodes", "eval_return", "loss", "td_error")
        columns = {name: self.reading(name)[lanes] for name in names}
        unfinished = columns["episodes"] < self._rests_after
        own_chunks = np.minimum(unfinished.sum(axis=1) + 1, self.chunks[lanes])
        spent = np.append(0, self.env_steps)[own_chunks] >= (0 if self.last_step is None else self.last_step)
        whole = spent | self.at_rest()[lanes]
        return [
            Curve(
                env_steps=np.asarray(self.env_steps)[: own_chunks[i]],
                seconds=np.asarray(self.seconds)[: own_chunks[i]],
                **{name: values[i, : own_chunks[i]] for name, values in columns.items()},
                episode_env_steps=own[:, 1].astype(np.int64),
                episode_updates=own[:, 2].astype(np.int64),
                episode_epsilon=own[:, 3],
                episode_return=own[:, 4],
                whole=bool(whole[i]),
                finite=bool(self.finite[lanes[i]]),
            )
            for i, own in enumerate(by_lane)
        ]

    def metrics_table(self) -> pd.DataFrame:
        """Long form: one row per seed and evaluation. A seed at rest repeats its last reading while others go on."""
        import pandas as pd

        lanes, chunks = len(self.seeds), len(self.env_steps)
        table = {
            "seed": np.repeat(self.seeds, chunks),
            "env_steps": np.tile(np.asarray(self.env_steps, np.int64), lanes),
            **{name: self.reading(name).reshape(-1) for name in ("updates", "episodes")},
            "seconds": np.tile(np.asarray(self.seconds), lanes),
            **{name: self.reading(name).reshape(-1) for name in READINGS[2:]},
        }
        return pd.DataFrame(table)

    def episodes_table(self) -> pd.DataFrame:
        """Long form: one row per finished training episode, by seed and time."""
        import pandas as pd

        rows = np.concatenate(self.episodes) if self.episodes else np.empty((0, len(EPISODE_FIELDS)))
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        table = pd.DataFrame(rows, columns=list(EPISODE_FIELDS))
        table.insert(0, "seed", self.seeds[rows[:, 0].astype(int)])
        table.insert(1, "episode", table.groupby("seed").cumcount() + 1)
        return table.drop(columns="lane").astype({"env_steps": "int64", "updates": "int64"})

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as named arrays, for a checkpoint. None is empty: its format has no such arrays."""
        some = any(map(len, self.episodes))
        return {
            "env_steps": np.asarray(self.env_steps, np.int64),
            "seconds": np.asarray(self.seconds, np.float64),
            "finite": self.finite,
            "chunks": self.chunks,
            "final_eval": self.final_eval,
            **({"episodes": np.concatenate(self.episodes)} if some else {}),
            **{f"reading_{name}": self.reading(name) for name in READINGS},
            **{f"unfinished_{name}": value for name, value in self.unfinished.items()},
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays` gave, in place of all that is here."""
        self.env_steps = [int(x) for x in arrays["env_steps"]]
        self.seconds = [float(x) for x in arrays["seconds"]]
        self.finite = np.asarray(arrays["finite"], bool).copy()
        self.chunks = np.asarray(arrays["chunks"], np.int64).copy()
        self.final_eval = np.asarray(arrays["final_eval"])
        self.episodes = [np.asarray(arrays["episodes"])] if "episodes" in arrays else []
        self.readings = {name: list(np.asarray(arrays[f"reading_{name}"]).T) for name in READINGS}
        noted = "unfinished_"
        self.unfinished = {k.removeprefix(noted): np.asarray(x) for k, x in arrays.items() if k.startswith(noted)}
        curves = self.curves()
        self._finished = np.array([len(curve.episode_return) for curve in curves])
        self._recent = [curve.episode_return[-_TRAIN_WINDOW:] for curve in curves]
