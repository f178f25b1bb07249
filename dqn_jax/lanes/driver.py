"""The two ways to run an agent behind one door: environments on the device, or in a pool on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from dqn_jax.config import Config, HParams
from dqn_jax.envs import kind_of
from dqn_jax.lanes.device import Loop, make_loop
from dqn_jax.lanes.evaluation import Evaluation, evaluate
from dqn_jax.lanes.pool import PoolLoop, make_pool_loop
from dqn_jax.lanes.pool_evaluation import evaluate_pool
from dqn_jax.lanes.pool_population import PoolPopulation
from dqn_jax.lanes.population import make_population, stack_hparams
from dqn_jax.prng import make_key
from dqn_jax.runs.rows import appended
from dqn_jax.types import Params

AnyLoop = Loop | PoolLoop


class AnyPopulation(Protocol):
    """What both kinds of population have; lanes and hyperparameters are placed by its own layout."""

    layout: Any
    start: Any
    chunk: Any
    lane_shapes: Any
    compile_seconds: float
    temporary_bytes: int
    close: Any


def loop_for(config: Config) -> AnyLoop:
    """The loop for the environment of `config`.

    Raises:
      ConfigError: as `make_loop` and `make_pool_loop`.
    """
    return make_pool_loop(config) if kind_of(config.env) == "pool" else make_loop(config)


def population_for(
    loop: AnyLoop,
    config: Config,
    hparams: HParams,
    lanes: int,
    devices: Sequence[jax.Device] | None = None,
    *,
    from_weights: bool = False,
) -> Any:
    """Compile the programs for up to `lanes` lanes, as `make_population`: an `AnyPopulation`."""
    if isinstance(loop, PoolLoop):
        return PoolPopulation(loop, hparams, lanes, devices, from_weights=from_weights)
    return make_population(config, loop, hparams, lanes, devices, from_weights=from_weights)


def lane_shapes(loop: AnyLoop, seeds: Sequence[int], hparams: HParams) -> Any:
    """The state of one lane for each seed, as shapes (leaves `[L, ...]`)."""
    inputs = jnp.asarray(seeds, jnp.int32), stack_hparams(hparams, len(seeds))
    shapes = jax.eval_shape(jax.vmap(loop.start), *inputs)
    return shapes if isinstance(loop, PoolLoop) else shapes[0]


def rows_apart(loop: AnyLoop, config: Config) -> bool:
    """Whether a run keeps the rows of its replays in files of their own: those of pools are large."""
    return isinstance(loop, PoolLoop) and appended(config)


def networks_of(lanes: Any) -> Any:
    """The online networks of a population's lanes, to be fetched."""
    return [block.agent.params for block in lanes] if isinstance(lanes, list) else lanes.agent.params


def play_agents(loop: AnyLoop, params: Params, *, episodes: int, epsilon: float, eval_seed: int) -> Evaluation:
    """Play `episodes` episodes with each of L agents, all from the same starts: leaves `[L, episodes]`.

    Args:
      loop: whose environment and agent functions are used.
      params: networks, leaves `[L, ...]`.
      episodes: per agent.
      epsilon: exploration; 0 is the greedy policy.
      eval_seed: fixes the starts and the environments' noise.
    """
    if isinstance(loop, PoolLoop):
        return evaluate_pool(loop, params, episodes=episodes, epsilon=epsilon, seed=eval_seed)

    def one(params: Params) -> Evaluation:
        return evaluate(loop.env, loop.agent, params, make_key(eval_seed), episodes=episodes, epsilon=epsilon)

    return jax.jit(lambda params: jax.lax.map(one, params))(params)
