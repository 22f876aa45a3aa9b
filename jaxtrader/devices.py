"""Training on several devices: each has whole lanes of its own, and all have the same parameters.

Lanes never meet but in sums: of gradients, of what advantages and targets are scaled by, of the log. `mean` and `total`
take those over all devices where a program runs on several (`on_all`), and are nothing on one; so what learns is
written once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, PRNGKeyArray

AXIS = "data"
SHARED, SPLIT = PartitionSpec(), PartitionSpec(AXIS)


def mesh(count: int) -> Mesh | None:
    """The first `count` devices of the default backend; None for one, which needs no mesh.

    Raises ValueError where there are fewer.
    """
    there = jax.devices()
    if count > len(there):
        kind = there[0].platform
        way_out = f"give at most {len(there)}"
        if kind == "cpu":
            way_out = f"jax.config.update('jax_num_cpu_devices', {count}) splits a CPU, before JAX is first used"
        raise ValueError(f"devices {count} is more than JAX has here ({len(there)} of kind {kind}); {way_out}")
    if count == 1:
        return None
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=there[:count])


def split_cpu(count: int) -> None:
    """Make so many devices of the CPU, where JAX has not been used yet; else it stays as it is, and `mesh` says so."""
    with suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count)


def on_all(function: Callable[..., Any], mesh: Mesh, given: Any, results: Any) -> Callable[..., Any]:
    """The function run by every device at once on its part; `given` and `results` say what is SPLIT by its first axis.

    Whether results said to be SHARED are the same everywhere is not checked by JAX here (tests do): its check turns
    each gradient by shared weights into a sum over devices, one for each block of lanes instead of one a minibatch.
    """
    return jax.shard_map(function, mesh=mesh, in_specs=given, out_specs=results, check_vma=False)


def placed(tree: Any, mesh: Mesh | None, spec: PartitionSpec) -> Any:
    """The same arrays where a program on those devices wants them."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, spec))


def on_first(tree: Any, mesh: Mesh | None) -> Any:
    """Arrays that are the same on all devices, on the first alone: what is not split would be done by each."""
    return tree if mesh is None else jax.device_put(tree, mesh.devices.flat[0])


def mean(tree: Any) -> Any:
    """The mean over devices of each number."""
    return _together(jax.lax.pmean, tree) if _several() else tree


def total(tree: Any) -> Any:
    """The sum over devices of each number."""
    return _together(jax.lax.psum, tree) if _several() else tree


def count() -> int:
    """Devices that the program which is being traced runs on."""
    return jax.lax.axis_size(AXIS) if _several() else 1


def own(key: PRNGKeyArray) -> PRNGKeyArray:
    """A key of each device's own; the same key where there is one device."""
    return jax.random.fold_in(key, jax.lax.axis_index(AXIS)) if _several() else key


def same(tree: Any) -> Bool[Array, ""]:
    """Whether numbers that should be the same on all devices are, as far as the sums of the arrays tell."""
    if not _several():
        return jnp.ones((), bool)
    sums = jnp.stack([jnp.asarray(leaf, jnp.float32).sum() for leaf in jax.tree.leaves(tree)])
    return (jax.lax.pmax(sums, AXIS) == jax.lax.pmin(sums, AXIS)).all()


def moments(x: Float[Array, "*b"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean and variance over all numbers of all devices."""
    centre = mean(x.mean())
    return centre, mean(((x - centre) ** 2).mean())


def _together(reduce: Callable[..., Array], tree: Any) -> Any:
    """A reduction of all arrays of a dtype as one: XLA:CPU takes a millisecond for one of 20 arrays, and 50 us so."""
    leaves, structure = jax.tree.flatten(tree)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    for dtype in dict.fromkeys(leaf.dtype for leaf in leaves):
        places = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
        flat = reduce(jnp.concatenate([leaves[i].ravel() for i in places]), AXIS)
        parts = jnp.split(flat, np.cumsum([leaves[i].size for i in places])[:-1])
        for i, part in zip(places, parts, strict=True):
            leaves[i] = part.reshape(leaves[i].shape)
    return structure.unflatten(leaves)


def _several() -> bool:
    return AXIS in jax.sharding.get_abstract_mesh().manual_axes
