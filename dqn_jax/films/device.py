"""Films of episodes on the device: `play_episode`, then `draw_episode`, state by state.

Classic control is drawn by Gymnasium's own renderers with the environment's parameters (a longer pole
looks longer); mazes, and whatever observes a grid, are drawn as coloured tiles.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dqn_jax.config import ConfigError
from dqn_jax.envs import Env
from dqn_jax.envs.action_names import device_action_names
from dqn_jax.films.write import BACKGROUND, WIDTH, QPanel, even, thin, with_caption
from dqn_jax.types import Key, Obs

GYMNASIUM_FPS = {  # frames per second, as in Gymnasium
    "Acrobot-v1": 15,
    "CartPole-v1": 50,
    "MountainCar-v0": 30,
    "MountainCarContinuous-v0": 30,
    "Pendulum-v1": 30,
}
_MOST_DRAWN = 600  # frames drawn of an episode
_EMPTY_TILE = (37, 40, 50)
_TILES = (  # by plane; in most games 0 is the player, 1 what it meets, and 2 a trail
    *((88, 214, 141), (236, 87, 76), (112, 122, 143), (247, 205, 77), (236, 132, 214)),
    *((255, 150, 64), (150, 112, 240), (66, 150, 245), (244, 244, 244), (80, 220, 230)),
)


class Episode(NamedTuple):
    """One played episode of T agent steps."""

    states: Any  # gymnax states, leaves [T + 1, ...], the first before any step
    actions: np.ndarray  # [T], int32, as executed (a sticky one may differ from the one chosen)
    rewards: np.ndarray  # [T], float32, raw
    episode_return: float  # raw
    q_values: np.ndarray | None = None  # [T, num_actions], float32, on choosing each action, where they were asked for


def play_episode(
    env: Env,
    choose: Callable[[Obs, Key], jax.Array],
    key: Key,
    *,
    q_values: Callable[[Obs], jax.Array] | None = None,
    max_frames: int = 10_000,
) -> Episode:
    """Play one episode on the device.

    Args:
      env: the environment.
      choose: actions `[1]` int32 for observations `[1, *obs_shape]` and a key; it is traced.
      key: fixes the start, the environment's noise and the keys that `choose` gets.
      q_values: of all actions `[1, num_actions]` for observations `[1, *obs_shape]`, to be kept beside the episode.
      max_frames: cut the episode after so many agent steps.
    """
    most = min(env.spec.max_episode_steps, max_frames)

    def body(carry: Any) -> Any:
        key, state, obs, _, episode_return, t, (states, actions, rewards, values) = carry
        key, act_key, env_key = jax.random.split(key, 3)
        action = choose(obs[None], act_key)[0].astype(jnp.int32)
        # Counted from zero, the return after this step is this step's raw reward, free of rounding.
        state, out = env.advance(env_key, state._replace(episode_return=jnp.zeros((), jnp.float32)), action)
        record = (
            jax.tree.map(lambda rows, x: rows.at[t + 1].set(x), states, state.inner),
            actions.at[t].set(state.last_action),
            rewards.at[t].set(out.episode_return),
            None if q_values is None else values.at[t].set(q_values(obs[None])[0]),
        )
        done = out.terminated | out.truncated
        return key, state, out.obs, done, episode_return + out.episode_return, t + 1, record

    @jax.jit
    def run(key: Key) -> Any:
        reset_key, loop_key = jax.random.split(key)
        state, obs = env.reset(reset_key)
        states = jax.tree.map(lambda x: jnp.zeros((most + 1, *x.shape), x.dtype).at[0].set(x), state.inner)
        values = None if q_values is None else jnp.zeros((most, env.spec.num_actions), jnp.float32)
        record = (states, jnp.zeros((most,), jnp.int32), jnp.zeros((most,), jnp.float32), values)
        start = (loop_key, state, obs, jnp.zeros((), bool), jnp.zeros((), jnp.float32), 0, record)
        return jax.lax.while_loop(lambda carry: ~carry[3] & (carry[5] < most), body, start)[4:]

    episode_return, steps, (states, actions, rewards, values) = jax.device_get(run(key))
    states = jax.tree.map(lambda x: x[: steps + 1], states)
    kept = None if values is None else values[:steps]
    return Episode(states, actions[:steps], rewards[:steps], float(episode_return), kept)


def can_draw_env(env: Env) -> bool:
    """Whether `draw_episode` can draw this environment."""
    shape = env.spec.obs_shape
    return env.inner.name in GYMNASIUM_FPS or _is_maze(env) or (len(shape) in (2, 3) and min(shape[:2]) > 1)


def episode_fps(env: Env) -> int:
    """Frames per second of a film of this environment, at a pleasant speed."""
    return GYMNASIUM_FPS.get(env.inner.name, 10)


def draw_episode(env: Env, episode: Episode, *, title: str = "") -> list[np.ndarray]:
    """Draw an episode, each frame with its step number, the return so far, `title` and the Q-values that it has.

    Returns:
      Frames `[H, W, 3]` uint8 of one even size: each state, or of more than 600 every second, third, ...
      and the last.

    Raises:
      ConfigError: if the environment cannot be drawn.
    """
    if not can_draw_env(env):
        raise ConfigError(f"env: {env.spec.name} cannot be drawn; classic control, mazes and grids can.")
    steps = thin(len(episode.actions) + 1, _MOST_DRAWN)
    states = jax.tree.map(lambda x: x[steps], episode.states)
    pictures = (_gymnasium if env.inner.name in GYMNASIUM_FPS else _tiled)(env, states)
    returns = np.concatenate([[0.0], np.cumsum(episode.rewards, dtype=np.float64)])
    digits = 0 if np.all(returns == np.round(returns)) else 2
    panel = None
    if episode.q_values is not None:
        names = device_action_names(env.spec, env.inner.action_space(env.inner_params))
        panel = QPanel(names, episode.actions, episode.q_values)
    return [
        with_caption(
            picture if panel is None else panel.beside(picture, t),
            title,
            f"step {t}",
            f"return {returns[t]:z.{digits}f}",
        )
        for t, picture in zip(steps, pictures, strict=True)
    ]


def _is_maze(env: Env) -> bool:
    return hasattr(env.inner, "occupied_map")


def _gymnasium(env: Env, states: Any) -> Iterator[Image.Image]:
    """Pictures of classic control by Gymnasium's renderers."""
    for driver in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):  # neither window nor sound is needed
        os.environ.setdefault(driver, "dummy")
    import gymnasium
    from gymnax.visualize import vis_gym

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        import pygame  # noqa: F401 - 2.6 imports pkg_resources; the renderers import pygame only later

    name = env.inner.name
    renderer: Any = gymnasium.make(name, render_mode="rgb_array", disable_env_checker=True).unwrapped
    vis_gym.set_gym_params(renderer, name, env.inner_params)
    try:
        for t in range(len(states.time)):
            state = jax.tree.map(lambda x, t=t: x[t], states)
            renderer.state = vis_gym.get_gym_state(state, name)
            renderer.last_u = getattr(state, "last_u", None)  # Pendulum's torque, drawn as an arrow
            picture = Image.fromarray(renderer.render())
            size = (WIDTH, even(WIDTH * picture.height / picture.width))
            yield picture.resize(size, Image.Resampling.BICUBIC)
    finally:
        renderer.close()


