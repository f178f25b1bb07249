"""Environments by name: of two libraries, suggested where none is meant, and refused where they cannot work."""

from __future__ import annotations

import subprocess
import sys

import gymnax
import pytest

from dqn_jax.config import Config, ConfigError, UnknownEnvError
from dqn_jax.envs import find_env, make_env, make_pool, pool_names, resolve_env
from dqn_jax.presets import resolve_preset


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
