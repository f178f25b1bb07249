"""Films of episodes: `play` one on the device, `draw` its states, `write_film` as GIF or MP4.

Classic control is drawn by Gymnasium's own renderers with the environment's parameters (a longer pole
looks longer); mazes, and whatever observes a grid, are drawn as coloured tiles.
"""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dqn_jax.config import ConfigError
from dqn_jax.envs import Env
from dqn_jax.envs.action_names import device_action_names
from dqn_jax.files import atomic
from dqn_jax.types import Key, Obs

GYMNASIUM_FPS = {  # frames per second, as in Gymnasium
    "Acrobot-v1": 15,
    "CartPole-v1": 50,
    "MountainCar-v0": 30,
    "MountainCarContinuous-v0": 30,
    "Pendulum-v1": 30,
}
_WIDTH = 400  # pixels of a frame
_MOST_DRAWN = 600  # frames drawn of an episode
MOST_IN_GIF = 300  # frames of a GIF, which compresses less well than a video
_BACKGROUND, _EMPTY_TILE, _INK = (22, 24, 31), (37, 40, 50), (226, 228, 233)
_CHOSEN, _BAR = (247, 205, 77), (92, 101, 122)
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


def play(
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


def can_draw(env: Env) -> bool:
    """Whether `draw` can draw this environment."""
    shape = env.spec.obs_shape
    return env.inner.name in GYMNASIUM_FPS or _is_maze(env) or (len(shape) in (2, 3) and min(shape[:2]) > 1)


def frames_per_second(env: Env) -> int:
    """A pleasant speed for a film of this environment."""
    return GYMNASIUM_FPS.get(env.inner.name, 10)


def draw(env: Env, episode: Episode, *, title: str = "") -> list[np.ndarray]:
    """Draw an episode, each frame with its step number, the return so far, `title` and the Q-values that it has.

    Returns:
      Frames `[H, W, 3]` uint8 of one even size: each state, or of more than 600 every second, third, ...
      and the last.

    Raises:
      ConfigError: if the environment cannot be drawn.
    """
    if not can_draw(env):
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


def check_suffix(path: str | Path) -> None:
    """Refuse a path that `write_film` would refuse, before anything is played.

    Raises:
      ConfigError: if `path` ends in neither .gif nor .mp4.
    """
    if Path(path).suffix.lower() not in (".gif", ".mp4"):
        raise ConfigError(f"output: '{path}' is neither a GIF nor a video; use .gif or .mp4")


def write_film(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames `[H, W, 3]` uint8 as a film; whatever was at `path` stays until the film is complete.

    A GIF keeps at most 300 frames and shows each for longer. A video needs even H and W.

    Raises:
      ConfigError: if `path` ends in neither .gif nor .mp4.
    """
    check_suffix(path)
    path = Path(path)
    with atomic(path) as partial:
        (_write_gif if path.suffix.lower() == ".gif" else _write_mp4)(partial, frames, fps)


def _write_gif(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    frames = list(frames)
    kept = [frames[i] for i in thin(len(frames), MOST_IN_GIF)]
    hundredths = max(2, round(100 * len(frames) / len(kept) / fps))  # GIF's unit; viewers slow down a single one
    # One palette for all, so that a frame stores only where it differs from the last. The octree leaves white white.
    sample = Image.fromarray(np.concatenate([frame[::3, ::3] for frame in kept]))
    palette = sample.quantize(128, method=Image.Quantize.FASTOCTREE)
    first, *rest = (Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in kept)
    first.save(path, save_all=True, append_images=rest, duration=10 * hundredths, loop=0, optimize=False)


def _write_mp4(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    import imageio_ffmpeg

    frames = iter(frames)
    first = next(frames)
    height, width, _ = first.shape
    source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -"
    target = "-c:v libx264 -crf 20 -pix_fmt yuv420p -movflags +faststart"  # what browsers play
    # imageio's own writer starts ffmpeg with a preexec_fn, which can deadlock beside JAX's threads.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *source.split(), *target.split(), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as encoder:
        assert encoder.stdin is not None
        for frame in itertools.chain([first], frames):
            encoder.stdin.write(frame.tobytes())
    if encoder.returncode:
        raise subprocess.CalledProcessError(encoder.returncode, command)


def thin(count: int, most: int) -> list[int]:
    """At most `most` indices into `count` things: every k-th and the last."""
    return [*range(0, count - 1, max(1, math.ceil((count - 1) / (most - 1)))), count - 1]


def _even(length: float) -> int:
    return 2 * math.ceil(length / 2)


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
            size = (_WIDTH, _even(_WIDTH * picture.height / picture.width))
            yield picture.resize(size, Image.Resampling.BICUBIC)
    finally:
        renderer.close()


def _tiled(env: Env, states: Any) -> Iterator[Image.Image]:
    """Pictures of mazes and grids."""
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
    cell = max(3, _WIDTH // max(planes.shape[1:3]))
    return (_tiles(p, cell) for p in planes)


def _tiles(planes: np.ndarray, cell: int) -> Image.Image:
    """A picture of planes `[H, W, C]` bool; of several in a tile, each lies smaller on the one after it."""
    height, width, channels = planes.shape
    shown = planes.repeat(cell, axis=0).repeat(cell, axis=1)
    edge = np.minimum(np.arange(cell), np.arange(cell)[::-1])
    depth = np.tile(np.minimum.outer(edge, edge), (height, width))  # of a pixel below its tile's edge
    margin = np.ones_like(depth)
    colours = np.array([_BACKGROUND, _EMPTY_TILE, *_TILES], np.uint8)
    colour = np.where(depth >= margin, 1, 0)
    for channel in reversed(range(channels)):
        colour[shown[..., channel] & (depth >= margin)] = 2 + channel % len(_TILES)
        margin += shown[..., channel] * max(1, cell // 6)
    return Image.fromarray(colours[colour])


def with_caption(picture: Image.Image, title: str, left: str, right: str) -> np.ndarray:
    """The picture in the middle of an even-sized frame, below its lines of text."""
    line, pad = 20, 6
    top = line * (2 if title else 1) + pad
    width, height = _even(max(_WIDTH, picture.width)), _even(picture.height + top)
    frame = Image.new("RGB", (width, height), _BACKGROUND)
    frame.paste(picture, ((width - picture.width) // 2, top))
    pen, font = ImageDraw.Draw(frame), ImageFont.load_default(14)
    pen.text((pad, pad // 2), title, _INK, font)
    pen.text((pad, top - line), left, _INK, font)
    pen.text((width - pad, top - line), right, _INK, font, anchor="ra")
    return np.asarray(frame)


class QPanel:
    """The Q-values of a film's actions, one to a line: name, bar and number. Bars span all values of the film."""

    def __init__(self, names: list[str], actions: np.ndarray, q_values: np.ndarray):
        self._names, self._actions, self._q_values = names, actions, q_values
        finite = q_values[np.isfinite(q_values)]  # a diverged agent has none
        self._low, self._high = finite.min(initial=np.inf), finite.max(initial=-np.inf)
        self._font = ImageFont.load_default(12)
        self._name_width = max(round(self._font.getlength(name)) for name in names)

    def beside(self, picture: Image.Image, t: int) -> Image.Image:
        """The picture with the panel at its right, as of step t; after the last step there is nothing to choose."""
        pad, bar, number = 10, 90, 60
        line = max(15, min(26, picture.height // len(self._names)))
        left = picture.width + pad
        start = left + self._name_width + pad
        size = (start + bar + number + pad, max(picture.height, line * len(self._names)))
        both = Image.new("RGB", size, _BACKGROUND)
        both.paste(picture, (0, 0))
        pen = ImageDraw.Draw(both)
        for action, name in enumerate(self._names):
            middle = line * action + line // 2
            chosen = t < len(self._actions) and action == self._actions[t]
            ink: Any = _CHOSEN if chosen else _INK
            pen.text((left, middle), name, ink, self._font, anchor="lm")
            if t < len(self._actions):
                value = float(self._q_values[t, action])
                if np.isfinite(value):
                    length = bar * (value - self._low) / max(self._high - self._low, 1e-6)
                    box = (start, middle - line // 4, start + length, middle + line // 4)
                    pen.rectangle(box, _CHOSEN if chosen else _BAR)
                pen.text((size[0] - pad, middle), f"{value:.3f}", ink, self._font, anchor="rm")
        return both
