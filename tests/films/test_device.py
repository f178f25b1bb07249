"""Films: what is played, what is drawn, and what is written."""

from __future__ import annotations

import itertools
import subprocess

import imageio_ffmpeg
import jax
import numpy as np
import pytest
from PIL import Image

from dqn_jax.config import Config, ConfigError
from dqn_jax.envs import make_env
from dqn_jax.envs.action_names import device_action_names
from dqn_jax.films import device as film
from dqn_jax.films import write
from dqn_jax.prng import make_key

BINS = {"Pendulum-v1": 5, "MountainCarContinuous-v0": 5}
DRAWABLE = [
    *("CartPole-v0", "CartPole-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1"),
    *("Breakout-MinAtar", "Catch-bsuite", "FourRooms-misc"),
]


def make(name, **changes):
    return make_env(Config(env=name, action_bins=BINS.get(name), **{"max_episode_steps": 12} | changes))


def random_actions(env):
    return lambda obs, key: jax.random.randint(key, (obs.shape[0],), 0, env.spec.num_actions)


def play(env, seed=0, **options):
    return film.play_episode(env, random_actions(env), make_key(seed), **options)


def moving(count, height=32, width=48):
    """Frames with a light block in another place in each."""
    frames = np.full((count, height, width, 3), 40, np.uint8)
    for i, frame in enumerate(frames):
        frame[i // width % 16 :][:16, i % width :][:, :16] = (250, 120, 60)
    return list(frames)


def decode(path, height, width):
    """The frames of a video, `[T, H, W, 3]`."""
    # Not imageio's reader: like its writer it starts ffmpeg with a preexec_fn.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "rawvideo"]
    raw = subprocess.run([*command, "-pix_fmt", "rgb24", "-"], capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("CartPole-v1", {"max_episode_steps": 200, "sticky_actions": 0.5, "terminal_reward": -5.0}),
        ("Pendulum-v1", {"action_repeat": 3, "reward_scale": 0.1}),
    ],
)
def test_play_is_the_episode_of_a_python_loop(name, changes):
    env = make(name, **changes)
    choose = random_actions(env)
    reset_key, key = jax.random.split(make_key(3))
    state, obs = env.reset(reset_key)
    states, actions, done = [state.inner], [], False
    advance = jax.jit(env.advance)
    while not done:
        key, act_key, env_key = jax.random.split(key, 3)
        state, out = advance(env_key, state, choose(obs[None], act_key)[0])
        states.append(state.inner)
        actions.append(int(state.last_action))
        obs, done = out.obs, bool(out.terminated | out.truncated)

    episode = film.play_episode(env, choose, make_key(3))

    assert episode.episode_return == float(out.episode_return)
    assert episode.rewards.sum() == pytest.approx(episode.episode_return, rel=1e-6)
    assert episode.actions.tolist() == actions
    jax.tree.map(
        lambda *leaves: np.testing.assert_allclose(leaves[0], np.stack(leaves[1:]), rtol=1e-6, atol=1e-6),
        episode.states,
        *states,
    )


def test_q_values_are_those_of_what_was_seen_and_are_drawn_beside_the_picture():
    env = make("CartPole-v1")
    weights = jax.random.normal(make_key(0), (4, 2))

    def choose(obs, key):
        return (obs @ weights).argmax(axis=-1)

    plain = film.play_episode(env, choose, make_key(3))
    valued = film.play_episode(env, choose, make_key(3), q_values=lambda obs: obs @ weights)
    assert plain.q_values is None
    assert valued.actions.tolist() == plain.actions.tolist() == valued.q_values.argmax(axis=1).tolist()
    assert valued.q_values.shape == (len(valued.actions), 2)
    before, beside = film.draw_episode(env, plain), film.draw_episode(env, valued)
    assert len(beside) == len(before)
    assert beside[0].shape[1] > before[0].shape[1]
    assert (beside[0][:, before[0].shape[1] :] != beside[1][:, before[0].shape[1] :]).any()


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("CartPole-v1", ["left", "right"]),
        ("MountainCar-v0", ["left", "none", "right"]),
        ("Pendulum-v1", ["-2", "-1", "0", "1", "2"]),
        ("Breakout-MinAtar", ["0", "1", "2"]),
    ],
)
def test_actions_of_device_environments_have_names(name, names):
    env = make(name)
    assert device_action_names(env.spec, env.inner.action_space(env.inner_params)) == names


def test_play_cuts_after_max_frames():
    episode = play(make("MountainCar-v0"), max_frames=5)
    assert len(episode.actions) == len(episode.rewards) == 5
    assert len(episode.states.time) == 6
    assert episode.episode_return == -5.0


