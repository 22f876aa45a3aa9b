"""The `jaxtrader` command: it trains a policy, backtests it, looks at a data file, and checks it.

The commands are thin users of the public API. JAX and pandas are loaded only when one runs, so that help is instant.
Exit codes: 0 done, 1 failed (also where a check did), 2 bad input, 130 interrupted (and saved, where there was
something to save).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence

from jaxtrader.cli.flags import parse
from jaxtrader.cli.settings import BAD_INPUT, FAILED, INTERRUPTED, OK, BadInput, Failed

__all__ = ["BAD_INPUT", "FAILED", "INTERRUPTED", "OK", "main", "parse"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. `argv` is without the program's name."""
    try:
        asked = parse(sys.argv[1:] if argv is None else argv)
        if asked is None:
            return OK
        with _late_interrupt():
            from jaxtrader.cli import commands  # loads JAX and pandas
        return commands.run(*asked)
    except (BadInput, Failed) as error:
        print(f"jaxtrader: error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT if isinstance(error, BadInput) else FAILED
    except KeyboardInterrupt:
        print("jaxtrader: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `jaxtrader ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


@contextlib.contextmanager
def _late_interrupt() -> Generator[None]:
    """Keep a Ctrl-C until the block is done. A library that is just being loaded would swallow it, or crash."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt
