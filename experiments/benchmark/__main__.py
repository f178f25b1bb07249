"""How fast is the code, against what the machine could do at best? The page, from what `dqn-jax benchmark` recorded.

    dqn-jax benchmark update population cold env --repeats 5 --out experiments/benchmark/results/cpu.csv
    dqn-jax benchmark family --repeats 3 --out experiments/benchmark/results/family.csv
    dqn-jax benchmark update --repeats 5 --out experiments/benchmark/results/update.csv    # and minatar, replay, pqn so
    dqn-jax benchmark atari --repeats 5 --out experiments/benchmark/results/atari.csv
    .venv/bin/python -m experiments.benchmark

What a table says of a target (reached, missed) and all around the tables is written in the template by hand, so read it
again after measuring.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from experiments import pages

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Write results/README.md from the CSV files beside it."""
    pages.write(RESULTS / "README.md", "benchmark/page.md.jinja", lines=lines)


def lines(name: str, missed: Mapping[str, str]) -> list[list[str]]:
    """The rows of results/<name>.csv as lines of the page: what, median, range, target, and whether it was reached.

    Args:
      name: of the CSV file.
      missed: rows whose target was missed, and what to add to that word.
    """
    found = []
    with (RESULTS / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        what, target, unit = (
            row["what"],
            row["target"],
            f" {row['unit']}" if row["unit"] in ("bytes", "GB", "us") else "",
        )
        value, low, high = (_short(float(row[column])) for column in ("value", "low", "high"))
        if not target:
            verdict = "reported"
        elif "accelerator" in target:
            verdict = "for accelerators: not measured there"
        else:
            verdict = f"**missed** {missed[what]}".strip() if what in missed else "reached"
        spread = ["", ""] if row["low"] == row["high"] else [low, high]
        label = f"- {what.strip()}" if what.startswith(" ") else what
        found.append([label, value + unit, *spread, target or "-", verdict])
    return found


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
