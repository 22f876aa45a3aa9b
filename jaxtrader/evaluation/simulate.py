"""Target exposures in, a `Book` out: the ledger over one history, for signals of one's own and for backtests.

The targets are given beforehand, so nothing here decides; a policy's walk is in `backtest.py`. One sequential pass
carries the account, on the CPU; all else (the fills, their costs, the book) is computed for all bars at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from jaxtrader.envs import ledger
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.ledger import Account, Bar, Fill, Fills, Rebalance, Rules
from jaxtrader.evaluation.book import Book, Run
from jaxtrader.market.market import Market


def simulate(
    market: Market,
    targets: ArrayLike,
    *,
    costs: Costs = Costs(),  # noqa: B008  frozen
    fill: Fills = "next_open",
    dtype: Literal["float64", "float32"] = "float64",
    rebalance_band: float = 0.0,
    rebalance: Rebalance = "always",
    ruin_level: float = 0.01,
    start: int | None = None,
    symbol: str | None = None,
) -> Book:
    """What an account of 1.0 becomes that is asked for these exposures.

    Args:
        market: one history, or several and `symbol`.
        targets: signed exposure wanted at each close, `[N]` (one asset) or `[N, A]`, or one number for all. N counts
            the bars from the segment's first decision, bar 0 of the book, to its end. NaN holds the units.
        costs: what a fill costs. Not free by default.
        fill: where the decision of close[t] fills: `"next_open"`, `"next_close"`, or `"close"` (optimistic).
        dtype: of the account.
        rebalance_band: no trade smaller than this share of equity, except to go flat.
        rebalance: `"always"` re-applies the target at each bar, `"on_change"` trades only when it changes.
        ruin_level: equity at or below which everything is closed for good.
        start: another bar 0, as a row of the market's columns.
        symbol: which of several histories.

    Returns:
        The book (money rule 10): equity[t] is marked at close[t] after every fill up to it, and a target on the last
        bar never fills unless `fill="close"`.

    Raises:
        ValueError: several histories and no `symbol`, targets of another length or infinite, a setting out of range.
    """
    rules = Rules(fill=fill, rebalance_band=rebalance_band, rebalance=rebalance, ruin_level=ruin_level)
    costs.validate()
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype {dtype!r} is unknown; use float64 or float32")
    if not isinstance(market, Market):
        raise ValueError(
            f"simulate needs a Market, not a {type(market).__name__}; make one with Market.from_bars(bars)"
        )
    segment = _segment(market, symbol)
    rows = _rows(market, segment, start)
    close = np.asarray(market.close[rows], dtype)
    orders = _check_targets(targets, close.shape, dtype)
    with jax.enable_x64(dtype == "float64"), _on_cpu():
        run = _run(np.asarray(market.open[rows], dtype), close, orders, costs.cast(dtype), rules)
    name = market.symbols[segment]
    return Book.from_run(
        run,
        orders.astype(np.float64),
        symbols=tuple(name.split(",")) if close.shape[1] > 1 else (name,),
        times=np.asarray(market.times[rows]),
        periods_per_year=market.periods_per_year,
        costs=costs,
        rules=rules,
    )


def equity_paths(
    open_: Float[np.ndarray, "bar path"],
    close: Float[np.ndarray, "bar path"],
    targets: Float[np.ndarray, "bar path"],
    *,
    costs: Costs = Costs(),  # noqa: B008  frozen
    fill: Fills = "next_open",
    dtype: Literal["float64", "float32"] = "float64",
    rebalance_band: float = 0.0,
    rebalance: Rebalance = "always",
    ruin_level: float = 0.01,
) -> Float[np.ndarray, "bar path"]:
    """The equity of many accounts, each on a path of its own: `simulate` for all at once, without their books.

    Meant for many paths of one length: all take one pass, some five times as fast as a book each. NaN holds the units.

    Raises:
        ValueError: columns of different shapes, or a setting out of range.
    """
    rules = Rules(fill=fill, rebalance_band=rebalance_band, rebalance=rebalance, ruin_level=ruin_level)
    costs.validate()
    opens, closes, wanted = (np.asarray(column, dtype)[..., None] for column in (open_, close, targets))
    if not opens.shape == closes.shape == wanted.shape or opens.ndim != 3:
        shapes = ", ".join(str(column.shape[:-1]) for column in (opens, closes, wanted))
        raise ValueError(f"open, close and targets have shapes {shapes}; give each (bars, paths)")
    with jax.enable_x64(dtype == "float64"), _on_cpu():
        bars, orders = _late(opens, closes, wanted, rules)
        cash, units, _ = _walk(bars, orders, costs.cast(dtype), rules)
        return np.asarray(cash) + (np.asarray(units) * closes)[..., 0]


def _run(open_: np.ndarray, close: np.ndarray, targets: np.ndarray, costs: Costs, rules: Rules) -> Run:
    """The ledger over the rows of one history, in the dtype of the columns; every array comes back in float64."""
    rows = len(close)
    open_, close, targets = (_padded(column) for column in (open_, close, targets))
    bars, orders = _late(open_, close, targets, rules)
    cash, units, ruined = _walk(bars, orders, costs, rules)
    last = _last_known(orders) if rules.rebalance == "on_change" else jnp.zeros_like(orders)
    equity, fill, closing = _fills(cash, units, ruined, bars, orders, last, costs, rules)
    run = Run(equity, close, units, ruined, fill, closing)
    return jax.tree.map(lambda leaf: _to_host(leaf)[:rows], run)


def _late(open_: np.ndarray, close: np.ndarray, targets: np.ndarray, rules: Rules) -> tuple[Bar, Array]:
    """Row t carries the account from close[t-1] to close[t], with the target of the bar before; bar 0 has none."""
    before = np.concatenate([close[:1], close[:-1]])
    late = np.concatenate([np.full_like(targets[:1], np.nan), targets[:-1]])
    bars = Bar(jnp.asarray(before), jnp.asarray(open_), jnp.asarray(close))
    return bars, jnp.asarray(targets if rules.fill == "close" else late)


def _padded(column: np.ndarray) -> np.ndarray:
    """A column with its last row repeated up to a round number of rows (at most an eighth more).

    Histories of many lengths then share a few compilations. Nothing is cut off that matters: no row sees a later one.
    """
    step = max(64, 2 ** (len(column).bit_length() - 4))
    return np.pad(column, ((0, -len(column) % step), (0, 0)), mode="edge")


@partial(jax.jit, static_argnames="rules")
def _walk(bars: Bar, orders: Float[Array, "bar *path A"], costs: Costs, rules: Rules) -> tuple[Array, Array, Array]:
    """Cash `[bar, *path]`, units `[bar, *path, A]` and ruin `[bar, *path]` after each row, from flat.

    It keeps no more than that on purpose: XLA compiles a scan on the CPU to one machine loop only while its body moves
    less than 1 kB, and runs it 15 times slower above (10M against 0.6M bars/s with the fills among the outputs).
    """

    def move(account: Account, row: tuple[Array, Bar]) -> tuple[Account, tuple[Array, Array, Array]]:
        account, _, _ = _row(account, *row, costs, rules)
        return account, (account.cash, account.units, account.ruined)

    flat = ledger.open_account(jnp.zeros_like(orders[0]), bars.close[0])
    return jax.lax.scan(move, flat, (orders, bars))[1]


@partial(jax.jit, static_argnames="rules")
def _fills(
    cash: Float[Array, " bar"],
    units: Float[Array, "bar A"],
    ruined: Bool[Array, " bar"],
    bars: Bar,
    orders: Float[Array, "bar A"],
    last: Float[Array, "bar A"],
    costs: Costs,
    rules: Rules,
) -> tuple[Array, Fill, Fill]:
    """Equity at each close, the fills and what ruin closed, for all rows of a walk at once.

    Every row is stepped again from the account before it, for its flags and for the bar of ruin. The units traded are
    the difference that the walk made: a rounding on the edge of the band could decide otherwise here.
    """
    flat = ledger.open_account(jnp.zeros_like(orders), bars.close)
    before = dataclasses.replace(
        flat,
        cash=jnp.concatenate([flat.cash[:1], cash[:-1]]),
        units=jnp.concatenate([flat.units[:1], units[:-1]]),
        ruined=jnp.concatenate([flat.ruined[:1], ruined[:-1]]),
        target=last,
    )
    _, fill, closing = _row(before, orders, bars, costs, rules)
    traded = units - before.units - closing.units
    fee, slippage = ledger.charges(traded, fill.price, costs)
    equity = ledger.value(dataclasses.replace(before, cash=cash, units=units), bars.close)
    return equity, dataclasses.replace(fill, units=traded, fee=fee, slippage=slippage), closing


def _row(account: Account, order: Array, bar: Bar, costs: Costs, rules: Rules) -> tuple[Account, Fill, Fill]:
    """One row of a book: the ledger's step, its order from the bar before; at `fill="close"` mark, then trade there."""
    if rules.fill != "close":
        return ledger.step(account, order, bar, costs, rules)
    account, closing = ledger.mark(account, bar.close, costs, rules)
    account, fill = ledger.execute(account, order, bar.close, costs, rules)
    return account, fill, closing


