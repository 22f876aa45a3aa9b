"""Ctrl-C as a wish to stop, not as an exception in the middle of an update."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

HEARD = "stopping after this chunk and saving; Ctrl-C again leaves at once, without saving"


@contextmanager
def stop_on_interrupt(say: Callable[[str], None]) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second interrupts as usual. Outside the main thread: never set.

    `say` tells the user at once that the wish was heard: a chunk, or its compilation, may take some seconds more. It
    is called from a thread of its own, for a handler that prints may have interrupted a print.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    heard, over = threading.Event(), threading.Event()

    def tell() -> None:
        heard.wait()
        if not over.is_set():
            say(HEARD)

    def handle(signum: int, frame: FrameType | None) -> None:
        stop.set()
        heard.set()
        signal.signal(signal.SIGINT, before)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    before = signal.getsignal(signal.SIGINT)  # first: the handler may run before an assignment from signal() is done
    signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
        if not stop.is_set():
            over.set()
        heard.set()
        teller.join(timeout=5)
