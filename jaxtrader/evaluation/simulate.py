"""Target exposures in, a `Book` out: the ledger over one history, for signals of one's own and for backtests.

The targets are given beforehand, so nothing here decides; a policy's walk is in `backtest.py`. One sequential pass
carries the account, on the CPU; all else (the fills, their costs, the book) is computed for all bars at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
from functools import partial
from numbers import Integral
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from jaxtrader.envs import bars, ledger
from jaxtrader.envs.account import Account, Bar, Brackets, Events
from jaxtrader.envs.costs import CostRange, Costs
from jaxtrader.envs.rules import RULE_NAMES, RuleArgs, Rules
from jaxtrader.evaluation.book import Book, Run
from jaxtrader.market.market import Market


def simulate(
    market: Market,
    targets: ArrayLike,
    *,
    costs: Costs = Costs(),  # noqa: B008  frozen
    stop_loss: ArrayLike | None = None,
    take_profit: ArrayLike | None = None,
    dtype: Literal["float64", "float32"] = "float64",
    start: int | None = None,
    symbol: str | None = None,
    **rules: Unpack[RuleArgs],
) -> Book:
    """What an account of 1.0 becomes that is asked for these exposures.

    Args:
        market: one history, or several and `symbol`.
        targets: signed exposure wanted at each close, `[N]` (one asset) or `[N, A]`, or one number for all. N counts
            the bars from the segment's first decision, bar 0 of the book, to its end. NaN holds the units.
        costs: what trading and holding cost. Not free by default.
        stop_loss: fraction of the entry price (below 1) against the position at which it is closed, from the bar after
            each decision on; one number, or one a target (`[N]`, `[N, A]`). NaN or infinite: none.
        take_profit: likewise in its favour.
        dtype: of the account.
        start: another bar 0, as a row of the market's columns.
        symbol: which of several histories.
        rules: any field of `Rules` but `stops`, as in `fill="next_close"` or `max_leverage=2`; `rebalance_band`
            is 0 unless given.

    Returns:
        The book (money rule 10): equity[t] is marked at close[t] after every fill up to it, and a target on the last
        bar never fills unless `fill="close"`.

    Raises:
        ValueError: several histories and no `symbol`, targets of another length or infinite, a setting out of range,
            or one that the market has no column for.
    """
    checked = _rules(rules, stops=stop_loss is not None or take_profit is not None)
    _check_run(costs, dtype)
    if not isinstance(market, Market):
        raise ValueError(
            f"simulate needs a Market, not a {type(market).__name__}; make one with Market.from_bars(bars)"
        )
    bars.check(market, costs, checked)
    segment = _segment(market, symbol)
    rows = _rows(market, segment, start)
    shape = market.close[rows].shape
    orders = _check_targets(targets, shape, dtype)
    stops = {
        name: _check_bracket(name, given, shape, dtype)
        for name, given in (("stop_loss", stop_loss), ("take_profit", take_profit))
        if given is not None
    }
    found = {name: _typed(column[rows], dtype) for name, column in bars.columns(market, costs, checked).items()}
    with jax.enable_x64(dtype == "float64"), _on_cpu():
        run = _run(found, orders, stops, costs.cast(dtype), checked)
    name = market.symbols[segment]
    return Book.from_run(
        run,
        orders.astype(np.float64),
        symbols=tuple(name.split(",")) if shape[1] > 1 else (name,),
        times=np.asarray(market.times[rows]),
        periods_per_year=market.periods_per_year,
        costs=costs,
        rules=checked,
    )


def equity_paths(
    open_: Float[np.ndarray, "bar path"],
    close: Float[np.ndarray, "bar path"],
    targets: Float[np.ndarray, "bar path"],
    *,
    costs: Costs = Costs(),  # noqa: B008  frozen
    dtype: Literal["float64", "float32"] = "float64",
    **rules: Unpack[RuleArgs],
) -> Float[np.ndarray, "bar path"]:
    """The equity of many accounts, each on a path of its own: `simulate` for all at once, without their books.

    Meant for many paths of one length: all take one pass, some five times as fast as a book each. NaN holds the units.

    Raises:
        ValueError: columns of different shapes, prices that are none, a setting out of range, or a rule or cost that
            needs more columns than these (margin, lots, rates, impact, sessions): use `simulate` for those.
    """
    checked = _rules(rules)
    _check_run(costs, dtype)
    checked.check_costs(costs)
    costs.check_assets(1)
    more = checked.margin or checked.lot or checked.volume_cap or checked.flat_at_session_end
    if more or costs.carries or costs.has("impact"):
        raise ValueError(
            "equity_paths knows fills, fees, slippage and leverage without margin; use simulate for the other rules"
        )
    opens, closes, wanted = (np.asarray(column, dtype)[..., None] for column in (open_, close, targets))
    if not opens.shape == closes.shape == wanted.shape or opens.ndim != 3:
        shapes = ", ".join(str(column.shape[:-1]) for column in (opens, closes, wanted))
        raise ValueError(f"open, close and targets have shapes {shapes}; give each (bars, paths)")
    if not len(opens):
        raise ValueError("open, close and targets hold no bars")
    for name, prices in (("open", opens), ("close", closes)):
        if prices.size and not (prices.min() > 0 and prices.max() < np.inf):  # neither where there is a NaN
            raise ValueError(f"{name} holds a price that is not above 0; fill it in, or leave the path out")
    if np.isinf(wanted).any():
        raise ValueError("targets holds an infinite one; a target is a finite exposure, or NaN to hold")
    with jax.enable_x64(dtype == "float64"), _on_cpu():
        return np.asarray(_equity({"open": opens, "close": closes}, wanted, costs.cast(dtype), checked))


class Path(struct.PyTreeNode):
    """What an account meets, one row a bar of the book: row t carries it from close[t-1] to close[t].

    Attributes:
        order: the target that comes to its fill in the row.
        bar: the prices of the move.
        after: what sizes an order at close[t] itself; None where orders do not fill there.
        brackets: in force within the row; None where there are none.
    """

    order: Float[Array, "bar *path A"]
    bar: Bar
    after: Bar | None
    brackets: Brackets | None


def _check_run(costs: Any, dtype: str) -> None:
    """Raise ValueError where costs are no one set of them in range, or the dtype is none of an account."""
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype {dtype!r} is unknown; use float64 or float32")
    if isinstance(costs, CostRange):
        raise ValueError("a book has one set of Costs, not a range of them; take its `middle`, `low` or `high`")
    if not isinstance(costs, Costs):
        raise ValueError(f"costs {costs!r} must be Costs(fee=..., slippage=...)")
    costs.validate()


def _rules(given: RuleArgs, *, stops: bool = False) -> Rules:
    """The rules of a run, by default without a band."""
    wrong = [name for name in given if name not in RULE_NAMES]
    if wrong:
        raise ValueError(f"{wrong[0]} is no rule of the ledger; there are {', '.join(RULE_NAMES)}")
    settings: dict[str, Any] = {"rebalance_band": 0.0, **given}
    return Rules(**settings, stops=stops)


def _run(found: bars.Columns, targets: np.ndarray, stops: dict[str, np.ndarray], costs: Costs, rules: Rules) -> Run:
    """The ledger over the rows of one history, in the dtype of the columns; every array comes back in float64."""
    rows = len(targets)
    path = _path(
        {name: _padded(column) for name, column in found.items()},
        _padded(targets),
        {name: _padded(column) for name, column in stops.items()},
        rules,
    )
    if rules.stops or rules.margin or _tries_again(path, rules):
        cash, units, ruined, events = _walk_all(path, costs, rules)
    else:
        cash, units, ruined = _walk(path, costs, rules)
        none = np.zeros(path.order.shape, path.order.dtype)
        last = _last_known(path.order) if rules.rebalance == "on_change" else none
        events = _events(cash, units, ruined, path, last, costs, rules)
    run = jax.tree.map(lambda leaf: _to_host(leaf)[:rows], (cash, units, ruined, events))
    cash, units, ruined, events = run
    close = np.asarray(found["close"], np.float64)
    return Run(cash + (units * close).sum(-1), close, units, ruined, events)


def _path(found: bars.Columns, targets: Any, stops: dict[str, np.ndarray], rules: Rules, xp: Any = np) -> Path:
    """Rows for the walk. The target of a bar comes to its fill in the next row, or in its own at `fill="close"`.

    `xp` makes the columns: NumPy, or within jit jax.numpy.
    """

    def late(column: Any, by: int, first: float) -> Any:
        return xp.concatenate([xp.full_like(column[:by], first), column[: max(len(column) - by, 0)]])

    before = {name: xp.concatenate([column[:1], column[:-1]]) for name, column in found.items()}
    if "dt" in found:  # there is no account before bar 0
        found = {**found, "dt": xp.concatenate([xp.zeros_like(found["dt"][:1]), found["dt"][1:]])}
    after = None
    if rules.fill == "close":
        following = {name: xp.concatenate([column[1:], column[-1:]]) for name, column in found.items()}
        after = bars.between(found, following, rules)
    wait = rules.delay + (rules.fill != "close")
    brackets = Brackets(**{name: late(column, 1, np.inf) for name, column in stops.items()}) if stops else None
    path = Path(late(targets, wait, np.nan), bars.between(before, found, rules), after, brackets)
    return jax.tree.map(jnp.asarray, path)


def _padded(column: np.ndarray) -> np.ndarray:
    """A column with its last row repeated up to a round number of rows (at most an eighth more).

    Histories of many lengths then share a few compilations. Nothing is cut off that matters: no row sees a later one.
    """
    step = max(64, 2 ** (len(column).bit_length() - 4))
    return np.pad(column, ((0, -len(column) % step), (0, 0)), mode="edge")


@partial(jax.jit, static_argnames="rules")
def _walk(path: Path, costs: Costs, rules: Rules) -> tuple[Array, Array, Array]:
    """Cash `[bar, *path]`, units `[bar, *path, A]` and ruin `[bar, *path]` after each row, from flat.

    It keeps no more than that on purpose: XLA compiles a scan on the CPU to one machine loop only while its body moves
    less than 1 kB, and runs it 15 times slower above (10M against 0.6M bars/s with the fills among the outputs).
    """

    def move(account: Account, row: Path) -> tuple[Account, tuple[Array, Array, Array]]:
        account, _ = _row(account, row, costs, rules)
        return account, (account.cash, account.units, account.ruined)

    return jax.lax.scan(move, _flat(path, rules), path)[1]


# Paths side by side fill the widest vectors; XLA's choice is half as wide, and takes 1.6 times as long.
@partial(jax.jit, static_argnames="rules", compiler_options={"xla_cpu_prefer_vector_width": 512})
def _equity(found: bars.Columns, targets: Array, costs: Costs, rules: Rules) -> Float[Array, "bar *path"]:
    """The equity alone, of one asset: what moves fewest bytes."""
    path = _path(found, targets, {}, rules, jnp)

    def move(account: Account, row: Path) -> tuple[Account, Array]:
        account, _ = _row(account, row, costs, rules)
        return account, account.cash + (account.units * row.bar.close).sum(-1)

    return jax.lax.scan(move, _flat(path, rules), path)[1]


def _walk_all(path: Path, costs: Costs, rules: Rules) -> tuple[Array, Array, Array, Events]:
    """The same with all that happened: with brackets, margin or orders tried again, two ends do not tell a row.

    The scan keeps the accounts, and all rows are stepped again from them at once, which with every rule on takes half
    of the time that keeping what happened in the scan takes. A row's end and its events are those of one step, so that
    what closed a position leaves exactly none. Where a rounding let any row go another way then, and in float32, whose
    roundings are no smaller than the least order, all is kept in the scan.
    """
    if path.order.dtype == jnp.float64:
        walked = _accounts(path, costs, rules)
        accounts, events = _stepped(walked, path, costs, rules)
        if _agree(walked, accounts, path):
            return accounts.cash, accounts.units, accounts.ruined, events
    accounts, events = _accounts_and_events(path, costs, rules)
    return accounts.cash, accounts.units, accounts.ruined, events


@partial(jax.jit, static_argnames="rules")
def _accounts(path: Path, costs: Costs, rules: Rules) -> Account:
    """The account after each row."""
    return jax.lax.scan(lambda x, row: (_row(x, row, costs, rules)[0],) * 2, _flat(path, rules), path)[1]


@partial(jax.jit, static_argnames="rules")
def _accounts_and_events(path: Path, costs: Costs, rules: Rules) -> tuple[Account, Events]:
    """The account after each row, and what happened in it."""

    def move(account: Account, row: Path) -> tuple[Account, tuple[Account, Events]]:
        account, events = _row(account, row, costs, rules)
        return account, (account, events)

    return jax.lax.scan(move, _flat(path, rules), path)[1]


@partial(jax.jit, static_argnames="rules")
def _stepped(accounts: Account, path: Path, costs: Costs, rules: Rules) -> tuple[Account, Events]:
    """Every row again, from the account after the one before."""
    before = jax.tree.map(lambda x, first: jnp.concatenate([first[None], x[:-1]]), accounts, _flat(path, rules))
    return _row(before, path, costs, rules)


@jax.jit
def _agree(one: Account, other: Account, path: Path) -> Bool[Array, ""]:
    """Whether two walks are the same but for roundings."""
    worth = one.units * path.bar.close
    size = jnp.abs(one.cash) + jnp.abs(worth).sum(-1)
    near = 32 * jnp.finfo(one.cash.dtype).eps * size  # below the least order (ledger DUST) up to a leverage of 60
    moved = jnp.abs((other.units - one.units) * path.bar.close).sum(-1)
    same = (jnp.abs(other.cash - one.cash) <= near) & (moved <= near) & (other.ruined == one.ruined)
    return same.all()


def _flat(path: Path, rules: Rules) -> Account:
    carries = path.bar.years is not None or path.bar.funding is not None
    return ledger.open_account(jnp.zeros_like(path.order[0]), path.bar.close[0], rules, carries=carries)


@partial(jax.jit, static_argnames="rules")
def _events(
    cash: Float[Array, " bar"],
    units: Float[Array, "bar A"],
    ruined: Bool[Array, " bar"],
    path: Path,
    last: Float[Array, "bar A"],
    costs: Costs,
    rules: Rules,
) -> Events:
    """What happened in all rows of a walk without brackets, margin and orders tried again, at once.

    Every row is stepped again from the account before it, for its flags and for what was closed. The units ordered are
    the difference that the walk made: a rounding on the edge of the band could decide otherwise here.
    """
    flat = ledger.open_account(jnp.zeros_like(path.order), path.bar.close)
    before = dataclasses.replace(
        flat,
        cash=jnp.concatenate([flat.cash[:1], cash[:-1]]),
        units=jnp.concatenate([flat.units[:1], units[:-1]]),
        ruined=jnp.concatenate([flat.ruined[:1], ruined[:-1]]),
        target=last,
    )
    _, events = _row(before, path, costs, rules)
    order, closing = events.order, events.closing
    assert order is not None
    traded = units - before.units - closing.units
    at = path.bar if path.after is None else path.after
    fee, slippage = ledger.charges(traded, order.price, costs, at, rules)
    return events.replace(order=order.replace(units=traded, fee=fee, slippage=slippage))


def _row(account: Account, row: Path, costs: Costs, rules: Rules) -> tuple[Account, Events]:
    """One row of a book: the move with the order due in it; at `fill="close"` the order comes last, at the mark."""
    if row.after is None:
        return ledger.move(account, row.order, row.bar, costs, rules, row.brackets)
    account, events = ledger.move(account, None, row.bar, costs, rules, row.brackets)
    account, fill = ledger.execute(account, row.order, row.bar.close, row.after, costs, rules)
    return account, events.replace(order=fill)


def _tries_again(path: Path, rules: Rules) -> bool:
    """Whether an order on change may find no bar or too little volume, and so be tried again at a later row."""
    at = path.bar if path.after is None else path.after
    return rules.rebalance == "on_change" and (rules.volume_cap is not None or at.present is not None)


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
    if not isinstance(start, Integral) or isinstance(start, bool):
        raise ValueError(f"start {start!r} must be a row of the market, a whole number")
    if not first <= start < end:
        raise ValueError(f"start {start} is outside the rows that may be traded, {first} to {end - 1}")
    return slice(start, end)


def _check_targets(targets: ArrayLike, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Targets as an array `[bar, A]` in the dtype of the account."""
    bars, assets = shape
    array = _numbers(targets)
    if array is None:
        raise ValueError("targets must be numbers: the exposure wanted at each bar, NaN to hold")
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


