"""The `jaxtrader` command: it trains a policy, backtests it, looks at a data file, and checks it.

The commands are thin users of the public API. JAX and pandas are loaded only when one runs, so that help is instant.
This module itself loads next to nothing, so that Ctrl-C is heard from the beginning.
Exit codes: 0 done, 1 failed (also where a check did), 2 bad input, 130 interrupted (and saved, where there was
something to save).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence

TYPE_CHECKING = False  # as in jaxtrader/__init__.py
if TYPE_CHECKING:
    from typing import Any

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. `argv` is without the program's name."""
    _open_missing_streams()
    try:
        with _ending_signals_interrupt():
            with _late_interrupt():
                from jaxtrader import terminal
                from jaxtrader.cli import settings
            with terminal.unbreakable_output() as (out, messages):
                try:
                    code = _run(sys.argv[1:] if argv is None else argv)
                except (settings.BadInput, settings.Failed) as error:
                    from jaxtrader.printable import printable

                    messages.write(f"jaxtrader: error: {printable(' '.join(str(error).split()))}\n")
                    code = settings.BAD_INPUT if isinstance(error, settings.BadInput) else settings.FAILED
                out.flush()
                # A reader that wants no more, as in `jaxtrader ... | head`, has what it wanted.
                if out.failure is not None and not isinstance(out.failure, BrokenPipeError):
                    reason = getattr(out.failure, "strerror", None) or out.failure
                    messages.write(
                        f"jaxtrader: error: standard output cannot be written: {reason}; what was saved is whole\n"
                    )
                    code = code or settings.FAILED
                return code
    except KeyboardInterrupt:
        with contextlib.suppress(OSError, ValueError):
            print("jaxtrader: interrupted", file=sys.stderr, flush=True)
        return 130  # INTERRUPTED, which may not be loaded yet


def _run(argv: Sequence[str]) -> int:
    with _late_interrupt():
        from jaxtrader.cli.flags import parse
    given = parse(argv)
    if given is None:
        return 0
    if not given.values.get("quiet"):
        from jaxtrader.cli import waiting

        waiting.say_reading(given.values.get("data") or given.values.get("file"))
    with _late_interrupt():
        from jaxtrader.cli import commands, wording  # loads JAX and pandas
    with wording.as_given(given.file):
        return commands.run(given.command, given.values)


def _open_missing_streams() -> None:
    """Open what the caller has closed of standard input, output and error, as in `>&-`.

    Otherwise the next file that is opened takes the number, and what a library prints lands in that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


@contextlib.contextmanager
def _ending_signals_interrupt() -> Generator[None]:
    """Let each of `interrupt.SIGNALS` raise KeyboardInterrupt, as Ctrl-C does.

    The first process of a container would otherwise ignore SIGTERM. What is ignored stays ignored, as under `nohup`.
    """
    from jaxtrader.training.interrupt import raise_interrupt

    with _handled_by(raise_interrupt, where=lambda handler: handler == signal.SIG_DFL):
        yield


@contextlib.contextmanager
def _late_interrupt() -> Generator[None]:
    """Keep an ending signal until the block is done. A library that is just being loaded would swallow it, or crash.

    A second one ends the process at once: nothing is written yet.
    """
    heard: list[int] = []

    def keep(number: int, _: Any) -> None:
        heard.append(number)
        if len(heard) > 1:
            os._exit(130)  # INTERRUPTED

    with _handled_by(keep, where=callable):
        yield
    if heard:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, Any], None], where: Callable[[Any], bool]) -> Generator[None]:
    """Handle each of `interrupt.SIGNALS` whose handler so far is one that `where` names.

    Threads other than the main one cannot.
    """
    from jaxtrader.training.interrupt import SIGNALS

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.getsignal(each) for each in SIGNALS if where(signal.getsignal(each))}
    for each in before:
        signal.signal(each, handler)
    try:
        yield
    finally:
        for each, earlier in before.items():
            signal.signal(each, earlier)
