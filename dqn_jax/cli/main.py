"""The command line, `dqn-jax COMMAND`. Thin: it parses, calls, prints."""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from dqn_jax import __version__, benchmark, devices, files, interrupt, presets, report, runs
from dqn_jax.cli import catalogue
from dqn_jax.cli.arguments import Typed, command_line, filled, flat, help_text, options_of, parse
from dqn_jax.cli.display import SweepDisplay, TrainDisplay
from dqn_jax.cli.options import COMMANDS, TOPICS, Benchmark, Evaluate, Join, Plot, Record, Report, Sweep, Train
from dqn_jax.cli.tables import summary_tables, sweep_tables
from dqn_jax.config import Config, ConfigError, HParams, RunError, suggest
from dqn_jax.lanes import memory
from dqn_jax.runs import best, going_on
from dqn_jax.runs.play import Agents, evaluate_run, record_run
from dqn_jax.runs.redact import redact
from dqn_jax.sweep.question import Question
from dqn_jax.training import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 1 (failed while running), 2 (bad input) or 130 (stopped)."""
    return interrupt.ended(_main(list(sys.argv[1:] if arguments is None else arguments)))


def _main(arguments: list[str]) -> int:
    devices.configure()
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_usage())
            return 0
        if arguments[0] == "--version":
            print(f"dqn_jax {__version__}")
            return 0
        if arguments[0] not in COMMANDS:
            raise ConfigError(
                f"command: there is no '{arguments[0]}'.{suggest(arguments[0], COMMANDS)} "
                f"Commands: {', '.join(COMMANDS)}."
            )
        with memory.in_one_line():
            return _HANDLERS[arguments[0]](arguments[1:])
    except ConfigError as error:
        print(f"dqn-jax: {_one_line(error)}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"dqn-jax: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dqn-jax: stopped", file=sys.stderr)
        return interrupt.EXIT_CODE
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _one_line(error: BaseException) -> str:
    """The message, whatever was typed into it: a newline as \\n."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(error))


def _usage() -> str:
    lines = ["usage: dqn-jax COMMAND [options]    ('dqn-jax COMMAND --help' explains one)", ""]
    for name, command in COMMANDS.items():
        first, *rest = textwrap.wrap(command.__doc__, 66)
        lines += [f"  {name:<11}{first}", *(" " * 13 + line for line in rest)]
    return "\n".join([*lines, "", "  --version  The version.", "", "Start with: dqn-jax train cartpole"])


def _show_help(name: str, usage: str, defaults: dict[str, Any], note: str = "") -> NoReturn:
    print(help_text(COMMANDS[name], f"{name} {usage}", TOPICS.get(name, {}), defaults, note))
    raise SystemExit(0)


def _parse(name: str, arguments: Sequence[str], required: str = "") -> Any:
    """An instance of a command that depends on no preset; `required` names the field that must be given, with how."""
    command = COMMANDS[name]
    typed, fields = parse(command, name, arguments), dataclasses.fields(command)
    defaults = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    words = next((option for option in options_of(command).values() if not option.flags), None)
    if typed.help:
        usage = "" if words is None else words.name.upper() + (" ..." if words.many else "")
        _show_help(name, f"{usage if words and words.name not in defaults else f'[{usage}]'} [options]", defaults)
    if typed.words:
        raise ConfigError(f"{typed.words[0]}: it is one too many. 'dqn-jax {name} --help' shows what there is.")
    if words is not None and words.name not in {**defaults, **typed.values}:
        raise ConfigError(f"{words.name}: give {required}.")
    return command(**{**defaults, **typed.values})


def _help(arguments: Sequence[str]) -> int:
    command, *rest = arguments or [""]
    if not command:
        print(_usage())
        return 0
    return main([command, *rest, "--help"])


def _list(arguments: Sequence[str]) -> int:
    catalogue.show_all(_parse("list", arguments).word)
    return 0


def _named(typed: Typed, name: str) -> presets.Preset | None:
    """The preset or environment that was typed, if any."""
    if typed.words:
        raise ConfigError(
            f"preset: '{typed.words[0]}' is one too many; 'dqn-jax {name}' takes one preset or environment."
        )
    return presets.resolve_preset(typed.values["preset"]) if "preset" in typed.values else None


def _chosen(preset: presets.Preset, typed: Typed) -> presets.Preset:
    """The preset under what was typed: its environment and protocol first, for the rest changes those."""
    settings = {k: v for k, v in typed.values.items() if k in _SETTINGS}
    if "env" in settings:
        preset = presets.with_overrides(preset, {"env": settings["env"]})
    if typed.values.get("protocol") is not None:
        config = presets.apply_protocol(preset.config, typed.values["protocol"])
        preset = dataclasses.replace(preset, config=config)
    return presets.with_overrides(preset, settings)


def _help_about(name: str, typed: Typed, default_of: Callable[[presets.Preset], Any]) -> NoReturn:
    preset = _named(
        typed._replace(values={"preset": typed.words[0]} if typed.words else {}, words=typed.words[1:]), name
    )
    preset = preset or presets.resolve_preset("cartpole")
    about = f"Defaults are those of '{preset.name}'; 'dqn-jax {name} PRESET --help' shows another's."
    _show_help(name, "PRESET [options]", flat(default_of(preset)), about)


def _names_preset(word: str) -> bool:
    try:
        presets.resolve_preset(word)
    except ConfigError:
        return False
    return True


