"""The folder that is to be a sweep's: taken for one process while its database is made, and left as it was if that
fails."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from dqn_jax.config import ConfigError, RunError
from dqn_jax.files import LOCK, lock


@contextlib.contextmanager
def claimed(directory: Path, beside: Sequence[str] = ()) -> Iterator[None]:
    """The folder of a sweep that has no store yet: created, cleared of what a killed creation left, and ours alone.

    Args:
      directory: the folder.
      beside: names of files that may be in it.

    Raises:
      ConfigError: if anything else is in it.
      RunError: if it cannot be created.
    """
    is_new = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        occupied = is_foreign(directory, beside)
    except OSError as error:
        raise RunError(f"out: cannot create {directory} ({error.strerror}); choose another folder.") from error
    if not occupied:
        with lock(directory, "sweep"):
            occupied = is_foreign(directory, beside)  # another may have been faster
            if not occupied:
                try:
                    for path in filter(_is_debris, directory.iterdir()):
                        path.unlink()
                    yield
                    return
                except BaseException:
                    if is_new:
                        with contextlib.suppress(OSError):  # nothing was there a moment ago
                            (directory / LOCK).unlink()
                            directory.rmdir()
                    raise
    raise ConfigError(
        f"out: {directory} is not empty; choose another folder, or go on with the sweep in it by --resume."
    )


def is_foreign(directory: Path, beside: Sequence[str] = ()) -> bool:
    """Whether a folder holds anything but what is there before its store is, and files of the names `beside`."""
    return any(path.name not in (LOCK, *beside) and not _is_debris(path) for path in directory.iterdir())


def _is_debris(path: Path) -> bool:
    """Whether a kill left it: `files.atomic` writes under such names."""
    return re.fullmatch(r"\.\w+\.[0-9a-f]+\.tmp\.(sqlite|json)(-\w+)?", path.name) is not None
