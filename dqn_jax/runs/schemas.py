"""What the JSON files of a run hold. What is read from disk is held against these, and refused in one line.

Files may have been damaged, edited, or written by others: no number in them is taken for granted.
"""

from __future__ import annotations

from types import GenericAlias
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct, convert, defstruct
from msgspec.json import decode

from dqn_jax.config import Config, HParams, fields_of
from dqn_jax.files import Json

Seeds = Annotated[list[Annotated[int, Meta(ge=0, lt=2**31)]], Meta(min_length=1)]
Lanes = list[float | None]  # one for each seed, None where there is none


class Settings(Struct, forbid_unknown_fields=True):
    """What config.json holds: the settings of a run."""

    format: Annotated[int, Meta(ge=1)]
    name: str
    seeds: Seeds
    criteria: list[str]
    config: Json
    hparams: Json
    weights: str | None = None
    checkpoint: Literal["last", "best"] = "last"
    stop: Literal["budget", "converged"] = "budget"
    max_minutes: Annotated[float, Meta(gt=0)] | None = None
    save_episodes: bool = False


class Criterion(Struct):
    """What summary.json says of one criterion."""

    name: str
    converged: Annotated[float, Meta(ge=0, le=1)] | None  # None: settling, of a run that ended before its budget
    env_steps: Lanes
    updates: Lanes
    episodes: Lanes
    seconds: Lanes
    stability: Lanes


class Seconds(Struct):
    """What a run's time went into."""

    compile: float | None
    run: float | None


class Summary(Struct):
    """summary.json, as far as anything is read from it."""

    seeds: Seeds
    complete: bool
    env_steps: Annotated[int, Meta(ge=0)]
    criteria: list[Criterion]
    diverged: list[int]
    seconds: Seconds
    final_eval_return: Lanes | None = None
    metrics_digest: str | None = None

    def __post_init__(self) -> None:
        """Every list has an entry for each seed.

        Raises:
          ValueError: if one has not.
        """
        lists = {f"criteria {c.name}": getattr(c, f) for c in self.criteria for f in Criterion.__struct_fields__[2:]}
        if self.final_eval_return is not None:
            lists["final_eval_return"] = self.final_eval_return
        for name, values in lists.items():
            if len(values) != len(self.seeds):
                raise ValueError(f"{name} has {len(values)} entries for {len(self.seeds)} seeds")


class Devices(Struct):
    """Which devices a run had, and how many."""

    kind: str = "unknown"
    count: Annotated[int, Meta(ge=1)] = 1


class Provenance(Struct):
    """provenance.json, as far as anything is read from it."""

    devices: Devices
    started: str = ""


class PlannedGroup(Struct):
    """What plan.json says of one program, as far as anything is read from it."""

    settings: dict[str, str | float | bool | list[int] | None] = {}
    trials: int | None = None
    lanes: int | None = None
    waves: int | None = None
    capacity: int | None = None
    bytes_per_lane: int | None = None


class Spell(Struct):
    """Something that took time, in seconds."""

    seconds: float


class Plan(Struct):
    """plan.json of a sweep, as far as anything is read from it."""

    devices: int | None = None
    device_kind: str = ""
    groups: list[PlannedGroup] = []
    compiled: list[Spell] = []
    sessions: list[Spell] = []


class SweepProvenance(Struct):
    """provenance.json of a sweep, as far as anything is read from it."""

    dqn_jax: str | None = None
    started: str | None = None
    git_commit: str | None = None
    seeds: list[int] = []
    flags: list[str] = []
    versions: dict[str, str | None] = {}
    machine: dict[str, str | int | None] = {}
    devices: dict[str, str | int] = {}


class Budget(Struct):
    """Of the settings of a sweep, what its records depend on."""

    total_steps: Annotated[int, Meta(ge=1)]


class Pruning(Struct):
    """How a sweep prunes: by which rule, and that one trial in `eta` goes on."""

    rule: str
    eta: Annotated[int, Meta(ge=2)]


class Confirmation(Struct):
    """How a sweep confirms: on which held-out seeds, how many of the best, by which orders."""

    seeds: Seeds
    best: Annotated[int, Meta(ge=1)]
    by: Annotated[list[str], Meta(min_length=1)]


class Definition(Struct):
    """What was asked of a sweep."""

    name: str
    vary: Annotated[dict[str, str], Meta(min_length=1)]
    seeds: Seeds
    config: Budget
    preset: str = ""
    sampler: Literal["grid", "random", "sobol", "tpe", "cmaes"] = "grid"
    samples: Annotated[int, Meta(ge=1)] | None = None
    sample_seed: int = 0
    batch: Annotated[int, Meta(ge=1)] | None = None
    criteria: list[str] = []
    stop: Literal["converged", "budget"] = "converged"
    stability_steps: Annotated[int, Meta(ge=0)] = 0
    prune: Pruning | None = None
    confirm: Confirmation | None = None
    hparams: Json = {}


def definition_from(text: str) -> Json:
    """What was asked of a sweep, from its JSON.

    Raises:
      ValueError: if it is not of that shape.
    """
    value: Json = decode(text)
    convert(value, Definition)
    if "hparams" in value:
        config_from(value["config"])
        hparams_from(value["hparams"])
    return value


def config_from(values: Json) -> Config:
    """The static part of settings from its JSON form.

    Raises:
      ValueError: for fields that it does not have, and wrong types.
    """
    if unknown := sorted(values.keys() - fields_of(Config).keys()):
        raise ValueError(f"this version has no setting '{unknown[0]}'")
    return convert(values, Config)


def hparams_from(values: Json) -> Json:
    """The traced part of settings from its JSON form; lists have one value for each lane.

    Raises:
      ValueError: for fields that it does not have, and wrong types.
    """
    read = convert(values, _HPARAMS)
    return {name: getattr(read, name) for name in values}


def _one_or_each(hint: object) -> object:
    one = next(t for t in (get_args(hint) or (hint,)) if t is not type(None))
    return hint | Annotated[GenericAlias(list, (one,)), Meta(min_length=1)]


_HPARAMS = defstruct(
    "HParams",
    [(setting.name, _one_or_each(setting.kind), None) for setting in fields_of(HParams).values()],
    forbid_unknown_fields=True,
)
