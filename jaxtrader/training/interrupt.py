"""Signals as a request to stop, instead of an exception in the middle of an update or the end of the process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPING = "stopping after this chunk and saving; Ctrl-C again leaves at once, without saving"
# Ctrl-C, the ends of containers and jobs, a closed terminal, the warning that SLURM sends with --signal=USR1, and
# Ctrl-Break of Windows.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGBREAK") if hasattr(signal, name)
)
PATIENCE = 2.0  # seconds after a second signal, before the process ends from outside the main thread

_ends_process = False
_listener: _Listener | None = None  # of the outermost block


def raise_interrupt(signum: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt: a signal handler that treats each signal as Ctrl-C."""
    raise KeyboardInterrupt


@contextmanager
def ending_the_process() -> Generator[None]:
    """Let a second signal end the process even where the main thread is busy, such as with a compilation.

    A command wants that. In a notebook the process is the user's.
    """
    global _ends_process
    before, _ends_process = _ends_process, True
    try:
        yield
    finally:
        _ends_process = before


@contextmanager
def stop_on_signals(
    notify: Callable[[str], None], leave: Callable[[], None] = lambda: None
) -> Generator[threading.Event]:
    """Yield an event that the first of SIGNALS sets. The second raises KeyboardInterrupt.

    A signal that is ignored stays so: a training under `nohup` survives the end of its terminal. A handler of the
    user's own stays too, except for Ctrl-C. Outside the main thread, where Python delivers no signals, the event is
    never set.

    A block inside another one has the event of that one. So where several trainings follow each other, a signal that
    one of them hears too late, or that comes between two of them, stops the next one.

    Args:
        notify: tells the user at once that the training will stop, since a chunk or its compilation may take some
            seconds more. It is called from another thread.
        leave: restores the terminal before the process ends, see `ending_the_process`.
    """
    global _listener
    if threading.current_thread() is not threading.main_thread():
        yield threading.Event()
        return
    is_inner, listener = _listener is not None, _listener or _Listener()
    listener.callbacks.append((notify, leave))
    try:
        if not is_inner:
            listener.replace_handlers()
            _listener = listener
        yield listener.stop
    finally:
        if not is_inner:
            _listener = None
            listener.close()
        listener.callbacks.pop()


class _Listener:
    """Hears the signals for a block of `stop_on_signals` and those inside it.

    Python runs a handler only when the main thread returns from a compilation or a chunk. Before that it writes the
    signal's number to a pipe, which another thread reads.

    Attributes:
        stop: the event that the first signal sets.
        callbacks: `notify` and `leave` of each block, the innermost last.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.callbacks: list[tuple[Callable[[str], None], Callable[[], None]]] = []
        self._read, self._handled = 0, 0  # the signals that the thread read, and that the handler got
        self._is_leaving = threading.Event()
        self._replaced: dict[int, Any] = {}  # the earlier handlers, by signal
        self._reader, self._writer = os.pipe()
        _set_blocking(self._writer, False)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def replace_handlers(self) -> None:
        """Handle the signals from now on."""
        for each in SIGNALS:
            # Read before it is replaced: the new handler may run before signal.signal() has returned the old one.
            before = signal.getsignal(each)
            if before in (signal.SIG_DFL, raise_interrupt) or (each == signal.SIGINT and callable(before)):
                self._replaced[each] = before
                signal.signal(each, self._handle)

    def close(self) -> None:
        """Restore the earlier handlers."""
        self._is_leaving.set()
        for each, before in self._replaced.items():
            signal.signal(each, before)
        signal.set_wakeup_fd(self._wakeup)
        _set_blocking(self._writer, True)
        os.write(self._writer, b"\0")
        self._thread.join(timeout=5)
        os.close(self._writer)
        if not self._thread.is_alive():
            os.close(self._reader)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._handled += 1
        self.stop.set()
        # Two signals of a kind may have come before this first call.
        if self._handled > 1 or self._read > 1:
            self._is_leaving.set()
            raise KeyboardInterrupt

    def _listen(self) -> None:
        while (number := os.read(self._reader, 1)) not in (b"", b"\0"):
            if number[0] not in self._replaced:
                continue
            self._read += 1
            notify, leave = self.callbacks[-1]
            if self._read == 1:
                self.stop.set()
                notify(STOPPING)
            elif _ends_process and not self._is_leaving.wait(PATIENCE):
                with contextlib.suppress(Exception):
                    leave()
                os._exit(128 + signal.SIGINT)


def _set_blocking(handle: int, blocking: bool) -> None:
    """Set whether a write to a full pipe waits. Older Pythons have no such setting on Windows, and need none there."""
    if hasattr(os, "set_blocking"):
        os.set_blocking(handle, blocking)
