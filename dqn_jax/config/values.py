"""Values of settings: checked against the types of their fields, read as people type them, and shown as they do."""

from __future__ import annotations

import decimal
import math
import types
import typing
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np

INT_MAX = 2**31 - 1  # what counts something is an int32 in the programs
_FLOAT = np.finfo(np.float32)  # and all else float32


class UnfitError(ValueError):
    """A value that is none of its field; the message says what to use."""


def as_type(wanted: Any, value: Any) -> Any:
    """`value` in the type `wanted`, where it can only mean one thing: 64 for layers is `(64,)`, 1e6 a number of steps.

    Args:
      wanted: bool, int, float, str, a Literal of texts, `tuple[int, ...]`, `tuple[tuple[str, X], ...]` (which may be
        given as a mapping), or one of these or None.

    Raises:
      UnfitError: saying what to use.
    """
    if isinstance(wanted, types.UnionType):
        if value is None:
            return None
        (wanted,) = (option for option in typing.get_args(wanted) if option is not type(None))
        return as_type(wanted, value)
    if typing.get_origin(wanted) is Literal:
        if not (isinstance(value, str) and value in typing.get_args(wanted)):
            raise UnfitError(f"choose one of {', '.join(typing.get_args(wanted))}")
        return value
    if typing.get_origin(wanted) is tuple:
        return _as_tuple(typing.get_args(wanted)[0], value)
    return {bool: _as_bool, int: _as_int, float: _as_float, str: _as_text}[wanted](value)


def fits(wanted: Any, value: Any) -> bool:
    """Whether `value` is of the type `wanted` as it is; raises `UnfitError` where it cannot be made so."""
    made = as_type(wanted, value)
    if isinstance(made, tuple):
        return isinstance(value, tuple) and all(type(a) is type(b) for a, b in zip(made, value, strict=True))
    return not isinstance(made, int) or isinstance(value, Integral | np.bool_)


def check_float(value: float) -> None:
    """Raises `UnfitError` unless `value` is finite and neither too large nor, but for 0, too small for 32 bits."""
    if not math.isfinite(value):
        raise UnfitError("use a finite number")
    if abs(value) > float(_FLOAT.max) or 0.0 < abs(value) < float(_FLOAT.tiny):
        raise UnfitError("it does not fit into 32 bits: use a number between 1.2e-38 and 3.4e+38 in size")


def numbers(value: Any) -> list[float]:
    """The numbers in a scalar or in one value for each lane; raises `UnfitError` if it is anything else."""
    wanted = "use a number, or one for each lane"
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        raise UnfitError(wanted) from None
    if array.dtype.kind not in "iuf" or array.ndim > 1 or array.size == 0:
        raise UnfitError(wanted)
    return [float(x) for x in np.ravel(array)]


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


def _as_bool(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise UnfitError("use true or false")
    return bool(value)


def _as_int(value: Any) -> int:
    whole = isinstance(value, Integral) or (
        isinstance(value, float | np.floating) and math.isfinite(value) and float(value).is_integer()
    )
    if not whole or isinstance(value, bool):
        raise UnfitError("use an integer")
    if abs(int(value)) > INT_MAX:
        raise UnfitError(f"use an integer of at most {INT_MAX:,}".replace(",", ""))
    return int(value)


def _as_float(value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise UnfitError("use a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    check_float(number)
    return number


def _as_text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise UnfitError("use text in one line")
    return value


def _as_tuple(element: Any, value: Any) -> tuple[Any, ...]:
    pairs = typing.get_origin(element) is tuple
    if pairs and isinstance(value, Mapping):
        value = value.items()
    elif not pairs and isinstance(value, Integral):
        value = (value,)
    if isinstance(value, str) or not isinstance(value, typing.Iterable):
        raise UnfitError("use pairs of a name and a value" if pairs else "use integers such as (64, 64)")
    if not pairs:
        return tuple(as_type(element, one) for one in value)
    name, kind = typing.get_args(element)
    made = []
    for pair in value:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UnfitError("use pairs of a name and a value")
        made.append((as_type(name, pair[0]), as_type(kind, pair[1])))
    return tuple(made)
