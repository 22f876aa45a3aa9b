"""Training in several processes, such as one on each of several hosts: all train together, and process 0 writes.

Each process runs the same program on its own devices (https://docs.jax.dev/en/latest/multi_process.html). All must
dispatch the same programs in the same order, or they wait for each other for ever. So what one process alone knows,
such as a signal or the time, decides nothing before all have agreed on it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from jaxtrader import devices

scratch: set[str] = set()  # folders of this process, for whoever ends it without Python's own end


class UnlikeError(ValueError):
    """Processes that would train together have different settings or data."""


@contextmanager
def scratch_folder() -> Generator[Path]:
    """Yield a folder for a process that is not the first. It is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="jaxtrader-") as name:
        scratch.add(name)
        yield Path(name)
        scratch.remove(name)


def count() -> int:
    """Return the number of processes."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this is process 0, which logs and writes."""
    return jax.process_index() == 0


def meet() -> None:
    """Connect the devices of all processes, while these are at the same place.

    XLA connects devices when they first exchange numbers, and on a CPU waits no longer than 30 seconds for all of them.
    One process may load its data, or compile, for longer than another.
    """
    ask(lambda: {"is here": True}, devices.make_mesh(jax.device_count()))()
    multihost_utils.broadcast_one_to_all(np.zeros(1, np.int32))


def share(contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the contents that process 0 gives, by their names. All processes must call it."""
    head = json.dumps({name: len(content) for name, content in contents.items()}).encode()
    sent = head + b"\n" + b"".join(contents.values())
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(sent))))
    data = np.frombuffer(sent, np.uint8) if is_first() else np.zeros(size, np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(data)).tobytes()
    head, _, rest = received.partition(b"\n")
    found, start = {}, 0
    for name, length in json.loads(head).items():
        found[name] = rest[start : start + length]
        start += length
    return found


def gather(content: bytes) -> list[bytes]:
    """Return what each process gives, in their order. All processes must call it."""
    sizes = np.ravel(multihost_utils.process_allgather(np.asarray([len(content)], np.int32)))
    mine = np.zeros(int(sizes.max()), np.uint8)
    mine[: len(content)] = np.frombuffer(content, np.uint8)
    rows = np.reshape(multihost_utils.process_allgather(mine), (len(sizes), -1))
    return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]


def ask(wishes: Callable[[], dict[str, bool]], mesh: Mesh | None) -> Callable[[], dict[str, bool]]:
    """Ask all processes for their wishes, and return a function that waits for each wish that one of them has.

    What was enqueued on the devices before is waited for by the function. It is the same for all processes. A process
    alone has the wishes of the moment in which it is called.
    """
    if count() == 1:
        return wishes
    assert mesh is not None
    names, mine = zip(*wishes().items(), strict=True)
    by_process, replicated = (NamedSharding(mesh, spec) for spec in (devices.SHARDED, devices.REPLICATED))
    of_all = jax.make_array_from_callback((mesh.size, len(names)), by_process, lambda _: np.asarray([mine], np.int32))
    any_of_all = _any(of_all, sharding=replicated)
    return cache(lambda: {name: bool(wish) for name, wish in zip(names, any_of_all, strict=True)})


@partial(jax.jit, static_argnames="sharding")
def _any(wishes: Array, *, sharding: Any) -> tuple[Array, ...]:
    return tuple(jax.lax.with_sharding_constraint(wishes.max(0), sharding))
