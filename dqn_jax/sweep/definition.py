"""What is asked of a sweep: checked, then plain JSON, from which it goes on anywhere."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from dqn_jax import files, runs
from dqn_jax.config import Config, ConfigError, HParams, seeds_from
from dqn_jax.convergence import Criterion, parse_criteria, parse_criterion, settling_among
from dqn_jax.presets import Preset
from dqn_jax.sweep import ruler
from dqn_jax.sweep.judge import Rules
from dqn_jax.sweep.pruning import Prune
from dqn_jax.sweep.question import Question
from dqn_jax.sweep.space import ADAPTIVE, Choice, Range, Space, grid_size, parse_space
from dqn_jax.sweep.tables import RANKINGS

# Held-out seeds are counted up from here. Neither they nor the seeds of a search may be a seed of evaluation starts:
# lanes and evaluations draw from one family of streams.
_CONFIRM_SEED = 10_000_000
_MOST_CONFIRM = 1_000_000
_MOST_POINTS = 100_000
_MOST_LANES = 10_000_000
_CONFIRM_EVAL_SEED = 3_000_003  # the starts on which the confirmation is evaluated: others than the search's


def define(preset: Preset, question: Question) -> dict[str, Any]:
    """The definition of a sweep: what is asked of it, and the preset's settings.

    Raises:
      ConfigError: for what is wrong in itself; whether its points are possible is seen when they are drawn.
    """
    space = parse_space(question.vary)
    if question.prune is not None:
        Prune(question.prune, question.prune_eta)
    drawing = _sampler(space, question.sampler, question.samples)
    if not 0 <= question.sample_seed < 2**63:
        raise ConfigError(f"sample_seed: {question.sample_seed} is not possible; use 0 or more, below 2**63.")
    seeds = list(seeds_from(question.seeds, question.seed))
    _check_size(space, drawing, question.samples, seeds)
    _check_seeds(seeds, question.confirm)
    criteria = _criteria(preset, question)
    settles = any(criterion.settles for criterion in criteria)
    stop = question.stop or ("budget" if settles else "converged")
    _check_rules(question, criteria, stop)
    finalists = question.confirm_best > 1 or len(question.confirm_by) > 1
    return {
        "name": question.name or preset.name,
        "preset": preset.name,
        "vary": {key: text.partition("=")[2].strip() for key, text in zip(space, question.vary, strict=True)},
        "sampler": drawing,
        "samples": question.samples,
        "sample_seed": question.sample_seed,
        "batch": question.batch if drawing in ADAPTIVE else None,
        "seeds": seeds,
        "criteria": [criterion.name for criterion in criteria],
        "stop": stop,
        "stability_steps": question.stability_steps,
        "prune": {
            "rule": question.prune,
            "eta": question.prune_eta,
            "among": "all",
            "seed": question.sample_seed,
        }
        if question.prune is not None
        else None,
        "confirm": {
            "seeds": list(range(_CONFIRM_SEED, _CONFIRM_SEED + question.confirm)),
            "best": question.confirm_best,
            "by": list(question.confirm_by),
            # So many of the seeds choose, the others are reported.
            "choosing": question.confirm // 2 if finalists else 0,
            "eval_seed": _CONFIRM_EVAL_SEED,
        }
        if question.confirm
        else None,
        "config": files.plain(dataclasses.asdict(preset.config)),
        "hparams": files.plain(preset.hparams._asdict()),
    }


def _criteria(preset: Preset, question: Question) -> list[Criterion]:
    """Those that are asked, or the preset's: of these, who settled is asked where lanes stay to the end anyway."""
    if question.criteria is not None:
        return parse_criteria(question.criteria)
    own = parse_criteria(preset.criteria)
    seen = question.stop == "budget" or any(criterion.settles for criterion in own[:1])
    return [criterion for criterion in own if seen or not criterion.settles]


def question_of(definition: dict[str, Any]) -> Question:
    """What a sweep was asked, from its definition; what had no effect is at its default."""
    same = ("name", "sampler", "samples", "sample_seed", "stop", "stability_steps")
    asked = {name: definition[name] for name in same}
    asked["vary"] = tuple(f"{name}={values}" for name, values in definition["vary"].items())
    asked |= {"seeds": tuple(definition["seeds"]), "criteria": tuple(definition["criteria"])}
    if definition["batch"] is not None:
        asked["batch"] = definition["batch"]
    if (prune := definition["prune"]) is not None:
        asked |= {"prune": prune["rule"], "prune_eta": prune["eta"]}
    if (confirm := definition["confirm"]) is not None:
        asked |= {"confirm": len(confirm["seeds"]), "confirm_best": confirm["best"]}
        asked["confirm_by"] = tuple(confirm["by"])
    return Question(**asked)


