"""Values and estimates as a person reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def number(value: float) -> str:
    """Four significant digits, or all digits of a large number: 0.01234, 12.34, 123,456."""
    if not np.isfinite(value):
        return "-"
    if value == 0 or 1e-3 <= abs(value) < 1000:
        return f"{value:.4g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(value: float) -> str:
    """A share as whole per cent: 95%; '-' where it is not finite."""
    return f"{100 * value:.0f}%" if np.isfinite(value) else "-"


def estimate(row: Any, name: str, show: Any = number) -> str:
    """`x [low, high]` of a row with `name`, `name_low` and `name_high`; '-' where there is none."""
    value, low, high = (float(row[name + end]) for end in ("", "_low", "_high"))
    if not np.isfinite(value):
        return "-"
    if not (np.isfinite(low) or np.isfinite(high)):
        return show(value)
    return f"{show(value)} [{show(low)}, {show(high) if np.isfinite(high) else 'never'}]"


def first_row(table: pd.DataFrame) -> dict[Any, Any]:
    """The first row, each value in its own type."""
    return table[:1].to_dict("records")[0]


def time_text(row: Any) -> str:
    """Restricted mean time with its interval; a bare horizon would look like a measurement."""
    return estimate(row, "time") if row["converged"] else f"none by {number(row['time'])}"


def median_text(row: Any) -> str:
    """Median time with its interval, of a row of a ranked table."""
    return estimate(row, "median") if np.isfinite(row["median"]) else "not reached"


def converged_text(row: Any) -> str:
    """How many seeds converged, with the interval of their share."""
    return f"{row['converged']} of {row['lanes']} [{percent(row['share_low'])}, {percent(row['share_high'])}]"


def settled_text(row: Any) -> str:
    """How many seeds settled, with the interval of their share; '-' where their end was not seen."""
    if not np.isfinite(row["settled"]):
        return "-"
    low, high = percent(row["settled_share_low"]), percent(row["settled_share_high"])
    return f"{row['settled']:.0f} of {row['lanes']} [{low}, {high}]"


def settled_time_text(row: Any) -> str:
    """Restricted mean time to settle with its interval; a bare budget would look like a measurement."""
    return f"none by {number(row['settled_time'])}" if row["settled"] == 0 else estimate(row, "settled_time")
