"""Which setting solves CartPole-v1 in the fewest environment steps, and which in the fewest seconds?

.venv/bin/python -m experiments.convergence.cartpole
"""

from __future__ import annotations

VARY = {
    "learning_rate": "log(3e-4,5e-3)",
    "learning_rate_decay_updates": "logint(4000,40000)",
    "discount": "0.98,0.99,0.995,0.998",
    "epsilon_decay_steps": "logint(1000,30000)",
    "epsilon_end": "uniform(0.01,0.15)",
    "target_mixing": "log(0.003,0.2)",
    "batch_size": "32,64,128",
    "train_every": "2,4,8",
    "hidden": "64x64,120x84",
}
ASKED = {
    "samples": 1024,
    "seeds": 5,
    "total_steps": 41_000,
    "confirm": 100,
    "confirm_best": 3,
    "confirm_by": ("env_steps", "seconds"),
}
