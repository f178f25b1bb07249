"""What goes wrong with a sweep's records, in one line each: what cannot be reached or written, and what is damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa

from dqn_jax.config import ConfigError, RunError
from dqn_jax.sweep.records.url import without_secrets
from dqn_jax.sweep.records.values import DamagedError


def damaged(where: str, what: str) -> DamagedError:
    """The error that says what of the records is not as it was written."""
    return DamagedError(f"store: {where} is damaged ({what}); put a copy of it in its place, or start a new sweep.")


@contextlib.contextmanager
def clear_decoding(where: str) -> Iterator[None]:
    """Turn whatever is wrong with values that are read, of any kind and in any place, into one line."""
    try:
        yield
    except (ConfigError, RunError, sa.exc.DBAPIError):
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise damaged(
            where, f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
        ) from error
    except sa.exc.SQLAlchemyError as error:
        raise damaged(where, str(error).splitlines()[0][:80]) from error


@contextlib.contextmanager
def clear_database_errors(where: str, url: sa.URL | None = None) -> Iterator[None]:
    """Turn what a database (at `url`) or a file system refuses into one line, without the passwords of the URL."""
    try:
        yield
    except sa.exc.IntegrityError:
        raise  # a fault of ours, or of a caller who says what it means
    except (sa.exc.DBAPIError, OSError) as error:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error.strerror or error
        reason = without_secrets((str(cause).strip() or "no reason given").splitlines()[0], url)
        remedies = {"full": "free space", "No space": "free space", "locked": "close the program that holds it"}
        remedy = next((remedies[word] for word in remedies if word in reason), "see that it is there and works")
        raise RunError(f"store: cannot use {where} ({reason}); {remedy}, then go on with --resume.") from (
            error if without_secrets(str(error), url) == str(error) else None
        )
