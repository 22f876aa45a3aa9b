"""What a decision sees: the window of market features that ends at its bar, and the features of its account."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from jaxtrader.market.market import MarketArrays

ACCOUNT_FEATURES = ("exposure", "last target", "unrealised return", "bars since the last fill")
BEST_PRICE = "return from the best price"  # the next account feature where there is a trailing stop
TRADABLE = "tradable"  # the last account feature of a portfolio whose assets are not all listed at every bar: 1 or 0
BOUND = float(np.finfo(np.float32).max) / 2  # stands for no limit in a space, since `sample` needs a finite width
BLOCK = 8192  # decisions that are encoded at once. It bounds the memory that their windows take.

Encode = Callable[[Float[Array, "*b bars A F"]], Array]


def account_names(best_price: bool, reward: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the account features. `reward` has the names of a reward's observed state."""
    return (*ACCOUNT_FEATURES, *((BEST_PRICE,) if best_price else ()), *reward)


class Observation(struct.PyTreeNode):
    """What a decision sees.

    `jnp.asarray` and `np.asarray` make one array of it, `[*b, W * A * F + A * K]`: the window and then the account, row
    by row. So gymnax's FlattenObservationWrapper takes it.

    Attributes:
        window: market features of the bars up to the decision.
        account: features of the account for each asset, in the order of `TradingEnv.account_names`.
    """

    window: Float[Array, "*b W A F"]
    account: Float[Array, "*b A K"]

    def __jax_array__(self) -> Float[Array, "*b flat"]:
        window, account = self.window, self.account
        window, account = window.reshape(*window.shape[:-3], -1), account.reshape(*account.shape[:-2], -1)
        return jnp.concatenate([window, account], -1)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.__jax_array__(), dtype)


def chunks(
    arrays: MarketArrays, cursor: Int[Array, " path"], window: int, decisions: int, every: int = 1
) -> Float[Array, "path *decisions bars A F"]:
    """Return the features that an encoder reads for decisions `every` bars apart, the first at the cursor of each path.

    Decisions at every bar share one chunk of window + decisions - 1 bars. Otherwise each decision has its own window.
    """
    if every > 1:
        return arrays.features[_rows(cursor, window, decisions, every)]
    bars = window + decisions - 1
    return jax.vmap(lambda c: jax.lax.dynamic_slice_in_dim(arrays.features, c - window + 1, bars))(cursor)


def contexts(
    encode: Encode, arrays: MarketArrays, cursor: Int[Array, " path"], window: int, decisions: int, every: int = 1
) -> Float[Array, "path decisions ..."]:
    """Encode the windows of decisions `every` bars apart, the first at the cursor of each path."""
    encoded = encode(chunks(arrays, cursor, window, decisions, every))
    return encoded if every == 1 else encoded[:, :, 0]


def contexts_in_blocks(
    encode: Encode,
    arrays: MarketArrays,
    cursor: Int[Array, " path"],
    last: Int[Array, " path"],
    window: int,
    decisions: int,
    every: int = 1,
) -> Float[Array, "decisions path ..."]:
    """Encode the windows of whole segments, BLOCK decisions at a time. Rows beyond `last` repeat the row `last`."""
    block = min(BLOCK, decisions)

    def encode_block(first: Array) -> Array:
        rows = _rows(cursor + first * every, window, block, every)
        encoded = encode(arrays.features[jnp.minimum(rows, last.reshape(-1, *(1,) * (rows.ndim - 1)))])
        return jnp.moveaxis(encoded if every == 1 else encoded[:, :, 0], 1, 0)

    blocks = jax.lax.map(encode_block, jnp.arange(0, decisions, block))
    return blocks.reshape(-1, *blocks.shape[2:])[:decisions]


def _rows(cursor: Int[Array, " path"], window: int, decisions: int, every: int) -> Int[Array, "path *decisions bars"]:
    """Return the rows of each chunk, see `chunks`."""
    if every == 1:
        return cursor[:, None] + jnp.arange(window + decisions - 1) - window + 1
    return cursor[:, None, None] + jnp.arange(decisions)[:, None] * every + jnp.arange(window) - window + 1
