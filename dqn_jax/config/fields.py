"""What stands beside a setting's type, `Annotated[float, Bounds(0, 1), OnlyWhere("loss", "huber")]`, and its reader.

Whatever needs to know settings (validation, command line, search spaces, JSON, reports) reads it here, so that a new
setting is one line.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from typing import Any, NamedTuple


class Bounds(NamedTuple):
    """The least and the most that a setting may be; of layer widths, each of them."""

    low: float
    high: float = math.inf
    open: bool = False  # whether the least itself is excluded
    remedy: str = ""  # what to use, in words (default: said by the numbers)

    def hold(self, number: float) -> bool:
        """Whether `number` is finite and within them."""
        above = number > self.low if self.open else number >= self.low
        return math.isfinite(number) and above and number <= self.high

    @property
    def words(self) -> str:
        """What to use instead, for a message: "use a number at least 0 and at most 1"."""
        most = f" and at most {self.high:g}" if math.isfinite(self.high) else ""
        return self.remedy or f"use a number {'greater than' if self.open else 'at least'} {self.low:g}{most}"


@dataclasses.dataclass(frozen=True, init=False)
class OnlyWhere:
    """Says that a setting matters only where the setting `other` has one of `values`, or, without any, is given."""

    other: str
    values: tuple[str | bool, ...]

    def __init__(self, other: str, *values: str | bool) -> None:
        object.__setattr__(self, "other", other)
        object.__setattr__(self, "values", values)

    def holds(self, value: Any) -> bool:
        """Whether it matters where the other one is `value`."""
        return value in self.values if self.values else value is not None

    @property
    def words(self) -> str:
        """What the other one must be, for a message: "huber", "on", "linear or multiplicative", "given"."""
        return " or ".join("on" if value is True else str(value) for value in self.values) or "given"


EACH = "each"
"""Says that a setting of several values is given anew for each of them: --vary A --vary B."""


class Flag(NamedTuple):
    """Says which option of the command line gives a setting, where its own name does not."""

    flag: str


class Optax(NamedTuple):
    """Says that a setting is an argument of optax optimisers, and its name there."""

    argument: str


class Setting(NamedTuple):
    """All that is known of a setting."""

    name: str
    kind: Any  # its type: bool, int, float, str, a Literal of texts or a tuple, or one of these or None
    default: Any
    bounds: Bounds | None = None
    only_where: OnlyWhere | None = None
    optax: str | None = None  # its name as an argument of optax optimisers

    @property
    def options(self) -> tuple[Any, ...]:
        """The types that it may be of, None apart."""
        kinds = typing.get_args(self.kind) if isinstance(self.kind, types.UnionType) else (self.kind,)
        return tuple(kind for kind in kinds if kind is not type(None))

    @property
    def optional(self) -> bool:
        """Whether it may be None, which leaves a feature out or something to another default."""
        return isinstance(self.kind, types.UnionType) and type(None) in typing.get_args(self.kind)

    @property
    def counts(self) -> bool:
        """Whether it counts something: traced, it is an int32, and other numbers are float32."""
        return int in self.options


@functools.cache
def fields_of(settings: type) -> types.MappingProxyType[str, Setting]:
    """The settings by name in a dataclass or NamedTuple of them, whose annotations are types, not texts."""
    if dataclasses.is_dataclass(settings):
        found = {field.name: (field.type, field.default) for field in dataclasses.fields(settings)}
    else:
        defaults: dict[str, Any] = settings._field_defaults  # type: ignore[attr-defined]
        found = {name: (kind, defaults[name]) for name, kind in settings.__annotations__.items()}
    return types.MappingProxyType({name: _setting(name, *own) for name, own in found.items()})


def _setting(name: str, hint: Any, default: Any) -> Setting:
    if typing.get_origin(hint) is not typing.Annotated:
        return Setting(name, hint, default)
    kind, *marks = typing.get_args(hint)
    beside: dict[str, Any] = {}
    for mark in marks:
        if isinstance(mark, Bounds):
            beside["bounds"] = mark
        elif isinstance(mark, OnlyWhere):
            beside["only_where"] = mark
        elif isinstance(mark, Optax):
            beside["optax"] = mark.argument
    return Setting(name, kind, default, **beside)