def check_new(definition: dict[str, Any], fixed: Collection[str] = (), given: Collection[str] = ()) -> None:
    """What only a sweep that begins today must keep to; older ones go on as they were asked.

    Args:
      definition: of the sweep.
      fixed: settings that were given a value for all its points.
      given: fields of the question that were given, not left to their defaults.

    Raises:
      ConfigError: one line naming the field and the remedy.
    """
    if not re.fullmatch(r"\w[\w.:+ -]{0,99}", definition["name"]) or definition["name"] != definition["name"].strip():
        raise ConfigError(
            f"name: {definition['name']!r} is not possible; use letters, digits and . _ - + : only, at most 100."
        )
    ruler.refuse_varied(definition["vary"])
    for field in definition["vary"]:
        if field in fixed:
            flag = field.replace("_", "-")
            raise ConfigError(f"{field}: it is given one value and varies too; leave out --{flag}, or --vary {field}.")
    if definition["stability_steps"] and definition["stop"] == "budget":
        raise ConfigError("stability_steps: with --stop budget lanes stay to the end anyway; leave out one of the two.")
    for field, matters, where in (
        ("prune_eta", definition["prune"], "--prune"),
        ("confirm_best", definition["confirm"], "--confirm"),
        ("confirm_by", definition["confirm"], "--confirm"),
        ("batch", definition["batch"], "--sampler tpe or cmaes"),
    ):
        if field in given and not matters:
            raise ConfigError(f"{field}: it has no effect without {where}; give that too, or leave it out.")
    eval_seed = definition["config"]["eval_seed"]
    held_out = (definition["confirm"] or {"seeds": ()})["seeds"]
    if eval_seed in definition["seeds"] or eval_seed in held_out:
        raise ConfigError(
            f"eval_seed: {eval_seed} is the seed of a lane too, which would train on what it is evaluated on; "
            "choose another, or leave it out."
        )
    if (pruned := _prune_of(definition)) is not None and not pruned.ladder():
        raise ConfigError(
            f"prune_eta: with {pruned.eta} no trial would ever be judged, for its only rung is before the first "
            "evaluation; use a smaller one, or a smaller eval_every."
        )


