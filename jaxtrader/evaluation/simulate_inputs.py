"""The arguments of `simulate`: what is wrong with them is one sentence, and what is right becomes arrays."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from jax import dtypes
from jax.typing import ArrayLike

from jaxtrader.ledger.bar import check_market
from jaxtrader.ledger.costs import CostRange, check_costs
from jaxtrader.ledger.rules import check_bracket, check_rules, meaning_of_bracket
from jaxtrader.market.market import Market, check_market_type
from jaxtrader.setting_checks import is_labelled, is_whole, setting

if TYPE_CHECKING:
    import pandas as pd

PerBar: TypeAlias = "ArrayLike | pd.Series | pd.DataFrame"


def bracket_of(name: str, given: PerBar | Mapping[str, PerBar], symbol: str) -> PerBar:
    """Return a bracket of one of many histories."""
    if isinstance(given, Mapping):
        return given.get(symbol, np.inf)
    if np.ndim(given):
        raise ValueError(
            f"{setting(name)} of many histories must be one number for all, or a mapping by symbol as `targets` are"
        )
    return given


def unknown_symbol(market: Market, symbol: Any) -> str:
    """The message for a symbol that names none of the market's histories, or several."""
    names = market.symbols
    account = next((name for name in names if isinstance(symbol, str) and symbol in name.split(",")), None)
    if account is not None and account != symbol:
        return f"{symbol} is one asset of the history {account!r}; give targets [N, A] of it, with a column an asset"
    return f"the market has {names.count(symbol)} histories of {symbol!r}; it has {', '.join(names)}"


def check_run(market: Any, costs: Any, rules: Any, dtype: str) -> None:
    """Raise ValueError where an argument is of another type or out of range, or the market lacks what it needs."""
    check_rules(rules)
    if dtype not in ("float64", "float32"):
        raise ValueError(f"{setting('dtype', dtype)} is unknown; use float64 or float32")
    if isinstance(costs, CostRange):
        raise ValueError("`costs` are a CostRange, and a result has one set; take its `middle`, `low` or `high`")
    check_costs(costs)
    costs.validate()
    check_market_type(market, "simulate")
    check_market(market, costs, rules)


def segment_of(market: Market, symbol: str | None) -> int:
    """The market's segment of this symbol. None is enough where there is one."""
    names = market.symbols
    if symbol is None and len(names) == 1:
        return 0
    if symbol is None:
        raise ValueError(
            f"the market has {len(names)} histories ({', '.join(names)}); name one, as in `symbol={names[0]!r}`, or "
            f"give `targets` by symbol, as in `{{{names[0]!r}: 1.0}}`"
        )
    if names.count(symbol) != 1:
        raise ValueError(unknown_symbol(market, symbol))
    return names.index(symbol)


def symbols_of(market: Market, history: str) -> tuple[str, ...]:
    """The symbol of each asset of a history, by its name in the market."""
    return tuple(history.split(",")) if market.close.shape[1] > 1 else (history,)


def rows_from(market: Market, segment: int, start: int | None) -> slice:
    """The rows from bar 0 of the result to the segment's end."""
    _, first, end = (int(row) for row in market.segments[segment])
    if start is None:
        start = first
    if not is_whole(start):
        raise ValueError(f"{setting('start', start)} must be a row of the market, a whole number")
    if not first <= start < end:
        raise ValueError(f"{setting('start', start)} is outside the rows that may be traded, {first} to {end - 1}")
    return slice(start, end)


