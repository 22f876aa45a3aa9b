"""Signals as a request to stop, instead of an exception in the middle of an update or the end of the process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

STOPPING = "stopping after this chunk and saving; Ctrl-C again leaves at once, without saving"
# Ctrl-C, the ends of containers and jobs, a closed terminal, and the warning that SLURM sends with --signal=USR1.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGBREAK") if hasattr(signal, name)
)
PATIENCE = 2.0  # seconds after a second signal, before the process ends from outside the main thread

_ends_process = False
_outer: _Outer | None = None


@dataclass
class _Outer:
    """The block of `stop_on_signals` that hears the signals, for the blocks inside it.

    Attributes:
        stop: the event that the first signal sets.
        told: `notify` and `leave` of each block, the innermost last.
    """

    stop: threading.Event
    told: list[tuple[Callable[[str], None], Callable[[], None]]]


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


def _set_blocking(handle: int, blocking: bool) -> None:
    """Let a signal that finds the pipe full not wait. Older Pythons cannot on Windows, and do not ask for it there."""
    if hasattr(os, "set_blocking"):
        os.set_blocking(handle, blocking)


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
    global _outer
    if threading.current_thread() is not threading.main_thread():
        yield threading.Event()
        return
    if _outer is not None:
        _outer.told.append((notify, leave))
        try:
            yield _outer.stop
        finally:
            _outer.told.pop()
        return
    stop = threading.Event()
    told = [(notify, leave)]
    # Python runs a handler only when the main thread returns from a compilation or a chunk. Before that it writes the
    # signal's number to this pipe.
    reader, writer = os.pipe()
    _set_blocking(writer, False)
    left = threading.Event()
    heard: list[int] = []

    def listen() -> None:
        while (number := os.read(reader, 1)) not in (b"", b"\0"):
            if number[0] not in replaced:
                continue
            heard.append(number[0])
            if len(heard) == 1:
                stop.set()
                told[-1][0](STOPPING)
            elif _ends_process and not left.wait(PATIENCE):
                with contextlib.suppress(Exception):
                    told[-1][1]()
                os._exit(128 + signal.SIGINT)

    called: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        called.append(signum)
        stop.set()
        # Two signals of a kind may have come before this first call.
        if len(called) > 1 or len(heard) > 1:
            left.set()
            raise KeyboardInterrupt

    replaced: dict[int, Any] = {}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        for each in SIGNALS:
            # Read before it is replaced: the new handler may run before signal.signal() has returned the old one.
            before = signal.getsignal(each)
            ours = before in (signal.SIG_DFL, raise_interrupt) or (each == signal.SIGINT and callable(before))
            if ours:
                replaced[each] = before
                signal.signal(each, handle)
        _outer = _Outer(stop, told)
        yield stop
    finally:
        _outer = None
        left.set()
        for each, before in replaced.items():
            signal.signal(each, before)
        signal.set_wakeup_fd(wakeup)
        _set_blocking(writer, True)
        os.write(writer, b"\0")
        listener.join(timeout=5)
        os.close(writer)
        if not listener.is_alive():
            os.close(reader)
