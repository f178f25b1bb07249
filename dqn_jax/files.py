"""Files that are whole or not there: written to a temporary name beside them, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dqn_jax.config import ConfigError, RunError
from dqn_jax.interrupt import removed_at_stop

Json = dict[str, Any]
"""A JSON object: names to whatever JSON has."""

LOCK = "lock"  # the file that says who works in a folder
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp(\.[^.]*)?$")
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # Windows has none


@contextlib.contextmanager
def atomic(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and vanishes otherwise.

    Nobody can guess its name and have a link wait there; its permissions are those of any new file (umask).

    Args:
      path: what is written.
      durable: whether it must be on the disk, not only in the system's memory, before it takes its place.

    Raises:
      OSError: if it cannot be written.
    """
    temporary = _temporary(path)
    with removed_at_stop(temporary):
        try:
            yield temporary
            if durable:
                _sync(temporary)
            os.replace(temporary, path)
            if durable:
                with contextlib.suppress(OSError):  # not every file system can for a folder
                    _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def clear_errors(where: Path, remedy: str = "go on with --resume", field: str = "out") -> Iterator[None]:
    """Turn a failed write (a full disk, a folder gone) into one line; what was written before stays whole.

    Args:
      where: what could not be written to.
      remedy: what to do once the cause is mended.
      field: the setting that gave the place.
    """
    try:
        yield
    except OSError as error:
        mend = {errno.ENOSPC: "free space", errno.EDQUOT: "free space", errno.ENOENT: "create the folder again"}
        first = mend.get(error.errno or 0, "make it writable")
        raise RunError(f"{field}: cannot write to {where} ({_reason(error)}); {first}, then {remedy}.") from error


@contextlib.contextmanager
def lock(folder: Path, field: str) -> Iterator[None]:
    """Be the only process that works in `folder`; any kind of death ends it.

    Raises:
      ConfigError: if another process does; `field` is what that is called.
      OSError: if the folder cannot be written to.
    """
    path = folder / LOCK
    with contextlib.ExitStack() as held:
        while True:
            file = held.enter_context(path.open("a+"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise ConfigError(
                    f"{field}: {folder} is being run by process {file.read().strip()}; wait for it, or stop it."
                ) from None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break  # else whoever held it has just ended, and took the file away
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def unused(folder: Path) -> bool:
    """Whether a folder is empty, but for what a process of ours leaves that was killed before it began.

    Raises:
      OSError: if it cannot be read.
    """
    return all(path.name == LOCK or _TEMPORARY.search(path.name) for path in folder.iterdir())


def check_writable(path: Path, field: str) -> None:
    """Find out that the file `path` cannot be written before anything is worked out for it.

    Raises:
      ConfigError: one line that names `field`, the setting that gave the path.
    """
    if path.is_dir():
        raise ConfigError(f"{field}: {path} is a folder; give the name of a file.")
    if not path.parent.is_dir():
        raise ConfigError(f"{field}: there is no folder {path.parent}; create it, or choose another.")
    try:
        _temporary(path).unlink()
    except OSError as error:
        raise ConfigError(
            f"{field}: cannot write to {path.parent} ({_reason(error)}); choose another folder."
        ) from error


def check_folder_writable(folder: Path, field: str) -> None:
    """As `check_writable`, of a folder that is created where there is none.

    Raises:
      ConfigError: one line that names `field`, the setting that gave the path.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{field}: cannot create {folder} ({_reason(error)}); choose another folder.") from error
    check_writable(folder / "x", field)


def clear_unfinished(folder: Path) -> None:
    """Delete what a process that was killed in the middle of `atomic` has left in `folder`, which nobody writes to."""
    for path in folder.glob(".*.tmp*"):
        if _TEMPORARY.search(path.name):
            path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinities become null, as JSON has neither."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text())


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """JSON with a digest of all else in it, which `read_as` checks; whoever edits the file deletes its line."""
    value = plain({name: x for name, x in value.items() if name != "digest"})
    return {**value, "digest": _digest(value)}


def digest_of(path: Path) -> str:
    """The digest of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_as(path: Path, kind: Any, field: str, remedy: str, newest: int | None = None) -> Any:
    """Read JSON that is of the `kind` (a msgspec type): the JSON itself, without its digest.

    Args:
      path: the file; one that `sealed` made must still have its digest, one without a digest is taken as it is.
      kind: what must be in it: nothing of another type or beyond its bounds is let through.
      field: the setting that gave the path.
      remedy: what to do where it is damaged.
      newest: the last `format` that can be read, of files that have one.

    Raises:
      ConfigError: one line that says what is wrong where, and the remedy.
    """
    try:
        value = msgspec.json.decode(path.read_bytes())
        digest = None
        if isinstance(value, dict):
            digest, version = value.pop("digest", None), value.get("format")
            if newest is not None and isinstance(version, int) and version > newest:
                raise ConfigError(f"{field}: {path} was written by a newer dqn_jax (format {version}); update dqn_jax.")
        msgspec.convert(value, kind)
        if digest is not None and digest != _digest(value):
            raise ValueError("it is not what was written: its digest differs")
        return value
    except ConfigError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = _reason(error) if isinstance(error, OSError) else str(error) or type(error).__name__
        raise ConfigError(f"{field}: {path} is damaged or not ours ({reason}); {remedy}.") from error


def read_notes(path: Path, kind: Any, warn: Callable[[str], None]) -> dict[str, Any]:
    """Read JSON on which no number depends: empty without the file, or where it is damaged, which `warn` is told."""
    if not path.exists():
        return {}
    try:
        notes: dict[str, Any] = read_as(path, kind, "notes", "they are begun anew")
    except ConfigError as error:
        warn(str(error))
        return {}
    return notes


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def plain(value: Any) -> Any:
    """A value as JSON has it: tuples and arrays as lists, NaN and infinities as None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _temporary(path: Path) -> Path:
    """A new empty file in the folder of `path`, of its suffix, which tells writers the format."""
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(8)}.tmp{path.suffix}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _NO_LINKS, 0o666))
    return temporary


def _sync(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