def _tiled(env: Env, states: Any) -> Iterator[Image.Image]:
    """Pictures of mazes and grids, one tile for each of their cells."""
    if _is_maze(env):
        walls = np.asarray(env.inner.occupied_map) != 0
        row, column = np.indices(walls.shape)
        agent, goal = (
            (row == at[:, 0, None, None]) & (column == at[:, 1, None, None]) for at in (states.pos, states.goal)
        )
        planes = np.stack([agent, goal, np.broadcast_to(walls, agent.shape)], axis=-1)  # [T, H, W, 3]
    else:
        observe = jax.vmap(lambda state: env.inner.observe(jax.random.key(0), state, None, env.inner_params))
        planes = np.asarray(jax.jit(observe)(states)) != 0
        planes = planes.reshape(*planes.shape[:3], -1)  # [T, H, W, C]
    cell = max(3, WIDTH // max(planes.shape[1:3]))
    return (_tiles(p, cell) for p in planes)


def _tiles(planes: np.ndarray, cell: int) -> Image.Image:
    """A picture of planes `[H, W, C]` bool; of several in a tile, each lies smaller on the one after it."""
    height, width, channels = planes.shape
    shown = planes.repeat(cell, axis=0).repeat(cell, axis=1)
    edge = np.minimum(np.arange(cell), np.arange(cell)[::-1])
    depth = np.tile(np.minimum.outer(edge, edge), (height, width))  # of a pixel below its tile's edge
    margin = np.ones_like(depth)
    colours = np.array([BACKGROUND, _EMPTY_TILE, *_TILES], np.uint8)
    colour = np.where(depth >= margin, 1, 0)
    for channel in reversed(range(channels)):
        colour[shown[..., channel] & (depth >= margin)] = 2 + channel % len(_TILES)
        margin += shown[..., channel] * max(1, cell // 6)
    return Image.fromarray(colours[colour])
