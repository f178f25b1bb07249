"""From the words of a command line to what is asked: an instance of a command, a preset, or a help text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from dqn_jax import presets
from dqn_jax.cli.arguments import Typed, flat, help_text, options_of, parse
from dqn_jax.cli.options import COMMANDS, TOPICS
from dqn_jax.config import SETTINGS, ConfigError


def show_help(name: str, usage: str, defaults: dict[str, Any], note: str = "") -> NoReturn:
    """Print the help of a command, and end."""
    print(help_text(COMMANDS[name], f"{name} {usage}", TOPICS.get(name, {}), defaults, note))
    raise SystemExit(0)


def parsed(name: str, arguments: Sequence[str], required: str = "") -> Any:
    """An instance of a command that depends on no preset; `required` names the field that must be given, with how."""
    command = COMMANDS[name]
    typed, fields = parse(command, name, arguments), dataclasses.fields(command)
    defaults = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    words = next((option for option in options_of(command).values() if not option.flags), None)
    if typed.help:
        usage = "" if words is None else words.name.upper() + (" ..." if words.many else "")
        show_help(name, f"{usage if words and words.name not in defaults else f'[{usage}]'} [options]", defaults)
    if typed.words:
        raise ConfigError(f"{typed.words[0]}: it is one too many. 'dqn-jax {name} --help' shows what there is.")
    if words is not None and words.name not in {**defaults, **typed.values}:
        raise ConfigError(f"{words.name}: give {required}.")
    return command(**{**defaults, **typed.values})


def named_by(typed: Typed, name: str) -> presets.Preset | None:
    """The preset or environment that was typed, if any."""
    if typed.words:
        raise ConfigError(
            f"preset: '{typed.words[0]}' is one too many; 'dqn-jax {name}' takes one preset or environment."
        )
    return presets.resolve_preset(typed.values["preset"]) if "preset" in typed.values else None


def chosen_by(preset: presets.Preset, typed: Typed) -> presets.Preset:
    """The preset under what was typed: its environment and protocol first, for the rest changes those."""
    settings = {k: v for k, v in typed.values.items() if k in SETTINGS}
    if "env" in settings:
        preset = presets.with_overrides(preset, {"env": settings["env"]})
    if typed.values.get("protocol") is not None:
        config = presets.apply_protocol(preset.config, typed.values["protocol"])
        preset = dataclasses.replace(preset, config=config)
    return presets.with_overrides(preset, settings)


def help_about(name: str, typed: Typed, default_of: Callable[[presets.Preset], Any]) -> NoReturn:
    """The help of a command with the defaults of the preset that was typed, or of cartpole."""
    preset = named_by(
        typed._replace(values={"preset": typed.words[0]} if typed.words else {}, words=typed.words[1:]), name
    )
    preset = preset or presets.resolve_preset("cartpole")
    about = f"Defaults are those of '{preset.name}'; 'dqn-jax {name} PRESET --help' shows another's."
    show_help(name, "PRESET [options]", flat(default_of(preset)), about)


def names_preset(word: str) -> bool:
    """Whether a word names a preset or an environment."""
    try:
        presets.resolve_preset(word)
    except ConfigError:
        return False
    return True
