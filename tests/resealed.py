"""Files that were damaged on their way, and trees with one field changed by somebody who can write the checksum."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtrader import files

ODD: list[Any] = [
    *(None, True, 0, -1, 1, 2.5, float("nan"), float("inf"), 2**62, "", "x", "mlp", "x" * 20_000),
    *([], [None], ["x"], (0.5,), [[]], {}, {"x": 1}, np.float32([1, 2]), np.zeros((0, 3), np.float32), np.array(True)),
    jax.random.key(0),
]


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of each part of a tree."""
    if at:
        yield at
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list | tuple) else ():
        yield from places(tree[key], (*at, key))


def resealed(tree: Any, at: tuple[Any, ...], change: Callable[[Any, Any], Any]) -> Any:
    """The same tree with one part changed. `change` gets its container and key."""
    if len(at) == 1:
        new = dict(tree) if isinstance(tree, dict) else list(tree)
        change(new, at[0])
        return new
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
    new = {key: resealed(part, at[1:], change) if key == at[0] else part for key, part in parts}
    return new if isinstance(tree, dict) else list(new.values())


def changes(tree: Any, count: int) -> Iterator[Any]:
    """Trees with one field changed, or lost, or added."""
    rng = np.random.default_rng(0)
    every = list(places(tree))
    for _ in range(count):
        odd, at = ODD[rng.integers(len(ODD))], every[rng.integers(len(every))]

        def add(parts: Any, key: Any, odd: Any = odd) -> None:
            parts[key] = {**parts[key], "further": odd} if isinstance(parts[key], dict) else odd

        kinds: list[Any] = [
            lambda parts, key, odd=odd: operator.setitem(parts, key, odd),
            operator.delitem,
            add,
        ]
        yield resealed(tree, at, kinds[rng.choice(3, p=[0.8, 0.1, 0.1])])


def refusals(path: Path, kind: str, tree: Any, count: int, use: Callable[[Path], object]) -> list[str]:
    """What a reader says of trees with one field changed, of those that it does not use."""
    messages = []
    for content in changes(tree, count):
        files.save(path, kind, content)
        try:
            use(path)
        except files.FileError as error:
            messages.append(str(error).removeprefix(str(path)))
    return messages


def damaged(data: bytes) -> Iterator[bytes]:
    """A file with a bit of each region flipped, cut at many lengths, and followed by another byte."""
    header, end = range(64), range(len(data) - 32, len(data))
    for i in sorted({*header, *range(64, len(data), max(1, len(data) // 100)), *end}):
        yield data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :]
    for length in sorted({*header, *range(64, len(data), max(1, len(data) // 100)), len(data) - 1}):
        yield data[:length]
    yield data + b"\n"
