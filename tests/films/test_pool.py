"""Films of games in a pool: one game twice, as the agent saw it and as a person does, with real games of EnvPool."""

from __future__ import annotations

import dataclasses
import shlex

import envpool
import jax
import numpy as np
import pytest
from PIL import Image

from dqn_jax.cli.main import main
from dqn_jax.config import Config, HParams, RunError
from dqn_jax.envs import make_pool
from dqn_jax.envs.action_names import action_names
from dqn_jax.envs.pool import Pool, pool_seeds
from dqn_jax.films import pool as pool_film
from dqn_jax.films import write
from dqn_jax.lanes.pool_evaluation import evaluate_pool, make_player
from dqn_jax.prng import make_key
from dqn_jax.types import EnvSpec

BREAKOUT = Config(
    env="Breakout-v5",
    torso="dqn2013",
    hidden=(8,),
    frame_size=36,
    frame_stack=3,
    action_repeat=4,
    fire_reset=True,
    sticky_actions=0.25,
    life_loss="episode",  # in training; a film is of a whole game
    max_episode_steps=320,
    eval_epsilon=0.3,
    num_envs=1,
    batch_size=4,
    replay_capacity=200,
    min_replay=20,
    total_steps=40,
    eval_every=40,
    pool_threads=1,
)
PLAYER = make_player(BREAKOUT)
CARTPOLE = make_player(Config(env="envpool:CartPole-v1", hidden=(8,), num_envs=1, eval_epsilon=0.1))


def network(player, seed=0):
    return player.agent.init(make_key(seed), HParams()).params


def played(player, start):
    """A game of an agent that has learnt nothing."""
    params = network(player)
    epsilon, own = np.float32(player.config.eval_epsilon), jax.tree.map(lambda x: x[None], params)

    def choose(obs, frame, first, key):
        obs, actions = player.choose(own, obs[None], frame[None], first[None], epsilon, key)
        return obs[0], actions[0]

    return pool_film.play_game(
        player.config, choose, start=start, q_values=lambda obs: player.agent.q_values(params, obs)
    )


def drawn(player, game):
    return list(pool_film.draw_game(player.config, game, range(len(game.rows)), title="who"))


@pytest.fixture(scope="module")
def game():
    return played(PLAYER, 3)  # it loses three lives


# -- two pools, one game


def test_with_pictures_a_pool_gives_the_same_rows():
    """Rewards, ends and lives (which end the bootstrap here) under sticky actions, over several games."""
    config = dataclasses.replace(BREAKOUT, life_loss="bootstrap", max_episode_steps=600)
    pools = [make_pool(config, 2, 3, pictures=pictures) for pictures in (False, True)]
    rows = [[pool.reset()] for pool in pools]
    for action in np.random.default_rng(0).integers(0, 4, (310, 2)):
        for pool, own in zip(pools, rows, strict=True):
            pool.send(action)
            own.append(pool.recv())
    for field in rows[0][0]._fields[1:]:
        plain, with_pictures = (np.stack([getattr(row, field) for row in own]) for own in rows)
        np.testing.assert_array_equal(plain, with_pictures, err_msg=field)
    assert np.sum([row.game_over for row in rows[0]]) >= 4
    assert np.sum([row.terminated for row in rows[0]]) >= 6  # most of them lives
    assert np.max([row.episode_return for row in rows[0]]) > 0
    for pool in pools:
        pool.close()


def test_a_picture_shows_what_is_drawn_in_every_second_frame_only():
    config = Config(env="SpaceInvaders-v5", action_repeat=4)
    pool = make_pool(config, 1, 0, pictures=True)
    grey = envpool.make(
        "SpaceInvaders-v5",
        env_type="gymnasium",
        num_envs=1,
        seed=pool_seeds(0, 1),
        stack_num=1,
        use_fire_reset=False,
        img_height=210,
        img_width=160,
        render_mode="rgb_array",
    )
    pool.reset(), grey.reset()
    hidden = 0
    for action in np.random.default_rng(0).integers(0, 6, (60, 1)):
        pool.send(action)
        pool.recv()
        seen = grey.step(action)[0][0, 0].astype(int)
        picture = pool.picture()
        assert (picture.shape, picture.dtype) == ((210, 160, 3), np.uint8)
        assert np.abs(picture @ [0.299, 0.587, 0.114] - seen).mean() < 0.5  # what the agent sees, in colour
        newest = grey.render()[0]
        assert (picture >= newest).all()
        hidden += np.any((picture > 0).any(axis=-1) & ~(newest > 0).any(axis=-1))
    assert hidden > 20  # a shot
    pool.close()


