"""How long chunks take: what a stop waits for, and what still fits into the minutes that a run may take."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np


class Pace:
    """The clock of one run, which stands still while it does not run."""

    def __init__(self, max_minutes: float | None, earlier: Sequence[float] = (), unfinished: float = 0.0):
        """A run that goes on counts on: `earlier` are the seconds at which its chunks ended, and `unfinished` at which
        one was stopped within.
        """
        so_far = max(earlier[-1] if len(earlier) else 0.0, unfinished)
        self.budget = np.inf if max_minutes is None else 60 * max_minutes  # seconds
        self._began = time.perf_counter() - so_far
        self._chunk_began = self._saved = self._began + so_far
        self.chunk = earlier[-1] - earlier[-2] if len(earlier) > 1 else np.nan  # seconds that the last one took

    def seconds(self) -> float:
        """Of running so far."""
        return time.perf_counter() - self._began

    def left(self) -> float:
        """Seconds of the budget."""
        return self.budget - self.seconds()

    def begin(self) -> None:
        """A chunk begins."""
        self._chunk_began = time.perf_counter()

    def end(self) -> None:
        """It has ended."""
        self.chunk = time.perf_counter() - self._chunk_began

    def saved(self) -> None:
        """All so far is on disk."""
        self._saved = time.perf_counter()

    def over(self) -> bool:
        """Whether the time is over, or will be before another chunk like the last one has ended."""
        return self.left() <= 0 or np.nan_to_num(self.chunk) > self.left()

    def answer_within(self) -> str:
        """To somebody who asks to stop where a chunk can be stopped within."""
        lost = time.perf_counter() - self._saved
        return f"stopping here, once all is saved; Ctrl-C again stops now and loses the last {lost:.0f} s"

    def answer(self) -> str:
        """To somebody who asks to stop within a chunk."""
        now = time.perf_counter()
        left = self.chunk - (now - self._chunk_began)
        about = "" if np.isnan(left) else f" (about {max(left, 1):.0f} s)"
        return f"stopping after this chunk{about}; Ctrl-C again stops now and loses the last {now - self._saved:.0f} s"
