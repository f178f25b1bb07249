"""What every EnvPool environment promises, against the real library and real games: endings, lives, scores, options."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import envpool
import jax.numpy as jnp
import numpy as np
import pytest

from dqn_jax.config import Config, RunError
from dqn_jax.envs import make_pool
from dqn_jax.envs.pool import PoolOutput, pool_seeds

PONG = Config(env="Pong-v5", action_repeat=4, frame_stack=4)
BREAKOUT = Config(env="Breakout-v5", action_repeat=4, fire_reset=True)  # random play ends a game in about 200 steps
ASTERIX = Config(env="Asterix-v5", action_repeat=4)  # 50 points at a time
CARTPOLE = Config(env="envpool:CartPole-v1")
EMPTY = "MiniGrid-Empty-5x5-v0"


def random_actions(num_actions, steps, num_envs, seed=0):
    return np.random.default_rng(seed).integers(0, num_actions, (steps, num_envs))


def drive(config, actions, seed=0, **keywords):
    """The rows `[T + 1, N, ...]` of a new pool under `actions` `[T, N]`, that of the reset included."""
    pool = make_pool(config, actions.shape[1], seed, **keywords)
    rows = [pool.reset()]
    for action in actions:
        pool.send(action)
        rows.append(pool.recv())
    pool.close()
    return PoolOutput(*(np.stack(x) for x in zip(*rows, strict=True)))


@functools.cache
def random_play(config, steps=450, num_envs=2, seed=0, num_actions=4):
    return drive(config, random_actions(num_actions, steps, num_envs), seed)


class Raw(NamedTuple):
    """What EnvPool itself reports, `[T + 1, N]`."""

    lives: np.ndarray
    reward: np.ndarray
    over: np.ndarray
    done: np.ndarray
    elapsed: np.ndarray


@functools.cache
def raw_play(task, steps=450, num_envs=2, seed=0, num_actions=4, **options):
    """The same play as `random_play`, of EnvPool alone."""
    options = {"use_fire_reset": False, "num_threads": 1, "seed": pool_seeds(seed, num_envs)} | options
    env = envpool.make(task, env_type="gymnasium", num_envs=num_envs, **options)
    no = np.zeros(num_envs, bool)
    _, info = env.reset()
    rows = [Raw(info["lives"], info["reward"], no, no, info["elapsed_step"])]
    for action in random_actions(num_actions, steps, num_envs):
        _, _, terminated, truncated, info = env.step(action)
        over, done = info["terminated"] > 0, terminated | truncated
        rows.append(Raw(info["lives"], info["reward"], over, done, info["elapsed_step"]))
    return Raw(*(np.stack(x) for x in zip(*rows, strict=True)))


def raw_breakout(**options):
    return raw_play("Breakout-v5", use_fire_reset=True, **options)


def assert_same(a, b):
    for field, x, y in zip(PoolOutput._fields, a, b, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=field)


# -- the row after an end


def test_the_row_after_an_end_only_begins_the_next_game():
    config = dataclasses.replace(BREAKOUT, max_episode_steps=40, terminal_reward=-3.0, time_limit_terminates=True)
    actions = random_actions(4, 60, 2)
    rows = drive(config, actions)
    assert rows.game_over.sum() == 10
    np.testing.assert_array_equal(rows.first[0], [True, True])
    np.testing.assert_array_equal(rows.first[1:], rows.game_over[:-1])
    for field in (rows.reward, rows.episode_return, rows.episode_length, rows.terminated, rows.truncated):
        assert not np.any(field[rows.first])
    # Whatever action meets such a row is not taken; any other is.
    assert_same(drive(config, np.where(rows.first[1:], 3 - actions, actions)), rows)
    others = drive(config, np.where(rows.first[1:], actions, 3 - actions))
    assert not np.array_equal(others.frame, rows.frame)


def test_each_game_begins_anew():
    rows = drive(dataclasses.replace(ASTERIX, max_episode_steps=8), np.zeros((12, 2), int))
    starts = rows.frame[rows.first]
    assert len(starts) == 2 * 5
    assert len(np.unique(starts.reshape(10, -1), axis=0)) > 3  # another number of no-ops nearly every time


# -- losing a life


def test_ignored_lives_end_nothing():
    rows = random_play(BREAKOUT)
    raw = raw_breakout()
    assert raw.over.sum() >= 2
    assert np.sum(np.diff(raw.lives, axis=0) < 0) >= 8
    np.testing.assert_array_equal(rows.terminated, raw.over)
    np.testing.assert_array_equal(rows.game_over, raw.over)
    assert not np.any(rows.truncated)


def test_a_life_lost_stops_the_bootstrap_and_the_game_goes_on():
    rows, plain = random_play(dataclasses.replace(BREAKOUT, life_loss="bootstrap")), random_play(BREAKOUT)
    raw = raw_breakout()
    lost = np.zeros_like(raw.over)
    lost[1:] = (np.diff(raw.lives, axis=0) < 0) & ~raw.done[:-1]
    assert np.sum(lost & ~raw.over) >= 8
    np.testing.assert_array_equal(rows.terminated, raw.over | lost)
    assert_same(rows._replace(terminated=raw.over), plain)  # nothing else differs, no row more or less


def test_a_life_lost_can_end_the_episode_but_not_the_logged_one():
    config = dataclasses.replace(BREAKOUT, life_loss="episode")
    rows = random_play(config)
    raw = raw_breakout(episodic_life=True)
    np.testing.assert_array_equal(rows.terminated, raw.done)
    np.testing.assert_array_equal(rows.first[1:], raw.done[:-1])
    np.testing.assert_array_equal(rows.game_over, raw.over)
    np.testing.assert_array_equal(np.diff(raw.lives, axis=0) < 0, raw.done[1:])
    lost = np.argwhere(rows.terminated & ~rows.game_over)
    assert len(lost) >= 8
    assert np.max(rows.episode_return) > 0
    for t, i in lost[lost[:, 0] < len(rows.first) - 2]:  # score and length run on over the row that begins
        assert rows.episode_return[t + 1, i] == rows.episode_return[t, i]
        assert rows.episode_length[t + 1, i] == rows.episode_length[t, i]
        assert rows.episode_length[t + 2, i] == rows.episode_length[t, i] + 4


@pytest.mark.parametrize("life_loss", ["bootstrap", "episode"])
def test_evaluation_plays_whole_games(life_loss):
    config = dataclasses.replace(BREAKOUT, life_loss=life_loss)
    actions = random_actions(4, 450, 2)
    assert_same(drive(config, actions, evaluation=True), random_play(BREAKOUT))


def test_games_without_lives_lose_none():
    rows = random_play(dataclasses.replace(PONG, life_loss="bootstrap"), steps=300, num_actions=6)
    assert np.min(rows.episode_return) <= -4
    assert not np.any(rows.terminated)


def test_a_game_that_begins_with_fewer_lives_than_the_last_one_ended_with_loses_none(monkeypatch):
    pool = make_pool(dataclasses.replace(BREAKOUT, life_loss="bootstrap"), 1, 0)
    frame, zero = pool.reset().frame[:, None], np.zeros(1, np.float32)

    def row(lives, limit):
        info = {"env_id": np.zeros(1, int), "lives": np.array([lives]), "terminated": np.zeros(1, np.int32)}
        return frame, zero, np.zeros(1, bool), np.array([limit]), info

    rows = iter([row(6, True), row(5, False), row(4, False)])  # an extra life, then the time limit
    monkeypatch.setattr(pool._env, "recv", lambda: next(rows))
    assert [bool(pool.recv().terminated[0]) for _ in range(3)] == [False, False, True]
    pool.close()


# -- what is logged


@pytest.mark.parametrize("life_loss", ["bootstrap", "episode"])
def test_logged_scores_and_lengths_are_raw_and_of_whole_games(life_loss):
    config = dataclasses.replace(ASTERIX, life_loss=life_loss, reward_clip=1.0, reward_scale=0.5, terminal_reward=-1.0)
    rows = random_play(config, steps=500, num_actions=9)
    options = {"episodic_life": True} if life_loss == "episode" else {}
    raw = raw_play("Asterix-v5", steps=500, num_actions=9, **options)
    score, ended = np.zeros(2), np.ones(2, bool)
    for t in range(len(rows.first)):
        score = np.where(ended, 0.0, score + raw.reward[t])
        ended = raw.over[t]
        np.testing.assert_array_equal(rows.episode_return[t], score)
    np.testing.assert_array_equal(rows.episode_length, 4 * raw.elapsed)
    np.testing.assert_array_equal(rows.game_over, raw.over)
    assert raw.over.sum() >= 2
    assert np.max(rows.episode_return) >= 100


# -- time limits


def test_a_time_limit_truncates_and_does_not_terminate():
    config = dataclasses.replace(PONG, max_episode_steps=40)
    rows = drive(config, random_actions(6, 33, 2))
    limit = np.zeros((34, 2), bool)
    limit[[10, 21, 32]] = True  # ten steps of four frames, then a row that begins
    np.testing.assert_array_equal(rows.truncated, limit)
    np.testing.assert_array_equal(rows.game_over, limit)
    assert not np.any(rows.terminated)
    np.testing.assert_array_equal(rows.episode_length[:12, 0], [*range(0, 44, 4), 0])
    as_if = drive(dataclasses.replace(config, time_limit_terminates=True), random_actions(6, 33, 2))
    assert_same(as_if, rows._replace(terminated=limit, truncated=np.zeros_like(limit)))


def test_caps_are_in_frames():
    def cap(config):
        pool = make_pool(config, 1, 0)
        pool.close()
        return pool.spec.max_episode_steps

    assert cap(PONG) == 108_000
    assert cap(dataclasses.replace(PONG, action_repeat=2)) == 108_000
    assert cap(dataclasses.replace(PONG, max_episode_steps=400)) == 400
    assert cap(CARTPOLE) == 500
    assert cap(dataclasses.replace(CARTPOLE, max_episode_steps=7)) == 7


def test_a_game_over_at_the_limit_is_a_termination():
    over = int(np.flatnonzero(random_play(BREAKOUT).game_over[:, 0])[0])
    rows = drive(dataclasses.replace(BREAKOUT, max_episode_steps=4 * over), random_actions(4, over, 2))
    assert (rows.terminated[over, 0], rows.truncated[over, 0], rows.game_over[over, 0]) == (True, False, True)
    assert (rows.terminated[over, 1], rows.truncated[over, 1], rows.game_over[over, 1]) == (False, True, True)


@pytest.mark.parametrize("life_loss", ["bootstrap", "episode"])
def test_a_life_lost_at_the_limit_is_a_termination_that_ends_the_logged_episode(life_loss):
    config = dataclasses.replace(BREAKOUT, life_loss=life_loss)
    lost = int(np.flatnonzero(random_play(config).terminated[:, 0])[0])
    rows = drive(dataclasses.replace(config, max_episode_steps=4 * lost), random_actions(4, lost + 1, 2))
    assert (rows.terminated[lost, 0], rows.truncated[lost, 0], rows.game_over[lost, 0]) == (True, False, True)
    np.testing.assert_array_equal(rows.episode_length[lost:, 0], [4 * lost, 0])


# -- rewards as learnt


def test_rewards_are_replaced_scaled_and_clipped_in_this_order():
    plain = random_play(ASTERIX, steps=500, num_actions=9)
    assert set(np.unique(plain.reward)) == {0.0, 50.0}
    changed = random_play(
        dataclasses.replace(ASTERIX, reward_scale=0.1, reward_clip=2.0, terminal_reward=-15.0), 500, num_actions=9
    )
    expected = np.where(plain.terminated, -1.5, np.minimum(plain.reward * 0.1, 2.0))
    np.testing.assert_allclose(changed.reward, expected, rtol=1e-6)
    assert set(np.unique(changed.reward)) == {-1.5, 0.0, 2.0}
    assert_same(changed._replace(reward=plain.reward), plain)
    assert [x.dtype for x in changed[1:-1]] == [np.float32, bool, bool, bool, bool, np.float32, np.int32]


def test_rewards_are_shifted_before_all_else():
    plain = random_play(ASTERIX, steps=100, num_actions=9)
    changed = random_play(dataclasses.replace(ASTERIX, reward_shift=-20.0, reward_scale=0.1), 100, num_actions=9)
    np.testing.assert_allclose(changed.reward, (plain.reward - 20.0) * np.float32(0.1), rtol=1e-6)
    np.testing.assert_array_equal(changed.episode_return, plain.episode_return)


def test_negative_rewards_are_clipped_too():
    rows = random_play(dataclasses.replace(PONG, reward_clip=0.25), steps=300, num_actions=6)
    assert np.min(rows.reward) == -0.25
    assert np.min(np.diff(rows.episode_return, axis=0)) == -1.0


# -- options reach the emulator


def test_an_action_is_held_for_action_repeat_frames():
    two, four = dataclasses.replace(PONG, action_repeat=2), PONG
    actions = random_actions(6, 40, 2)
    slow, fast = drive(four, actions), drive(two, np.repeat(actions, 2, axis=0))
    np.testing.assert_array_equal(slow.frame, fast.frame[::2])
    np.testing.assert_array_equal(slow.episode_return, fast.episode_return[::2])
    np.testing.assert_array_equal(slow.episode_length, fast.episode_length[::2])
    assert len(np.unique(slow.frame.reshape(82, -1), axis=0)) > 40


def test_sticky_actions_reach_the_emulator():
    actions = random_actions(6, 60, 2)
    stuck = dataclasses.replace(PONG, sticky_actions=1.0)
    np.testing.assert_array_equal(drive(stuck, actions).frame, drive(stuck, np.zeros_like(actions)).frame)
    free, sometimes = drive(PONG, actions).frame, drive(dataclasses.replace(PONG, sticky_actions=0.25), actions).frame
    assert not np.array_equal(free, drive(PONG, np.zeros_like(actions)).frame)
    assert not np.array_equal(free, sometimes)


def test_frames_are_the_newest_of_a_stack():
    actions = random_actions(6, 40, 2)
    rows = drive(dataclasses.replace(PONG, max_episode_steps=60), actions)
    assert rows.frame.dtype == np.uint8
    env = envpool.make(
        "Pong-v5",
        env_type="gymnasium",
        num_envs=2,
        num_threads=1,
        seed=pool_seeds(0, 2),
        stack_num=4,
        use_fire_reset=False,
        max_episode_steps=15,
    )
    stacks = [env.reset()[0], *(env.step(action)[0] for action in actions)]
    np.testing.assert_array_equal(rows.frame, np.stack(stacks)[:, :, 3])


def test_the_agent_sees_a_stack_with_channels_last():
    pool = make_pool(dataclasses.replace(PONG, frame_size=42), 1, 0)
    assert (pool.spec.name, pool.spec.obs_shape, pool.spec.obs_dtype) == ("Pong-v5", (42, 42, 4), jnp.uint8)
    assert pool.frame_shape == (42, 42)
    assert pool.reset().frame.shape == (1, 42, 42)
    pool.close()


def test_frames_in_colour_hold_the_three_channels_of_each():
    actions = random_actions(4, 12, 2)
    rows = drive(dataclasses.replace(BREAKOUT, grayscale=False, frame_size=60), actions)
    options = {"img_height": 60, "img_width": 60, "num_threads": 1, "seed": pool_seeds(0, 2)}
    env = envpool.make("Breakout-v5", env_type="gymnasium", num_envs=2, gray_scale=False, stack_num=2, **options)
    stacks = np.stack([env.reset()[0], *(env.step(action)[0] for action in actions)])  # [T + 1, N, 2 * 3, 60, 60]
    for channel in range(3):
        np.testing.assert_array_equal(rows.frame[..., channel], stacks[:, :, 3 + channel])
    assert np.any(rows.frame[..., 0] != rows.frame[..., 2])


def test_one_of_several_arrays_is_observed():
    actions = random_actions(3, 30, 2)
    env = envpool.make(EMPTY, env_type="gymnasium", num_envs=2, num_threads=1, seed=pool_seeds(0, 2))
    given = [env.reset()[0], *(env.step(action)[0] for action in actions)]
    seen = drive(Config(env=EMPTY), actions).frame
    np.testing.assert_array_equal(seen, np.stack([row["image"] for row in given]))
    assert len(np.unique(seen.reshape(62, -1), axis=0)) > 5
    heading = drive(Config(env=EMPTY, obs_key="direction"), actions).frame
    np.testing.assert_array_equal(heading.argmax(-1), np.stack([row["direction"] for row in given]))
    elsewhere = Config(env=EMPTY, pool_options=(("agent_start_pos", "(2, 2)"),))
    assert not np.array_equal(drive(elsewhere, actions).frame, seen)


def test_doom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where ViZDoom leaves its settings
    config = Config(env="Basic-v1", action_repeat=4, frame_stack=4, frame_size=60, max_episode_steps=80)
    pool = make_pool(config, 1, 0)
    assert (pool.spec.obs_shape, pool.spec.num_actions) == ((60, 60, 3, 4), 6)
    pool.close()
    rows = drive(config, random_actions(6, 45, 2))
    assert rows.game_over.sum() >= 4
    np.testing.assert_array_equal(rows.first[1:], rows.game_over[:-1])
    assert not np.any(rows.reward[rows.first])
    assert np.any(rows.reward)
    assert len(np.unique(rows.frame.reshape(92, -1), axis=0)) > 40


def first_frames(config, num_envs=4):
    pool = make_pool(config, num_envs, 0)
    frame = pool.reset().frame
    pool.close()
    return np.unique(frame.reshape(num_envs, -1), axis=0)


def test_no_ops_differ_between_environments():
    assert len(first_frames(dataclasses.replace(ASTERIX, noop_max=1))) == 1
    assert len(first_frames(ASTERIX)) > 2


def test_fire_starts_a_game_that_waits_for_it():
    def moves(config):
        frame = drive(config, np.zeros((30, 1), int)).frame
        return not np.array_equal(frame[20], frame[30])

    assert moves(BREAKOUT)
    assert not moves(dataclasses.replace(BREAKOUT, fire_reset=False))


def test_actions_are_the_minimal_set_or_all():
    for full, expected in ((False, 6), (True, 18)):
        pool = make_pool(dataclasses.replace(PONG, full_action_space=full), 1, 0)
        assert pool.spec.num_actions == expected
        pool.close()


def test_other_options_reach_the_emulator():
    easy, hard = BREAKOUT, dataclasses.replace(BREAKOUT, pool_options=(("difficulty", "1"),))  # a shorter paddle
    assert not np.array_equal(first_frames(easy), first_frames(hard))
    bilinear = dataclasses.replace(BREAKOUT, pool_options=(("use_inter_area_resize", "False"),))
    assert not np.array_equal(first_frames(easy), first_frames(bilinear))
    big = make_pool(Config(env="FrozenLake-v1", pool_options=(("size", "8"),)), 1, 0)
    assert big.spec.obs_shape == (64,)
    big.close()


def test_threads_are_as_many_as_asked_for():
    for asked, expected in ((1, 1), (3, 2)):  # never more than environments
        pool = make_pool(dataclasses.replace(CARTPOLE, pool_threads=asked), 2, 0)
        assert pool._env.config["num_threads"] == expected
        pool.close()


# -- seeds


def test_the_same_seed_gives_the_same_rows_and_another_does_not():
    config = dataclasses.replace(ASTERIX, sticky_actions=0.25)
    actions = random_actions(9, 40, 3)
    rows = drive(config, actions)
    assert_same(rows, drive(dataclasses.replace(config, pool_threads=3), actions))
    for t in (0, -1):
        assert len(np.unique(rows.frame[t].reshape(3, -1), axis=0)) == 3
    other = drive(config, actions, seed=1)
    assert not np.array_equal(other.frame[-1], rows.frame[-1])
    fewer = drive(config, actions[:, :2])  # an environment does not depend on the number of them
    np.testing.assert_array_equal(fewer.frame, rows.frame[:, :2])


def test_rows_are_in_the_order_of_the_environments():
    actions = random_actions(4, 60, 16)
    rows = drive(Config(env="FrozenLake-v1", pool_threads=4), actions)
    for i, seed in enumerate(pool_seeds(0, 16)):
        env = envpool.make("FrozenLake-v1", env_type="gymnasium", num_envs=1, num_threads=1, seed=[seed])
        states = [env.reset()[0], *(env.step(action)[0] for action in actions[:, [i]])]
        np.testing.assert_array_equal(rows.frame[:, i].argmax(-1), np.stack(states)[:, 0])


def test_seeds_of_pools_do_not_overlap():
    seeds = np.array([pool_seeds(seed, 64) for seed in range(16)])
    assert len(np.unique(seeds)) == seeds.size
    assert (seeds.min(), seeds.max()) > (0, 0)
    assert seeds.max() < 2**31
    np.testing.assert_array_equal(pool_seeds(3, 8), pool_seeds(3, 64)[:8])


# -- asynchronous pools


@pytest.mark.parametrize(
    ("config", "num_actions"),
    [
        (dataclasses.replace(BREAKOUT, life_loss="bootstrap", reward_clip=0.5, frame_size=36), 4),
        (dataclasses.replace(ASTERIX, life_loss="episode", max_episode_steps=400, frame_size=36), 9),
        (CARTPOLE, 2),
        (Config(env=EMPTY, max_episode_steps=30), 7),
    ],
    ids=["bootstrap", "episode", "vectors", "dictionaries"],
)
def test_environments_at_their_own_pace_give_the_rows_that_each_gives_in_step(config, num_actions):
    actions = random_actions(num_actions, 300, 5)
    in_step = drive(config, actions)
    pool = make_pool(dataclasses.replace(config, num_envs=5, pool_batch=2, pool_threads=3), 5, 0)
    output, steps = pool.reset(), np.zeros(5, int)
    while True:
        envs = output.env_id
        assert len(envs) == len(set(envs)) == 2
        for name, got, wanted in zip(PoolOutput._fields[:-1], output[:-1], in_step[:-1], strict=True):
            np.testing.assert_array_equal(got, wanted[steps[envs], envs], err_msg=name)
        if steps.max() == len(actions):
            break
        pool.send(actions[steps[envs], envs])
        steps[envs] += 1
        output = pool.recv()
    pool.close()
    assert steps.min() > 100
    assert in_step.game_over[: steps.min()].sum() >= 3  # and so games ended


def test_an_asynchronous_pool_says_which_environments_it_gives_and_takes_actions_for_these():
    config = dataclasses.replace(CARTPOLE, num_envs=4, pool_batch=3)
    pool = make_pool(config, 4, 0)
    assert pool.reset().env_id.shape == (3,)
    with pytest.raises(ValueError, match="3 integers"):
        pool.send(np.zeros(4, int))
    pool.close()
    for whole in (make_pool(dataclasses.replace(config, pool_batch=4), 4, 0), make_pool(config, 4, 0, evaluation=True)):
        assert whole.reset().env_id.tolist() == [0, 1, 2, 3]
        whole.close()


# -- other tasks


def test_classic_control():
    rows = drive(CARTPOLE, np.ones((40, 3), int))  # always to the right: the pole falls after 9 to 11 steps
    assert (rows.frame.shape, rows.frame.dtype) == ((41, 3, 4), np.float32)
    assert np.all(np.abs(rows.frame[rows.first]) <= 0.05)
    assert rows.terminated.sum() >= 9
    assert np.all(np.abs(rows.frame[rows.terminated][:, 2]) > 12 * np.pi / 180)
    assert not np.any(rows.truncated)
    np.testing.assert_array_equal(rows.game_over, rows.terminated)
    np.testing.assert_array_equal(rows.first[1:], rows.game_over[:-1])
    np.testing.assert_array_equal(rows.reward, np.where(rows.first, 0.0, 1.0))
    np.testing.assert_array_equal(rows.episode_return, rows.episode_length)
    assert set(rows.episode_length[rows.game_over]) <= {8, 9, 10, 11}
    limit = drive(dataclasses.replace(CARTPOLE, max_episode_steps=5), np.ones((5, 3), int))
    assert np.all(limit.truncated[-1])
    assert not np.any(limit.terminated)


def test_discrete_observations_are_one_hot():
    rows = drive(Config(env="frozenlake-v1"), random_actions(4, 200, 4))
    assert (rows.frame.shape[2:], rows.frame.dtype) == ((16,), np.float32)
    np.testing.assert_array_equal(np.sort(rows.frame, axis=-1), np.broadcast_to(np.eye(16)[15], rows.frame.shape))
    assert np.all(rows.frame[rows.first].argmax(-1) == 0)
    assert set(rows.frame[rows.terminated].argmax(-1)) <= {5, 7, 11, 12, 15}  # four holes and the goal
    goal = rows.terminated & (rows.frame.argmax(-1) == 15)
    np.testing.assert_array_equal(rows.reward, goal)


@pytest.mark.parametrize(
    ("config", "obs_shape", "dtype", "num_actions"),
    [
        (Config(env="envpool:CartPole-v1", frame_stack=3), (4, 3), jnp.float32, 2),
        (Config(env="FrozenLake-v1"), (16,), jnp.float32, 4),
        (Config(env="Blackjack-v1"), (3,), jnp.float32, 2),  # integers, but no pixels
        (Config(env="Play2048-v1"), (4, 4, 31), jnp.uint8, 4),  # planes of zeros and ones
        (Config(env="LunarLander-v3"), (8,), jnp.float32, 4),
        (Config(env="highway-v0"), (5, 5), jnp.float32, 5),
        (Config(env=EMPTY), (7, 7, 3), jnp.uint8, 7),
        (Config(env=EMPTY, frame_stack=2), (7, 7, 3, 2), jnp.uint8, 7),
        (Config(env=EMPTY, obs_key="direction"), (4,), jnp.float32, 7),
        (Config(env="Snake-v1", obs_key="grid"), (12, 12, 5), jnp.float32, 4),
        (Config(env="Maze-v0", obs_key="agent_position.row"), (10,), jnp.float32, 4),
        (Config(env="Knapsack-v1", obs_key="packed_items"), (50,), jnp.uint8, 50),
        (Config(env="Breakout-v5", frame_size=50), (50, 50, 1), jnp.uint8, 4),
        (Config(env="Breakout-v5", frame_size=50, grayscale=False), (50, 50, 3), jnp.uint8, 4),
        (Config(env="Breakout-v5", frame_size=50, grayscale=False, frame_stack=4), (50, 50, 3, 4), jnp.uint8, 4),
    ],
)
def test_tasks_of_every_kind_of_observation(config, obs_shape, dtype, num_actions):
    pool = make_pool(config, 2, 0)
    assert (pool.spec.obs_shape, pool.spec.obs_dtype, pool.spec.num_actions) == (obs_shape, dtype, num_actions)
    assert pool.frame_shape == obs_shape[: len(pool.frame_shape)]
    frame = pool.reset().frame
    assert (frame.shape, frame.dtype) == ((2, *pool.frame_shape), dtype)
    pool.close()


# -- failures


def test_actions_outside_the_table_are_refused():
    pool = make_pool(CARTPOLE, 2, 0)
    pool.reset()
    for actions in (np.array([0, 2]), np.array([-1, 0]), np.array([0]), np.zeros((2, 1), int)):
        with pytest.raises(ValueError, match="2 integers from 0 to 1"):
            pool.send(actions)
    pool.close()


def test_what_fails_in_envpool_is_told_in_one_line(monkeypatch):
    def fail(*_):
        raise RuntimeError("an emulator died\nwith more to say")

    pool = make_pool(CARTPOLE, 2, 0)
    pool.reset()
    for method, call in (
        ("async_reset", pool.reset),
        ("send", lambda: pool.send(np.zeros(2, int))),
        ("recv", pool.recv),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(pool._env, method, fail)
            with pytest.raises(RunError, match=r"env.*envpool:CartPole-v1: an emulator died\.$"):
                call()
    pool.close()