def _last_known(orders: np.ndarray | Array) -> np.ndarray:
    """The target that stood before each row's: the last that was no NaN, 0 before the first."""
    orders = np.asarray(orders)
    rows = np.where(np.isnan(orders), -1, np.arange(len(orders))[:, None])
    rows = np.concatenate([np.full_like(rows[:1], -1), np.maximum.accumulate(rows, 0)[:-1]])
    return np.where(rows < 0, 0, np.take_along_axis(orders, np.maximum(rows, 0), 0))


def _segment(market: Market, symbol: str | None) -> int:
    """Which of the market's segments is meant."""
    names = market.symbols
    if symbol is None and len(names) == 1:
        return 0
    if symbol is None:
        raise ValueError(
            f"the market has {len(names)} histories ({', '.join(names)}) and simulate takes one; name it, "
            f"as in symbol={names[0]!r}"
        )
    if names.count(symbol) != 1:
        raise ValueError(f"the market has {names.count(symbol)} histories of {symbol!r}; it has {', '.join(names)}")
    return names.index(symbol)


def _rows(market: Market, segment: int, start: int | None) -> slice:
    """The rows from bar 0 of the book to the segment's end."""
    _, first, end = (int(row) for row in market.segments[segment])
    if start is None:
        start = first
    if not first <= start < end:
        raise ValueError(f"start {start} is outside the rows that may be traded, {first} to {end - 1}")
    return slice(start, end)


