"""Where a report's numbers come from: what was asked, by what versions, on what machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dqn_jax.config import show
from dqn_jax.report.page import Cell, Section, Table
from dqn_jax.report.settings import fixed_settings
from dqn_jax.report.values import number
from dqn_jax.report.view import View
from dqn_jax.runs.labels import ranges
from dqn_jax.sweep import results


def asked(view: View) -> Section:
    """The question: task, budget, criteria, seeds, and what varies."""
    settings = view.data.settings
    config = settings["config"]
    rows = [
        ("environment", config.get("env", "-")),
        ("preset", settings.get("preset", "-")),
        ("converged means", view.criterion or "nothing: no criterion"),
        ("further criteria", ", ".join(settings["criteria"][1:]) or "none"),
        ("budget", f"{number(results.horizon(view.data))} environment steps per lane"),
        ("a lane ends", "when it converges" if settings["stop"] == "converged" else "with its budget"),
        ("seeds", ranges(settings["seeds"])),
    ]
    if view.space:
        samples = f", {settings['samples']} asked for" if settings.get("samples") else ""
        rows.append(("sampler", f"{settings.get('sampler', '-')}{samples}, seed {settings.get('sample_seed', 0)}"))
        confirm, prune = settings.get("confirm"), settings.get("prune")
        words = f"best {confirm['best']} again on seeds {ranges(confirm['seeds'])}" if confirm else "no"
        if confirm and confirm.get("choosing"):
            words += f"; the first {confirm['choosing']} of them choose among these, the others are reported"
        rows.append(("confirmation", words))
        rows.append(("pruning", f"{prune['rule']}, eta {prune['eta']}" if prune else "no"))
    items: list[Any] = [_pairs(rows)]
    if view.space:
        preset = {**config, **settings["hparams"]}
        varied = [(name, text, show(preset.get(name))) for name, text in settings["vary"].items()]
        items.append(
            Table(("varies", "over", "in the preset"), [[Cell.of(text) for text in row] for row in varied], numeric=())
        )
    return Section("asked", "What was asked", items)


def provenance(view: View) -> Section:
    """Where the numbers come from, and the settings that did not vary."""
    items = [_pairs(list(_flat(view.data.provenance))), *fixed_settings(view.data.settings)]
    return Section("provenance", "Provenance", items)


def _pairs(rows: Sequence[tuple[str, Any]]) -> Table:
    return Table((), [[Cell.of(name), Cell.of(show(value))] for name, value in rows])


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name} ")
        elif name == "seeds":
            rows.append((prefix + name, ranges(value)))
        else:
            rows.append((prefix + name, " ".join(map(str, value)) if isinstance(value, list) else value))
    return rows
