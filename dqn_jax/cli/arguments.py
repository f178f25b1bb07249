"""Command lines from dataclasses: every field is an option, or a word without a name, with its type and its text.

What is typed is told apart from what is not, so that defaults may come from a preset, an earlier run, or anywhere.
Every mistake is a ConfigError of one line that names the option.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dqn_jax.config import ConfigError, meant_by, show, whole_number
from dqn_jax.config.fields import EACH, Flag

WORDS = "words"
"""Marks a field, `Annotated[..., WORDS]`, that takes the words that belong to no option."""


@dataclasses.dataclass(frozen=True)
class Short:
    """Marks a field, `Annotated[..., Short("-o")]`, that has a second, short name."""

    flag: str


class Option(NamedTuple):
    """One field of a command, as it is typed and explained."""

    name: str
    kind: Any  # its type, without None
    optional: bool  # whether it may be None
    text: str
    flags: tuple[str, ...]  # none for words
    each: bool  # whether it is given anew for each of its values

    @property
    def several(self) -> bool:
        """Whether it has any number of values."""
        return typing.get_origin(self.kind) is tuple

    @property
    def many(self) -> bool:
        """Whether it takes any number of values at a time."""
        return self.several and not self.each

    @property
    def metavar(self) -> str:
        """What stands for its value in a help text."""
        if not self.several:
            return _metavar(self.kind)
        each = _of_tuple(self.kind)
        kinds = typing.get_args(each) if typing.get_origin(each) is tuple else (each,)
        return " ".join(map(_metavar, kinds)) + ("" if self.each else " ...")


class Typed(NamedTuple):
    """What a command line says: options by name, and the words that belong to none."""

    values: dict[str, Any]  # by the names of fields; only those that were given
    words: list[str]
    help: bool


@functools.cache
def options_of(command: type) -> dict[str, Option]:
    """The options of a command by name. A field whose type has fields of its own gives those."""
    found = {}
    texts, hints = _texts(command), typing.get_type_hints(command, include_extras=True)
    for name, hint in hints.items():
        marks: tuple[Any, ...] = ()
        if typing.get_origin(hint) is typing.Annotated:
            hint, *rest = typing.get_args(hint)
            marks = tuple(rest)
        if _has_fields(hint):
            found.update(options_of(hint))
            continue
        options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
        kinds = [option for option in options if option is not type(None)]
        flag = next((mark.flag for mark in marks if isinstance(mark, Flag)), "--" + name.replace("_", "-"))
        flags = (flag, *(mark.flag for mark in marks if isinstance(mark, Short)))
        flags = () if WORDS in marks else flags
        found[name] = Option(name, kinds[0], len(kinds) < len(options), texts[name], flags, EACH in marks)
    return found


def parse(
    command: type, name: str, arguments: Sequence[str], names: Callable[[str], bool] = lambda word: False
) -> Typed:
    """Read a command line.

    Args:
      command: a dataclass.
      name: of the command, for messages.
      arguments: the words typed.
      names: whether a word names what the command works on. One that does and stands last behind an option that takes
        any number of values is not one of them: `train --seeds 4 --criteria eval:475 cartpole`.

    Raises:
      ConfigError: one line naming the option and the remedy.
    """
    options = options_of(command)
    by_flag = {flag: option for option in options.values() for flag in option.flags}
    by_flag |= {"--no-" + flag[2:]: option for flag, option in by_flag.items() if option.kind is bool}
    values: dict[str, Any] = {}
    words: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if word in ("-h", "--help"):
            return Typed({}, words, True)
        if not _is_flag(word):
            words.append(word)
            continue
        flag, equals, given = word.partition("=")
        if flag not in by_flag:
            raise ConfigError(_unknown(flag, name, by_flag))
        option = by_flag[flag]
        if option.kind is bool:
            if equals:
                raise ConfigError(f"{flag}: it takes no value; write {option.flags[0]} or --no-{option.flags[0][2:]}.")
            values[option.name] = not flag.startswith("--no-")
            continue
        taken = [given] if equals else []
        while not equals and left and not _is_flag(left[0]) and (option.many or not taken):
            taken.append(left.pop(0))
        if option.many and not equals and taken and not left and not words and names(taken[-1]):
            words.append(taken.pop())
        if not taken and not option.many:
            raise ConfigError(f"{flag}: it needs a value ({option.metavar}). 'dqn-jax {name} --help' explains it.")
        value = _converted(flag, option, taken)
        values[option.name] = values.get(option.name, ()) + value if option.each else value
    positional = next((option for option in options.values() if not option.flags), None)
    if positional is not None and positional.many and words:
        values[positional.name], words = _converted(positional.name, positional, words), []
    elif positional is not None and words:
        values[positional.name] = _converted(positional.name, positional, words[:1])
        words = words[1:]
    return Typed(values, words, False)


def filled(default: Any, values: Mapping[str, Any]) -> Any:
    """`default`, an instance of a command, with `values` in the place of its own."""
    changes = {}
    for name in default._fields if hasattr(default, "_fields") else [f.name for f in dataclasses.fields(default)]:
        own = getattr(default, name)
        if _has_fields(type(own)):
            changes[name] = filled(own, values)
        elif name in values:
            changes[name] = values[name]
    return default._replace(**changes) if hasattr(default, "_fields") else dataclasses.replace(default, **changes)


def flat(instance: Any) -> dict[str, Any]:
    """The values of a command, of its parts too, by name."""
    values: dict[str, Any] = {}
    for name in instance._fields if hasattr(instance, "_fields") else [f.name for f in dataclasses.fields(instance)]:
        own = getattr(instance, name)
        values.update(flat(own) if _has_fields(type(own)) else {name: own})
    return values


def command_line(options: Mapping[str, Any], command: type) -> list[str]:
    """The words that say `options` (by name) to `command`."""
    words: list[str] = []
    for name, value in options.items():
        option = options_of(command)[name]
        if option.kind is bool:
            words.append(option.flags[0] if value else "--no-" + option.flags[0][2:])
            continue
        entries = value if option.several else (value,)
        texts = [repr(x) if isinstance(x, float) else show(x) for x in _spread(entries)]
        words += (
            [word for text in texts for word in (option.flags[0], text)] if option.each else [option.flags[0], *texts]
        )
    return words


def help_text(
    command: type, usage: str, topics: Mapping[str, Sequence[str]], defaults: Mapping[str, Any], note: str = ""
) -> str:
    """The help of a command, as wide as the terminal.

    Args:
      command: a dataclass.
      usage: the words after `dqn-jax`.
      topics: titles with the names of their options; those in none come first.
      defaults: by name; a name that is missing is required, one of None has none worth showing.
      note: after the usage.
    """
    options = options_of(command)
    width = min(shutil.get_terminal_size((80, 24)).columns, 110)
    sorted_out = {name for names in topics.values() for name in names}
    lines = [f"usage: dqn-jax {usage}", "", *textwrap.wrap(inspect.cleandoc(command.__doc__ or ""), width)]
    lines += ["", *textwrap.wrap(note, width)] if note else []
    for title, names in {"": [n for n in options if n not in sorted_out], **topics}.items():
        shown = [options[name] for name in names if name in options]
        if shown:
            lines += ["", *([f"{title}:"] if title else [])]
        for option in shown:
            lines += _explained(option, defaults, width)
    return "\n".join([*lines, "", "  -h, --help              Show this help."])


def _explained(option: Option, defaults: Mapping[str, Any], width: int) -> list[str]:
    head = option.name.upper() + (" ..." if option.many else "")
    if option.flags:
        short = [f for f in option.flags if not f.startswith("--")]
        both = f", --no-{option.flags[0][2:]}" if option.kind is bool and defaults.get(option.name) else ""
        head = ", ".join([*short, option.flags[0]]) + both + ("" if option.kind is bool else f" {option.metavar}")
    text = " ".join(option.text.split())
    if option.name not in defaults:
        text += " (required)"
    elif "(default" not in text and option.kind is not bool and option.flags:
        text += f" (default: {_shown(option, defaults[option.name])})"
    elif option.kind is bool and defaults[option.name]:
        text += " (default: on)"
    body = textwrap.wrap(text, width - 26, break_on_hyphens=False) or [""]
    if len(head) <= 22:
        return [f"  {head:<24}{body[0]}", *(" " * 26 + line for line in body[1:])]
    return [f"  {head}", *(" " * 26 + line for line in body)]


def _shown(option: Option, value: Any) -> str:
    if option.several:
        return " ".join(map(show, _spread(value))) or "none"
    return show(value)


def _spread(entries: Sequence[Any]) -> list[Any]:
    """Single values, where some are pairs: ((a, 1), (b, 2)) is [a, 1, b, 2]."""
    return [x for entry in entries for x in (entry if isinstance(entry, tuple) else (entry,))]


def _is_flag(word: str) -> bool:
    return len(word) > 1 and word[0] == "-" and re.match(r"-(\d|\.\d|inf|nan)", word) is None


def _unknown(flag: str, name: str, by_flag: Mapping[str, Option]) -> str:
    """The line about an option that there is not."""
    near = [f"--{meant.replace('_', '-')}" for meant in meant_by(flag.lstrip("-"))]
    near = [f for f in near if f in by_flag] or difflib.get_close_matches(flag, by_flag, n=1, cutoff=0.6)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{flag}: there is no such option.{meant} 'dqn-jax {name} --help' shows all options."


def _converted(flag: str, option: Option, texts: Sequence[str]) -> Any:
    if not option.several:
        return _value(flag, option.kind, option.optional, texts[0])
    each = _of_tuple(option.kind)
    if typing.get_origin(each) is tuple:
        kinds = typing.get_args(each)
        if len(texts) % len(kinds):
            raise ConfigError(f"{flag}: it takes pairs of a name and a value; '{texts[-1]}' is alone.")
        pairs = [texts[i : i + 2] for i in range(0, len(texts), 2)]
        return tuple(tuple(_value(flag, k, False, t) for k, t in zip(kinds, pair, strict=True)) for pair in pairs)
    if each is int:  # widths of layers, which are shown as 64x64
        texts = [part for text in texts for part in text.split("x")]
    return tuple(_value(flag, each, False, text) for text in texts)


def _value(flag: str, kind: Any, optional: bool, text: str) -> Any:
    if optional and text.lower() == "none":
        return None
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if text not in choices:
            raise ConfigError(f"{flag}: '{text}' is not possible; choose {', '.join(choices)}.")
        return text
    if kind is int:
        try:
            return whole_number(text)
        except ValueError:
            raise ConfigError(f"{flag}: '{text}' is not a whole number; write e.g. 16, 1e6 or 1_000_000.") from None
    if kind is float:
        try:
            return float(text)
        except ValueError:
            raise ConfigError(f"{flag}: '{text}' is not a number; write e.g. 0.001 or 1e-3.") from None
    return Path(text) if kind is Path else text


def _metavar(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "|".join(typing.get_args(kind))
    return {int: "INT", float: "FLOAT", Path: "PATH"}.get(kind, "TEXT")


def _of_tuple(kind: Any) -> Any:
    return typing.get_args(kind)[0]


def _has_fields(hint: Any) -> bool:
    return inspect.isclass(hint) and (dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"))


def _texts(command: type) -> dict[str, str]:
    """What stands below each field of a class, or of those that it extends."""
    texts: dict[str, str] = {}
    for own in (c for c in reversed(command.__mro__) if "__annotations__" in vars(c)):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(own))).body
        assert isinstance(body, ast.ClassDef)
        for field, below in itertools.pairwise([*body.body, ast.Pass()]):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                said = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                texts[field.target.id] = str(below.value.value) if said else ""  # type: ignore[attr-defined]
    return texts
