"""Digests of the bits that runs end with, to be compared before and after a change that must not move them.

    .venv/bin/python scripts/digests.py > before.txt    # and again after, on the same machine

A digest is the SHA-256 of the networks and of the evaluations of all seeds after two chunks: of six presets (one over a
pool) and of a sweep of four lanes. They hold for one kind of machine and one version of JAX, and for nothing else.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

import dqn_jax
from dqn_jax.sweep import sweep

SEEDS = 2
PRESETS: dict[str, dict[str, Any]] = {
    "cartpole": {"total_steps": 6_000, "eval_episodes": 10},
    "tutorial-1": {"total_episodes": None, "total_steps": 800, "eval_every": 400, "eval_episodes": 5},
    "tutorial-3": {"total_episodes": None, "total_steps": 1_000, "eval_every": 500, "eval_episodes": 5},
    "tutorial-4": {"total_episodes": None, "total_steps": 800, "eval_every": 400, "eval_episodes": 5},
    "mountaincar": {"total_steps": 6_000, "eval_episodes": 10},
    "pong-fast": {
        "total_steps": 1_280,
        "min_replay": 640,
        "eval_every": 320,
        "eval_episodes": 1,
        "max_episode_steps": 400,
        "replay_capacity": 2_000,
        "num_envs": 4,
    },
}


def digest(trees: Any) -> str:
    """SHA-256 of all leaves, with their shapes and types, in their order."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        array = np.ascontiguousarray(leaf)
        sha.update(f"{array.dtype}{array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()[:16]


def main() -> None:
    """Print one line for each."""
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {len(jax.devices())} devices")
    for name, settings in PRESETS.items():
        result = dqn_jax.train(name, seeds=SEEDS, **settings)
        print(f"{name:<12} {digest(result.params)} {digest(result.history.readings['eval_return'])}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found = sweep(
            "cartpole",
            {"learning_rate": "1e-3,2e-3"},
            seeds=2,
            stop="budget",
            out=Path(folder) / "sweep",
            total_steps=6_000,
            eval_episodes=10,
        )
        curves = found.data.curves[["trial", "seed", "env_steps", "eval_return", "loss", "td_error"]]
    print(f"{'sweep':<12} {digest([curves[name].to_numpy() for name in curves])}")


if __name__ == "__main__":
    main()
