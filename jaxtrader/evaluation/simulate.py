"""Target exposures in, a `Book` out: the ledger over one history or many, for signals of one's own and for backtests.

The targets are given beforehand, so nothing here decides; a policy's walk is in `backtest.py`. What carries the account
over the bars is `walk.py`, on the CPU.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from functools import partial
from numbers import Integral
from typing import Any, Literal, Unpack, overload

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxtrader.envs import bars
from jaxtrader.envs.costs import CostRange, Costs
from jaxtrader.envs.rules import RULE_NAMES, RuleArgs, Rules
from jaxtrader.evaluation import walk
from jaxtrader.evaluation.book import Book, Books
from jaxtrader.market.market import Market


@overload
def simulate(
    market: Market,
    targets: Mapping[str, ArrayLike],
    *,
    costs: Costs = ...,
    stop_loss: ArrayLike | Mapping[str, ArrayLike] | None = ...,
    take_profit: ArrayLike | Mapping[str, ArrayLike] | None = ...,
    dtype: Literal["float64", "float32"] = ...,
    **rules: Unpack[RuleArgs],
) -> Books: ...
@overload
def simulate(
    market: Market,
    targets: ArrayLike,
    *,
    costs: Costs = ...,
    stop_loss: ArrayLike | None = ...,
    take_profit: ArrayLike | None = ...,
    dtype: Literal["float64", "float32"] = ...,
    start: int | None = ...,
    symbol: str | None = ...,
    **rules: Unpack[RuleArgs],
) -> Book: ...
def simulate(
    market: Market,
    targets: ArrayLike | Mapping[str, ArrayLike],
    *,
    costs: Costs = Costs(),  # noqa: B008  frozen
    stop_loss: ArrayLike | Mapping[str, ArrayLike] | None = None,
    take_profit: ArrayLike | Mapping[str, ArrayLike] | None = None,
    dtype: Literal["float64", "float32"] = "float64",
    start: int | None = None,
    symbol: str | None = None,
    **rules: Unpack[RuleArgs],
) -> Book | Books:
    """What an account of 1.0 becomes that is asked for these exposures; or one account for each of many histories.

    Args:
        market: one history, or several and `symbol`, or several and targets by symbol.
        targets: signed exposure wanted at each close, `[N]` (one asset) or `[N, A]`, or one number for all. N counts
            the bars from the segment's first decision, bar 0 of the book, to its end. NaN holds the units. A mapping
            gives such targets for each of the histories that it names.
        costs: what trading and holding cost. Not free by default.
        stop_loss: fraction of the entry price (below 1) against the position at which it is closed, from the bar after
            each decision on; one number, or one a target (`[N]`, `[N, A]`). NaN or infinite: none. With targets by
            symbol one number for all, or a mapping too: what it does not name has none.
        take_profit: likewise in its favour.
        dtype: of the account.
        start: another bar 0, as a row of the market's columns.
        symbol: which of several histories.
        rules: any field of `Rules` but `stops`, as in `fill="next_close"` or `max_leverage=2`; `rebalance_band`
            is 0 unless given.

    Returns:
        The book (money rule 10): equity[t] is marked at close[t] after every fill up to it, and a target on the last
        bar never fills unless `fill="close"`. Of targets by symbol a `Books`: the accounts are walked at once, side by
        side where they are many, and a book is made when it is first asked for. (With brackets or margin, and where
        orders on change wait for bars or volume, an account is walked when it is asked for too.)

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
    stops: dict[str, Any] = {}
    for name, x in (("stop_loss", stop_loss), ("take_profit", take_profit)):
        stops |= {} if x is None else {name: x}
    if not isinstance(targets, Mapping):
        history = _History(market, targets, stops, costs, checked, dtype, start, symbol)
        return history.book()
    if start is not None or symbol is not None:
        name = "symbol" if start is None else "start"
        raise ValueError(f"{name} is of one history, and targets by symbol are of many; leave it out")
    if not targets:
        raise ValueError("targets name no history; give targets by symbol, as in {'AAPL': 1.0}")
    for name, given in stops.items():
        if isinstance(given, Mapping) and (others := [each for each in given if each not in targets]):
            raise ValueError(
                f"{name} names {others[0]!r}, and targets do not; they are of {', '.join(map(str, targets))}"
            )
    costs = copy.deepcopy(costs)  # books are made later, and rates may be arrays
    histories = {}
    for each, own in targets.items():
        if market.symbols.count(each) != 1:
            raise ValueError(_unknown(market, each))
        try:
            given = {name: _of_symbol(name, x, each) for name, x in stops.items()}
            histories[each] = _History(market, own, given, costs, checked, dtype, None, each)
        except ValueError as error:
            raise ValueError(f"{each}: {error}") from error
    return _books(histories)


