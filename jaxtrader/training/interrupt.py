"""Ctrl-C as a request to stop, instead of an exception in the middle of an update."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

STOPPING = "stopping after this chunk and saving; Ctrl-C again leaves at once, without saving"


@contextmanager
def stop_on_interrupt(notify: Callable[[str], None]) -> Generator[threading.Event]:
    """Yield an event that the first Ctrl-C sets. The second Ctrl-C raises KeyboardInterrupt as usual.

    Outside the main thread, where Python delivers no signals, the event is never set.

    Args:
        notify: tells the user at once that the training will stop, since a chunk or its compilation may take some
            seconds more. It is called from a thread of its own, because a signal handler may have interrupted a print.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    wake, finished = threading.Event(), threading.Event()

    def wait_and_notify() -> None:
        wake.wait()
        if not finished.is_set():
            notify(STOPPING)

    def handle(signum: int, frame: FrameType | None) -> None:
        stop.set()
        wake.set()
        signal.signal(signal.SIGINT, previous)

    notifier = threading.Thread(target=wait_and_notify, daemon=True)
    notifier.start()
    # Read before it is replaced: the new handler may run before signal.signal() has returned the old one.
    previous = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
        if not stop.is_set():
            finished.set()
        wake.set()
        notifier.join(timeout=5)
