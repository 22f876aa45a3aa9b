"""Where text is printed: no state of the terminal, and no reader that goes away, ends what is being computed.

`console` makes Rich's console for results and for progress. It writes to an `Output`, which remembers what went wrong
with a stream instead of raising it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import unicodedata
from collections.abc import Generator, Iterable
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from jaxtrader.printable import printable

PLAIN_WIDTH = 100  # columns where the output is no terminal


class Output:
    """A text stream that never raises while it is written to.

    Characters that the encoding of the stream lacks are replaced. Once the stream cannot be written (its reader is
    gone, the disk is full, it is closed), what follows is dropped.

    Attributes:
        failure: what went wrong with the stream. None where nothing did.
    """

    def __init__(self, stream: TextIO | None):
        """Wrap a stream. None stands for a closed one, as `sys.stdout` may be."""
        self.stream = stream
        self.failure: OSError | ValueError | None = None

    @property
    def encoding(self) -> str:
        """The encoding of the stream."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write a text, or drop it. Return its length."""
        with self._remembering():
            if self.stream is not None:
                try:
                    self.stream.write(text)
                except UnicodeEncodeError:
                    self.stream.write(plain(text, self.encoding))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with self._remembering():
            if self.stream is not None:
                self.stream.flush()

    @contextlib.contextmanager
    def _remembering(self) -> Generator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self.failure, self.stream = error, None

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        try:
            return self.stream is not None and self.stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        """Return the stream's file descriptor. Raises OSError where it has none."""
        if self.stream is None:
            raise io.UnsupportedOperation("fileno")
        return self.stream.fileno()

    def __getattr__(self, name: str) -> Any:
        """Return what else a library asks of the stream, such as `buffer`."""
        return getattr(self.stream, name)


def plain(text: str, encoding: str) -> str:
    """Return a text in characters that an encoding has: similar ones where it lacks some, else question marks."""

    def similar(character: str) -> str:
        try:
            character.encode(encoding)
        except UnicodeEncodeError:
            character = {"─": "-", "━": "-"}.get(character) or unicodedata.normalize("NFKD", character)
        return character.encode(encoding, "replace").decode(encoding)

    return "".join(map(similar, text))


@contextlib.contextmanager
def unbreakable_output() -> Generator[tuple[Output, Output]]:
    """Replace standard output and error by an `Output` each, and yield both.

    Where one of them failed, its file descriptor leads nowhere afterwards. Python flushes the streams once more when it
    ends, and would fail there.
    """
    streams = sys.stdout, sys.stderr
    out, messages = Output(streams[0]), Output(streams[1])
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, messages)
    try:
        yield out, messages
    finally:
        sys.stdout, sys.stderr = streams
        for output, stream in zip((out, messages), streams, strict=True):
            output.flush()
            if output.failure is not None and stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, stream.fileno())
                    os.close(nowhere)


def console(file: TextIO | None = None, width: int | None = None, **settings: Any) -> Console:
    """Return a console without control codes where the file is no terminal.

    Args:
        file: standard output by default.
        width: the width in columns. None takes COLUMNS where it is a number above 0, else the terminal's, else
            PLAIN_WIDTH.
        settings: further arguments of Rich's Console.
    """
    out = Output(file if file is not None else sys.stdout)
    terminal = out.isatty()
    if width is None and not _is_positive(os.environ.get("COLUMNS", "")):
        width = PLAIN_WIDTH if not terminal else None
    # Rich takes COLUMNS=0 for a terminal without room, and prints nothing.
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS" or _is_positive(value)}
    # Rich takes FORCE_COLOR for a terminal, also where the output goes to a file.
    force = None if terminal else False
    return _Printable(file=cast(TextIO, out), width=width, force_terminal=force, _environ=environment, **settings)


class _Printable(Console):
    """A console whose texts do nothing to the terminal. Rich takes a few control characters out, and not all."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is printed. Only what Rich itself does to the terminal is a control segment."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable() or segment.text == "\n":
                yield segment
            else:
                lines = map(printable, segment.text.split("\n"))
                yield Segment("\n".join(lines), segment.style)


def _is_positive(text: str) -> bool:
    return text.isdigit() and int(text) > 0
