"""Environments by name: of two libraries, suggested where none is meant, and refused where they cannot work."""

from __future__ import annotations

import subprocess
import sys

import gymnax
import pytest

from dqn_jax.config import Config, ConfigError, UnknownEnvError
from dqn_jax.envs import find_env, make_env, make_pool, pool_names, resolve_env
from dqn_jax.envs.pool_tasks import known_names, resolve_pool_env
from dqn_jax.presets import resolve_preset


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


def test_one_name_never_means_two_environments():
    gymnax_names = {name.lower() for name in gymnax.registered_envs} | {"cartpole-v0"}
    assert not gymnax_names & {name.lower() for name in pool_names()}
    assert not any(name.endswith("-v5") for name in gymnax_names)
    assert {name for name in pool_names() if name.startswith("envpool:")} == {
        f"envpool:{name}"
        for name in "CartPole-v0 CartPole-v1 MountainCar-v0 Acrobot-v1 phys2d/CartPole-v0 phys2d/CartPole-v1".split()
    }


@pytest.mark.parametrize(
    ("written", "in_pool", "name"),
    [
        ("cartpole", False, "CartPole-v1"),
        ("CartPole-v0", False, "CartPole-v0"),
        ("envpool:CartPole-v1", True, "envpool:CartPole-v1"),
        ("breakout", False, "Breakout-MinAtar"),  # a gymnax name wins
        ("Breakout-v5", True, "Breakout-v5"),
        ("envpool:breakout", True, "Breakout-v5"),
        ("ms-pacman", True, "MsPacman-v5"),
        ("FrozenLake-v1", True, "FrozenLake-v1"),
        ("FrozenLake-misc", False, "FrozenLake-misc"),
    ],
)
def test_one_function_resolves_any_name(written, in_pool, name):
    assert find_env(written) == find_env(name) == (name, in_pool)
    assert resolve_env(written) == resolve_env(name) == name
    assert resolve_preset(written).config.env == name or written in ("cartpole", "breakout")


def test_a_name_that_neither_library_has_suggests_from_both():
    for written, near in (("cartpol-v1", "CartPole-v1"), ("montezumasrevenge", "MontezumaRevenge")):
        with pytest.raises(UnknownEnvError, match=f"Did you mean '{near}'"):
            resolve_env(written)
        with pytest.raises(ConfigError, match=f"no preset or environment '{written}'. Did you mean"):
            resolve_preset(written)


def test_a_library_is_imported_only_for_its_own_environments(monkeypatch):
    code = "import sys, dqn_jax.envs; sys.exit('envpool' in sys.modules or 'gymnax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    monkeypatch.setitem(sys.modules, "gymnax", None)  # importing it is an error now
    assert find_env("Pong-v5").in_pool
    assert find_env("envpool:CartPole-v1").in_pool


def test_without_envpool_the_rest_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    assert not find_env("cartpole").in_pool
    make_env(Config())
    pong = Config(env="Pong-v5")
    for call in (lambda: make_pool(pong, 1, 0), lambda: resolve_env("Pong-v5"), lambda: resolve_env("ms-pacman")):
        with pytest.raises(ConfigError, match=r"env.*EnvPool.* is not installed") as error:
            call()
        assert "\n" not in str(error.value)
