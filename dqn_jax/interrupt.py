"""Ctrl-C and SIGTERM as requests: long work stops between chunks, with everything saved."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupt:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the chunk; the second stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
