"""The settings of JAX under which the package computes, whatever the caller has set for code of their own.

Networks learn and decide in float32, so that a policy is the same numbers in every session and a policy file has one
format. The money of a result is float64. NaN is a value of the ledger: a target of NaN holds the units. So the
debugging modes of JAX that stop at NaN or infinity are off inside the package. The Trainer looks for both by itself and
names what is not finite.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@contextlib.contextmanager
def package_settings(*, x64: bool = False) -> Generator[None]:
    """Compute with these settings inside the block, or inside the function that this decorates.

    Args:
        x64: whether float64 and int64 exist. Without it they become float32 and int32.
    """
    with (
        jax.enable_x64(x64),
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def on_cpu() -> contextlib.AbstractContextManager[Any]:
    """Compute on the CPU, where a chain of many small steps is faster than on any accelerator."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to leave the CPU out
        return contextlib.nullcontext()


def without_64_bits(tree: Any) -> Any:
    """Return a tree whose arrays of 64 bits have 32. JAX would refuse to mix those of a caller's x64 mode with ours."""

    def narrow(leaf: Any) -> Any:
        is_wide = isinstance(leaf, jax.Array | np.ndarray) and leaf.dtype in (np.float64, np.int64, np.uint64)
        return jnp.asarray(np.asarray(leaf)) if is_wide else leaf

    with package_settings():
        return jax.tree.map(narrow, tree)