@pytest.mark.parametrize("name", DRAWABLE)
def test_every_state_is_drawn(name):
    env = make(name)
    assert film.can_draw_env(env)
    episode = play(env)
    frames = film.draw_episode(env, episode, title=name)
    height, width, channels = frames[0].shape
    assert len(frames) == len(episode.actions) + 1
    assert (height % 2, width % 2, channels) == (0, 0, 3)
    assert {(frame.shape, frame.dtype) for frame in frames} == {(frames[0].shape, np.dtype(np.uint8))}
    below = 46  # of the caption, which alone would make frames differ
    assert any((frame[below:] != frames[0][below:]).any() for frame in frames)
    assert all((new[:below] != old[:below]).any() for old, new in itertools.pairwise(frames))


def test_a_title_takes_a_line():
    env = make("Catch-bsuite")
    episode = play(env)
    untitled, titled = film.draw_episode(env, episode)[0], film.draw_episode(env, episode, title="greedy")[0]
    assert titled.shape[0] > untitled.shape[0]
    assert titled.shape[1] == untitled.shape[1]


def test_parameters_show():
    """A pole of another length looks different in the same state."""
    drawn = []
    for length in (0.25, 1.0):
        env = make("CartPole-v1", env_params=(("length", length),))
        drawn.append(film.draw_episode(env, play(env))[0])
    pole = [np.count_nonzero((frame == (202, 152, 101)).all(axis=-1)) for frame in drawn]
    assert pole[1] > 3 * pole[0] > 0


def test_what_cannot_be_drawn():
    env = make("DiscountingChain-bsuite")
    assert not film.can_draw_env(env)
    assert not film.can_draw_env(make("SimpleBandit-bsuite"))  # its observation is 1 x 1
    with pytest.raises(ConfigError, match=r"^env: DiscountingChain-bsuite cannot be drawn"):
        film.draw_episode(env, play(env))


def test_tiles_show_every_plane():
    planes = np.zeros((2, 3, 4), bool)
    planes[0, 0, 0] = planes[0, 0, 3] = planes[1, 2, 2] = True
    picture = np.asarray(film._tiles(planes, 20))
    assert picture.shape == (40, 60, 3)
    tile = {(row, column): picture[20 * row + 10, 20 * column + 10].tolist() for row in (0, 1) for column in range(3)}
    assert tile[0, 0] == list(film._TILES[0])
    assert picture[2, 2].tolist() == list(film._TILES[3])  # around the smaller one
    assert tile[1, 2] == list(film._TILES[2])
    assert tile[0, 1] == tile[0, 2] == tile[1, 0] == tile[1, 1] == list(film._EMPTY_TILE)


@pytest.mark.parametrize(("count", "most"), [(1, 10), (2, 10), (10, 10), (11, 10), (10, 5), (601, 600), (2501, 600)])
def test_thinning_keeps_first_and_last(count, most):
    kept = write.thin(count, most)
    assert kept[0] == 0
    assert kept[-1] == count - 1
    assert len(kept) <= most
    assert len(kept) == count or count > most
    assert kept == sorted(set(kept))


def test_frames_per_second():
    assert film.episode_fps(make("CartPole-v0")) == 50
    assert film.episode_fps(make("Breakout-MinAtar")) == 10


def test_gif(tmp_path):
    env = make("CartPole-v1")
    frames = film.draw_episode(env, play(env), title="random")
    path = tmp_path / "film.gif"
    write.write_film(path, frames, 25)
    assert [p.name for p in tmp_path.iterdir()] == ["film.gif"]
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.size) == (len(frames), frames[0].shape[1::-1])
        assert (gif.info["duration"], gif.info["loop"]) == (40, 0)
        for index in (0, gif.n_frames - 1):
            gif.seek(index)
            error = np.abs(np.asarray(gif.convert("RGB"), int) - frames[index])
            assert error.mean() < 2


def test_a_long_gif_is_thinned_and_lasts_as_long(tmp_path):
    path = tmp_path / "film.GIF"
    write.write_film(str(path), moving(501), 50)
    assert path.stat().st_size < 1_000_000
    with Image.open(path) as gif:
        assert gif.n_frames == 251
        assert gif.info["duration"] == 40


def test_mp4(tmp_path):
    path = tmp_path / "film.mp4"
    frames = moving(9)
    path.write_text("what was there before")
    write.write_film(path, frames, 30)
    assert [p.name for p in tmp_path.iterdir()] == ["film.mp4"]
    assert np.abs(decode(path, 32, 48).astype(int) - np.stack(frames)).mean() < 4
    assert imageio_ffmpeg.count_frames_and_secs(str(path)) == (9, pytest.approx(0.3, abs=0.02))


@pytest.mark.parametrize("name", ["film.avi", "film"])
def test_other_formats_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=r"^output: "):
        write.check_suffix(tmp_path / name)
    with pytest.raises(ConfigError, match=r"^output: .*; use \.gif or \.mp4$"):
        write.write_film(tmp_path / name, moving(2), 30)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "film.gif"
    path.write_text("what was there before")
    with pytest.raises(TypeError):
        write.write_film(path, [*moving(2), "no frame"], 30)
    assert [p.name for p in tmp_path.iterdir()] == ["film.gif"]
    assert path.read_text() == "what was there before"
