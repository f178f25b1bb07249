"""Going on with a run or a sweep: which one, that its own settings are the defaults, and what else may be asked for."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from dqn_jax.config import ConfigError, show
from dqn_jax.presets import Preset, resolve_preset
from dqn_jax.runs.folder import find_run, never_begun
from dqn_jax.runs.settings import RunSettings, changed_settings, load_settings


def find(
    preset: Preset | str | None, out: str | Path | None, root: str | Path | None
) -> tuple[Path, RunSettings | None]:
    """The run to go on with, and its own settings: at `out`, or the newest in `root`, of this preset if one is given.

    One that was stopped before anything of it was there has no settings, and begins.

    Raises:
      ConfigError: if there is none, or it is not of that preset.
    """
    name = resolve_preset(preset).name if isinstance(preset, str) else preset.name if preset else None
    if out is None and root is None:
        raise ConfigError("resume: say which run to go on with, by out or root.")
    if out is not None and never_begun(Path(out)):
        if name is None:
            raise ConfigError(f"preset: the run in {out} was stopped before it began; name what to train.")
        return Path(out), None
    run = find_run(out if out is not None else Path(root or "") / (name or ""), "resume")
    own = load_settings(run)
    if name is not None and name != own.name:
        raise ConfigError(f"preset: the run in {run} is of '{own.name}', not of '{name}'; leave '{name}' out.")
    return run, own


def asked(preset: Preset | str | None, own: RunSettings | None) -> Preset:
    """What to train: what is given, but where only a name is, or nothing, what the run that goes on is made of."""
    if isinstance(preset, Preset):
        return preset
    if own is not None:
        return Preset(own.name, f"what {own.name} was", own.config, own.hparams, own.criteria, len(own.seeds))
    return resolve_preset(preset or "cartpole")


def check(run: Path, own: RunSettings, wanted: RunSettings) -> None:
    """Refuse to go on with what a run's numbers depend on and that is not its own.

    Raises:
      ConfigError: one line naming the setting, both values and the remedy.
    """
    changed = changed_settings(own, wanted)
    if not changed:
        return
    field, has, asked = changed[0]
    more = f" (and {len(changed) - 1} more settings differ)" if len(changed) > 1 else ""
    if field == "seeds" and (new := [seed for seed in wanted.seeds if seed not in own.seeds]):
        remedy = (
            f"new ones would begin while the others are ahead: run them by themselves, --seed {new[0]} --seeds "
            f"{len(new)} without --resume"
        )
    else:
        remedy = "a run goes on only with its own settings: leave it out, or drop --resume to start a new one"
    raise ConfigError(
        f"{field}: the run in {run} has {_shown(field, has)}, not {_shown(field, asked)}{more}; {remedy}."
    )


def _shown(field: str, value: object) -> str:
    if field == "seeds" and isinstance(value, list):
        first, last = value[0], value[-1]
        return f"{first} to {last}" if list(value) == list(range(first, last + 1)) else ", ".join(map(str, value))
    if isinstance(value, list) and value and isinstance(value[0], list):
        return " ".join(f"{name} {entry}" for name, entry in value)
    return show(value) if not isinstance(value, float) else repr(value)


def command(kind: str, folder: Path | None, also: Sequence[str] = ()) -> str:
    """The command that goes on with the run ("train") or sweep ("sweep") in `folder`, for a shell."""
    where = [] if folder is None else ["--out", str(folder)]
    return f"{_program()} {shlex.join([kind, '--resume', *where, *also])}"


def _program() -> str:
    """How this program is called here."""
    called = Path(sys.argv[0])
    if called == Path(__file__).parents[1] / "__main__.py":
        return f"{shlex.quote(sys.executable)} -m dqn_jax"
    if called.name == "dqn-jax" and shutil.which("dqn-jax") is None:
        return shlex.quote(str(called))
    return "dqn-jax"
