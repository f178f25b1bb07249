"""A run's settings on disk: `config.json`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from dqn_jax.config import Config, ConfigError, HParams, validate
from dqn_jax.files import Json, plain, read_as, sealed, write_json
from dqn_jax.runs import schemas

FORMAT = 1  # of config.json; a newer one is refused


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What config.json holds: all that a run's numbers depend on, and when it ends."""

    name: str
    seeds: tuple[int, ...]
    config: Config
    hparams: HParams
    criteria: tuple[str, ...]
    weights: str | None = None  # the run whose networks this one started from
    checkpoint: Literal["last", "best"] = "last"  # which of them: "last" or "best"
    stop: Literal["budget", "converged"] = "budget"
    max_minutes: float | None = None
    save_episodes: bool = False


def save_settings(run: Path, settings: RunSettings) -> None:
    """Write the file config.json of a run's folder, with a digest of what is in it."""
    value = {
        "format": FORMAT,
        "name": settings.name,
        "seeds": settings.seeds,
        "criteria": settings.criteria,
        "weights": settings.weights,
        "checkpoint": settings.checkpoint,
        "stop": settings.stop,
        "max_minutes": settings.max_minutes,
        "save_episodes": settings.save_episodes,
        "config": dataclasses.asdict(settings.config),
        "hparams": settings.hparams._asdict(),
    }
    write_json(run / "config.json", sealed(value))


def load_settings(run: Path) -> RunSettings:
    """Read config.json.

    Raises:
      ConfigError: if it is damaged, from a newer version, not ours, or of settings that are not possible.
    """
    path = run / "config.json"
    remedy = 'choose another run, or mend it by hand and delete its line "digest"'
    value = read_as(path, schemas.Settings, "run", remedy, FORMAT)
    try:
        config, hparams = settings_from(value["config"], value["hparams"])
        validate(config, hparams)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"run: {path} is damaged or not ours ({str(error).rstrip('.')}); {remedy}.") from error
    return RunSettings(
        value["name"],
        tuple(value["seeds"]),
        config,
        hparams,
        tuple(value["criteria"]),
        weights=value.get("weights"),
        checkpoint=value.get("checkpoint", "last"),
        stop=value.get("stop", "budget"),
        max_minutes=value.get("max_minutes"),
        save_episodes=value.get("save_episodes", False),
    )


def settings_from(config: Json, hparams: Json) -> tuple[Config, HParams]:
    """Both parts of the settings from their JSON form.

    Raises:
      ValueError: if they are not of this version, or of wrong types.
    """
    values = schemas.hparams_from(hparams)
    arrays: Json = {k: np.asarray(v) if isinstance(v, list) else v for k, v in values.items()}
    return schemas.config_from(config), HParams(**arrays)


class Difference(NamedTuple):
    """A setting that a run has, and another value of it that somebody wants."""

    field: str
    saved: object
    wanted: object


def changed_settings(saved: RunSettings, wanted: RunSettings) -> list[Difference]:
    """Settings that a run's numbers depend on and that differ.

    The budget and the criteria may change when a run goes on; they change none of its numbers.
    """

    def flat(settings: RunSettings) -> Json:
        values = {
            "seeds": settings.seeds,
            "weights": settings.weights,
            "checkpoint": settings.checkpoint,
            **dataclasses.asdict(settings.config),
            **settings.hparams._asdict(),
        }
        return plain({k: v for k, v in values.items() if k != "total_steps"})

    old, new = flat(saved), flat(wanted)
    return [Difference(field, old[field], new[field]) for field in old if old[field] != new[field]]
