"""Names of EnvPool tasks: how they may be spelt, and which are refused."""

from __future__ import annotations

import pytest

from dqn_jax.config import Config, ConfigError, UnknownEnvError
from dqn_jax.envs import make_pool, pool_names
from dqn_jax.envs.pool_tasks import known_names, resolve_pool_env


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Pong-v5", "Pong-v5"),
        ("pong", "Pong-v5"),
        ("PONG-V5", "Pong-v5"),
        ("ms-pacman", "MsPacman-v5"),
        ("mspacman", "MsPacman-v5"),
        ("MsPacman", "MsPacman-v5"),
        ("space_invaders", "SpaceInvaders-v5"),
        ("envpool:up n down", "UpNDown-v5"),
        ("Tetris", "Tetris-v5"),  # the game; Tetris-v0 is another task
        ("CartPole-v1", "envpool:CartPole-v1"),
        ("EnvPool:cartpole-v1", "envpool:CartPole-v1"),
        ("frozenlake8x8-v1", "FrozenLake8x8-v1"),
        ("highway-v0", "highway-v0"),
    ],
)
def test_names_are_forgiving_and_full_names_stand_for_themselves(written, name):
    assert resolve_pool_env(written) == name
    assert resolve_pool_env(name) == name
    assert name in pool_names()


@pytest.mark.parametrize(
    ("written", "near"),
    [("pongg", "Pong"), ("Brakeout-v5", "Breakout-v5"), ("FrozenLak-v1", "FrozenLake-v1"), ("seequest", "Seaquest")],
)
def test_unknown_names_suggest_the_nearest(written, near):
    with pytest.raises(UnknownEnvError, match=rf"env.*'{written}'.*Did you mean '{near}'"):
        make_pool(Config(env=written), 1, 0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Ant-v5", "continuous"),
        ("envpool:Pendulum-v1", "continuous"),
        ("TicTacToe-v1", "several players"),
        ("BinPack-v2", "several actions"),
    ],
)
def test_what_cannot_work_is_refused_with_a_reason_and_not_listed(name, reason):
    assert name not in pool_names()
    with pytest.raises(ConfigError, match=rf"env: '{name}' cannot be used here: .*{reason}") as error:
        make_pool(Config(env=name), 1, 0)
    assert "\n" not in str(error.value)


def test_all_games_are_listed_and_suggested():
    games = [name for name in pool_names() if name.endswith("-v5")]
    assert len(games) == 104
    assert {"Pong-v5", "MontezumaRevenge-v5", "YarsRevenge-v5"} <= set(games)
    assert {*pool_names(), *(name.removesuffix("-v5") for name in games)} <= set(known_names())
