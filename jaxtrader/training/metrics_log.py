"""The metrics file of a training run: one JSON object a line, one line a record."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from jaxtrader.files import FileError


class JsonlLogger:
    """Appends records to a file, one JSON object a line.

    Each record reaches the operating system before `write` returns. NaN and infinities become null, since JSON has
    neither. Use the logger as a context manager, or call `close`.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            incomplete = _ends_inside_a_line(self.path)
            self._file = open(self.path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed in `close`
        except OSError as error:
            raise FileError(
                f"cannot write metrics to {str(path)!r}: {error.strerror or error}; choose another place"
            ) from error
        if incomplete:  # after a crash. Appended to half a line, the first new record would be unreadable too.
            self._file.write("\n")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record.

        Args:
            record: its values are numbers (Python, NumPy or JAX), strings, None, or lists, dicts and arrays of them.

        Raises:
            ValueError: a value has another type, or the logger is closed.
        """
        if self._file.closed:
            raise ValueError(f"the log {str(self.path)!r} is closed; write before close()")
        plain = {key: _plain(value, key) for key, value in record.items()}
        self._file.write(json.dumps(plain, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        self._file.close()

    def __enter__(self) -> JsonlLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ends_inside_a_line(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


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
    if hasattr(value, "__array__") and hasattr(value, "dtype"):
        array = np.asarray(value)
        # NumPy gives bfloat16 the kind V. Complex numbers and objects have no place in a log.
        if array.dtype.kind not in "biu":
            array = array.astype(np.float64) if array.dtype.kind in "fV" and array.dtype.names is None else None
        if array is not None:
            return _plain(array.tolist(), name)
    raise ValueError(f"{name} is a {type(value).__name__}, which a log line does not hold; pass a number or a string")
