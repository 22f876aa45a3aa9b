"""The metrics file of a training run: one JSON object a line, one line a record."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxtrader.files import FileError

COUNTS = ("updates", "steps", "episodes")  # in each record of a run
SCORE = "valid_reward_per_bar"  # in those with a validation


@runtime_checkable
class _Array(Protocol):
    """An array or a scalar of NumPy, JAX or another library."""

    dtype: Any
    __array__: Any


class JsonlLogger:
    """Appends records to a file, one JSON object a line.

    Each record reaches the operating system before `write` returns. NaN and infinities become null, since JSON has
    neither. Use the logger as a context manager, or call `close`.

    Attributes:
        path: the file.
        size: its length in bytes.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            check_log(self.path)
            # Without a buffer, so that a line that cannot be written is not written later.
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed in `close`
            content = self.path.read_bytes()
        except OSError as error:
            raise self._error(error, "choose another place") from error
        self._sum, self.size = hashlib.sha256(content), len(content)
        if content and not content.endswith(b"\n"):  # after a crash, which must not spoil the next line too
            self._append(b"\n")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record.

        Args:
            record: its values are numbers (Python, NumPy or JAX), strings, None, or lists, dicts and arrays of them.

        Raises:
            ValueError: a value has another type, or the logger is closed.
            FileError: the file cannot be written.
        """
        if self._file.closed:
            raise ValueError(f"the log {str(self.path)!r} is closed; write before close()")
        plain = {key: _plain(value, key) for key, value in record.items()}
        self._append((json.dumps(plain, allow_nan=False) + "\n").encode())

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

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        self._file.close()

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
        self.close()


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
        path: of the log, for the message.
        content: whole lines of it.

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


def _plain(value: Any, name: str) -> Any:
    """Return `value` in the types that JSON knows."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(child, f"{name}.{key}") for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child, f"{name}[{i}]") for i, child in enumerate(value)]
    if isinstance(value, _Array):
        array = np.asarray(value)
        # NumPy gives bfloat16 the kind V. Complex numbers and objects have no place in a log.
        if array.dtype.kind not in "biu":
            array = array.astype(np.float64) if array.dtype.kind in "fV" and array.dtype.names is None else None
        if array is not None:
            return _plain(array.tolist(), name)
    raise ValueError(f"{name} is a {type(value).__name__}, which a log line does not hold; pass a number or a string")
