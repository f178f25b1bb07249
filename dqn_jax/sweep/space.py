"""Search spaces: which settings vary and over what, the points drawn from them, and how those share programs.

A dimension is written `name=values`:

    learning_rate=log(1e-4,1e-2)     a range, uniform in the logarithm
    discount=uniform(0.9,0.999)      a range
    epsilon_decay_steps=int(1000,50000)      whole numbers, both ends included; logint(...) in the logarithm
    batch_size=32,64,128             a list
    hidden=64x64,120x84              layer widths
    max_grad_norm=none,1,10          'none' leaves a feature out
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from dqn_jax.config import SETTINGS, Config, ConfigError, HParams, show, suggest, validate
from dqn_jax.presets import Preset, with_overrides

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclasses.dataclass(frozen=True)
class Choice:
    """A list of values, each equally likely."""

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        """The value at `u` in [0, 1)."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def encode(self, value: Any) -> float:
        """The value as a number: its place in the list."""
        return float(self.values.index(value))

    def decode(self, number: float) -> Any:
        """The value of a number made by `encode`."""
        return self.values[int(number)]


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; uniform, or uniform in the logarithm."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def at(self, u: float) -> float | int:
        """The value at `u` in [0, 1)."""
        low, high = (self.low - 0.5, self.high + 0.5) if self.integer else (self.low, self.high)
        x = math.exp(math.log(low) + u * (math.log(high) - math.log(low))) if self.log else low + u * (high - low)
        x = min(max(x, self.low), self.high)
        return math.floor(x + 0.5) if self.integer else x

    def position(self, x: float) -> float:
        """The `u` in [0, 1] whose value is `x`; of a whole number, one in the middle of those."""
        low, high = (self.low - 0.5, self.high + 0.5) if self.integer else (self.low, self.high)
        if self.log:
            return (math.log(x) - math.log(low)) / (math.log(high) - math.log(low))
        return (x - low) / (high - low)

    def encode(self, value: float) -> float:
        """The value as a number: itself."""
        return float(value)

    def decode(self, number: float) -> float | int:
        """The value of a number made by `encode`."""
        return int(number) if self.integer else float(number)


Dimension = Choice | Range
Space = dict[str, Dimension]

Design = Literal["grid", "random", "sobol"]
"""Ways to draw points that need to know nothing of how others did."""

Adaptive = Literal["tpe", "cmaes"]
"""Ways to draw points, batch after batch, that learn from how the earlier ones did."""

Sampler = Literal["grid", "random", "sobol", "tpe", "cmaes"]
"""Ways to draw points: `Design` and `Adaptive`."""

ADAPTIVE: tuple[Adaptive, ...] = typing.get_args(Adaptive)


class Trial(NamedTuple):
    """One point of a space as settings of a run."""

    number: int  # its place among the points drawn
    point: dict[str, Any]  # what varies
    config: Config
    hparams: HParams


class Group(NamedTuple):
    """Trials that run in one program: their static parts are equal."""

    config: Config
    trials: tuple[Trial, ...]


_RANGES = {"uniform": (False, False), "log": (True, False), "int": (False, True), "logint": (True, True)}
_FIXED = {
    "env_params": "an environment's own parameters stay the same throughout a sweep; set them with --env-params",
    "eval_seed": "trials are compared on the same evaluation starts; set it once with --eval-seed",
}


def parse_space(vary: Sequence[str] | Mapping[str, str]) -> Space:
    """A space from its dimensions' text forms, "name=values" or name to values.

    Raises:
      ConfigError: one line naming the setting and the remedy.
    """
    texts = [f"{name}={values}" for name, values in vary.items()] if isinstance(vary, Mapping) else vary
    if not texts:
        raise ConfigError("vary: say what varies, e.g. --vary 'learning_rate=log(1e-4,1e-2)'.")
    space: Space = {}
    for text in texts:
        name, dimension = _parse_dimension(text)
        if name in space:
            raise ConfigError(f"{name}: it varies twice; give all its values in one --vary.")
        space[name] = dimension
    return space