def _check_bracket(name: str, given: ArrayLike, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """A stop-loss or take-profit as fractions `[bar, A]`, infinite where there is none."""
    array = _numbers(given)
    if array is None or isinstance(given, bool):
        raise ValueError(f"{name} must be a fraction of the entry price, 0.03 is 3%, or one a target")
    array = array[:, None] if array.ndim == 1 and shape[1] == 1 else array
    if array.shape not in ((), shape):
        raise ValueError(f"{name} has shape {array.shape}; give one fraction, or one a target, {shape}")
    array = np.where(np.isnan(array), np.inf, np.broadcast_to(array, shape))
    if not (array > 0).all():
        raise ValueError(f"{name} {array.min():g} must be above 0: it is a fraction of the entry price, 0.03 is 3%")
    wrong = array[(array >= 1) & np.isfinite(array)]
    if name == "stop_loss" and wrong.size:
        raise ValueError(f"{name} {wrong[0]:g} must be below 1: it is a fraction of the entry price, 0.03 is 3%")
    return array.astype(dtype)


def _numbers(given: ArrayLike) -> np.ndarray | None:
    """As float64; None where these are no real numbers."""
    try:
        return None if given is None or np.iscomplexobj(given) else np.asarray(given, np.float64)
    except (TypeError, ValueError):
        return None


def _typed(column: np.ndarray, dtype: str) -> np.ndarray:
    return column if column.dtype == bool else np.asarray(column, dtype)


def _on_cpu() -> contextlib.AbstractContextManager[Any]:
    """Computation on the CPU: a walk of many small steps is faster there than on any accelerator."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to leave the CPU out
        return contextlib.nullcontext()


def _to_host(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    return array if array.dtype == bool else array.astype(np.float64, copy=False)