def test_the_game_is_that_of_an_evaluation(game, monkeypatch):
    params = jax.tree.map(lambda x: x[None], network(PLAYER))
    send, sent = Pool.send, []
    monkeypatch.setattr(Pool, "send", lambda self, actions: sent.append(actions.item()) or send(self, actions))
    wanted = evaluate_pool(PLAYER, params, episodes=1, epsilon=BREAKOUT.eval_epsilon, seed=3)
    assert game.actions.tolist() == sent
    assert game.score == wanted.returns.item() > 0
    assert game.rows[-1].episode_length == wanted.lengths.item() == 4 * len(game.actions)
    assert [row.game_over for row in game.rows] == [False] * len(game.actions) + [True]


def test_the_agent_sees_the_stack_of_training(game):
    pool = make_pool(BREAKOUT, 1, 3, evaluation=True)
    frames = [np.zeros((36, 36), np.uint8)] * 2 + [pool.reset().frame[0]]
    for action in game.actions[:-1]:
        pool.send(action[None])
        frames.append(pool.recv().frame[0])
    pool.close()
    stacks = np.stack([np.stack(frames[t : t + 3], axis=-1) for t in range(len(game.actions))])
    np.testing.assert_allclose(game.q_values, PLAYER.agent.q_values(network(PLAYER), stacks), rtol=1e-4, atol=1e-5)
    greedy = np.mean(game.actions == game.q_values.argmax(axis=1))
    assert 0.6 < greedy < 0.95  # a third at random, of which a quarter is greedy too


def test_a_random_policy_plays_all_actions_and_has_no_q_values():
    game = pool_film.play_game(BREAKOUT, None, start=0)
    assert set(game.actions.tolist()) == {0, 1, 2, 3}
    assert game.q_values is None


def test_another_game_the_second_time_is_an_error(game, monkeypatch):
    monkeypatch.setattr(pool_film, "make_pool", lambda config, n, seed, **rest: make_pool(config, n, seed + 1, **rest))
    with pytest.raises(RunError, match=r"^env: Breakout-v5 played another game the second time \(step \d+\)"):
        drawn(PLAYER, game)


# -- what is drawn


def test_frames_of_a_game(game, monkeypatch):
    texts = []

    def noted(picture, *text):
        texts.append(text)
        return write.with_caption(picture, *text)

    monkeypatch.setattr(pool_film, "with_caption", noted)
    frames = drawn(PLAYER, game._replace(q_values=None))
    assert len(frames) == len(game.actions) + 1
    assert {frame.shape for frame in frames} == {(2 * 210 + 46, 3 * 160, 3)}
    assert texts[0] == ("who", "step 0", "return 0")
    assert texts[-1] == ("who", f"step {len(game.actions)}", f"return {game.score:g}")
    pool = make_pool(BREAKOUT, 1, 3, evaluation=True, pictures=True)
    pool.reset()
    np.testing.assert_array_equal(frames[0][46::2, ::3], pool.picture())
    pool.close()
    some = [0, 7, len(game.actions)]
    for chosen, frame in zip(
        some, pool_film.draw_game(BREAKOUT, game._replace(q_values=None), some, title="who"), strict=True
    ):
        np.testing.assert_array_equal(frame, frames[chosen])


def test_the_panel_shows_the_values_and_the_choice():
    panel = write.QPanel(["NOOP", "LEFT"], np.array([1]), np.array([[-1.0, 3.0]], np.float32))
    picture = Image.new("RGB", (100, 60))

    def count(t, colour, action):
        shown = np.asarray(panel.beside(picture, t))[26 * action : 26 * (action + 1)]
        return np.count_nonzero((shown == colour).all(axis=-1))

    assert count(0, write._CHOSEN, 1) > 90 * 10  # the highest of all: the whole width
    assert count(0, write._CHOSEN, 0) == 0
    assert 0 < count(0, write._BAR, 0) < 30  # the lowest
    assert count(0, write._BAR, 1) == 0
    assert [count(1, colour, 1) for colour in (write._CHOSEN, write._BAR)] == [0, 0]  # nothing left to choose


def test_the_values_of_a_diverged_agent_have_no_bars():
    panel = write.QPanel(["NOOP", "LEFT"], np.array([0]), np.full((1, 2), np.nan, np.float32))
    shown = np.asarray(panel.beside(Image.new("RGB", (100, 60)), 0))
    assert not (shown == write._BAR).all(axis=-1).any()


def test_q_values_stand_beside_the_picture(game):
    plain, beside = (drawn(PLAYER, own)[9] for own in (game._replace(q_values=None), game))
    assert beside.shape[0] == plain.shape[0]
    assert beside.shape[1] > plain.shape[1] + 150
    np.testing.assert_array_equal(beside[46:, : 3 * 160], plain[46:])