def _train(arguments: Sequence[str]) -> int:
    def default_of(preset: presets.Preset) -> Train:
        return Train(preset.name, preset.config, preset.hparams, preset.seeds, preset.criteria)

    typed = parse(Train, "train", arguments, _names_preset)
    if typed.help:
        _help_about("train", typed, default_of)
    named = _named(typed, "train")
    run: Path | None = typed.values.get("out")
    if typed.values.get("resume"):
        run, own = going_on.find(named, run, Path("runs"))
        named = going_on.asked(named, None) if own is None else going_on.asked(None, own)
    if named is None:
        raise ConfigError("preset: name a preset or an environment, e.g. 'dqn-jax train cartpole'.")
    chosen = _chosen(named, typed)
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


def _sweep(arguments: Sequence[str]) -> int:
    from dqn_jax import sweep as sweeps
    from dqn_jax.sweep import estimate
    from dqn_jax.sweep.plan import describe
    from dqn_jax.sweep.results import ranked

    if any(argument == "--join" or argument.startswith("--join=") for argument in arguments):
        return _join(arguments)

    def default_of(preset: presets.Preset) -> Sweep:
        return Sweep(preset.name, preset.config, preset.hparams, Question(criteria=preset.criteria))

    typed = parse(Sweep, "sweep", arguments, _names_preset)
    if typed.help:
        _help_about("sweep", typed, default_of)
    named = _named(typed, "sweep")
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
        _help_about("sweep", typed, lambda p: Sweep(p.name, p.config, p.hparams, Question(criteria=p.criteria)))
    args: Join = filled(Join(""), typed.values)
    with SweepDisplay(args.name or "sweep", enabled=sys.stderr.isatty()) as display:
        waves, ended = sweeps.join(args.join, args.name, on_progress=display.update, warn=display.warn)
    print(f"{waves} waves run here; {'nothing is left to do' if ended else 'stopped'}")
    return 0 if ended else 130


def _report(arguments: Sequence[str]) -> int:
    args: Report = _parse("report", arguments, "the folder of a sweep or a run, e.g. 'dqn-jax report sweeps/cartpole'")
    print(report.report_command(args.path, args.output, by=args.by, labels=args.label, csv=args.csv, json=args.json))
    return 0


def _agents(args: Evaluate | Record) -> Agents:
    from dqn_jax.sweep.winners import agents_at  # slow to import, for the database under it

    return agents_at(args.run, args.checkpoint, args.trial)


def _evaluate(arguments: Sequence[str]) -> int:
    args: Evaluate = _parse("evaluate", arguments, "the folder of a run, e.g. 'dqn-jax evaluate runs/cartpole'")
    result = evaluate_run(lambda: _agents(args), episodes=args.episodes, epsilon=args.epsilon, eval_seed=args.eval_seed)
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    print(f"{result['run']}: {result['checkpoint']} checkpoint, after {best.describe(result['env_steps'])}")
    if result["chosen_on_these_starts"]:
        print("chosen by evaluations on these very starts, which flatter it; another --eval-seed plays it anew")
    elif result["checkpoint"] == "best":
        print("each seed's was chosen by its evaluations in training, and is played anew here, from other starts")
    print(f"{args.episodes} new episodes per seed, epsilon {result['epsilon']:g}")
    low, high = result["interval95"]
    interval = "" if low is None else f"  (95% interval {low:.1f} to {high:.1f})"
    print(f"mean over {len(result['seeds'])} seeds {result['mean']:.1f}{interval}")
    columns = ("seeds", "env_steps", "mean_return", "worst_return")
    for seed, steps, mean, worst in zip(*(result[column] for column in columns), strict=True):
        print(f"  seed {seed:<6} after {steps:>11,} steps   mean {mean:8.1f}   worst episode {worst:8.1f}")
    return 0


def _record(arguments: Sequence[str]) -> int:
    args: Record = _parse("record", arguments, "the folder of a run, e.g. 'dqn-jax record runs/cartpole'")
    episode_return, frames, who = record_run(
        lambda: _agents(args),
        args.output,
        seed=args.seed,
        random=args.random,
        start=args.start,
        q_values=args.q_values,
    )
    print(f"{args.output}: {who}, return {episode_return:g}, {frames} frames")
    return 0


def _plot(arguments: Sequence[str]) -> int:
    args: Plot = _parse("plot", arguments, "at least one run folder, e.g. 'dqn-jax plot runs/cartpole'")
    if args.output.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"output: '{args.output}' is no figure format; use .png, .svg or .pdf.")
    files.check_writable(args.output, "output")
    data = [report.RunData.load(runs.find_run(run)) for run in args.run]
    with files.clear_errors(args.output, "try again", "output"), files.atomic(args.output) as path:
        report.plot_runs(data, path, x=args.x, y=args.y, aggregate=args.aggregate, labels=args.label)
    print(args.output)
    return 0


def _benchmark(arguments: Sequence[str]) -> int:
    args: Benchmark = _parse("benchmark", arguments)
    if args.repeats < 1:
        raise ConfigError(f"repeats: {args.repeats} is not possible; use 1 or more.")
    benchmark.run(args.parts, repeats=args.repeats, out=args.out)
    return 0


_SETTINGS = {*(field.name for field in dataclasses.fields(Config)), *HParams._fields}
_HOW_IT_RUNS = ("url", "name", "engine", "workers", "wave", "memory_gb", "json")  # of a sweep, beside what is asked
_SWEEP_OPTIONS = options_of(Sweep).keys() - {"preset", "join", "plan", "json"}

_HANDLERS: dict[str, Callable[[Sequence[str]], int]] = {
    "list": _list,
    "train": _train,
    "sweep": _sweep,
    "report": _report,
    "evaluate": _evaluate,
    "record": _record,
    "plot": _plot,
    "benchmark": _benchmark,
    "help": _help,
}

if __name__ == "__main__":
    sys.exit(main())
