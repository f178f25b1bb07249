"""Commands under which agents learn: train, sweep, and to join a sweep."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dqn_jax import presets
from dqn_jax.cli.arguments import command_line, filled, options_of, parse
from dqn_jax.cli.display import SweepDisplay, TrainDisplay
from dqn_jax.cli.options import Join, Sweep, Train
from dqn_jax.cli.reading import chosen_by, help_about, named_by, names_preset
from dqn_jax.cli.tables import summary_tables, sweep_tables
from dqn_jax.config import ConfigError
from dqn_jax.runs import going_on
from dqn_jax.runs.redact import redact
from dqn_jax.sweep.question import Question
from dqn_jax.training import train

_HOW_IT_RUNS = ("url", "name", "engine", "workers", "wave", "memory_gb", "json")  # of a sweep, beside what is asked
_SWEEP_OPTIONS = options_of(Sweep).keys() - {"preset", "join", "plan", "json"}


def train_command(arguments: Sequence[str]) -> int:
    """`dqn-jax train`: one agent per seed, then a summary on standard output; gives the exit code."""

    def default_of(preset: presets.Preset) -> Train:
        return Train(preset.name, preset.config, preset.hparams, preset.seeds, preset.criteria)

    typed = parse(Train, "train", arguments, names_preset)
    if typed.help:
        help_about("train", typed, default_of)
    named = named_by(typed, "train")
    run: Path | None = typed.values.get("out")
    if typed.values.get("resume"):
        run, own = going_on.find(named, run, Path("runs"))
        named = going_on.asked(named, None) if own is None else going_on.asked(None, own)
    if named is None:
        raise ConfigError("preset: name a preset or an environment, e.g. 'dqn-jax train cartpole'.")
    chosen = chosen_by(named, typed)
    args: Train = filled(default_of(chosen), typed.values)
    if args.seeds < 1:
        raise ConfigError(f"seeds: {args.seeds} is not possible; use 1 or more.")
    if args.protocol is not None:
        print("\n".join(presets.describe_protocol(args.protocol)), file=sys.stderr)
    of_train = ("seeds", "seed", "criteria", "stop", "max_minutes", "save_episodes", "checkpoint")
    given = {str(name): typed.values[name] for name in of_train if name in typed.values}
    if given.get("max_minutes", 0.0) is None:  # typed as none: from now on without
        given["max_minutes"] = float("inf")
    with TrainDisplay(chosen.name, args.seeds, enabled=sys.stderr.isatty()) as display:
        result = train(
            chosen,
            out=run,
            root=Path("runs"),
            resume=args.resume,
            weights=args.weights,
            on_progress=display.update,
            warn=display.warn,
            trackers=[_wandb_tracker(args.wandb, chosen)] if args.wandb else [],
            **given,
        )
    if args.json:
        print((Path(result.run or "") / "summary.json").read_text(), end="")
    else:
        summary_tables(result)
    if result.interrupted:
        also = [*(["--wandb", args.wandb] if args.wandb else []), *(["--json"] if args.json else [])]
        print(f"dqn-jax: stopped; go on with\n{going_on.command('train', result.run, also)}", file=sys.stderr)
        return 130
    return 0


def _wandb_tracker(project: str, preset: presets.Preset) -> Callable[[Any], None]:
    try:
        import wandb
    except ImportError:
        raise ConfigError("wandb: Weights & Biases is not installed; install dqn_jax[wandb] or drop --wandb.") from None
    run = wandb.init(project=project, config={**dataclasses.asdict(preset.config), **preset.hparams._asdict()})

    def track(history: Any) -> None:
        means = {name: float(values[-1].mean()) for name, values in history.readings.items()}
        run.log(means, step=history.env_steps[-1])

    return track


def sweep_command(arguments: Sequence[str]) -> int:
    """`dqn-jax sweep`: a sweep or only its plan, then the best trials; gives the exit code."""
    from dqn_jax import sweep as sweeps
    from dqn_jax.sweep import estimate
    from dqn_jax.sweep.plan import describe
    from dqn_jax.sweep.results import ranked

    if any(argument == "--join" or argument.startswith("--join=") for argument in arguments):
        return _join(arguments)

    def default_of(preset: presets.Preset) -> Sweep:
        return Sweep(preset.name, preset.config, preset.hparams, Question(criteria=preset.criteria))

    typed = parse(Sweep, "sweep", arguments, names_preset)
    if typed.help:
        help_about("sweep", typed, default_of)
    named = named_by(typed, "sweep")
    if typed.values.get("seeds", 1) < 1:
        raise ConfigError(f"seeds: {typed.values['seeds']} is not possible; use 1 or more.")
    if named is None and not typed.values.get("resume"):
        raise ConfigError(
            "preset: name a preset or an environment, e.g. 'dqn-jax sweep cartpole --vary batch_size=32,64'."
        )
    given = {name: value for name, value in typed.values.items() if name in _SWEEP_OPTIONS}
    args: Sweep = filled(default_of(named or presets.resolve_preset("cartpole")), typed.values)
    planned: list[str] = []

    def on_plan(plan: Any, definition: dict[str, Any]) -> bool:
        speed = estimate.recorded(Path("sweeps"), definition, plan)
        if speed is None and args.plan:
            speed = estimate.measured(plan)
        planned.extend([*describe(plan, definition), estimate.describe(plan, definition, speed)])
        display.name = definition["name"]
        return not args.plan

    with SweepDisplay(args.question.name or args.preset, enabled=sys.stderr.isatty(), above=planned) as display:
        result = sweeps.sweep(
            named and named.name,
            root=Path("sweeps"),
            on_plan=on_plan,
            on_progress=display.update,
            warn=display.warn,
            **given,
        )
    if args.plan:
        print(json.dumps(result.data.plan, indent=1) if args.json else "\n".join(planned))
        return 0
    if args.json:
        print(ranked(result.data).to_json(orient="records", indent=1))
    elif len(result.data.lanes):
        sweep_tables(result)
    if not result.finished:
        how = {name: typed.values[name] for name in _HOW_IT_RUNS if name in typed.values}
        if args.url is not None:
            how["url"] = redact(args.url)
        also = command_line(how, Sweep)
        print(f"dqn-jax: stopped; go on with\n{going_on.command('sweep', result.directory, also)}", file=sys.stderr)
        return 130
    return 0


def _join(arguments: Sequence[str]) -> int:
    from dqn_jax import sweep as sweeps

    if not arguments[0].startswith("-"):
        raise ConfigError(f"join: the sweep knows what it varies; leave '{arguments[0]}' out.")
    typed = parse(Join, "sweep", arguments)
    if typed.help:
        help_about("sweep", typed, lambda p: Sweep(p.name, p.config, p.hparams, Question(criteria=p.criteria)))
    args: Join = filled(Join(""), typed.values)
    with SweepDisplay(args.name or "sweep", enabled=sys.stderr.isatty()) as display:
        waves, ended = sweeps.join(args.join, args.name, on_progress=display.update, warn=display.warn)
    print(f"{waves} waves run here; {'nothing is left to do' if ended else 'stopped'}")
    return 0 if ended else 130
