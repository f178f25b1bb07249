"""How long `import dqn_jax` took; the package's first and last lines set the two moments.

Imported before all else, this is also where the program `dqn-jax` begins to hear Ctrl-C: imports take seconds.
"""

import time

from dqn_jax.interrupt import listen_if_program

listen_if_program()

_moments = {"begin": time.perf_counter(), "end": float("nan")}


def done() -> None:
    """Mark the end of the import."""
    _moments["end"] = time.perf_counter()


def import_seconds() -> float:
    """Seconds from the first to the last line of the package's import."""
    return _moments["end"] - _moments["begin"]
