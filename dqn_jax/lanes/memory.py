"""What a run would take, known from shapes alone: what cannot fit is refused before anything compiles."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

import jax

from dqn_jax.config import Config, ConfigError, HParams, RunError
from dqn_jax.devices import free_memory, size_text
from dqn_jax.lanes.driver import Driver, driver_for
from dqn_jax.types import PyTree


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
        smaller: dict[str, PyTree] = {field: least[field]}
        if field == "num_envs":
            smaller["pool_batch"] = None
        return run_bytes(dataclasses.replace(config, **smaller), hparams)

    field = min(least, key=without)
    raise ConfigError(f"{field}: {takes}; lower {field}, which is {getattr(config, field):,}.")


def check_evaluation(driver: Driver, lanes: int, episodes: int) -> None:
    """Refuse to play more episodes side by side than fit.

    Raises:
      ConfigError: one line.
    """
    needed, free = driver.evaluation_bytes(lanes, episodes), free_memory(jax.local_devices())
    if needed > free:
        raise ConfigError(
            f"episodes: {episodes:,} side by side take {size_text(needed)}, and {size_text(free)} are free; "
            f"use at most {int(episodes * free / needed):,}."
        )


def run_bytes(config: Config, hparams: HParams) -> int:
    """What one lane of a run takes, as `Driver.run_bytes`."""
    return _run_bytes(config, _left_out(hparams))


def lane_bytes(config: Config, hparams: HParams) -> int:
    """What one lane takes on its device, as `Driver.lane_bytes`."""
    return _lane_bytes(config, _left_out(hparams))


# Tracing takes half a second; a sweep is planned more than once, and a process may train often.
@functools.cache
def _run_bytes(config: Config, left_out: tuple[bool, ...]) -> int:
    return driver_for(config).run_bytes(_scalars(left_out))


@functools.cache
def _lane_bytes(config: Config, left_out: tuple[bool, ...]) -> int:
    return driver_for(config).lane_bytes(_scalars(left_out))


def _left_out(hparams: HParams) -> tuple[bool, ...]:
    return tuple(value is None for value in hparams)


def _scalars(left_out: tuple[bool, ...]) -> HParams:
    some: list[PyTree] = [None if out else 0 for out in left_out]
    return HParams(*some)


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
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
