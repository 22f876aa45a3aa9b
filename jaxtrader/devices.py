"""Training on several devices: each device has its own market paths, and all have the same parameters.

The paths of different devices meet only in sums and means, such as those of gradients. `mean` and `total` take them
over all devices inside `run_on_all`, and return their argument elsewhere. So one learning step serves both cases.

The result does not depend on the number of devices, up to the order of sums. Random numbers are keyed by fixed shards
of the paths (`shard_keys`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, PRNGKeyArray, Shaped

from jaxtrader.setting_checks import setting

AXIS = "data"
REPLICATED, SHARDED = PartitionSpec(), PartitionSpec(AXIS)


def make_mesh(count: int) -> Mesh | None:
    """Return a mesh of the first `count` devices of the default backend, or None for one device.

    Raises:
        ValueError: JAX has fewer devices. Or there are several processes, and these are not all of their devices.
    """
    available, processes = jax.devices(), jax.process_count()
    if processes > 1 and count != len(available):
        raise ValueError(
            f"{setting('devices', count)} must be all {len(available)} of the {processes} processes, which train "
            "together; give that number"
        )
    if count > len(available):
        platform = available[0].platform
        way_out = f"give at most {len(available)}"
        if platform == "cpu":
            way_out += f", or `jax.config.update('jax_num_cpu_devices', {count})` before JAX is first used"
        raise ValueError(
            f"{setting('devices', count)} is more than JAX has here ({len(available)} of kind {platform}); {way_out}"
        )
    if count == 1:
        return None
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=available[:count])


def split_cpu(count: int) -> None:
    """Make JAX see `count` CPU devices. Once JAX has been used this does nothing, and `make_mesh` raises."""
    with suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count)


def run_on_all(function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """Return a function that every device of the mesh runs on its own part.

    JAX's check that replicated results are equal on all devices is off, and tests check it instead. With the check on,
    JAX sums each gradient over the devices once for every block of paths instead of once for every minibatch.

    Args:
        function: what each device runs.
        mesh: the devices.
        in_specs: which arguments are REPLICATED and which are SHARDED by their first axis.
        out_specs: the same for the results.
    """
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def place(tree: Any, mesh: Mesh | None, spec: PartitionSpec) -> Any:
    """Put arrays where a program on the mesh reads them. With several processes, each has the same arrays."""
    if mesh is None:
        return tree
    where = NamedSharding(mesh, spec)
    return jax.device_put(tree, where) if where.is_fully_addressable else jax.tree.map(partial(_spread, where), tree)


def _spread(where: NamedSharding, leaf: Any) -> Array:
    """Put an array of each process on the devices of all. `jax.device_put` takes no random keys there."""
    if isinstance(leaf, Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _spread(where, jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    content = np.asarray(leaf)
    return jax.make_array_from_callback(content.shape, where, lambda part: content[part])


def to_first(tree: Any, mesh: Mesh | None) -> Any:
    """Put replicated arrays on the process's first device alone, so that only that device computes with them."""
    if mesh is None:
        return tree
    if not NamedSharding(mesh, REPLICATED).is_fully_addressable:
        return jax.tree.map(lambda x: x.addressable_data(0), tree)
    return jax.device_put(tree, mesh.devices.flat[0])


def readable(tree: Any, mesh: Mesh | None) -> Any:
    """Return the arrays such that this process can read all of each. With several processes, all must call it."""
    if mesh is None or all(x.is_fully_addressable or x.is_fully_replicated for x in jax.tree.leaves(tree)):
        return tree
    return _replicate(tree, where=NamedSharding(mesh, REPLICATED))


@partial(jax.jit, static_argnames="where")
def _replicate(tree: Any, *, where: NamedSharding) -> Any:
    return jax.lax.with_sharding_constraint(tree, where)


def mean(tree: Any) -> Any:
    """Return the mean over all devices of each number."""
    return _reduce(jax.lax.pmean, tree) if _on_several() else tree


def total(tree: Any) -> Any:
    """Return the sum over all devices of each number."""
    return _reduce(jax.lax.psum, tree) if _on_several() else tree


def count() -> int:
    """Return the number of devices on which the traced program runs."""
    return jax.lax.axis_size(AXIS) if _on_several() else 1


def shard_keys(key: PRNGKeyArray, shards: int) -> Shaped[PRNGKeyArray, " shard"]:
    """Return a key for each of a device's shards of paths: different ones on each device.

    A shard is some consecutive paths. Its key depends on its place among all shards, and not on the devices. So draws
    by it are the same on any number of devices.

    Args:
        key: the same on all devices.
        shards: the number of shards on each device.
    """
    first = jax.lax.axis_index(AXIS) * shards if _on_several() else 0
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(shards))


def map_shards(function: Callable[..., Any], keys: Shaped[PRNGKeyArray, " shard"], *trees: Any) -> Any:
    """Return `function(key, *trees)` of all paths, where each shard of paths has its own key.

    Leaves of the trees and of the result begin with the axis of paths.
    """
    split = lambda x: x.reshape(len(keys), x.shape[0] // len(keys), *x.shape[1:])  # noqa: E731
    results = jax.vmap(function)(keys, *jax.tree.map(split, trees))
    return jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), results)


def all_equal(tree: Any) -> Bool[Array, ""]:
    """Return whether all devices hold the same numbers. It compares the sum of each array."""
    if not _on_several():
        return jnp.ones((), bool)
    sums = jnp.stack([jnp.asarray(leaf, jnp.float32).sum() for leaf in jax.tree.leaves(tree)])
    return (jax.lax.pmax(sums, AXIS) == jax.lax.pmin(sums, AXIS)).all()


def moments(x: Float[Array, "*b"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the mean and the variance of all numbers of all devices."""
    center = mean(x.mean())
    return center, mean(((x - center) ** 2).mean())


def _reduce(reduction: Callable[..., Array], tree: Any) -> Any:
    """Reduce all arrays of a dtype as one array.

    XLA:CPU takes a millisecond for one reduction of each of 20 arrays, and 50 us for one of all of them.
    """
    leaves, structure = jax.tree.flatten(tree)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    for dtype in dict.fromkeys(leaf.dtype for leaf in leaves):
        places = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
        flat = reduction(jnp.concatenate([leaves[i].ravel() for i in places]), AXIS)
        parts = jnp.split(flat, np.cumsum([leaves[i].size for i in places])[:-1])
        for i, part in zip(places, parts, strict=True):
            leaves[i] = part.reshape(leaves[i].shape)
    return structure.unflatten(leaves)


def _on_several() -> bool:
    return AXIS in jax.sharding.get_abstract_mesh().manual_axes
