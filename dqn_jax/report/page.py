"""A page of sections as one HTML file that needs nothing else, its figures beside it, and the command for it."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dqn_jax import files
from dqn_jax.config import ConfigError, show
from dqn_jax.sweep import results

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_FIGURE_WIDTH = 820  # pixels on the page at most
_DPI = 150  # of the PNGs
_DENSE_DPI = 100  # of the layers of the SVGs that are pixels


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Plain words."""

    text: str
    kind: ClassVar = "paragraph"


@dataclasses.dataclass(frozen=True)
class Points:
    """A list that stands out: the result in short, or what to bear in mind."""

    texts: Sequence[str]
    style: str = "short"  # or "warn"
    kind: ClassVar = "points"


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a table shows, and what it sorts by."""

    text: str
    key: str = ""  # empty: unknown, sorted last

    @staticmethod
    def of(text: str, value: Any = None) -> Cell:
        """A text with the value it stands for."""
        missing = isinstance(value, float | np.floating) and np.isnan(value)
        return Cell(text, "" if missing else show(text if value is None else value))


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that scrolls within itself where it is wider than the page."""

    columns: Sequence[str]  # none: a list of names and values
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    numeric: Sequence[bool] = ()
    sortable: bool = False
    kind: ClassVar = "table"

    def __post_init__(self) -> None:
        if not self.numeric:
            object.__setattr__(self, "numeric", [False] * len(self.columns))


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure with its caption; `name` is its file's."""

    name: str
    figure: Figure
    caption: str
    alt: str
    kind: ClassVar = "picture"


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what is under it."""

    anchor: str
    title: str
    items: Sequence[Paragraph | Points | Table | Picture]


Content = tuple[str, str, list[Section], str]
"""Title, subtitle, sections and footer of a page."""


def write_page(folder: Path, title: str, subtitle: str, sections: Sequence[Section], footer: str) -> Path:
    """Write report.html into `folder`, and every figure as `figures/<name>.png` and `.svg`; the page's path."""
    import jinja2

    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    template = Path(__file__).with_name("report.html.jinja").read_text()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    html = environment.from_string(template).render(
        title=title,
        subtitle=subtitle,
        sections=[_embedded(section, figures) for section in sections],
        footer=footer,
        figure_width=_FIGURE_WIDTH,
    )
    with files.atomic(folder / "report.html") as path:
        path.write_text(html, encoding="utf-8")
    return folder / "report.html"


def _embedded(section: Section, figures: Path) -> Section:
    """The section with its pictures written to `figures`, and as text to be put into the page."""
    items: list[Any] = [
        {"kind": "picture", "caption": item.caption, "alt": item.alt, "base64": _save(item, figures)}
        if isinstance(item, Picture)
        else item
        for item in section.items
    ]
    return dataclasses.replace(section, items=items)


def _save(picture: Picture, figures: Path) -> str:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "dqn_jax"}):  # the same file for the same data
        svg = io.BytesIO()
        picture.figure.savefig(svg, format="svg", dpi=_DENSE_DPI, metadata={"Date": None})
    with files.atomic(figures / f"{picture.name}.svg") as path:
        path.write_bytes(svg.getvalue())
    with files.atomic(figures / f"{picture.name}.png") as path:
        picture.figure.savefig(path, dpi=_DPI)
    return base64.b64encode(svg.getvalue()).decode("ascii")


def report_command(
    paths: Sequence[Path],
    output: Path | None = None,
    *,
    by: str = "env_steps",
    csv: bool = False,
    json: bool = False,
) -> str:
    """Report on one sweep or run, or compare two; what to print.

    Args:
      paths: folders of sweeps or runs, one or two.
      output: folder to write to (default: `report` in the sweep's or the run's folder; to compare, `report` here).
      by: what trials are ranked by.
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
    data = [results.load(path) for path in found]
    labels = [one.name if len(data) == 1 else f"{letter}: {one.name}" for letter, one in zip("AB", data, strict=False)]
    views = [View.of(one, by, label) for one, label in zip(data, labels, strict=True)]
    if output is not None or not (csv or json):
        folder = output or (found[0] / "report" if len(found) == 1 else Path("report"))
        with files.clear_errors(folder):
            content = sections.report(views[0]) if len(views) == 1 else comparison.comparison(*views)
            page = write_page(folder, *content)
            with files.atomic(folder / "trials.csv") as path:
                path.write_text(as_csv(views))
    if csv:
        return as_csv(views).rstrip("\n")
    return as_json(views) if json else str(page)


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
    from dqn_jax.report import comparison, sections

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
            "bear_in_mind": sections.caveats(view),
        }
        for view in views
    ]
    if len(views) == 1:
        return json.dumps(reports[0], indent=1, allow_nan=False)
    compared = [dataclasses.asdict(one) for one in comparison.comparisons(*views)]
    return json.dumps({"reports": reports, "probability_of_improvement": compared}, indent=1, allow_nan=False)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return list(json.loads(table.to_json(orient="records", double_precision=12))) if not table.empty else []