def _check_targets(targets: ArrayLike, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Targets as an array `[bar, A]` in the dtype of the account."""
    bars, assets = shape
    try:
        array = np.asarray(targets, np.float64)
    except (TypeError, ValueError):
        raise ValueError("targets must be numbers: the exposure wanted at each bar, NaN to hold") from None
    if array.ndim == 0:
        array = np.full(shape, array)
    if array.ndim == 1 and assets == 1:
        array = array[:, None]
    if array.shape != shape:
        wanted = f"({bars},)" if assets == 1 else f"({bars}, {assets})"
        raise ValueError(
            f"targets have shape {np.shape(targets)} and the segment has {bars} bars from its first decision; give "
            f"{wanted}, one row a bar, or one number for all"
        )
    infinite = np.isinf(array).any(-1)
    if infinite.any():
        row = int(np.argmax(infinite))
        raise ValueError(f"targets[{row}] is {array[row].tolist()}; a target is a finite exposure, or NaN to hold")
    limit = float(np.finfo(dtype).max)
    return np.clip(array, -limit, limit).astype(dtype)


def _on_cpu() -> contextlib.AbstractContextManager[Any]:
    """Computation on the CPU: a walk of many small steps is faster there than on any accelerator."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to leave the CPU out
        return contextlib.nullcontext()


def _to_host(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    return array if array.dtype == bool else array.astype(np.float64)
