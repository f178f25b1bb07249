"""Write the gallery, README.md, from what the experiments have recorded.

.venv/bin/python -m experiments.tutorials
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dqn_jax import files
from experiments.tutorials import common

PAGE = Path(__file__).parent / "README.md"
TOPICS = ("Target network", "Replay", "Time limits", "Exploration", "Collapse")
ORDER = ("keras_cartpole", "keras_rl_cartpole", "pendulum", "deep_q_network", "polecart")


def main() -> None:
    """Put the five on one page."""
    summaries = {summary["name"]: summary for summary in common.load_summaries()}
    parts = [
        "# The five tutorials",
        "Five documents taught many people DQN. Each is an experiment here: its own settings and its own cadence "
        f"(*faithful*), the same algorithm on many environments at once (*vectorised*), {common.SEEDS} seeds of each, "
        "and what it asks the reader to try. A page says what the document claims, what is measured, and every "
        "deviation.",
    ]
    for name in ORDER:
        summary = summaries[name]
        page = f"results/{name}/README.md"
        film = f"![trained agent](results/{name}/{summary['film']})" if summary["film"] else ""
        parts += [
            f"## [{summary['title']}]({page})",
            common.markdown_table(["claimed", "measured", ""], [(summary["claim"], summary["measured"], film)]),
            f"[![{summary['title']}](results/{name}/{summary['figure']})]({page})",
            f"`dqn-jax train {summary['preset']}` · `dqn-jax train {summary['preset']}-vectorised` · "
            f"`.venv/bin/python -m experiments.tutorials.{name}`",
        ]
    parts += [lessons(list(summaries.values())), *speed()]
    parts += [
        "## How these are made",
        "`.venv/bin/python -m experiments.tutorials.NAME` runs one experiment and writes `results/NAME/`; what was "
        "trained is kept under `runs/tutorials/`, so that an experiment that was stopped goes on where it was (delete "
        "the folder to start anew). `.venv/bin/python -m experiments.tutorials` writes this page. The cadence of each "
        "faithful form is checked step by step against a plain transcription of its schedule, in "
        "`tests/test_tutorials.py`.",
    ]
    with files.atomic(PAGE) as path:
        path.write_text("\n\n".join(parts) + "\n")


def lessons(summaries: Sequence[dict[str, Any]]) -> str:
    """What the five teach, by topic."""
    topics: dict[str, list[str]] = {}
    for summary in summaries:
        for topic, (text, figure) in summary["lessons"].items():
            topics.setdefault(topic, []).append(f"{text} ([figure](results/{summary['name']}/{figure}))")
    ordered = [*(topic for topic in TOPICS if topic in topics), *(topic for topic in topics if topic not in TOPICS)]
    lines = [f"- **{topic}.** " + " ".join(topics[topic]) for topic in ordered]
    intro = "Where brackets overlap widely, 20 seeds show no difference."
    return "\n".join(["## What they teach", "", intro, "", *lines])


def speed() -> list[str]:
    """The table of agents per minute."""
    recorded = json.loads((common.RESULTS / "speed" / "rows.json").read_text())
    rows = [
        (
            f"`{row['tutorial']}`", row["form"], f"{row['agents_per_minute']:,.0f}", f"{row['seconds']:.1f}",
            f"{row['compile_seconds']:.0f}", f"{row['env_steps_per_second']:,.0f}", f"{row['updates_per_second']:,.0f}",
        )
        for row in recorded["rows"]
    ]  # fmt: skip
    fifth = next(
        r["agents_per_minute"] for r in recorded["rows"] if (r["tutorial"], r["form"]) == ("tutorial-5", "faithful")
    )
    return [
        "## Agents per minute",
        "The documents train one agent at a time, in minutes to hours: the fifth gives about 14 minutes for its 200 "
        f"episodes, {1 / 14:.2f} agents a minute, and gets {14 * fifth:,.0f} times that on this machine. Twenty "
        "train at once. Evaluations are included; compilation is apart, from the cache of an earlier run. "
        f"Measured {recorded['when']}, by `.venv/bin/python -m experiments.tutorials.speed` (median of up to three "
        "runs).",
        common.markdown_table(
            [
                "tutorial",
                "form",
                "agents per minute",
                "seconds for 20",
                "compile seconds, cached",
                "environment steps/s",
                "updates/s",
            ],
            rows,
        ),
    ]


if __name__ == "__main__":
    main()
