"""What goes wrong is told to people in one line that names the field and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

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