class Axes(NamedTuple):
    """What the axes `[bar, A]` of targets are: the labels that a Series or DataFrame is matched by.

    Attributes:
        times: the close of each bar, UTC.
        symbols: the symbol of each asset.
        tz: the zone of labels without an offset. None is UTC.
    """

    times: np.ndarray
    symbols: tuple[str, ...]
    tz: str | None

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of targets."""
        return len(self.times), len(self.symbols)


def checked_targets(targets: PerBar, axes: Axes, dtype: str) -> np.ndarray:
    """Targets as an array `[bar, A]` in the dtype of the account."""
    (bars, assets), array = axes.shape, _numbers("targets", targets, axes)
    if array is None:
        raise ValueError("`targets` must be numbers: the exposure wanted at each bar, NaN to hold")
    if array.ndim == 0:
        array = np.full(axes.shape, array)
    if array.ndim == 1 and assets == 1:
        array = array[:, None]
    if array.shape != axes.shape:
        wanted = f"({bars},)" if assets == 1 else f"({bars}, {assets})"
        raise ValueError(
            f"`targets` have shape {np.shape(targets)} and the segment has {bars} bars from its first decision; give "
            f"{wanted}, one row a bar, or one number for all"
        )
    infinite = np.isinf(array).any(-1)
    if infinite.any():
        row = int(np.argmax(infinite))
        raise ValueError(f"`targets[{row}]` is {array[row].tolist()}; a target is a finite exposure, or NaN to hold")
    limit = float(np.finfo(dtype).max)
    return np.clip(array, -limit, limit).astype(dtype)


def checked_bracket(name: str, given: PerBar, axes: Axes, dtype: str) -> np.ndarray:
    """Return a bracket as fractions `[bar, A]`, infinite where there is none."""
    shape, array = axes.shape, _numbers(name, given, axes)
    if array is None or isinstance(given, bool):
        raise ValueError(f"{setting(name, given)} must be a number, or one a target: {meaning_of_bracket(name)}")
    array = array[:, None] if array.ndim == 1 and shape[1] == 1 else array
    if array.shape not in ((), shape):
        raise ValueError(f"{setting(name)} has shape {array.shape}; give one fraction, or one a target, {shape}")
    array = np.where(np.isnan(array), np.inf, np.broadcast_to(array, shape))
    check_bracket(name, float(array.min()))
    finite = array[np.isfinite(array)]
    if finite.size:
        check_bracket(name, float(finite.max()))
    return array.astype(dtype)


def _numbers(name: str, given: PerBar, axes: Axes) -> np.ndarray | None:
    """Return what was given as float64, or None where these are not real numbers. A masked number is NaN."""
    if is_labelled(given):
        return _at_bars(name, given, axes)
    if hasattr(given, "columns") or hasattr(given, "coords"):
        raise ValueError(
            f"`{name}` is a {type(given).__module__}.{type(given).__name__}, whose labels are not read; give a "
            "DataFrame of pandas, or an array by position"
        )
    return as_numbers(given)


def as_numbers(given: Any) -> np.ndarray | None:
    """Return an array as float64, or None where it holds dates, texts or anything else than real numbers."""
    if given is None:
        return None
    try:
        array = given if isinstance(given, np.ma.MaskedArray) else np.asarray(given)
        if array.dtype.kind == "O":  # such as True and NaN, after a shift in pandas
            is_number = all(x is None or isinstance(x, Real | np.bool_) for x in array.flat)
        else:
            is_number = array.dtype.kind in "iub" or dtypes.issubdtype(array.dtype, np.floating)  # also bfloat16
        return np.ma.filled(array.astype(np.float64, copy=False), np.nan) if is_number else None
    except (TypeError, ValueError, OverflowError):
        return None


def _at_bars(name: str, table: Any, axes: Axes) -> np.ndarray | None:
    """Return a Series or DataFrame of pandas as float64 `[bar, A]`, NaN where it has no row or no column.

    Rows before the first bar and after the last do not count. Returns None where it does not hold real numbers.
    """
    import pandas as pd

    symbols = list(axes.symbols)
    if table.ndim == 1:
        if len(symbols) > 1:
            raise ValueError(
                f"the Series `{name}` has no symbols and the market has {', '.join(symbols)}; give a column for each"
            )
        table = table.to_frame(symbols[0])
    columns = list(map(str, table.columns))
    for column in columns:
        if column not in symbols:
            raise ValueError(
                f"the table `{name}` has a column {column!r}; the market has the symbols {', '.join(symbols)}"
            )
        if columns.count(column) > 1:
            raise ValueError(f"the table `{name}` has two columns {column!r}; leave one")
    index = _index_of(name, table)
    try:
        moments = (index.tz_localize(axes.tz or "UTC") if index.tz is None else index).tz_convert("UTC")
    except ValueError as error:
        raise ValueError(
            f"the index of `{name}` has a time that the clocks of {axes.tz} show twice or never; give times with an "
            "offset, as `result.to_frame().index` has them"
        ) from error
    times = pd.DatetimeIndex(axes.times, tz="UTC")
    inside = (times[0] <= moments) & (moments <= times[-1])
    if not inside.any():
        raise ValueError(
            f"the table `{name}` has no row from {times[0]} to {times[-1]}, where the bars are; give one for a bar"
        )
    if len(strange := index[inside & ~moments.isin(times)]):
        raise ValueError(
            f"{', '.join(symbols)} has no bar at {strange[0]}, of which the table `{name}` has a row; give the times "
            "of its bars, those of `result.to_frame().index`"
        )
    values = table.to_numpy()
    if values.dtype.kind == "O":
        values = np.where(pd.isna(values), np.nan, values)
    values = as_numbers(values)
    if values is None:
        return None
    return pd.DataFrame(values, moments, columns)[inside].reindex(index=times, columns=symbols).to_numpy()


def _index_of(name: str, table: Any) -> pd.DatetimeIndex:
    """Return the index of a Series or DataFrame as times, each of them once."""
    import pandas as pd

    try:
        # Whole numbers would be read as nanoseconds since 1970.
        is_time = pd.api.types.infer_dtype(table.index) in ("datetime64", "datetime", "date", "string")
        index = pd.DatetimeIndex(table.index) if is_time else None
    except (TypeError, ValueError):
        index = None
    if index is None or index.hasnans:
        raise ValueError(
            f"the index of `{name}` must be the times of bars, not {table.index[:1].tolist()}; for numbers by "
            f"position give `{name}.to_numpy()`"
        )
    if index.has_duplicates:
        raise ValueError(f"the table `{name}` has two rows at {index[index.duplicated()][0]}; leave one")
    return index
