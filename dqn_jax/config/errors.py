"""What is said to people: one line that names the field and the remedy, and values as they are typed."""

from __future__ import annotations

import decimal
import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np

from dqn_jax.config.elsewhere import meant_by


class ConfigError(ValueError):
    """A wrong or impossible setting. The message is one line that names the field and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class UnknownEnvError(ConfigError):
    """A name that no environment has; `choices` are those that it may have been meant for."""

    def __init__(self, name: str, choices: Iterable[str]) -> None:
        self.choices = tuple(choices)
        nearest = suggest(name, self.choices)
        super().__init__(f"env: there is no environment '{name}'.{nearest} 'dqn-jax list' shows all.")


class RunError(RuntimeError):
    """Something went wrong while running, not in the settings. One line; exit code 1."""

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


def _one_line(message: str) -> str:
    """The message with line ends and other characters that move the cursor written out, as `\\n`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(message))


def suggest(name: str, choices: Iterable[str]) -> str:
    """' Did you mean X?' for those of `choices` that go by `name` elsewhere, or the nearest; '' if nothing is near."""
    by_lower = {choice.lower(): choice for choice in choices}
    near = [ours for ours in meant_by(name) if ours in by_lower]
    near = near or difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(by_lower[x]) for x in near)}?" if near else ""


def whole_number(text: str) -> int:
    """A whole number as people write it: 16, 1_000_000, 1e6.

    Raises:
      ValueError: if it is none.
    """
    try:
        value = decimal.Decimal(text)  # exact, where a float is not
    except decimal.InvalidOperation:
        raise ValueError(text) from None
    if not value.is_finite() or value.adjusted() > 30 or value != value.to_integral_value():
        raise ValueError(text)
    return int(value)


def show(value: Any) -> str:
    """A setting's value in the form in which it is given on the command line: 64x64, none, 0.001."""
    if isinstance(value, tuple | list | np.ndarray):
        return "x".join(show(x) for x in value)
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return "none"
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return str(value)


def exact(value: float) -> str:
    """A number in as few digits as give the same number back: 475, 0.01, 16926.55."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))
