"""Devices and the compilation cache, set once before jax starts."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from dqn_jax.config import ConfigError


def cpu_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def cache_dir() -> Path:
    """Where compiled programs are kept: `$DQN_JAX_CACHE`, or the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DQN_JAX_CACHE") or Path(base) / "dqn_jax") / "xla"


def configure() -> None:
    """One CPU device per core, and compiled programs kept on disk; call before jax does any work.

    Two threads inside one XLA program barely help networks this small; one device per core, each with its
    own lanes, uses all cores. Settings that the user or an earlier call made are left alone.
    """
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not forced and getattr(jax.config, "jax_num_cpu_devices", -1) < 0:
        with contextlib.suppress(RuntimeError):  # jax has already started: use the devices it has
            jax.config.update("jax_num_cpu_devices", cpu_cores())
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def peak_memory_bytes() -> int:
    """The most memory used so far: of the devices where they say, else of this process."""
    stats = [device.memory_stats() or {} for device in jax.local_devices() if device.platform != "cpu"]
    if stats and all("peak_bytes_in_use" in s for s in stats):
        return sum(int(s["peak_bytes_in_use"]) for s in stats)
    unit = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def host_device() -> jax.Device:
    """jax's device for arrays in the host's memory.

    Raises:
      ConfigError: if jax was told to do without it.
    """
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:
        raise ConfigError(
            "replay_memory: jax has no CPU to keep frames on; leave JAX_PLATFORMS unset (or add cpu), or use device."
        ) from None


def free_memory(devices: Sequence[jax.Device]) -> int:
    """Bytes that are free for arrays on these devices together; 8 GB where they do not say."""
    if devices[0].platform == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    stats = [device.memory_stats() or {} for device in devices]
    free = [s["bytes_limit"] - s["bytes_in_use"] for s in stats if "bytes_limit" in s]
    return int(min(free) * len(devices)) if free else int(8e9)


def size_text(count: float) -> str:
    """Bytes as a person reads them: 1.23 GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