def points(space: Space, sampler: Design, samples: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Points of the space, the same for the same arguments.

    Args:
      space: the dimensions.
      sampler: "grid" is every combination; "random" is independent draws; "sobol" a scrambled Sobol sequence, which
        fills the space more evenly (Owen 1998).
      samples: how many; a grid has its own number.
      seed: of the draws.

    Raises:
      ConfigError: if a grid has a range in it, or no number is given where one is needed.
    """
    if sampler == "grid":
        for name, dimension in space.items():
            if isinstance(dimension, Range):
                raise ConfigError(f"{name}: a grid needs listed values, e.g. {name}=1,2,3; or use --sampler sobol.")
        if samples is not None:
            raise ConfigError(f"samples: a grid has {grid_size(space)} points of its own; leave samples out.")
        lists = [dimension.values for dimension in space.values() if isinstance(dimension, Choice)]
        return [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]
    if samples is None or samples < 1:
        raise ConfigError(f"samples: {samples} is not possible; say how many points to draw, e.g. --samples 64.")
    if sampler == "sobol":
        from scipy.stats import qmc  # slow to import

        sequence = qmc.Sobol(len(space), scramble=True, rng=np.random.default_rng(seed))
        unit = sequence.random_base2(max(0, math.ceil(math.log2(samples))))[:samples]
    else:
        unit = np.random.default_rng(seed).random((samples, len(space)))
    return [{name: d.at(float(u)) for (name, d), u in zip(space.items(), row, strict=True)} for row in unit]


def distribution(dimension: Dimension) -> BaseDistribution:
    """The dimension as Optuna sees it; widths of layers are texts there, '64x64'."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Range):
        if dimension.integer:
            return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    return CategoricalDistribution([show(value) if isinstance(value, tuple) else value for value in dimension.values])


def as_optuna(space: Space, distributions: dict[str, BaseDistribution], point: dict[Any, Any]) -> dict[str, Any]:
    """The point as the parameters of an Optuna trial."""
    return {name: d.to_external_repr(space[name].encode(point[name])) for name, d in distributions.items()}


def compile_groups(preset: Preset, space: Space, drawn: Sequence[dict[str, Any]]) -> list[Group]:
    """The points as trials, sorted by the program they need: one for each static part.

    Raises:
      ConfigError: if a point is not possible, or a setting that varies matters in some points only.
    """
    _check_conditions(preset, space)
    groups: dict[Any, list[Trial]] = {}
    for number, point in enumerate(drawn):
        changed = with_overrides(preset, point)
        try:
            validate(changed.config, changed.hparams)
        except ConfigError as error:
            where = ", ".join(f"{name}={value}" for name, value in point.items())
            raise ConfigError(f"{error} (at the point {where})") from None
        # None leaves a feature out of the program: where it varies, so does the program.
        left_out = tuple(value is None for value in changed.hparams)
        trial = Trial(number, point, changed.config, changed.hparams)
        groups.setdefault((changed.config, left_out), []).append(trial)
    return [Group(trials[0].config, tuple(trials)) for trials in groups.values()]


def _check_conditions(preset: Preset, space: Space) -> None:
    base = {**vars(preset.config), **preset.hparams._asdict()}
    for name in space:
        needs = SETTINGS[name].only_where
        if needs is None:
            continue
        other, words = needs.other, needs.words
        dimension = space.get(other)
        values = (base[other],) if dimension is None else dimension.values if isinstance(dimension, Choice) else (0.0,)
        matters = [needs.holds(value) for value in values]
        if not any(matters):
            raise ConfigError(f"{name}: it has no effect unless {other} is {words}; set --{_flag(other)} too.")
        if not all(matters):
            raise ConfigError(
                f"{name}: it matters only where {other} is {words}, and {other} varies too; every point must mean "
                f"something: make one sweep for each {other}."
            )


def grid_size(space: Space) -> int:
    """How many combinations the lists of a space have."""
    return math.prod(len(d.values) for d in space.values() if isinstance(d, Choice))


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _parse_dimension(text: str) -> tuple[str, Dimension]:
    name, equals, values = (part.strip() for part in text.partition("="))
    name = name.replace("-", "_")
    if not equals or not values:
        raise ConfigError(
            f"vary: '{text}' is not NAME=VALUES; write e.g. learning_rate=log(1e-4,1e-2) or discount=0.9,0.99."
        )
    if re.search(r"[\[\]{}]|\bif\b", text):
        raise ConfigError(
            f"vary: '{text}' looks like a conditional space, which a sweep cannot have; make one for each case."
        )
    if name not in SETTINGS:
        raise ConfigError(
            f"{name}: there is no such setting.{suggest(name, SETTINGS)} 'dqn-jax train --help' shows all."
        )
    if name in _FIXED:
        raise ConfigError(f"{name}: {_FIXED[name]}.")
    ranged = re.fullmatch(r"([a-z]+)\s*\((.*)\)", values)
    if ranged:
        return name, _parse_range(name, *ranged.groups())
    if "(" in values or ")" in values:
        raise ConfigError(f"{name}: '{values}' is neither a range such as log(1e-4,1e-2) nor a list such as 1,2,3.")
    parsed = tuple(_parse_value(name, value.strip()) for value in values.split(","))
    if len(set(parsed)) < len(parsed):
        raise ConfigError(f"{name}: '{values}' lists a value twice; give each once.")
    return name, Choice(parsed)


def _parse_range(name: str, kind: str, arguments: str) -> Range:
    if kind not in _RANGES:
        raise ConfigError(f"{name}: there is no range '{kind}'.{suggest(kind, _RANGES)} Ranges: {', '.join(_RANGES)}.")
    log, integer = _RANGES[kind]
    options = set(SETTINGS[name].options)
    if not {int, float} & options:
        raise ConfigError(f"{name}: it is not a number and has no range; list its values, e.g. {name}=A,B.")
    if not integer and float not in options:
        raise ConfigError(f"{name}: it counts something; use int or logint in place of {kind}.")
    ends = [part.strip() for part in arguments.split(",")]
    if len(ends) != 2:
        raise ConfigError(f"{name}: a range has two ends, not {len(ends)}; write {kind}(low,high).")
    low, high = (_parse_number(name, end, int if integer else float) for end in ends)
    if low >= high:
        raise ConfigError(f"{name}: {kind}({ends[0]},{ends[1]}) is empty; the first end must be the lower.")
    if log and low <= 0:
        raise ConfigError(
            f"{name}: {kind}({ends[0]},{ends[1]}) reaches zero, where a logarithm has no value; use uniform."
        )
    return Range(low, high, log, integer)


def _parse_value(name: str, text: str) -> Any:
    """One value of a list, in the setting's own type."""
    if text.lower() == "none":
        if SETTINGS[name].optional:
            return None
        raise ConfigError(f"{name}: it cannot be left out; give values.")
    (kind,) = SETTINGS[name].options
    if kind is bool:
        truth = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        if text.lower() not in truth:
            raise ConfigError(f"{name}: '{text}' is neither true nor false.")
        return truth[text.lower()]
    if kind in (int, float):
        return _parse_number(name, text, kind)
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if text not in choices:
            raise ConfigError(f"{name}: there is no '{text}'.{suggest(text, choices)} Choices: {', '.join(choices)}.")
        return text
    if typing.get_origin(kind) is tuple:
        return tuple(int(_parse_number(name, width, int)) for width in text.split("x"))
    if not text:
        raise ConfigError(f"{name}: a value is empty; write {name}=A,B.")
    return text


def _parse_number(name: str, text: str, kind: type) -> Any:
    try:
        value = float(text)
        if not math.isfinite(value) or (kind is int and not value.is_integer()):
            raise ValueError
    except ValueError:
        raise ConfigError(f"{name}: '{text}' is not {'a whole' if kind is int else 'a finite'} number.") from None
    return int(value) if kind is int else value
