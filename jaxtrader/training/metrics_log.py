"""The metrics file of a training run: one JSON object a line, one line a record."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxtrader.files import FileError
from jaxtrader.run_files import SCORE

COUNTS = ("updates", "steps", "episodes")  # each record has these


class JsonlLogger:
    """Appends records to a file, one JSON object a line.

    Each record reaches the operating system before `write` returns. NaN and infinities become null, since JSON has
    neither. The logger is a context manager, which closes the file.

    Attributes:
        path: the file.
        size: the length of the file in bytes.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        try:
            check_log(self.path)
            # Without a buffer, so that a line that cannot be written is not written later.
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed in `__exit__`
            content = self.path.read_bytes()
        except OSError as error:
            raise self._error(error, "choose another place") from error
        self._sum, self.size = hashlib.sha256(content), len(content)
        if content and not content.endswith(b"\n"):  # a crash cut the last line, and must not spoil the next one
            self._append(b"\n")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record of Python numbers. Raises FileError where it cannot be written."""
        finite = {key: value if value is not None and math.isfinite(value) else None for key, value in record.items()}
        self._append((json.dumps(finite) + "\n").encode())

    def cut(self, size: int) -> list[dict[str, Any]]:
        """Cut the file to its first `size` bytes, and return their records, with NaN for null.

        Raises FileError where the file cannot be cut, or these bytes are no records. It is then left as it was.
        """
        try:
            content = self.path.read_bytes()[:size]
            parsed = records_of(self.path, content)
            self._file.truncate(size)
        except OSError as error:
            raise self._error(error, "choose another place") from error
        self._sum, self.size = hashlib.sha256(content), len(content)
        return parsed

    def sync(self) -> None:
        """Return when all records are on the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._error(error, "make room there") from error

    def digest(self) -> str:
        """Return the SHA-256 sum of the file's content, in hexadecimal digits."""
        return self._sum.hexdigest()

    def _append(self, line: bytes) -> None:
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._error(error, "make room there") from error
        self._sum.update(line)
        self.size += len(line)

    def _error(self, error: OSError, way_out: str) -> FileError:
        return FileError(f"cannot write metrics to {str(self.path)!r}: {error.strerror or error}; {way_out}")

    def __enter__(self) -> JsonlLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def check_log(path: Path) -> None:
    """Raise FileError where there is something else than a regular file. A pipe has no end, and waits for a writer."""
    if path.exists() and not path.is_file():
        raise FileError(
            f"{str(path)!r} is no log of a run, but a folder, a pipe or a device; move it away, or choose another place"
        )


def begins_with(path: Path, size: int, digest: str) -> bool:
    """Whether the first `size` bytes of a log have this SHA-256 sum.

    Raises FileError where they have it, and are no records.
    """
    try:
        # A size from a damaged checkpoint may be more than fits the memory.
        if not path.is_file() or path.stat().st_size < size:
            return False
        with open(path, "rb") as file:
            content = file.read(size)
    except OSError:
        return False
    if hashlib.sha256(content).hexdigest() != digest:
        return False
    records_of(path, content)
    return True


def records_of(path: Path, content: bytes) -> list[dict[str, Any]]:
    """Return the records of a part of a run's log, with NaN for null.

    Args:
        path: The path of the log, for the message.
        content: Whole lines of the log.

    Raises:
        FileError: a line is no JSON object, has no counts, or has a score that is no number.
    """
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # also no UTF-8, and integers of thousands of digits
            record = None
        if not isinstance(record, dict) or not (
            all(type(record.get(name)) is int for name in COUNTS)
            and isinstance(record.get(SCORE), int | float | None)  # NaN is null
        ):
            raise FileError(f"{path} is damaged: line {number} is no record of a training; copy it again")
        found.append({key: math.nan if value is None else value for key, value in record.items()})
    return found


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a run's log. Raises FileError where it is damaged or cannot be read."""
    check_log(path)
    try:
        return records_of(path, path.read_bytes())
    except OSError as error:
        raise FileError(f"cannot read {str(path)!r}: {error.strerror or error}; check its permissions") from error
