"""A page of sections as one HTML file that needs nothing else, and its figures beside it."""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dqn_jax import files
from dqn_jax.config import show
from dqn_jax.runs.figures import without_warnings_of_glyphs

if TYPE_CHECKING:
    from dqn_jax.report.charts import Chart

_DPI = 150  # of the PNGs


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain words, without markup."""

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
    """A figure with its caption; `name` is its file's, and `redraw` draws it in another width, in inches."""

    name: str
    chart: Chart
    redraw: Callable[[float], Chart]
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
    )
    with files.atomic(folder / "report.html") as path:
        path.write_text(html, encoding="utf-8")
    return folder / "report.html"


def _embedded(section: Section, figures: Path) -> Section:
    """The section with its pictures written to `figures`, and as text to be put into the page."""
    items: list[Any] = [_saved(item, figures) if isinstance(item, Picture) else item for item in section.items]
    return dataclasses.replace(section, items=items)


def _saved(picture: Picture, figures: Path) -> dict[str, Any]:
    from dqn_jax.report.charts import NARROW  # slow to import

    wide, narrow = picture.chart, picture.redraw(NARROW)
    with files.atomic(figures / f"{picture.name}.svg") as path:
        svg = wide.svg()
        path.write_text(f"{svg[: svg.rindex('</svg>')]}{wide.overlay()}</svg>\n", encoding="utf-8")
    shapes = [
        {"width": "wide", "uri": _uri(svg), "hits": wide.overlay()},
        {"width": "narrow", "uri": _uri(narrow.svg()), "hits": narrow.overlay(titles=False)},
    ]
    with files.atomic(figures / f"{picture.name}.png") as path, without_warnings_of_glyphs():
        wide.savefig(path, dpi=_DPI)
    return {"kind": "picture", "caption": picture.caption, "alt": picture.alt, "shapes": shapes}


def _uri(svg: str) -> str:
    """An SVG as an address; a third shorter than as base64."""
    return "data:image/svg+xml," + urllib.parse.quote(" ".join(svg.split()), safe=" /:;=@,+$()*!'")
