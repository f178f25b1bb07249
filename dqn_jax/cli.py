"""The command line, `dqn-jax COMMAND`. Thin: it parses, calls, prints."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from dqn_jax import benchmark, best, devices, files, interrupt, presets, report, runs
from dqn_jax.config import ConfigError, suggest
from dqn_jax.convergence import KINDS
from dqn_jax.display import SweepDisplay, TrainDisplay, summary_tables, sweep_tables
from dqn_jax.envs import env_names, pool_names
from dqn_jax.options import COMMANDS, Benchmark, Evaluate, Join, List, Plot, Record, Report, Sweep, Train
from dqn_jax.play import evaluate_run, record_run
from dqn_jax.protocols import PROTOCOLS, apply_protocol, describe_protocol
from dqn_jax.train import train

_TYRO = (tyro.conf.OmitArgPrefixes,)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 1 (failed while running), 2 (bad input) or 130 (stopped)."""
    return interrupt.ended(_main(list(sys.argv[1:] if arguments is None else arguments)))


def _main(arguments: list[str]) -> int:
    devices.configure()
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_usage())
            return 0
        if arguments[0] not in COMMANDS:
            raise ConfigError(
                f"command: there is no '{arguments[0]}'.{suggest(arguments[0], COMMANDS)} "
                f"Commands: {', '.join(COMMANDS)}."
            )
        return _HANDLERS[arguments[0]](arguments[1:])
    except ConfigError as error:
        print(f"dqn-jax: {error}", file=sys.stderr)
        return 2
    except (runs.RunError, MemoryError) as error:
        print(f"dqn-jax: {error or 'out of memory: use fewer seeds or a smaller replay_capacity'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dqn-jax: stopped", file=sys.stderr)
        return interrupt.EXIT_CODE
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _usage() -> str:
    lines = ["usage: dqn-jax COMMAND [options]    ('dqn-jax COMMAND --help' explains a command)", ""]
    lines += [f"  {name:<10} {command.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "Start with: dqn-jax train cartpole"])


def _parse(command: type, name: str, arguments: Sequence[str], default: Any = None) -> Any:
    """Parse with tyro, whose boxed errors become one line and a ConfigError."""
    errors = io.StringIO()
    keywords = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(command, prog=f"dqn-jax {name}", args=list(arguments), config=_TYRO, **keywords)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(_one_line(errors.getvalue(), name)) from None


def _one_line(boxed: str, name: str) -> str:
    """The message inside one of tyro's boxes, which are drawn in Unicode or ASCII as the terminal allows."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", boxed)
    lines = [re.sub(r"[│╭╮╰╯]", " ", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line][1:]  # without the title
    sections: list[list[str]] = [[]]
    for line in lines:
        if re.fullmatch(r"[-─. ]+", line):
            sections.append([])
        else:
            sections[-1].append(line)
    sections = [section for section in sections if section]
    message = " ".join(sections[0]).rstrip(". ")
    near = next((s[1].split()[0].rstrip(",") for s in sections if s[0].startswith("Perhaps you meant") and s[1:]), "")
    return f"{message}.{f' Did you mean {near}?' if near else ''} 'dqn-jax {name} --help' shows all options."


def _list(arguments: Sequence[str]) -> int:
    _parse(List, "list", arguments)
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    table = Table(title="Presets", title_justify="left", box=None)
    for column in ("preset", "environment"):
        table.add_column(column, no_wrap=True)
    table.add_column("what")
    for preset in map(presets.resolve_preset, presets.PRESETS):
        table.add_row(preset.name, preset.config.env, preset.summary)
    console.print(table)
    console.print("\n[b]Environments[/b] (any of them: dqn-jax train NAME)")
    console.print("  " + "  ".join(env_names()), highlight=False)
    with contextlib.suppress(ConfigError):  # EnvPool is not installed
        names = pool_names()
        console.print("\n[b]Environments of EnvPool[/b]")
        console.print("  " + "  ".join(names), highlight=False)
    console.print("\n[b]Atari protocols[/b] (dqn-jax train pong --protocol NAME)")
    for name, protocol in PROTOCOLS.items():
        console.print(f"  {name:<9} {protocol.summary}", highlight=False)
    console.print("\n[b]Criteria[/b]")
    for kind, meaning in KINDS.items():
        console.print(f"  {kind:<9} {meaning}", highlight=False)
    return 0


def _with_preset(
    name: str, arguments: Sequence[str], default_of: Callable[[presets.Preset], Any]
) -> tuple[presets.Preset, Any]:
    """The preset and the parsed arguments. The preset comes first, so that --help shows its values as the defaults."""
    named = bool(arguments) and not arguments[0].startswith("-")
    if not named and not {"-h", "--help"} & set(arguments):
        raise ConfigError(f"preset: name a preset or an environment first, e.g. 'dqn-jax {name} cartpole'.")
    preset = presets.resolve_preset(arguments[0] if named else "cartpole")
    # First too, for the same reason.
    env, protocol = _value_of(arguments, "--env"), _value_of(arguments, "--protocol")
    if env is not None:
        preset = presets.with_overrides(preset, {"env": env})
    if protocol is not None:
        preset = apply_protocol(preset, protocol)
    default = default_of(preset)
    args = _parse(type(default), name, arguments[1:] if named else arguments, default)
    if args.preset != preset.name:
        raise ConfigError(f"preset: '{args.preset}' is one too many; 'dqn-jax {name}' takes one preset or environment.")
    return preset, args


def _value_of(arguments: Sequence[str], option: str) -> str | None:
    """What an option is given, before the rest is parsed."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == option:
            return following
        if argument.startswith(option + "="):
            return argument.removeprefix(option + "=")
    return None


def _train(arguments: Sequence[str]) -> int:
    preset, args = _with_preset("train", arguments, lambda p: Train(p.name, p.config, p.hparams, p.seeds, p.criteria))
    if args.seeds < 1:
        raise ConfigError(f"seeds: {args.seeds} is not possible; use 1 or more.")
    chosen = dataclasses.replace(preset, config=args.config, hparams=args.hparams)
    if args.protocol is not None:
        print("\n".join(describe_protocol(args.protocol)), file=sys.stderr)
    with TrainDisplay(preset.name, args.seeds, enabled=sys.stderr.isatty()) as display:
        result = train(
            chosen,
            seeds=args.seeds,
            seed=args.seed,
            criteria=args.criteria,
            stop=args.stop,
            max_minutes=args.max_minutes,
            out=args.out,
            root=Path("runs"),
            resume=args.resume,
            weights=args.weights,
            checkpoint=args.checkpoint,
            save_episodes=args.save_episodes,
            on_progress=display.update,
            warn=display.warn,
            trackers=[_wandb_tracker(args.wandb, chosen)] if args.wandb else [],
        )
    if args.json:
        print((Path(result.run or "") / "summary.json").read_text(), end="")
    else:
        summary_tables(result)
    if result.interrupted:
        print(f"dqn-jax: stopped; go on with: dqn-jax train {preset.name} --resume --out {result.run}", file=sys.stderr)
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
    from dqn_jax.sweep.plan import describe
    from dqn_jax.sweep.results import ranked

    if any(argument == "--join" or argument.startswith("--join=") for argument in arguments):
        return _join(arguments)
    preset, args = _with_preset("sweep", arguments, lambda p: Sweep(p.name, p.config, p.hparams, p.criteria))
    if args.seeds < 1:
        raise ConfigError(f"seeds: {args.seeds} is not possible; use 1 or more.")

    planned: list[str] = []

    def on_plan(plan: Any, definition: dict[str, Any]) -> bool:
        planned.extend(describe(plan, definition))
        return not args.plan

    chosen = dataclasses.replace(preset, config=args.config, hparams=args.hparams)
    with SweepDisplay(args.name or preset.name, enabled=sys.stderr.isatty(), above=planned) as display:
        result = sweeps.sweep(
            chosen,
            args.vary,
            sampler=args.sampler,
            samples=args.samples,
            sample_seed=args.sample_seed,
            batch=args.sampler_batch,
            seeds=args.seeds,
            seed=args.seed,
            criteria=args.criteria,
            stop=args.stop,
            stability_steps=args.stability_steps,
            prune=args.prune,
            prune_eta=args.prune_eta,
            confirm=args.confirm,
            confirm_best=args.confirm_best,
            confirm_by=args.confirm_by,
            wave=args.wave,
            memory_gb=args.memory_gb,
            name=args.name,
            out=args.out,
            root=Path("sweeps"),
            url=args.store,
            resume=args.resume,
            engine=args.engine,
            workers=args.workers,
            on_plan=on_plan,
            on_progress=display.update,
            warn=display.warn,
        )
    if args.plan:
        print(json.dumps(result.data.plan, indent=1) if args.json else "\n".join(planned))
        return 0
    if args.json:
        print(ranked(result.data).to_json(orient="records", indent=1))
    elif len(result.data.lanes):
        sweep_tables(result)
    if not result.finished:
        print(f"dqn-jax: stopped; go on with the same command and --resume --out {result.directory}", file=sys.stderr)
        return 130
    return 0


def _join(arguments: Sequence[str]) -> int:
    from dqn_jax import sweep as sweeps

    if not arguments[0].startswith("-"):
        raise ConfigError(f"join: the sweep knows what it varies; leave '{arguments[0]}' out.")
    args = _parse(Join, "sweep", arguments)
    with SweepDisplay(args.name or "sweep", enabled=sys.stderr.isatty()) as display:
        waves, ended = sweeps.join(args.join, args.name, on_progress=display.update, warn=display.warn)
    print(f"{waves} waves run here; {'nothing is left to do' if ended else 'stopped'}")
    return 0 if ended else 130


def _report(arguments: Sequence[str]) -> int:
    args = _parse(Report, "report", arguments)
    print(report.report_command(args.path, args.output, by=args.by, labels=args.label, csv=args.csv, json=args.json))
    return 0


def _evaluate(arguments: Sequence[str]) -> int:
    args = _parse(Evaluate, "evaluate", arguments)
    result = evaluate_run(
        args.run,
        episodes=args.episodes,
        epsilon=args.epsilon,
        eval_seed=args.eval_seed,
        checkpoint=args.checkpoint,
        trial=args.trial,
    )
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
    args = _parse(Record, "record", arguments)
    episode_return, frames, who = record_run(
        args.run,
        args.output,
        seed=args.seed,
        random=args.random,
        start=args.start,
        q_values=args.q_values,
        checkpoint=args.checkpoint,
        trial=args.trial,
    )
    print(f"{args.output}: {who}, return {episode_return:g}, {frames} frames")
    return 0


def _plot(arguments: Sequence[str]) -> int:
    args = _parse(Plot, "plot", arguments)
    if not args.run:
        raise ConfigError("run: give at least one run folder, e.g. 'dqn-jax plot runs/cartpole'.")
    if args.output.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"output: '{args.output}' is no figure format; use .png, .svg or .pdf.")
    files.check_writable(args.output, "output")
    data = [report.RunData.load(runs.find_run(run)) for run in args.run]
    with files.clear_errors(args.output, "try again", "output"), files.atomic(args.output) as path:
        report.plot_runs(data, path, x=args.x, y=args.y, aggregate=args.aggregate, labels=args.label)
    print(args.output)
    return 0


def _benchmark(arguments: Sequence[str]) -> int:
    args = _parse(Benchmark, "benchmark", arguments)
    if args.repeats < 1:
        raise ConfigError(f"repeats: {args.repeats} is not possible; use 1 or more.")
    benchmark.run(args.parts, repeats=args.repeats, out=args.out)
    return 0


_HANDLERS: dict[str, Callable[[Sequence[str]], int]] = {
    "list": _list,
    "train": _train,
    "sweep": _sweep,
    "report": _report,
    "evaluate": _evaluate,
    "record": _record,
    "plot": _plot,
    "benchmark": _benchmark,
}

if __name__ == "__main__":
    sys.exit(main())