def test_what_envpool_renders_can_be_drawn_and_nothing_else():
    assert pool_film.can_draw_game(CARTPOLE.config)
    game = played(CARTPOLE, 1)
    frames = drawn(CARTPOLE, game)
    assert len(frames) == game.score + 1
    assert (frames[0] != frames[-1])[46:].any()
    assert not pool_film.can_draw_game(Config(env="Catch-v0", hidden=(8,), num_envs=1))


def test_speed_and_length():
    assert pool_film.game_fps(BREAKOUT, PLAYER.spec.name) == 15
    assert pool_film.game_fps(CARTPOLE.config, CARTPOLE.spec.name) == 50
    row = pool_film.GameRow(0.0, False, False, False, False, 0.0, 0)
    long = pool_film.Game(0, [row] * 9_001, np.zeros(9_000, np.int32), None)
    assert pool_film.steps_shown(long, ".mp4")[:3] == [0, 3, 6]
    assert len(pool_film.steps_shown(long._replace(rows=[row] * 2_000), ".mp4")) == 2_000
    assert len(pool_film.steps_shown(long, ".GIF")) <= 300


# -- names of actions


def names(game, num_actions, full=False):
    return action_names(EnvSpec(game, (), np.uint8, num_actions, 1), full=full)


@pytest.mark.parametrize("game", ["MsPacman-v5", "Assault-v5", "BeamRider-v5"])
def test_names_of_minimal_actions_do_what_they_do_in_the_full_set(game):
    options = {"env_type": "gymnasium", "num_envs": 1, "seed": [7], "use_fire_reset": False}
    minimal, full = (envpool.make(game, full_action_space=all_, **options) for all_ in (False, True))
    every, few = names(game, 18, full=True), names(game, int(minimal.action_space.n))
    assert (len(every), len(few)) == (18, minimal.action_space.n)

    def same(to_full):
        minimal.reset(), full.reset()
        rng = np.random.default_rng(1)
        actions = rng.integers(0, len(few), 120)
        return all(
            np.array_equal(minimal.step(np.array([a]))[0], full.step(np.array([to_full(a)]))[0]) for a in actions
        )

    assert same(lambda action: every.index(few[action]))
    minimal, full = (envpool.make(game, full_action_space=all_, **options) for all_ in (False, True))
    assert not same(lambda action: action)  # other actions lead elsewhere


@pytest.mark.parametrize(
    ("game", "number"),
    [("Pong", 6), ("Freeway", 3), ("Qbert", 6), ("Seaquest", 18), ("KungFuMaster", 14), ("JourneyEscape", 16)],
)
def test_every_action_has_one_name(game, number):
    assert envpool.make_spec(f"{game}-v5").action_space.n == number
    assert len(set(names(f"{game}-v5", number))) == number


def test_full_sets_without_fire_and_other_environments():
    assert envpool.make_spec("Skiing-v5", full_action_space=True).action_space.n == 9
    assert len(names("Skiing-v5", 9, full=True)) == 9
    assert names("CartPole-v1", 2) == ["0", "1"]


# -- from the command line


def test_a_run_over_a_pool_is_filmed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = (
        "--num-envs 2 --torso dqn2013 --hidden 8 --frame-size 36 --batch-size 4 --replay-capacity 300 --min-replay 20"
        " --total-steps 60 --eval-every 40 --eval-episodes 1 --max-episode-steps 80 --seeds 1 --pool-threads 1"
    )
    assert main(["train", "pong", *shlex.split(small), "--out", "run"]) == 0
    assert (tmp_path / "run" / "film.mp4").stat().st_size > 5_000
    assert not (tmp_path / "run" / "film.gif").exists()
    capsys.readouterr()
    made = {}
    for name, extra in (("a.mp4", ""), ("q.mp4", "--q-values"), ("r.gif", "--random --start 1")):
        assert main(["record", "run", "-o", name, *extra.split()]) == 0
        who = "random policy, " if "--random" in extra else "seed 0, last checkpoint, after 60 environment steps, "
        assert capsys.readouterr().out == f"{name}: {who}return 0, 21 frames\n"
        made[name] = (tmp_path / name).read_bytes()
    assert made["a.mp4"] == (tmp_path / "run" / "film.mp4").read_bytes()
    assert made["q.mp4"] != made["a.mp4"]
    with Image.open("r.gif") as gif:
        assert (gif.n_frames, gif.size) == (21, (480, 466))
    assert main(["record", "run", "-o", "c.mp4", "--random", "--q-values"]) == 2
    assert capsys.readouterr().err == "dqn-jax: q_values: a random policy has none; leave out one of the two.\n"
    assert not (tmp_path / "c.mp4").exists()
