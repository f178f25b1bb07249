"""What a run would take, known from shapes alone: what cannot fit is refused before anything compiles."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from dqn_jax.config import Config, ConfigError, HParams, RunError
from dqn_jax.devices import free_memory, size_text
from dqn_jax.envs.pool_tasks import is_atari
from dqn_jax.lanes.device import Loop
from dqn_jax.lanes.driver import AnyLoop, loop_for
from dqn_jax.lanes.population import stack_hparams
from dqn_jax.prng import make_key

# Of one environment of a pool, in the host's memory: of Pong 1.1 MB were measured.
_EMULATOR_BYTES, _OTHER_ENV_BYTES = 1_200_000, 10_000


def check_run(config: Config, hparams: HParams, lanes: int) -> None:
    """Refuse a run that does not fit, however it is spread over devices.

    Raises:
      ConfigError: one line: what it takes, what there is, and which setting to lower.
    """
    each, free = run_bytes(config, hparams), free_memory(jax.local_devices())
    if lanes * each <= free:
        return
    takes = f"this run takes {size_text(lanes * each)}, and {size_text(free)} are free"
    if lanes > 1 and each <= free:
        raise ConfigError(
            f"seeds: {takes}; each seed takes {size_text(each)}: use at most {free // each:,}, or lower "
            "replay_capacity, num_envs or eval_episodes."
        )
    least = {"replay_capacity": config.batch_size, "num_envs": 1, "eval_episodes": 1}

    def without(field: str) -> int:
        smaller: dict[str, Any] = {field: least[field]}
        if field == "num_envs":
            smaller["pool_batch"] = None
        return run_bytes(dataclasses.replace(config, **smaller), hparams)

    field = min(least, key=without)
    raise ConfigError(f"{field}: {takes}; lower {field}, which is {getattr(config, field):,}.")


def check_evaluation(loop: AnyLoop, lanes: int, episodes: int) -> None:
    """Refuse to play more episodes side by side than fit.

    Raises:
      ConfigError: one line.
    """
    side_by_side = 1 if isinstance(loop, Loop) else lanes
    needed, free = side_by_side * evaluation_bytes(loop, episodes), free_memory(jax.local_devices())
    if needed > free:
        raise ConfigError(
            f"episodes: {episodes:,} side by side take {size_text(needed)}, and {size_text(free)} are free; "
            f"use at most {int(episodes * free / needed):,}."
        )


def run_bytes(config: Config, hparams: HParams) -> int:
    """What one lane of a run takes, its evaluations and its emulators included; but the frames of a pool, which its
    population looks at.
    """
    loop = loop_for(config)
    if isinstance(loop, Loop):
        return lane_bytes(config, hparams) + evaluation_bytes(loop, config.eval_episodes)
    shown = jax.eval_shape(loop.parts.fresh, jax.ShapeDtypeStruct((), np.int32), _scalars(_left_out(hparams)))
    return tree_bytes(shown) + config.num_envs * _environment_bytes(loop) + evaluation_bytes(loop, config.eval_episodes)


def evaluation_bytes(loop: AnyLoop, episodes: int) -> int:
    """What it takes to play so many episodes side by side with one agent."""
    if isinstance(loop, Loop):
        one = tree_bytes(jax.eval_shape(loop.env.reset, make_key(0)))
        return episodes * (2 * one + 16)  # a step has its input and its output, and results are kept
    seen = math.prod(loop.spec.obs_shape) * np.dtype(loop.spec.obs_dtype).itemsize
    return episodes * (_environment_bytes(loop) + 2 * seen)


def _environment_bytes(loop: AnyLoop) -> int:
    return _EMULATOR_BYTES if is_atari(loop.spec.name) else _OTHER_ENV_BYTES  # type: ignore[union-attr]


def lane_bytes(config: Config, hparams: HParams) -> int:
    """What one lane takes on its device: its state, and its readings on the device and on the host."""
    return _lane_bytes(config, _left_out(hparams))


@functools.cache  # tracing takes half a second, and a sweep is planned more than once
def _lane_bytes(config: Config, left_out: tuple[bool, ...]) -> int:
    loop, scalars = loop_for(config), _scalars(left_out)
    count = jax.ShapeDtypeStruct((), np.int32)
    if not isinstance(loop, Loop):
        return tree_bytes(jax.eval_shape(loop.start, count, scalars))  # beside it, a chunk's readings are nothing
    state, _ = jax.eval_shape(loop.start, count, scalars)
    _, metrics = jax.eval_shape(loop.chunk, count, state, scalars)
    return tree_bytes(state) + 2 * tree_bytes(metrics)


def _left_out(hparams: HParams) -> tuple[bool, ...]:
    return tuple(value is None for value in hparams)


def _scalars(left_out: tuple[bool, ...]) -> HParams:
    some: list[Any] = [None if out else 0 for out in left_out]
    return jax.tree.map(lambda x: x[0], stack_hparams(HParams(*some), 1))


def tree_bytes(tree: Any) -> int:
    """Of arrays, or of shapes."""

    def size(x: Any) -> int:
        return 8 if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize

    return sum(math.prod(x.shape) * size(x) for x in jax.tree.leaves(tree))


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Turn "out of memory" of Python, NumPy and XLA into one line.

    Raises:
      RunError: then.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise RunError(
            "out of memory: use fewer seeds (of a sweep, a smaller --wave), or a smaller replay_capacity, num_envs or "
            "eval_episodes."
        ) from error
