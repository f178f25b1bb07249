"""A sweep on a Ray cluster: every task claims a wave from the shared records, runs it, and records what it found.

Ray only places tasks, and starts them again elsewhere when their node dies. Which waves are left, and whose they are,
the store says.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable
from typing import Any

from dqn_jax.config import ConfigError, RunError
from dqn_jax.sweep import records

_POLL_SECONDS = 1.0
_LOST_IN_A_ROW = 20  # tasks that die one after another before we give up


def run_waves(
    store: records.Store, *, workers: int | None, stopping: Callable[[], bool], show: Callable[[], None]
) -> bool:
    """Run all waves of the store as tasks of the cluster at $RAY_ADDRESS, or of one started on this machine.

    Args:
      store: the records, at a URL that all nodes reach.
      workers: tasks at once (default: one for each node, with all its cores and accelerators).
      stopping: whether to stop.
      show: called every now and then, to show how far it is.

    Returns:
      Whether all waves are done.

    Raises:
      ConfigError: if Ray is not installed, or `workers` is not possible.
      RunError: if task after task fails.
    """
    from dqn_jax.sweep.records.url import with_password

    ray = _ray()
    url = with_password(store.url)
    share = _share(ray, workers)
    task = ray.remote(_one_wave).options(
        num_cpus=share["CPU"], num_gpus=share["GPU"], max_retries=-1, scheduling_strategy="SPREAD"
    )
    running: list[Any] = []
    lost = 0
    while True:
        states = [state for _, state in store.waves()]
        if all(state == "done" for state in states):
            return True
        if stopping():
            for reference in running:
                ray.cancel(reference, force=True)
            return False
        # No more tasks than there are waves to claim; one that comes too late finds none, and ends.
        for _ in range(min(states.count("waiting"), share["tasks"]) - len(running)):
            running.append(task.remote(url, store.name, int(share["CPU"]), f"ray-{uuid.uuid4().hex[:12]}"))
        ended, running = ray.wait(running, timeout=_POLL_SECONDS) if running else ([], [])
        if not ended:
            time.sleep(_POLL_SECONDS if not running else 0)
        for reference in ended:
            try:
                ray.get(reference)
                lost = 0
            except ray.exceptions.RayTaskError as error:
                raise RunError(f"engine: a task failed: {str(error).strip().splitlines()[-1]}") from None
            except ray.exceptions.RayError as error:  # its worker or node died
                lost += 1
                if lost >= _LOST_IN_A_ROW:
                    raise RunError(f"engine: {lost} tasks died in a row: {str(error).splitlines()[0]}") from None
        show()


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError("engine: Ray is not installed; install dqn_jax[cluster] or use --engine local.") from None
    if not ray.is_initialized():
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), **quiet)
        except ConnectionError:
            ray.init(include_dashboard=False, **quiet)
    return ray


def _share(ray: Any, workers: int | None) -> dict[str, Any]:
    """How many tasks at once, and what each takes of a node."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    tasks = len(nodes) if workers is None else workers
    if tasks < 1:
        raise ConfigError(f"workers: {tasks} is not possible; use 1 or more.")
    per_node = -(-tasks // len(nodes))
    cpus = min(int(node.get("CPU", 1)) for node in nodes)
    gpus = min(int(node.get("GPU", 0)) for node in nodes)
    return {"tasks": tasks, "CPU": max(1, cpus // per_node), "GPU": gpus // per_node}


def _one_wave(url: str, name: str, cpus: int, owner: str) -> int:
    """In a task: run the next wave that nobody has; the number of waves run."""
    import jax

    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # jax has started in an earlier task of this process
            jax.config.update("jax_num_cpu_devices", cpus)
    from dqn_jax.sweep import worker

    return worker.work_one(url, name, owner)
