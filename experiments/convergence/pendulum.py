"""How do the number of torque bins, the discount, the learning rate and holding actions change Pendulum's convergence?

.venv/bin/python -m experiments.convergence.pendulum
"""

from __future__ import annotations

from experiments.convergence import common

VARY = {
    "action_bins": "3,5,9,15,25",
    "action_repeat": "1,2,4",
    "discount": "0.9,0.95,0.98,0.99",
    "learning_rate": "5e-4,1e-3,2e-3,4e-3",
}


def main() -> None:
    """Run it."""
    common.run("pendulum", "pendulum", VARY, seeds=5, total_steps=21_000, eval_every=500, confirm=32)


if __name__ == "__main__":
    main()
