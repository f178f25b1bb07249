"""A page of sections as one HTML file that needs nothing else, and its figures beside it."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dqn_jax import files
from dqn_jax.config import show

if TYPE_CHECKING:
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
