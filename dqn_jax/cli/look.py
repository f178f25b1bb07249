"""Commands that look at what was learnt: report, evaluate, record and plot."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dqn_jax import files, report, runs
from dqn_jax.cli.options import Evaluate, Plot, Record, Report
from dqn_jax.cli.reading import parsed
from dqn_jax.config import ConfigError
from dqn_jax.runs import best
from dqn_jax.runs.play import Agents, evaluate_run, record_run


def report_command(arguments: Sequence[str]) -> int:
    """`dqn-jax report`: a page, CSV or JSON of one or two sweeps or runs; gives the exit code."""
    args: Report = parsed("report", arguments, "the folder of a sweep or a run, e.g. 'dqn-jax report sweeps/cartpole'")
    print(
        report.report_command(
            args.path,
            args.output,
            by=args.by,
            criteria=args.criteria,
            labels=args.label,
            csv=args.csv,
            json=args.json,
        )
    )
    return 0


def _agents(args: Evaluate | Record) -> Agents:
    from dqn_jax.sweep.winners import agents_at  # slow to import, for the database under it

    return agents_at(args.run, args.checkpoint, args.trial)


def evaluate_command(arguments: Sequence[str]) -> int:
    """`dqn-jax evaluate`: new episodes of a run's agents, or of a sweep's winner; gives the exit code."""
    args: Evaluate = parsed("evaluate", arguments, "the folder of a run, e.g. 'dqn-jax evaluate runs/cartpole'")
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


def record_command(arguments: Sequence[str]) -> int:
    """`dqn-jax record`: a film of one episode; gives the exit code."""
    args: Record = parsed("record", arguments, "the folder of a run, e.g. 'dqn-jax record runs/cartpole'")
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


def plot_command(arguments: Sequence[str]) -> int:
    """`dqn-jax plot`: the curves of runs over one another; gives the exit code."""
    args: Plot = parsed("plot", arguments, "at least one run folder, e.g. 'dqn-jax plot runs/cartpole'")
    if args.output.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"output: '{args.output}' is no figure format; use .png, .svg or .pdf.")
    files.check_writable(args.output, "output")
    data = [report.RunData.load(runs.find_run(run)) for run in args.run]
    with files.clear_errors(args.output, "try again", "output"), files.atomic(args.output) as path:
        report.plot_runs(data, path, x=args.x, y=args.y, aggregate=args.aggregate, labels=args.label)
    print(args.output)
    return 0
