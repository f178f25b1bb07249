"""The networks of another run that a run starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import jax
import numpy as np

from dqn_jax.config import ConfigError, HParams
from dqn_jax.lanes.driver import Driver
from dqn_jax.runs.folder import find_run
from dqn_jax.runs.play import load_agents
from dqn_jax.runs.settings import RunSettings
from dqn_jax.types import Params, PyTree


def weights_run(path: str | Path | None, own: RunSettings | None) -> Path | None:
    """The run to take networks from: at `path` or the newest below it, or, going on with `own`, the one taken then.

    Raises:
      ConfigError: if there is no run at `path`.
    """
    taken = None if own is None or own.weights is None else Path(own.weights)
    if path is None or (taken is not None and taken.is_relative_to(path)):
        return taken
    return find_run(path, "weights")


def load_weights(run: Path, which: Literal["last", "best"], driver: Driver, lanes: int) -> Params:
    """The networks of a run, one for each lane, or its only one for all.

    Args:
      run: the run's folder.
      which: its last networks, or each seed's best.
      driver: of the run that they are for.
      lanes: how many lanes that has.

    Returns:
      Networks, leaves `[lanes, ...]`, on the host.

    Raises:
      ConfigError: if there are none, or they do not fit.
    """
    agents = load_agents(run, which)
    settings, params = agents.settings, agents.params
    if len(settings.seeds) not in (1, lanes):
        raise ConfigError(f"weights: {run} has {len(settings.seeds)} agents for {lanes} seeds; use as many, or one.")
    wanted = jax.eval_shape(lambda: driver.agent.init(jax.random.key(0), HParams()).params)

    def shapes(tree: PyTree, skip: int) -> tuple[object, list[tuple[int, ...]]]:
        return jax.tree.structure(tree), [x.shape[skip:] for x in jax.tree.leaves(tree)]

    if shapes(params, 1) != shapes(wanted, 0):
        raise ConfigError(
            f"weights: the networks in {run} have another shape; use its env, torso, hidden, layer_norm, noisy and "
            f"dueling ({settings.config.env}, hidden {' '.join(map(str, settings.config.hidden))})."
        )
    return jax.tree.map(lambda x: np.broadcast_to(x, (lanes, *x.shape[1:])), params)
