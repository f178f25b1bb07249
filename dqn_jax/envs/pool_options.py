"""The options that EnvPool is given for our settings."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from dqn_jax.config import ConfigError, DeviceSettings, EnvSettings, PoolSettings, changed, suggest
from dqn_jax.envs.pool_tasks import PREFIX, families, fixed_options, is_atari

_ATARI_FRAMES = 108_000  # half an hour of play, the cap of most papers
_NO_LIMIT = 2**31 - 1  # EnvPool's max_episode_steps for tasks whose code knows no limit
_OWN_LIMIT = "envpool.procgen"  # its games end by a clock of their own, whatever max_episode_steps says

# EnvPool's options that fields of Config set, where the task has them.
_FIELDS = {
    "frame_skip": "action_repeat",
    "repeat_action_probability": "sticky_actions",
    "episodic_life": "life_loss",
    "noop_max": "noop_max",
    "use_fire_reset": "fire_reset",
    "full_action_space": "full_action_space",
    "img_height": "frame_size",
    "img_width": "frame_size",
    "gray_scale": "grayscale",
}
# Those that `pool_options` may not set besides, and what sets them.
_SET_BY = {
    **_FIELDS,
    "zero_discount_on_life_loss": "life_loss",
    "stack_num": "frame_stack",
    "reward_clip": "reward_clip",
    "max_episode_steps": "max_episode_steps",
    "num_envs": "num_envs",
    "batch_size": "pool_batch",
    "num_threads": "pool_threads",
    "seed": "seed",
    "env_seed": "seed",
    "task": "env",
    "env_name": "env",
}
# And those that cannot be otherwise, and why.
_NOT_FREE = {
    "channel_first": "channels come last here",
    "use_combined_action": "DQN chooses one of several actions",
    "max_num_players": "one agent plays each environment",
    "gym_reset_return_info": "the rows are made of what it returns",
    "base_path": "EnvPool finds its own files",
}
# Of a game that a person looks at: as the emulator draws it.
FOR_EYES = {"gray_scale": False, "img_height": 210, "img_width": 160}


def options_for(config: PoolSettings, name: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """EnvPool's options as `config` has them; `defaults` are all that the task has."""
    not_there = {*changed(config, DeviceSettings), *changed(config, EnvSettings)}
    for field in ("env_params", "action_bins"):
        if field in not_there:
            raise ConfigError(f"{field}: {name} is an EnvPool environment and has none; see pool_options.")
    options = fixed_options(defaults)
    for option, field in _FIELDS.items():
        if option in defaults and (field != "life_loss" or is_atari(name)):  # lives are known of Atari alone
            options[option] = getattr(config, field)
        elif getattr(config, field) != getattr(PoolSettings, field):
            raise ConfigError(f"{field}: EnvPool has nothing of the kind for {name}; leave it out.")
    if "episodic_life" in options:
        options["episodic_life"] = config.life_loss == "episode"
    options["max_episode_steps"] = _step_limit(config, name, defaults["max_episode_steps"])
    free = sorted(defaults.keys() - _SET_BY.keys() - _NOT_FREE.keys())
    for option, text in config.pool_options:
        if option in _SET_BY:
            raise ConfigError(f"pool_options: {option} is what the setting {_SET_BY[option]} says; use that.")
        if option in _NOT_FREE:
            raise ConfigError(f"pool_options: {option} is fixed, for {_NOT_FREE[option]}; leave it out.")
        if option not in defaults:
            raise ConfigError(
                f"pool_options: {name} has no option '{option}'.{suggest(option, free)} It has: {', '.join(free)}."
            )
        options[option] = _parse(option, text, type(defaults[option]))
    return options


def _step_limit(config: PoolSettings, name: str, default: int) -> int:
    """The episode cap in agent steps, which is what EnvPool counts."""
    frames, repeat = config.max_episode_steps, config.action_repeat
    if frames is None:
        return _ATARI_FRAMES // repeat if is_atari(name) else default
    if default == _NO_LIMIT or families()[name.removeprefix(PREFIX)] == _OWN_LIMIT:
        raise ConfigError(f"max_episode_steps: EnvPool cannot cap the episodes of {name}; leave it out.")
    if frames % repeat:
        raise ConfigError(
            f"max_episode_steps: {frames} frames are no whole number of steps of action_repeat {repeat}; "
            f"use {max(frames // repeat, 1) * repeat}."
        )
    return frames // repeat


def _parse(option: str, text: str, kind: type) -> Any:
    """The value that `text` is for an option of type `kind`."""
    forms: dict[type, tuple[Callable[[str], Any], str]] = {
        bool: ({"true": True, "1": True, "false": False, "0": False}.__getitem__, "true or false"),
        int: (int, "an integer"),
        float: (float, "a number"),
        str: (str, "text"),
    }
    parse, form = forms.get(kind, (lambda text: kind(ast.literal_eval(text)), f"a {kind.__name__} as Python writes it"))
    try:
        return parse(text.lower() if kind is bool else text)
    except (KeyError, ValueError, TypeError, SyntaxError):
        raise ConfigError(f"pool_options: {option} is '{text}'; use {form}.") from None
