"""Atari protocols: what a paper does to the game and to its evaluation, under one name.

Scores of two protocols do not compare. A protocol therefore sets every knob at once, and says what EnvPool cannot do
as the paper does. What the agent does (network, optimiser, exploration) is no part of it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from dqn_jax.config import Config, ConfigError, show, suggest
from dqn_jax.envs import find_env
from dqn_jax.envs.pool_tasks import is_atari


class PaperProtocol(NamedTuple):
    """Settings that belong together, and where they are from."""

    summary: str
    source: str
    settings: dict[str, Any]  # fields of Config; the same ones in every protocol
    departures: tuple[str, ...]  # of EnvPool from the source, besides EVERYWHERE


EVERYWHERE = (
    "a frame is the maximum of the last two emulator frames, in grey, then shrunk by areas (Mnih et al. take the "
    "maximum in colour; their shrinking averages areas too)",
    "games start with 1 to noop_max no-ops, whose rewards are lost (a paper's 0 or none cannot be had)",
    "sticky actions stick for single emulator frames, as in the Arcade Learning Environment itself",
    "lengths and caps count whole agent steps, without the no-ops",
)
"""What EnvPool 1.2 does in every protocol."""

# What the protocols share; each names what it changes.
_COMMON: dict[str, Any] = {
    "action_repeat": 4,
    "frame_stack": 4,
    "frame_size": 84,
    "grayscale": True,
    "sticky_actions": 0.0,
    "life_loss": "ignore",
    "noop_max": 30,
    "fire_reset": False,
    "full_action_space": False,
    "max_episode_steps": 108_000,  # half an hour of play
    "reward_clip": 1.0,
    "reward_scale": 1.0,
    "reward_shift": 0.0,
    "terminal_reward": None,
    "time_limit_terminates": False,
    "eval_epsilon": 0.01,
}

PROTOCOLS: dict[str, PaperProtocol] = {
    "nature": PaperProtocol(
        "deterministic games with up to 30 no-ops; losing a life stops the bootstrap, the game goes on",
        "Mnih et al. 2015, Human-level control through deep reinforcement learning, Nature 518, methods; "
        "the cap is that of later papers (Hessel et al. 2018, arXiv 1710.02298, table 3)",
        _COMMON | {"life_loss": "bootstrap", "eval_epsilon": 0.05},
        ("the paper's evaluation stops games after 5 minutes (18,000 frames); here after 30, as in later papers",),
    ),
    "dopamine": PaperProtocol(
        "sticky actions, and lives are not told: what Dopamine's published baselines use",
        "Castro et al. 2018, Dopamine, arXiv 1812.06110, and the configuration files of its baselines",
        _COMMON | {"sticky_actions": 0.25, "noop_max": 1, "eval_epsilon": 0.001},
        ("Dopamine plays no no-ops; EnvPool plays one at least",),
    ),
    "machado": PaperProtocol(
        "sticky actions, all 18 actions, no lives, 5 minutes a game: the recommendations for the whole field",
        "Machado et al. 2018, Revisiting the Arcade Learning Environment, JAIR 61, arXiv 1709.06009",
        _COMMON
        | {
            "action_repeat": 5,  # as in its own experiments
            "sticky_actions": 0.25,
            "noop_max": 1,
            "full_action_space": True,
            "max_episode_steps": 18_000,
        },
        (
            "the paper plays no no-ops; EnvPool plays one at least",
            "the paper scores the episodes of training (the train criteria do); it has no evaluation beside them",
        ),
    ),
    "cleanrl": PaperProtocol(
        "a life is an episode, FIRE starts a game: the wrappers of OpenAI Baselines",
        "Huang et al. 2022, CleanRL, JMLR 23, dqn_atari.py; wrappers of Dhariwal et al. 2017, OpenAI Baselines",
        _COMMON | {"life_loss": "episode", "fire_reset": True, "max_episode_steps": 400_000},
        (
            "after a life lost EnvPool plays up to 30 no-ops, the wrappers one step of 4 frames",
            "FIRE counts as one of the no-ops and is pressed for one frame; the wrappers hold it for a step, and "
            "another action after it",
            "gym caps Space Invaders at 300,000 frames, other games at 400,000 as here",
        ),
    ),
}


def apply_protocol(config: Config, name: str) -> Config:
    """`config` under the protocol called `name`.

    Raises:
      ConfigError: if there is no such protocol, or the environment is no Atari game.
    """
    protocol, env = _protocol(name), find_env(config.env)
    if not env.in_pool or not is_atari(env.name):
        raise ConfigError(f"protocol: '{name}' is for Atari games, and {config.env} is none; leave it out.")
    return dataclasses.replace(config, **protocol.settings)


def describe_protocol(name: str) -> list[str]:
    """Lines for a person: what the protocol is, what it sets, and how EnvPool differs from its source.

    Raises:
      ConfigError: if there is no such protocol.
    """
    protocol = _protocol(name)
    return [
        f"{name}: {protocol.summary}",
        f"  from {protocol.source}",
        *(f"  {field} {show(value)}" for field, value in protocol.settings.items()),
        "  different here:",
        *(f"  - {departure}" for departure in (*protocol.departures, *EVERYWHERE)),
    ]


def _protocol(name: str) -> PaperProtocol:
    if name not in PROTOCOLS:
        raise ConfigError(
            f"protocol: there is no protocol '{name}'.{suggest(name, PROTOCOLS)} Protocols: {', '.join(PROTOCOLS)}."
        )
    return PROTOCOLS[name]
