"""Passwords in the URLs of databases, kept out of everything that is written or shown."""

from __future__ import annotations

import re
from urllib.parse import unquote

HIDDEN = "***"

# As SQLAlchemy reads a URL, a password goes on to the first @, whatever is in it; here to the last one, for people
# forget to write an @ in a password as %40.
_USER = re.compile(r"([A-Za-z][\w+.\-]*://[^:/?#@\s]*):(?:[^@]*@)(?:[^\s?]*@)?")
_PAIR = re.compile(r"(?<![\w%.\-])([\w%.\-]+)=([^&#]*)")
_SECRET = re.compile(r"passw|pwd|passphrase|secret|token|credential", re.IGNORECASE)


def redact(argument: str) -> str:
    """An argument of the command line with `***` for each password of the URLs in it, however it is spelled there.

    Too much may be hidden (up to the end of the argument), never too little.
    """
    return _PAIR.sub(_hide, _USER.sub(rf"\1:{HIDDEN}@", argument))


def names_secret(text: str) -> bool:
    """Whether a parameter's name (or what it sets, as libpq's `options` do) says that there is a secret in it."""
    return _SECRET.search(unquote(unquote(text))) is not None


def _hide(pair: re.Match[str]) -> str:
    name, value = pair.groups()
    if names_secret(name) and not name.startswith("--"):
        return f"{name}={HIDDEN}"
    # `--store=postgresql://...?password=x` and `options=-c my.password=x` have pairs of their own.
    return f"{name}={_PAIR.sub(_hide, value) if '=' in value else HIDDEN if names_secret(value) else value}"
