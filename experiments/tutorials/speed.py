"""How many agents of each tutorial are trained in a minute?

    .venv/bin/python -m experiments.tutorials.speed        (on a machine that does nothing else)

Claim checked: what takes the documents minutes to hours for one agent ("200 episodes, about 14 minutes") takes seconds
for twenty. Evaluations (100 greedy episodes each time) are part of the time, compilation is listed apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import dqn_jax
from dqn_jax import files
from experiments import pages
from experiments.tutorials import common

FOLDER = common.RESULTS / "speed"
FORMS = ("", "-vectorised")
REPEATS = 3


def main() -> None:
    """Time every tutorial in both forms and write the table."""
    rows = [measure(f"tutorial-{number}", form) for number in range(1, 6) for form in FORMS]
    common.write_csv(FOLDER / "speed.csv", rows)
    files.write_json(FOLDER / "rows.json", {"rows": rows, "when": pages.machine()})


def measure(tutorial: str, form: str) -> dict[str, Any]:
    """Median of several runs (one, of those that take minutes)."""
    results = [dqn_jax.train(tutorial + form, seeds=common.SEEDS, seed=common.FIRST_SEED)]
    while len(results) < REPEATS and results[0].summary["seconds"]["run"] < 30:
        results.append(dqn_jax.train(tutorial + form, seeds=common.SEEDS, seed=common.FIRST_SEED))
    seconds = [result.summary["seconds"]["run"] for result in results]
    summary = results[int(np.argsort(seconds)[len(seconds) // 2])].summary
    row = {
        "tutorial": tutorial,
        "form": form.removeprefix("-") or "faithful",
        "agents": common.SEEDS,
        "runs": len(results),
        "seconds": summary["seconds"]["run"],
        "compile_seconds": results[0].summary["seconds"]["compile"],
        "agents_per_minute": 60 * common.SEEDS / summary["seconds"]["run"],
        "env_steps_per_second": summary["throughput"]["env_steps_per_second"],
        "updates_per_second": summary["throughput"]["updates_per_second"],
    }
    print(f"{tutorial}{form}: {row['agents_per_minute']:.0f} agents a minute", flush=True)
    return row


if __name__ == "__main__":
    main()
