"""The command line, `dqn-jax COMMAND`. Thin: it parses, calls, prints."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence

from dqn_jax import __version__, benchmark, devices, interrupt
from dqn_jax.cli import catalogue, learn, look
from dqn_jax.cli.options import COMMANDS, Benchmark
from dqn_jax.cli.reading import parsed
from dqn_jax.config import ConfigError, RunError, suggest
from dqn_jax.lanes import memory


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


def _help(arguments: Sequence[str]) -> int:
    command, *rest = arguments or [""]
    if not command:
        print(_usage())
        return 0
    return main([command, *rest, "--help"])


def _list(arguments: Sequence[str]) -> int:
    catalogue.show_all(parsed("list", arguments).word)
    return 0


def _benchmark(arguments: Sequence[str]) -> int:
    args: Benchmark = parsed("benchmark", arguments)
    if args.repeats < 1:
        raise ConfigError(f"repeats: {args.repeats} is not possible; use 1 or more.")
    benchmark.run(args.parts, repeats=args.repeats, out=args.out)
    return 0


_HANDLERS: dict[str, Callable[[Sequence[str]], int]] = {
    "list": _list,
    "train": learn.train_command,
    "sweep": learn.sweep_command,
    "report": look.report_command,
    "evaluate": look.evaluate_command,
    "record": look.record_command,
    "plot": look.plot_command,
    "benchmark": _benchmark,
    "help": _help,
}

if __name__ == "__main__":
    sys.exit(main())
