"""The networks of confirmed lanes: kept in the sweep's folder, so that its winners can be evaluated and filmed.

    networks/trial-<number>/seed-<seed>.npz

Each is as its lane left: a lane that leaves when it converges has the networks of that moment, not of its whole budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dqn_jax import devices, files
from dqn_jax.config import ConfigError
from dqn_jax.lanes.driver import Driver, driver_for
from dqn_jax.presets import with_overrides
from dqn_jax.runs import RunSettings, find_run
from dqn_jax.runs.arrays import load_networks, save_networks
from dqn_jax.runs.play import Agents, Which, load_agents
from dqn_jax.sweep import records, results, tables
from dqn_jax.sweep.definition import preset_of
from dqn_jax.types import Params


class Winner(NamedTuple):
    """A confirmed trial, as if it were a run of its own."""

    settings: RunSettings
    driver: Driver
    params: Params  # networks that are played, leaves [L, ...], on the host
    trial: int
    env_steps: np.ndarray  # [L], after which each lane left
    eval_return: np.ndarray  # [L], of its last evaluation


def path_of(folder: Path, trial: int, seed: int) -> Path:
    """Where the networks of a confirmed lane lie in a sweep's folder."""
    return folder / "networks" / f"trial-{trial:05d}" / f"seed-{seed}.npz"


def keep(
    folder: Path, lanes: Sequence[tuple[int, int]], env_steps: int, eval_returns: np.ndarray, params: Params
) -> None:
    """Write the networks (leaves `[n, ...]`) of lanes (trial, seed) that leave; before they are recorded.

    So a lane that is recorded has its networks on disk; one that is not runs again, and writes the same.
    """
    with files.clear_errors(folder):
        for i, (trial, seed) in enumerate(lanes):
            path = path_of(folder, trial, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            own = jax.tree.map(lambda x: x[i : i + 1], params)  # noqa: B023 - called at once
            notes = {"seeds": [seed], "env_steps": [env_steps], "eval_return": eval_returns[i : i + 1]}
            save_networks(path, own, **{name: np.asarray(note) for name, note in notes.items()})


def find(path: Path) -> Path | None:
    """The sweep at `path`, or the newest below it; None if a run is there, or newer, or nothing is."""
    names = ("sweep.json", "config.json")
    found = [file.parent for depth in ("", "*/", "*/*/") for name in names for file in path.glob(depth + name)]
    newest = path if path in found else max(found, key=lambda f: (f.name, f.stat().st_mtime), default=None)
    return newest if newest is not None and (newest / "sweep.json").is_file() else None


def load(folder: Path, trial: int | None = None) -> Winner:
    """The winner of a sweep (or another of its finalists) on the held-out seeds that are reported.

    Raises:
      ConfigError: if nothing was confirmed, or its networks are not there, or damaged.
    """
    data = records.load_data(folder)
    definition = data.settings
    if not definition["confirm"]:
        raise ConfigError(
            f"run: {folder} keeps no networks: a sweep keeps those of the trials that it confirms. Go on with it by "
            "--resume --confirm 10, or train a setting anew."
        )
    finalists = results.ranked(data, definition["confirm"]["by"][0], "confirm")
    if finalists.empty:
        raise ConfigError(f"run: {folder} has confirmed nothing yet; go on with it by --resume.")
    numbers = finalists["trial"].tolist()
    trial = numbers[0] if trial is None else trial
    if trial not in numbers:
        raise ConfigError(f"trial: {folder} confirmed {', '.join(map(str, numbers))}, not {trial}; choose one of them.")
    preset = with_overrides(preset_of(definition, "confirm"), _point(data, trial))
    seeds = tuple(results.halves(definition)[1])
    settings = RunSettings(f"{data.name}, trial {trial}", seeds, preset.config, preset.hparams, preset.criteria)
    driver = driver_for(preset.config)
    lane = driver.lane_shapes(1, preset.hparams)
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), lane.agent.params)
    params, notes = [], []
    for seed in seeds:
        path = path_of(folder, trial, seed)
        try:
            own, note = load_networks(path, template)
        except FileNotFoundError:
            raise ConfigError(
                f"run: {folder} does not have the networks of trial {trial}, seed {seed}: an earlier dqn_jax ran it, "
                "or another machine. Train the setting anew."
            ) from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"run: {path} is damaged ({error}); train the setting anew.") from error
        params.append(own)
        notes.append(note)
    return Winner(
        settings,
        driver,
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *params),
        trial,
        np.concatenate([note["env_steps"] for note in notes]),
        np.concatenate([note["eval_return"] for note in notes]),
    )


def _point(data: tables.SweepData, trial: int) -> dict[str, object]:
    values = {str(name): data.trials[name][trial] for name in data.trials}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}


def agents_at(path: Path, checkpoint: Which = "last", trial: int | None = None) -> Agents:
    """The agents of the run at `path` or the newest below it, or of a sweep's winner.

    Args:
      path: folder of a run or a sweep, or above one.
      checkpoint: of a run, which networks.
      trial: of a sweep, which of the confirmed trials (default: the winner).

    Raises:
      ConfigError: if there is neither, or what is asked is not kept.
    """
    sweep = find(path)
    if sweep is None:
        if trial is not None:
            raise ConfigError(f"trial: {path} is no sweep; a run has one trial: leave it out.")
        return load_agents(find_run(path), checkpoint)
    if checkpoint != "last":
        raise ConfigError("checkpoint: a sweep keeps its winners' networks only as their lanes left; leave it out.")
    devices.configure()
    winner = load(sweep, trial)
    whose = f"{sweep}, trial {winner.trial} on held-out seeds, as its lanes left"
    return Agents(
        whose,
        None,
        winner.settings,
        winner.driver,
        winner.params,
        checkpoint,
        env_steps=winner.env_steps,
        eval_return=winner.eval_return,
    )
