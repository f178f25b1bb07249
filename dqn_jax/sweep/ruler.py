"""The ruler: settings that say what a return is and how it is read, so that numbers can be compared.

What only the agent sees or learns from is none of it (reward_shift, reward_scale, reward_clip, terminal_reward,
life_loss, time_limit_terminates: logged returns stay raw; action_repeat, action_bins: they change what can be done in
the same game, whose returns count every frame).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dqn_jax.config import Config, ConfigError, show

TASK = ("env", "env_params", "max_episode_steps", "sticky_actions", "noop_max", "fire_reset", "pool_options")
"""What is played: they change what a return means."""

READING = ("eval_every", "eval_episodes", "eval_epsilon", "eval_seed")
"""How it is measured: when convergence can be seen, from how many games, of which policy, from which starts."""

BUDGET = ("total_steps", "total_episodes")
"""How long it is watched: what did not converge counts with it."""

_WHY = {
    **dict.fromkeys(TASK, "returns would not mean the same in every trial"),
    **dict.fromkeys(READING, "trials would be measured in different ways"),
    **dict.fromkeys(BUDGET, "trials would have different budgets"),
}


def refuse_varied(names: Iterable[str]) -> None:
    """What is varied may not include how it is measured.

    Raises:
      ConfigError: if it does.
    """
    for name in names:
        if name in _WHY:
            raise ConfigError(
                f"{name}: {_WHY[name]}, and a ranking would compare them; make one sweep for each value "
                f"(--{name.replace('_', '-')}), then 'dqn-jax report A B'."
            )


def varied(names: Iterable[str]) -> list[str]:
    """Which of the settings that vary are of the ruler: in sweeps from before that was refused."""
    return [name for name in names if name in _WHY]


def different(a: Mapping[str, Any], b: Mapping[str, Any], names: Iterable[str]) -> str:
    """Which of the settings `names` differ between two configurations, in words; '' if none does."""

    def of(config: Mapping[str, Any], name: str) -> str:
        return show(config.get(name, getattr(Config, name)))

    texts = [f"{name} {of(a, name)} and {of(b, name)}" for name in names if of(a, name) != of(b, name)]
    return ", ".join(texts)
