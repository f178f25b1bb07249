"""Going on with a sweep: which one, that what was asked is the default, and what more may be asked of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dqn_jax import runs
from dqn_jax.config import ConfigError
from dqn_jax.presets import Preset, resolve_preset
from dqn_jax.sweep import records
from dqn_jax.sweep.definition import as_begun, question_of, unlike
from dqn_jax.sweep.question import Question
from dqn_jax.sweep.space import ADAPTIVE, parse_space


def find(
    preset: Preset | str | None,
    name: str | None,
    out: str | Path | None,
    root: str | Path | None,
    url: str | None,
) -> tuple[records.Store, Path | None]:
    """The sweep to go on with, and its folder: at `url`, at `out`, or the newest in `root`, of this name if it has one.

    Raises:
      ConfigError: if there is none, or it varies another preset.
    """
    if out is None and root is None and url is None:
        raise ConfigError("out: say where the sweep is kept; give a folder.")
    preset_name = resolve_preset(preset).name if isinstance(preset, str) else preset.name if preset else None
    name = name or preset_name
    directory = Path(out) if out is not None else None
    store = None if url is None else records.open_store(url, name)
    name = name if store is None else store.name
    if directory is None and root is not None:
        folder = Path(root) / (name or "")
        found = [path.parent for path in folder.glob("*/store.sqlite" if name else "*/*/store.sqlite")]
        if store is not None:
            found = [path for path in found if records.is_mirror_of(store, path)] or [
                runs.new_run_dir(Path(root), store.name)
            ]
        if not found:
            raise ConfigError(f"resume: {folder} holds no sweep; drop --resume to start one.")
        directory = max(found, key=lambda path: (path.name, path.stat().st_mtime))
    store = store or records.open_store(directory or "")
    has = store.definition["preset"]
    if preset_name not in (None, has):
        raise ConfigError(f"preset: this sweep varies '{has}', not '{preset_name}'; leave '{preset_name}' out.")
    return store, directory


def asked(own: dict[str, Any] | None, given: Mapping[str, Any]) -> Question:
    """What is asked of a sweep: what is given, else what it was asked (`own`, its definition), else the defaults.

    Args:
      own: of the sweep that goes on; None if one begins.
      given: fields of `Question`.
    """
    if own is None:
        return Question(**given)
    before = question_of(own)
    if "seed" in given or isinstance(given.get("seeds"), int):
        before = dataclasses.replace(before, seeds=len(own["seeds"]), seed=own["seeds"][0])
    return dataclasses.replace(before, **given)


def amended(store: records.Store, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """What the sweep is to be from now on, if more is asked of it than it was; None if it is the same.

    More seeds and more samples are lanes beside those that there are, and a confirmation comes after: none changes a
    number that is there, and all get those of a sweep that was asked for everything at once.

    Raises:
      ConfigError: if anything else differs; one line naming it, both values and the remedy.
    """
    own = {name: value for name, value in store.definition.items() if name != "format"}
    wanted = as_begun(json.loads(json.dumps(wanted)), own)
    if list(parse_space(own["vary"]).items()) == list(parse_space(wanted["vary"]).items()):
        wanted["vary"] = own["vary"]  # however it is written
    accepted = dict(own)
    # Pruning and adaptive sampling look at what there is: with more of it they would have done otherwise.
    looks = own["prune"] is not None or own["sampler"] in ADAPTIVE
    begun = any(wave.phase == "confirm" for wave, _ in store.waves())
    seeds, samples = wanted["seeds"], wanted["samples"]
    more_seeds = seeds[: len(own["seeds"])] == own["seeds"] != seeds
    more_samples = own["samples"] is not None and samples is not None and samples > own["samples"]
    for field, more in (("seeds", more_seeds), ("samples", more_samples)):
        if more and not looks and not begun:
            accepted[field] = wanted[field]
        elif more:
            why = "its best are chosen already" if begun else "it chose by what it had"
            raise ConfigError(
                f"{field}: this sweep has {_shown(own[field])}, not {_shown(wanted[field])}; {why}, which more of them "
                "would change: drop --resume to start a new one."
            )
    if own["confirm"] is None:
        accepted["confirm"] = wanted["confirm"]
    differing = unlike(accepted, wanted)
    if differing:
        field, saved, asked = differing[0]
        rest = f" (and {len(differing) - 1} more settings differ)" if len(differing) > 1 else ""
        raise ConfigError(
            f"{field}: this sweep has {_shown(saved)}, not {_shown(asked)}{rest}; it goes on only as it was asked: "
            "leave this out, or drop --resume to start a new one."
        )
    return accepted if accepted != own else None


def _shown(value: Any) -> str:
    return "nothing" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
