"""What there is, for a person to look through: presets and their settings, environments, protocols, criteria."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import re
import shlex
import textwrap
from typing import Any

from rich.console import Console
from rich.text import Text

from dqn_jax import presets
from dqn_jax.cli.arguments import command_line
from dqn_jax.cli.options import Train
from dqn_jax.config import Config, ConfigError, HParams, show, suggest
from dqn_jax.convergence import KINDS
from dqn_jax.envs import env_names, pool_names
from dqn_jax.presets import PROTOCOLS, Preset, resolve_preset

_FAMILY = 10  # environments whose names begin alike are a family from so many on


def environments() -> dict[str, list[str]]:
    """Names of environments by family; EnvPool's only where it is installed."""
    families: dict[str, list[str]] = {}
    for name in env_names():
        suite = name.rpartition("-")[2]
        family = f"gymnax, {'classic control' if suite.startswith('v') else suite}"
        families.setdefault(family, []).append(name)
    with contextlib.suppress(ConfigError):  # EnvPool is not installed
        names = pool_names()
        begin = {name: re.split("[-/]", name)[0] for name in names}
        sizes = collections.Counter(begin.values())
        for name in names:
            common = begin[name] if sizes[begin[name]] >= _FAMILY else "others"
            families.setdefault(f"EnvPool, {'Atari' if name.endswith('-v5') else common}", []).append(name)
    return families


def show_all(word: str | None) -> None:
    """Print what there is, or what `word` is in, and then the settings of the preset or environment of that name.

    Raises:
      ConfigError: if `word` is in nothing.
    """
    console, asked = Console(soft_wrap=True, highlight=False), (word or "").lower()
    found = False

    def has(*texts: str) -> bool:
        return any(asked in text.lower() for text in texts)

    def heading(text: str) -> None:
        nonlocal found
        console.print(Text(("\n" if found else "") + text, "bold"))
        found = True

    def lines(head: str, text: str) -> None:
        """A text in what is left of the terminal's width beside its head."""
        body = textwrap.wrap(text, max(console.width - len(head), 30), break_on_hyphens=False, break_long_words=False)
        console.print(Text("\n".join([head + body[0], *(" " * len(head) + line for line in body[1:])])))

    for kind, group in itertools.groupby(presets.PRESETS.values(), _kind):
        matching = [p for p in group if has(p.name, p.config.env, p.summary)]
        if matching:
            heading(f"Presets: {kind}  (dqn-jax train NAME)")
        for preset in matching:
            lines(f"  {preset.name:<23}{preset.config.env:<17}", preset.summary)
    for family, names in environments().items():
        if matching_names := [name for name in names if has(name)]:
            heading(f"Environments: {family}  (dqn-jax train NAME)")
            lines("  ", "  ".join(matching_names))
    if protocols := {name: p for name, p in PROTOCOLS.items() if has(name, p.summary)}:
        heading("Atari protocols  (dqn-jax train pong --protocol NAME)")
        for name, protocol in protocols.items():
            lines(f"  {name:<11}", protocol.summary)
    if kinds := {kind: meaning for kind, meaning in KINDS.items() if has(kind, meaning)}:
        heading("Criteria  (dqn-jax train NAME --criteria CRITERION ...)")
        for kind, meaning in kinds.items():
            lines(f"  {kind:<11}", meaning)
    if word is not None:
        try:
            preset = resolve_preset(word)
        except ConfigError:
            if not found:
                nearest = suggest(
                    word, [*presets.PRESETS, *(name for names in environments().values() for name in names)]
                )
                raise ConfigError(
                    f"word: '{word}' is in nothing that there is.{nearest} 'dqn-jax list' shows all."
                ) from None
            return
        heading(f"Settings of {preset.name}")
        console.print("\n".join(_settings_of(preset)), markup=False)


def _kind(preset: Preset) -> str:
    if preset.name.startswith("tutorial-"):
        return "tutorials"
    return "Atari" if preset.config.env.endswith("-v5") else "classic control"


def _settings_of(preset: Preset) -> list[str]:
    """What differs from the defaults, and the command that says the same of the bare environment."""
    values, defaults = _values(preset.config, preset.hparams), _values(Config(), HParams())
    lines = [
        f"  {name:<28}{show(value):<14}(default {show(defaults[name])})"
        for name, value in values.items()
        if value != defaults[name]
    ]
    lines += [f"  {'criteria':<28}{' '.join(preset.criteria) or 'none'}", f"  {'seeds':<28}{preset.seeds}"]
    return [*lines, "", "The same as", *_wrapped(equivalent(preset))]


def equivalent(preset: Preset) -> str:
    """The command that trains what the preset does, by its environment's name and options."""
    bare = resolve_preset(preset.config.env)
    values, defaults = _values(preset.config, preset.hparams), _values(bare.config, bare.hparams)
    options: dict[str, Any] = {name: value for name, value in values.items() if value != defaults[name]}
    options |= {"seeds": preset.seeds} if preset.seeds != bare.seeds else {}
    options |= {"criteria": preset.criteria} if preset.criteria != bare.criteria else {}
    return shlex.join(["dqn-jax", "train", preset.config.env, *command_line(options, Train)])


def _wrapped(command: str) -> list[str]:
    """A command over several lines, as a shell reads it."""
    pieces = re.split(" (?=--)", command)
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if len(lines[-1]) + len(piece) < 76:
            lines[-1] += f" {piece}"
        else:
            lines[-1] += " \\"
            lines.append(f"    {piece}")
    return lines


def _values(config: Config, hparams: HParams) -> dict[str, Any]:
    return {**{f.name: getattr(config, f.name) for f in dataclasses.fields(config)}, **hparams._asdict()}
