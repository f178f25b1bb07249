"""The command that reports: which folders, and the page, CSV or JSON made of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqn_jax import files
from dqn_jax.config import ConfigError, show
from dqn_jax.convergence import parse_criteria
from dqn_jax.report.page import write_page
from dqn_jax.runs.labels import ranges, telling_labels
from dqn_jax.sweep import results, tables
from dqn_jax.sweep.rejudged import rejudged

if TYPE_CHECKING:
    import pandas as pd


def report_command(
    paths: Sequence[Path],
    output: Path | None = None,
    *,
    by: str = "env_steps",
    criteria: Sequence[str] = (),
    labels: Sequence[str] = (),
    csv: bool = False,
    json: bool = False,
) -> str:
    """Report on one sweep or run, or compare two; what to print.

    Args:
      paths: folders of sweeps or runs, one or two.
      output: folder to write to (default: `report` in the sweep's or the run's folder; to compare, `report` here).
      by: what trials are ranked by.
      criteria: what the recorded evaluations are read by (default: the sweep's own); the first one decides.
      labels: what they are called, one for each (default: their names, and what sets equal ones apart).
      csv: only give the ranked table, as CSV; nothing is written unless `output` is given.
      json: likewise, as JSON with the comparison, if there is one.

    Returns:
      The page's path, or the CSV, or the JSON.

    Raises:
      ConfigError: if nothing can be reported, in one line.
    """
    from dqn_jax.report import comparison, sections
    from dqn_jax.report.view import View

    if csv and json:
        raise ConfigError("csv: standard output takes one format; give --csv or --json.")
    if not 1 <= len(paths) <= 2:
        raise ConfigError(f"report: {len(paths)} folders; give one to report on, or two to compare.")
    found = [results.find(Path(path)) for path in paths]
    folder = output or (found[0] / "report" if len(found) == 1 else Path("report"))
    writes = output is not None or not (csv or json)
    if writes:
        files.check_folder_writable(folder, "output")
    data = [results.load(path) for path in found]
    if criteria:
        data = [rejudged(one, parse_criteria(criteria)) for one in data]
    settings = [_settings(one) for one in data]
    called = telling_labels([one.name for one in data], settings, [path.name for path in found], labels)
    if len(data) > 1:
        called = [f"{letter}: {label}" for letter, label in zip("AB", called, strict=True)]
    views = [View.of(one, by, label) for one, label in zip(data, called, strict=True)]
    if writes:
        with files.clear_errors(folder, "try again", "output"):
            content = sections.content_of(views[0]) if len(views) == 1 else comparison.content_of(*views)
            page = write_page(folder, *content)
            with files.atomic(folder / "trials.csv") as path:
                path.write_text(as_csv(views))
    if csv:
        return as_csv(views).rstrip("\n")
    return as_json(views) if json else str(page)


def _settings(data: tables.SweepData) -> dict[str, Any]:
    """What may set a sweep apart from another of its name."""
    asked = data.settings
    varied = {f"over {name}": values for name, values in asked["vary"].items()}
    return {**asked["config"], **asked["hparams"], **varied, "seeds": ranges(asked["seeds"])}


def as_csv(views: Sequence[Any]) -> str:
    """The ranked tables, one row per trial and phase, as CSV."""
    import pandas as pd

    parts = []
    for view in views:
        for phase, table in (("search", view.table), ("confirm", view.confirmed)):
            if not table.empty:
                varied = {name: table[name].map(show) for name in view.space}
                table = table.assign(**varied)
                table.insert(0, "phase", phase)
                table.insert(0, "sweep", view.label)
                parts.append(table)
    return pd.concat(parts).to_csv(index=False, float_format="%.7g")


def as_json(views: Sequence[Any]) -> str:
    """Everything a machine may want of the report, as JSON; NaN is null."""
    from dqn_jax.report import comparison
    from dqn_jax.report.caveats import caveats

    reports = [
        {
            "name": view.label,
            "by": view.by,
            "criteria": view.data.settings["criteria"],
            "horizon": view.end,
            "best": None if view.confirmed.empty else int(view.confirmed["trial"][0]),
            "trials": _records(view.table),
            "confirmed": _records(view.confirmed),
            "importance": None
            if isinstance(view.importance, str)
            else dict(zip(view.importance.names, view.importance.shares.tolist(), strict=True)),
            "bear_in_mind": caveats(view),
        }
        for view in views
    ]
    if len(views) == 1:
        return json.dumps(reports[0], indent=1, allow_nan=False)
    compared = [dataclasses.asdict(one) for one in comparison.comparisons(*views)]
    return json.dumps({"reports": reports, "probability_of_improvement": compared}, indent=1, allow_nan=False)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return list(json.loads(table.to_json(orient="records", double_precision=12))) if not table.empty else []
