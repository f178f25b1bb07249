"""Films of games in a pool: `play_game`, then `draw_game`.

The agent sees what it sees in training. What a person sees is drawn by a second pool, which plays the same game again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dqn_jax.config import Config, ConfigError, RunError
from dqn_jax.envs import PoolOutput, make_pool
from dqn_jax.envs.action_names import action_names
from dqn_jax.envs.pool_tasks import PREFIX, is_atari
from dqn_jax.films.device import GYMNASIUM_FPS
from dqn_jax.films.write import MOST_IN_GIF, QPanel, thin, with_caption
from dqn_jax.prng import make_key
from dqn_jax.types import Key, Obs

_ATARI_HERTZ = 60  # emulator frames per second
_ATARI_PIXEL = (3, 2)  # on a television they are nearly twice as wide as high
_MOST_IN_VIDEO = 4500  # frames, five minutes of an Atari game; a longer one is shown faster
_SMALLEST = 240  # smaller pictures of other environments are magnified


class GameRow(NamedTuple):
    """What a pool of one environment gives besides its frame, as in `PoolOutput`."""

    reward: float
    terminated: bool
    truncated: bool
    first: bool
    game_over: bool
    episode_return: float
    episode_length: int


class Game(NamedTuple):
    """One whole game of T agent steps."""

    start: int  # its seed
    rows: list[GameRow]  # [T + 1], the first before any step
    actions: np.ndarray  # [T], int32
    q_values: np.ndarray | None  # [T, num_actions], float32, on choosing each; a random policy has none

    @property
    def score(self) -> float:
        """The raw return of the whole game."""
        return self.rows[-1].episode_return


class Choose(Protocol):
    """What is acted on, `[1, *obs_shape]`, and an action, `[1]` int32, of an agent in one environment.

    Given are what it acted on last, `[1, *obs_shape]`, the newest frame `[1, *frame_shape]`, whether that begins an
    episode, `[1]` bool, and a key.
    """

    def __call__(self, obs: Obs, frame: np.ndarray, first: np.ndarray, key: Key) -> tuple[Obs, jax.Array]: ...


def play_game(
    config: Config,
    choose: Choose | None,
    *,
    start: int,
    q_values: Callable[[Obs], jax.Array] | None = None,
) -> Game:
    """Play the game that an evaluation in pools plays as its only one from the seed `start`, or one at random.

    Args:
      config: of the environment.
      choose: the agent; None is the random policy.
      start: seed of the game and of exploration.
      q_values: of all actions `[1, num_actions]` for what is acted on, to be kept beside the game.
    """
    key, random = make_key(start), np.random.default_rng(start)
    rows: list[GameRow] = []
    actions, values = [], []
    pool = make_pool(config, 1, start, evaluation=True)
    obs = jnp.zeros((1, *pool.spec.obs_shape), pool.spec.obs_dtype)
    output = pool.reset()
    while not output.game_over[0]:
        if choose is None:
            actions.append(np.asarray([random.integers(pool.spec.num_actions)], np.int32))
        else:
            obs, action = choose(obs, output.frame, output.first, jax.random.fold_in(key, len(rows)))
            actions.append(np.asarray(action))
        if q_values is not None:
            values.append(np.asarray(q_values(obs))[0])
        rows.append(_row(output))
        pool.send(actions[-1])
        output = pool.recv()
    pool.close()
    rows.append(_row(output))
    return Game(start, rows, np.concatenate(actions), np.stack(values) if values else None)


def _row(output: PoolOutput) -> GameRow:
    return GameRow(*(getattr(output, field).item() for field in GameRow._fields))


def can_draw_game(config: Config) -> bool:
    """Whether `draw_game` can draw this environment, found out by drawing it once."""
    try:
        pool = make_pool(config, 1, 0, evaluation=True, pictures=True)
        pool.reset()
        pool.picture()
    except ConfigError:
        return False
    pool.close()
    return True


def game_fps(config: Config, name: str) -> float:
    """Frames per second of a film of the environment of this full name; Atari games run at their real speed."""
    if is_atari(name):
        return _ATARI_HERTZ / config.action_repeat
    return GYMNASIUM_FPS.get(name.removeprefix(PREFIX), 10)


def steps_shown(game: Game, suffix: str) -> list[int]:
    """The steps at which a game is drawn for a film with this suffix: all, or of a long one every second, third, ..."""
    return thin(len(game.rows), MOST_IN_GIF if suffix.lower() == ".gif" else _MOST_IN_VIDEO)


def draw_game(config: Config, game: Game, steps: Sequence[int], *, title: str) -> Iterator[np.ndarray]:
    """Draw a game, each frame with its step number, the return so far and the Q-values that it has; it is played again.

    Args:
      config: of the environment.
      game: what was played.
      steps: which rows to draw; all are played.
      title: a line of text above.

    Yields:
      Frames `[H, W, 3]` uint8 of one even size.

    Raises:
      ConfigError: if EnvPool cannot draw the environment.
      RunError: if the second game is not the first one.
    """
    wanted = set(steps)
    digits = 0 if all(row.episode_return.is_integer() for row in game.rows) else 2
    pool = make_pool(config, 1, game.start, evaluation=True, pictures=True)
    names = action_names(pool.spec, full=config.full_action_space)
    panel = None if game.q_values is None else QPanel(names, game.actions, game.q_values)
    try:
        output = pool.reset()
        for t, row in enumerate(game.rows):
            if t > 0:
                pool.send(game.actions[t - 1 : t])
                output = pool.recv()
            if _row(output) != row:
                raise RunError(
                    f"env: {pool.spec.name} played another game the second time (step {t}), so there is no film."
                )
            if t in wanted:
                picture = _magnified(pool.picture(), is_atari(pool.spec.name))
                if panel is not None:
                    picture = panel.beside(picture, t)
                yield with_caption(picture, title, f"step {t}", f"return {row.episode_return:z.{digits}f}")
    finally:
        pool.close()


def _magnified(picture: np.ndarray, atari: bool) -> Image.Image:
    height, width, _ = picture.shape
    by = _ATARI_PIXEL if atari else (max(1, _SMALLEST // width),) * 2
    return Image.fromarray(picture).resize((width * by[0], height * by[1]), Image.Resampling.NEAREST)