class _History:
    """One history to be run, checked: its columns, targets and brackets."""

    def __init__(
        self,
        market: Market,
        targets: ArrayLike,
        stops: dict[str, ArrayLike],
        costs: Costs,
        rules: Rules,
        dtype: str,
        start: int | None,
        symbol: str | None,
    ) -> None:
        segment = _segment(market, symbol)
        rows = _rows(market, segment, start)
        shape = market.close[rows].shape
        self.name, self.assets = market.symbols[segment], shape[1]
        self.orders = _check_targets(targets, shape, dtype)
        self.stops = {name: _check_bracket(name, given, shape, dtype) for name, given in stops.items()}
        self.columns = {name: _typed(x[rows], dtype) for name, x in bars.columns(market, costs, rules).items()}
        self.costs, self.rules, self.dtype = costs, rules, dtype
        self.times, self.periods_per_year = np.asarray(market.times[rows]), market.periods_per_year

    def book(self, made: walk.Many | None = None) -> Book:
        """The book of the run; `made`: its account, where it took a pass with others already."""
        with jax.enable_x64(self.dtype == "float64"), _on_cpu():
            run = walk.run(self.columns, self.orders, self.stops, self.costs.cast(self.dtype), self.rules, made)
        return Book.from_run(
            run,
            self.orders.astype(np.float64),
            symbols=tuple(self.name.split(",")) if self.assets > 1 else (self.name,),
            times=self.times,
            periods_per_year=self.periods_per_year,
            costs=self.costs,
            rules=self.rules,
        )


def _books(histories: dict[str, _History]) -> Books:
    """The books of many histories: those of about one length take one pass, where the rules allow it."""
    made: dict[str, walk.Many] = {}
    alike: dict[int, list[str]] = {}
    for name, history in histories.items():
        alike.setdefault(len(history.orders).bit_length(), []).append(name)
    first = next(iter(histories.values()))
    with jax.enable_x64(first.dtype == "float64"), _on_cpu():
        for names in alike.values():
            found, orders = zip(*((histories[name].columns, histories[name].orders) for name in names), strict=True)
            passed = walk.run_many(found, orders, first.costs.cast(first.dtype), first.rules)
            made |= {} if passed is None else dict(zip(names, passed, strict=True))
    equity = {name: walk.on_host(made[name].equity) for name in histories} if made else None
    return Books(tuple(histories), partial(_book, histories, made), equity)


def _book(histories: dict[str, _History], made: dict[str, walk.Many], name: str) -> Book:
    return histories[name].book(made.get(name))


def _of_symbol(name: str, given: ArrayLike | Mapping[str, ArrayLike], symbol: str) -> ArrayLike:
    """A stop-loss or take-profit of one of many histories."""
    if isinstance(given, Mapping):
        return given.get(symbol, np.inf)
    if np.ndim(given):
        raise ValueError(f"{name} of many histories is one number for all, or by symbol as the targets are")
    return given


def _unknown(market: Market, symbol: Any) -> str:
    """Why a symbol is none of the market's histories, or not one of them."""
    names = market.symbols
    together = next((name for name in names if isinstance(symbol, str) and symbol in name.split(",")), None)
    if together is not None and together != symbol:
        return (
            f"{symbol} is one asset of the account {together!r}, which is one history; give targets [N, A] of it, a "
            "column an asset"
        )
    return f"the market has {names.count(symbol)} histories of {symbol!r}; it has {', '.join(names)}"


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


def _segment(market: Market, symbol: str | None) -> int:
    """Which of the market's segments is meant."""
    names = market.symbols
    if symbol is None and len(names) == 1:
        return 0
    if symbol is None:
        raise ValueError(
            f"the market has {len(names)} histories ({', '.join(names)}); name one, as in symbol={names[0]!r}, or give "
            f"targets by symbol, as in {{{names[0]!r}: 1.0}}"
        )
    if names.count(symbol) != 1:
        raise ValueError(_unknown(market, symbol))
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
    kind = column.dtype if column.dtype == bool else dtype
    # Books may be made later: what could be written to by then is copied.
    return np.array(column, kind) if column.flags.writeable else np.asarray(column, kind)


def _on_cpu() -> contextlib.AbstractContextManager[Any]:
    """Computation on the CPU: a walk of many small steps is faster there than on any accelerator."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to leave the CPU out
        return contextlib.nullcontext()
