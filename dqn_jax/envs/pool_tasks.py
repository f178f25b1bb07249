"""EnvPool's tasks by name: which there are, how they may be spelt, and which cannot be used here."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import warnings
from typing import Any

import numpy as np

from dqn_jax.config import ConfigError, UnknownEnvError

PREFIX = "envpool:"
ATARI = "envpool.atari"
_PICTURES = ("envpool.vizdoom", "envpool.procgen", "envpool.gfootball")
_IN_GYMNAX_TOO = "envpool.classic_control"  # these keep the prefix in their full names


def installed() -> bool:
    """Whether there is an EnvPool to import, found out without importing it."""
    return importlib.util.find_spec("envpool") is not None


def load_envpool() -> Any:
    """The envpool module. Importing it takes more than a second, so it waits until a pool is asked for."""
    try:
        import envpool
    except ImportError as error:
        raise ConfigError(
            f"env: EnvPool is not installed or does not load ({first_line(error)}); 'pip install envpool', "
            "or use an environment of gymnax."
        ) from None
    return envpool


def first_line(error: BaseException) -> str:
    """What an error says, in one line without its full stop; its kind, if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def families() -> dict[str, str]:
    """Every EnvPool task, with the module that it comes from, such as `envpool.atari`."""
    return {task: entry[0] for task, entry in load_envpool().registration.registry.specs.items()}


def _full_name(task: str, family: str) -> str:
    return PREFIX + task if family == _IN_GYMNAX_TOO else task


def pool_names() -> list[str]:
    """Names that `make_pool` takes: tasks with one discrete action. Some need an `obs_key`."""
    return sorted(_full_name(task, family) for task, family in families().items() if _refusal(task, family) is None)


def known_names() -> list[str]:
    """Names to suggest to somebody who mistyped one: full names, and Atari games without their version."""
    names = []
    for task, family in families().items():
        if not _continuous(family):
            names += [_full_name(task, family)] + [task.removesuffix("-v5")] * (family == ATARI)
    return names


def resolve_pool_env(name: str) -> str:
    """The full name for `name`: an Atari game however it is spelt, or another EnvPool task by its id.

    `pong`, `Pong-v5`, `ms-pacman` and `MsPacman` are games. Any name may have the prefix `envpool:`, and those that
    gymnax has too keep it in their full names.

    Raises:
      UnknownEnvError: if there is no such task.
      ConfigError: if it cannot be used here, or EnvPool is not installed.
    """
    known = families()
    wanted = name[len(PREFIX) :] if name.lower().startswith(PREFIX) else name
    games = {_spelling(task): task for task, family in known.items() if family == ATARI}
    ids = {task.lower(): task for task in known} | {wanted: wanted for wanted in known}
    task = ids.get(wanted) or ids.get(wanted.lower()) or games.get(_spelling(wanted))
    if task is None:
        raise UnknownEnvError(name, known_names())
    full_name = _full_name(task, known[task])
    if (reason := _refusal(task, known[task])) is not None:
        raise ConfigError(f"env: '{full_name}' cannot be used here: {reason}.")
    return full_name


def is_atari(name: str) -> bool:
    """Whether the full name `name` is an Atari game. EnvPool is asked only about names like theirs."""
    return name.endswith("-v5") and families().get(name) == ATARI


def gives_pixels(name: str) -> bool:
    """Whether the full name `name`, which is no Atari game, is a task that is seen as a picture."""
    return families()[name.removeprefix(PREFIX)] in _PICTURES


def _spelling(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower().removesuffix("-v5"))


def _continuous(family: str) -> bool:
    return family.startswith("envpool.mujoco")  # 1,300 tasks, which need not be asked one by one


@functools.cache
def _refusal(task: str, family: str) -> str | None:
    """Why a Q-network cannot learn `task`, or None. Its specification is read where the family does not tell."""
    from gymnasium import spaces

    if family == ATARI:
        return None
    continuous = "it has continuous actions; DQN chooses among discrete ones"
    if _continuous(family):
        return continuous
    try:
        spec = load_envpool().make_spec(task, **fixed_options(default_options(task)))
    except Exception as error:
        return f"EnvPool cannot describe it ({first_line(error)})"
    actions, _ = spaces_of(spec)
    if spec.config.max_num_players > 1:
        return "it is a game of several players"
    if isinstance(actions, spaces.Box) and np.issubdtype(actions.dtype, np.floating):
        return continuous
    if not isinstance(actions, spaces.Discrete):
        return "each step takes several actions; DQN chooses one"
    return None


def spaces_of(source: Any) -> tuple[Any, Any]:
    """gymnasium's spaces of actions and observations, from a specification or a pool of EnvPool's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium's, about bounds given in a higher precision
        return source.action_space, source.observation_space


# Those that hold for every pool: frames come alone and with channels last, rewards are raw, actions discrete.
_FIXED = {"stack_num": 1, "reward_clip": False, "channel_first": False, "use_combined_action": True}


def default_options(task: str) -> dict[str, Any]:
    """All options of `task`, as registered. EnvPool's own `make_spec` would load the ROM of a game to say so."""
    module, spec_class, registered = load_envpool().registration.registry.specs[task]
    return getattr(importlib.import_module(module), spec_class).gen_config(**registered)._asdict()


def fixed_options(defaults: dict[str, Any]) -> dict[str, Any]:
    """The options of a task, by `defaults`, that hold for every pool."""
    return {option: value for option, value in _FIXED.items() if option in defaults}
