"""Figures that answer what is under the pointer: each mark has a text, kept apart from what matplotlib draws."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from dqn_jax.runs.figures import without_warnings_of_glyphs

WIDE, NARROW = 9.0, 4.4  # inches: a figure on a screen, and on a telephone
_DENSE_DPI = 100  # of the layers that are pixels
_POINTS = 72  # to an inch, the unit of an SVG
_CORNERS = 48  # of a line that is pointed at
_FEW = 60  # marks, which may be thick; more would hide one another
_STYLE = (
    "path{fill:none;stroke:transparent;stroke-linecap:round;stroke-linejoin:round;pointer-events:stroke}"
    "g:hover>path{stroke:#d4006a;stroke-opacity:.7}"
)


class Chart(Figure):
    """A figure with texts. A mark may be dots or a line, and marks of one text belong together, on whatever axes."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.told: dict[str, list[tuple[Any, np.ndarray, bool]]] = {}

    @property
    def narrow(self) -> bool:
        """Whether it is for a telephone."""
        return bool(self.get_figwidth() < (WIDE + NARROW) / 2)

    def tell(self, text: str, axis: Any, x: Any, y: Any, *, line: bool = False) -> None:
        """Have `text` shown at the dots, or along the line, x and y `[N]` in the data's units of `axis`."""
        points = np.stack(np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64)), axis=-1)
        points = points.reshape(-1, 2)
        self.told.setdefault(text, []).append((axis, points[np.isfinite(points).all(axis=1)], line))

    def svg(self) -> str:
        """As SVG without its texts; the same for the same data."""
        file = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "dqn_jax"}), without_warnings_of_glyphs():
            self.savefig(file, format="svg", dpi=_DENSE_DPI, metadata={"Date": None})
        self.set_layout_engine("none")  # all stays where it is, and is not worked out again
        # A hundredth of a point is finer than any screen, and matplotlib writes a millionth.
        text = re.sub(r' d="[^"]*"', lambda d: re.sub(r"(\.\d\d)\d+", r"\1", d[0]), file.getvalue().decode("utf-8"))
        return re.sub(r"(?<=data:image/png;base64,)[^\"]*", lambda data: _few_colours(data[0]), text)

    def overlay(self, *, titles: bool = True) -> Markup:
        """Its texts as an invisible layer of SVG of the same size, drawn last. To be asked for after `svg`.

        Args:
          titles: leave them out where another layer has them, in the same order.
        """
        groups = [
            Markup('<g>{}<path d="{}"/></g>').format(
                Markup("<title>{}</title>").format(text) if titles else "", "".join(map(self._corners, marks))
            )
            for text, marks in self.told.items()
        ]
        width, height = (round(inches * _POINTS, 2) for inches in self.get_size_inches())
        lines, few = any(line for marks in self.told.values() for _, _, line in marks), len(self.told) <= _FEW
        return Markup(
            '<svg class="hits" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" stroke-width="{}">'
            "<style>{}</style>{}</svg>"
        ).format(
            width, height, (8 if few else 4) if lines else (11 if few else 7), Markup(_STYLE), Markup("").join(groups)
        )

    def _corners(self, mark: tuple[Any, np.ndarray, bool]) -> str:
        """What an SVG path draws: a line, or dots, in points from the upper left corner."""
        axis, points, line = mark
        if line and len(points) > _CORNERS:
            points = points[np.unique(np.linspace(0, len(points) - 1, _CORNERS).astype(int))]
        pixels = axis.transData.transform(points) * _POINTS / self.dpi
        places = np.rint(np.stack([pixels[:, 0], self.get_figheight() * _POINTS - pixels[:, 1]], axis=1)).astype(int)
        if line and len(places):
            return "M" + " ".join(f"{x} {y}" for x, y in places)
        return "".join(f"M{x} {y}h0" for x, y in places)


def _few_colours(data: str) -> str:
    """A PNG as base64 with a palette; a third of the size, and no eye sees it."""
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    picture.quantize(128, method=Image.Quantize.FASTOCTREE).save(file, format="png", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
