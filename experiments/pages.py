"""Pages of experiments: prose in Jinja templates beside the code (`*.md.jinja`), numbers from the code.

In a template `table` writes a Markdown table, and filters write statistics as text, with their 95 % interval over seeds
in brackets: `{{ scores | mean }}`, `{{ flags | share }}`, `{{ episodes | median }}`.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from dqn_jax import convergence, files, runs
from dqn_jax.report.values import estimate, number, percent

ROOT = Path(__file__).parent


def write(path: Path, template: str, /, **facts: Any) -> None:
    """Write the page of a template (a path below experiments/) with these facts, atomically.

    Raises:
      jinja2.UndefinedError: if the template asks for a fact that is not given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(path) as temporary:
        temporary.write_text(_templates().get_template(template).render(facts))


def block(template: str, name: str, /, **facts: Any) -> str:
    """One block of a page by itself, such as what a gallery says of it."""
    found = _templates().get_template(template)
    return "".join(found.blocks[name](found.new_context(facts))).strip()


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table: the only writer of them; cells are shown as `str` has them."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])


def machine() -> str:
    """Date, machine kind and versions of a measurement that is made now."""
    where = runs.provenance_of(())
    return (
        f"{datetime.date.today().isoformat()}, {where['machine']['cores']} CPU cores ({where['devices']['platform']}), "
        f"jax {where['versions']['jax']}, Python {where['versions']['python']}"
    )


# -- statistics as text; brackets are 95 % intervals over seeds, exact for shares and medians, Student's t for means


def mean(values: Any, digits: int = 1) -> str:
    """`12.3 [11.0, 13.9]` of `[S]` values, or `-` of none."""
    values = np.asarray(values, np.float64)
    if not len(values):
        return "-"
    low, high = convergence.mean_interval(values)
    return f"{values.mean():,.{digits}f}" + ("" if np.isnan(low) else f" [{low:,.{digits}f}, {high:,.{digits}f}]")


def share(flags: Any) -> str:
    """`85% [64%, 95%]` of `[S]` flags, or `-` of none."""
    if not len(flags):
        return "-"
    low, high = convergence.share_interval(flags)
    return f"{np.mean(flags):.0%} [{low:.0%}, {high:.0%}]"


def median(values: Sequence[float | None]) -> str:
    """`180 [150, not reached]` of `[S]` values; None counts as later than all others, and `-` is of none."""
    if not len(values):
        return "-"
    low, high = convergence.median_interval(values)
    middle = convergence.median_with_censored(values)
    return _reached(middle) + ("" if low is None and middle is not None else f" [{_reached(low)}, {_reached(high)}]")


def _reached(value: float | None) -> str:
    return "not reached" if value is None else f"{value:,.0f}"


@functools.cache
def _templates() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.globals["table"] = table
    for text_of in (mean, share, median, number, percent, estimate):
        found.filters[text_of.__name__] = text_of
    return found
