"""Write the gallery, README.md, from what the experiments have recorded.

.venv/bin/python -m experiments.tutorials
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import pages
from experiments.tutorials import common

PAGE = Path(__file__).parent / "README.md"
TOPICS = ("Target network", "Replay", "Time limits", "Exploration", "Collapse")
ORDER = ("keras_cartpole", "keras_rl_cartpole", "pendulum", "deep_q_network", "polecart")


def main() -> None:
    """Put the five on one page."""
    summaries = {summary["name"]: summary for summary in common.load_summaries()}
    recorded = json.loads((common.RESULTS / "speed" / "rows.json").read_text())
    fifth = {(row["tutorial"], row["form"]): row["agents_per_minute"] for row in recorded["rows"]}
    pages.write(
        PAGE,
        "tutorials/gallery.md.jinja",
        seeds=common.SEEDS,
        tutorials=[summaries[name] for name in ORDER],
        lessons=lessons(list(summaries.values())),
        speed=[speed_row(row) for row in recorded["rows"]],
        speed_measured=recorded["when"],
        fifth=fifth["tutorial-5", "faithful"],
    )


def lessons(summaries: Sequence[dict[str, Any]]) -> dict[str, list[tuple[str, str, str]]]:
    """What the five teach, by topic: text, the tutorial's name, and the figure that shows it."""
    topics: dict[str, list[tuple[str, str, str]]] = {topic: [] for topic in TOPICS}
    for summary in summaries:
        for topic, (text, figure) in summary["lessons"].items():
            topics.setdefault(topic, []).append((text, summary["name"], figure))
    return {topic: texts for topic, texts in topics.items() if texts}


def speed_row(row: dict[str, Any]) -> tuple[str, ...]:
    """A tutorial in one form, as in the table of agents per minute."""
    return (
        f"`{row['tutorial']}`", row["form"], f"{row['agents_per_minute']:,.0f}", f"{row['seconds']:.1f}",
        f"{row['compile_seconds']:.0f}", f"{row['env_steps_per_second']:,.0f}", f"{row['updates_per_second']:,.0f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
