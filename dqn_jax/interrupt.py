"""Ctrl-C and SIGTERM: answered at once with one line, and obeyed where nothing is lost.

In the program `dqn-jax` a thread of its own hears of signals, whatever the main thread is at: it imports, compiles, or
is inside a compiled program for a minute. Nothing is raised where that might be swallowed or break something halfway:
what is at work looks at `requested` where it can end, and where there is nothing to lose the process ends at once.
It may, for every file is written whole or not at all. As a library this installs nothing but within `Interrupt`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

EXIT_CODE = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_listening = False  # whether this process is the program, which hears all its life
_ended: int | None = None  # its exit code, once it has ended but for leaving
_at_work: list[Interrupt] = []  # the innermost last
_temporary: set[Path] = set()  # files to remove if it ends at once


class Interrupt:
    """Turns the first Ctrl-C or SIGTERM into a request to stop; the second stops at once.

    Attributes:
      requested: whether to stop.
      answer: gives the line that says what a stop waits for and what a second one loses, called when the first one
        comes, in another thread; None where there is nothing to wait for: then the first one stops at once.
      remedy: what to say, beside "stopped", if that happens: how to go on.
    """

    def __init__(self) -> None:
        self.requested = False
        self.answer: Callable[[], str] | None = None
        self.remedy = ""
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        _at_work.append(self)
        if not _listening and threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        _at_work.remove(self)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Stop here, where nothing has been begun, if somebody has asked to.

        Raises:
          KeyboardInterrupt: then.
        """
        if self.requested:
            raise KeyboardInterrupt

    def ask(self) -> bool:
        """Ask to stop, and say what that waits for; False if it is to stop at once."""
        answer, asked = self.answer, self.requested
        self.requested = True
        if asked or answer is None:
            return False
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            print(f"dqn-jax: {answer()}", file=sys.stderr, flush=True)
        return True

    def _handle(self, number: int, frame: Any) -> None:
        if not self.ask():
            raise KeyboardInterrupt


@contextlib.contextmanager
def removed_at_stop(path: Path) -> Iterator[None]:
    """`path` is a temporary file, which goes too if the process ends at once."""
    _temporary.add(path)
    try:
        yield
    finally:
        _temporary.discard(path)


def listen_if_program() -> None:
    """In the program, and in no other that imports this package, hear of signals from now on."""
    global _listening
    if _listening or not _is_program() or threading.current_thread() is not threading.main_thread():
        return
    _listening = True
    heard, hearing = os.pipe()
    os.set_blocking(hearing, False)
    signal.set_wakeup_fd(hearing, warn_on_full_buffer=False)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and shells do for what runs behind
            signal.signal(number, lambda *_: None)
    threading.Thread(target=_listen, args=(heard,), name="signals", daemon=True).start()


def ended(code: int) -> int:
    """The program has done all it does, and leaves with `code`, whatever comes now."""
    global _ended
    if _listening:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        _ended = code
    return code


def _is_program() -> bool:
    given = getattr(sys, "argv", None) or [""]
    if given[0] == "-m":  # while a package is found that python -m is to run
        return any(a == "-m" and b in ("dqn_jax", "dqn_jax.cli.main") for a, b in zip(sys.orig_argv, sys.orig_argv[1:]))  # noqa: B905
    return Path(given[0]).name in ("dqn-jax", "dqn-jax.exe")


def _listen(heard: int) -> None:
    while True:
        for number in os.read(heard, 1):
            if number in _SIGNALS:
                _hear()


def _hear() -> None:
    if _ended is not None:
        os._exit(_ended)
    work = next(reversed(list(_at_work)), None)
    if work is None or not work.ask():
        _stop_now("" if work is None else work.remedy)


def _stop_now(remedy: str) -> None:
    """End the process. No exception does: within compiled code and imports it comes late, or is swallowed."""
    for path in list(_temporary):
        with contextlib.suppress(OSError):
            path.unlink()
    line = f"dqn-jax: stopped{'; ' if remedy else ''}{remedy}\n"
    with contextlib.suppress(OSError):
        if os.isatty(2):
            line = "\x1b[?25h\n" + line  # a live display hides the cursor
        os.write(2, line.encode(errors="replace"))
    os._exit(EXIT_CODE)
