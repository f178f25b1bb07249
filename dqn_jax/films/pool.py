"""Films of games in a pool: `play` one, then `draw` it.

The agent sees what it sees in training. What a person sees is drawn by a second pool, which plays the same game again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dqn_jax.config import ConfigError, RunError
from dqn_jax.envs import PoolOutput, make_pool
from dqn_jax.envs.action_names import action_names
from dqn_jax.envs.pool_tasks import PREFIX, is_atari
from dqn_jax.films.device import GYMNASIUM_FPS
from dqn_jax.films.write import MOST_IN_GIF, QPanel, thin, with_caption
from dqn_jax.lanes.pool import PoolLoop
from dqn_jax.prng import make_key
from dqn_jax.types import Params

_ATARI_HERTZ = 60  # emulator frames per second
_ATARI_PIXEL = (3, 2)  # on a television they are nearly twice as wide as high
_MOST_IN_VIDEO = 4500  # frames, five minutes of an Atari game; a longer one is shown faster
_SMALLEST = 240  # smaller pictures of other environments are magnified


class Row(NamedTuple):
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
    rows: list[Row]  # [T + 1], the first before any step
    actions: np.ndarray  # [T], int32
    q_values: np.ndarray | None  # [T, num_actions], float32, on choosing each; a random policy has none

    @property
    def score(self) -> float:
        """Its raw return."""
        return self.rows[-1].episode_return


def play(loop: PoolLoop, params: Params | None, *, start: int) -> Game:
    """Play the game that `evaluate_pool` plays as its only one from the seed `start`, or one at random.

    Args:
      loop: whose environment and agent are used.
      params: one network; None is the random policy.
      start: seed of the game and of exploration.
    """
    lane = jax.tree.map(lambda x: jnp.asarray(x)[None], params)
    q_values = jax.jit(loop.agent.q_values)
    key, random = make_key(start), np.random.default_rng(start)
    obs = jnp.zeros((1, 1, *loop.spec.obs_shape), loop.spec.obs_dtype)
    epsilon = np.float32(loop.config.eval_epsilon)
    rows: list[Row] = []
    actions, values = [], []
    pool = make_pool(loop.config, 1, start, evaluation=True)
    output = pool.reset()
    while not output.game_over[0]:
        if params is None:
            action = jnp.asarray(random.integers(loop.spec.num_actions))
        else:
            step_key = jax.random.fold_in(key, len(rows))
            obs, action = loop.play(lane, obs, output.frame[None], output.first[None], epsilon, step_key)
            values.append(np.asarray(q_values(params, obs[0]))[0])
        rows.append(_row(output))
        actions.append(np.asarray(action).reshape(1))
        pool.send(actions[-1])
        output = pool.recv()
    pool.close()
    rows.append(_row(output))
    return Game(start, rows, np.concatenate(actions), np.stack(values) if values else None)


def _row(output: PoolOutput) -> Row:
    return Row(*(getattr(output, field).item() for field in Row._fields))


def can_draw(loop: PoolLoop) -> bool:
    """Whether `draw` can draw this environment, found out by drawing it once."""
    try:
        pool = make_pool(loop.config, 1, 0, evaluation=True, pictures=True)
        pool.reset()
        pool.picture()
    except ConfigError:
        return False
    pool.close()
    return True


def frames_per_second(loop: PoolLoop) -> float:
    """Of a film of this environment; those of Atari games run at their real speed."""
    if is_atari(loop.spec.name):
        return _ATARI_HERTZ / loop.config.action_repeat
    return GYMNASIUM_FPS.get(loop.spec.name.removeprefix(PREFIX), 10)


def steps_shown(game: Game, suffix: str) -> list[int]:
    """The steps at which a game is drawn for a film with this suffix: all, or of a long one every second, third, ..."""
    return thin(len(game.rows), MOST_IN_GIF if suffix.lower() == ".gif" else _MOST_IN_VIDEO)


def draw(loop: PoolLoop, game: Game, steps: list[int], *, title: str, q_values: bool = False) -> Iterator[np.ndarray]:
    """Draw a game, each frame with its step number and the return so far, while it is played again.

    Args:
      loop: that played it.
      game: what was played.
      steps: which rows to draw; all are played.
      title: a line of text above.
      q_values: show those of all actions beside the picture, with the chosen one in another colour.

    Yields:
      Frames `[H, W, 3]` uint8 of one even size.

    Raises:
      ConfigError: if EnvPool cannot draw the environment.
      RunError: if the second game is not the first one.
    """
    names = action_names(loop.spec, full=loop.config.full_action_space)
    panel = QPanel(names, game.actions, game.q_values) if q_values and game.q_values is not None else None
    wanted = set(steps)
    digits = 0 if all(row.episode_return.is_integer() for row in game.rows) else 2
    pool = make_pool(loop.config, 1, game.start, evaluation=True, pictures=True)
    try:
        output = pool.reset()
        for t, row in enumerate(game.rows):
            if t > 0:
                pool.send(game.actions[t - 1 : t])
                output = pool.recv()
            if _row(output) != row:
                raise RunError(
                    f"env: {loop.spec.name} played another game the second time (step {t}), so there is no film."
                )
            if t in wanted:
                picture = _magnified(pool.picture(), is_atari(loop.spec.name))
                if panel is not None:
                    picture = panel.beside(picture, t)
                yield with_caption(picture, title, f"step {t}", f"return {row.episode_return:z.{digits}f}")
    finally:
        pool.close()


def _magnified(picture: np.ndarray, atari: bool) -> Image.Image:
    height, width, _ = picture.shape
    by = _ATARI_PIXEL if atari else (max(1, _SMALLEST // width),) * 2
    return Image.fromarray(picture).resize((width * by[0], height * by[1]), Image.Resampling.NEAREST)