def as_begun(wanted: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """What is asked (as JSON), in the form in which `saved` was asked: older sweeps go on as they began."""
    # Settings that there were not yet had no other value than what is now their default.
    for part, defaults in (("config", dataclasses.asdict(Config())), ("hparams", HParams()._asdict())):
        usual = json.loads(json.dumps(defaults))
        known = {name: value for name, value in wanted[part].items() if name in saved[part] or value != usual[name]}
        wanted = {**wanted, part: known}
    confirm = wanted["confirm"]
    if confirm is not None and saved.get("confirm") and "choosing" not in saved["confirm"]:
        seeds = list(range(1_000_000, 1_000_000 + len(confirm["seeds"])))
        wanted = {**wanted, "confirm": {"seeds": seeds, "best": confirm["best"], "by": confirm["by"]}}
    if wanted["prune"] is not None and saved.get("prune") and "among" not in saved["prune"]:
        wanted = {**wanted, "prune": {name: wanted["prune"][name] for name in ("rule", "eta")}}
    return wanted


def unlike(saved: dict[str, Any], wanted: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Entries of two definitions that differ: (field, saved, wanted), nested ones as `config.num_envs`."""
    old, new = _flat(saved), _flat(json.loads(json.dumps(wanted)))
    fields = [field for field in {**old, **new} if field != "format"]
    return [(field, old.get(field), new.get(field)) for field in fields if old.get(field) != new.get(field)]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        flat.update(_flat(entry, f"{prefix}{key}.") if isinstance(entry, dict) else {prefix + key: entry})
    return flat


def preset_of(definition: dict[str, Any], phase: str = "search") -> Preset:
    """What a sweep varies, from its definition; the confirmation is evaluated from starts of its own."""
    config, hparams = runs.settings_from(definition["config"], definition["hparams"])
    if phase == "confirm" and "eval_seed" in definition["confirm"]:
        config = dataclasses.replace(config, eval_seed=definition["confirm"]["eval_seed"])
    return Preset(definition["preset"], "", config, hparams, tuple(definition["criteria"]))


def rules_of(definition: dict[str, Any]) -> Rules:
    """When lanes leave, from a sweep's definition."""
    return Rules(
        tuple(parse_criterion(text) for text in definition["criteria"]),
        definition["stop"],
        definition["stability_steps"],
        _prune_of(definition),
    )


def _prune_of(definition: dict[str, Any]) -> Prune | None:
    prune, config = definition["prune"], definition["config"]
    if prune is None:
        return None
    first = config["min_replay"] + config["eval_every"]
    return Prune(
        prune["rule"],
        prune["eta"],
        first,
        config["total_steps"],
        prune.get("seed", 0),
        settles=any(parse_criterion(text).settles for text in definition["criteria"][:1]),
    )


def _sampler(space: Space, sampler: str | None, samples: int | None) -> str:
    if sampler is None:
        listed = all(isinstance(dimension, Choice) for dimension in space.values())
        sampler = "grid" if listed and samples is None else "sobol"
    if sampler in ADAPTIVE and (samples is None or samples < 1):
        raise ConfigError(f"samples: say how many points {sampler} draws in all, e.g. --samples 64.")
    if sampler == "cmaes" and not any(isinstance(dimension, Range) for dimension in space.values()):
        raise ConfigError("sampler: cmaes needs a setting that varies over a range; use tpe.")
    if sampler not in ("grid", "random", "sobol", *ADAPTIVE):
        raise ConfigError(f"sampler: there is no '{sampler}'; use grid, random, sobol, tpe or cmaes.")
    return sampler


def _check_size(space: Space, sampler: str, samples: int | None, seeds: Sequence[int]) -> None:
    """Refuse what would take hours only to be listed."""
    count = grid_size(space) if sampler == "grid" else samples or 0
    each = len(seeds)
    if count > _MOST_POINTS:
        field = "vary" if sampler == "grid" else "samples"
        raise ConfigError(f"{field}: {count:,} points are too many; use {_MOST_POINTS:,} or fewer.")
    if each * max(count, 1) > _MOST_LANES:
        raise ConfigError(f"seeds: {each:,} for each of {count:,} points are too many; use fewer of both.")


def _check_seeds(seeds: Sequence[int], confirm: int) -> None:
    if confirm < 0:
        raise ConfigError(f"confirm: {confirm} is not possible; use 0 or more held-out seeds.")
    if confirm > _MOST_CONFIRM:
        raise ConfigError(f"confirm: {confirm:,} held-out seeds are too many; use {_MOST_CONFIRM:,} or fewer.")
    if confirm and max(seeds) >= _CONFIRM_SEED:
        raise ConfigError(f"seed: seeds from {_CONFIRM_SEED} on are held out for --confirm; use lower ones.")


def _check_rules(question: Question, criteria: Sequence[Criterion], stop: str) -> None:
    confirm, confirm_by = question.confirm, question.confirm_by
    if stop not in ("converged", "budget"):
        raise ConfigError(f"stop: '{stop}' is not possible; use converged or budget.")
    if not criteria:
        raise ConfigError("criteria: a sweep measures convergence; give a criterion, e.g. --criteria eval:475x3.")
    if stop == "converged" and (asked := next((c.name for c in criteria if c.settles), None)) is not None:
        raise ConfigError(
            f"stop: who leaves on convergence is not seen to settle, and {asked} asks that; leave out --stop, or ask "
            "for no settling."
        )
    if question.stability_steps < 0:
        raise ConfigError(
            f"stability_steps: {question.stability_steps} is not possible; use 0 or more environment steps."
        )
    if confirm and not confirm_by:
        raise ConfigError(f"confirm_by: say what is best, one or more of {', '.join(RANKINGS)}.")
    unknown = [by for by in confirm_by if by not in RANKINGS]
    if unknown:
        raise ConfigError(f"confirm_by: there is no ranking by '{unknown[0]}'; use {', '.join(RANKINGS)}.")
    if "final_return" in confirm_by and stop != "budget":
        raise ConfigError("confirm_by: lanes that leave on convergence have no final return; use --stop budget.")
    if "settled" in confirm_by and stop != "budget":
        raise ConfigError("confirm_by: lanes that leave on convergence are not seen to settle; use --stop budget.")
    if "settled" in confirm_by and settling_among(criteria) is None:
        raise ConfigError(
            f"confirm_by: {criteria[0].name} is not about returns, so nothing says what settled means; add a "
            "criterion such as settled:475."
        )
    if confirm and len(set(confirm_by)) < len(confirm_by):
        raise ConfigError("confirm_by: a ranking is given twice; give each once.")
    if confirm and question.confirm_best < 1:
        raise ConfigError(f"confirm_best: {question.confirm_best} is not possible; use 1 or more.")
    if question.batch < 1:
        raise ConfigError(f"batch: {question.batch} is not possible; use 1 or more points.")
