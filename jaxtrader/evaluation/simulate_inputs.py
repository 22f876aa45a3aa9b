"""The arguments of `simulate`: what is wrong with them is one sentence, and what is right becomes arrays."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from jaxtrader.ledger.costs import CostRange, Costs
from jaxtrader.ledger.rules import meaning_of_bracket
from jaxtrader.market.market import Market


def bracket_of(name: str, given: ArrayLike | Mapping[str, ArrayLike], symbol: str) -> ArrayLike:
    """Return a bracket of one of many histories."""
    if isinstance(given, Mapping):
        return given.get(symbol, np.inf)
    if np.ndim(given):
        raise ValueError(f"{name} of many histories must be one number for all, or a mapping by symbol as targets are")
    return given


def unknown_symbol(market: Market, symbol: Any) -> str:
    """The message for a symbol that names none of the market's histories, or several."""
    names = market.symbols
    account = next((name for name in names if isinstance(symbol, str) and symbol in name.split(",")), None)
    if account is not None and account != symbol:
        return f"{symbol} is one asset of the history {account!r}; give targets [N, A] of it, with a column an asset"
    return f"the market has {names.count(symbol)} histories of {symbol!r}; it has {', '.join(names)}"


def check_run(costs: Any, dtype: str) -> None:
    """Raise ValueError where costs are not one set in range, or the dtype is unknown."""
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype {dtype!r} is unknown; use float64 or float32")
    if isinstance(costs, CostRange):
        raise ValueError("costs are a CostRange, and a result has one set; take its `middle`, `low` or `high`")
    if not isinstance(costs, Costs):
        raise ValueError(f"costs {costs!r} must be Costs(fee=..., slippage=...)")
    costs.validate()


def segment_of(market: Market, symbol: str | None) -> int:
    """The market's segment of this symbol. None is enough where there is one."""
    names = market.symbols
    if symbol is None and len(names) == 1:
        return 0
    if symbol is None:
        raise ValueError(
            f"the market has {len(names)} histories ({', '.join(names)}); name one, as in symbol={names[0]!r}, or give "
            f"targets by symbol, as in {{{names[0]!r}: 1.0}}"
        )
    if names.count(symbol) != 1:
        raise ValueError(unknown_symbol(market, symbol))
    return names.index(symbol)


def rows_from(market: Market, segment: int, start: int | None) -> slice:
    """The rows from bar 0 of the result to the segment's end."""
    _, first, end = (int(row) for row in market.segments[segment])
    if start is None:
        start = first
    if not isinstance(start, Integral) or isinstance(start, bool):
        raise ValueError(f"start {start!r} must be a row of the market, a whole number")
    if not first <= start < end:
        raise ValueError(f"start {start} is outside the rows that may be traded, {first} to {end - 1}")
    return slice(start, end)


def checked_targets(targets: ArrayLike, shape: tuple[int, int], dtype: str) -> np.ndarray:
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


def checked_bracket(name: str, given: ArrayLike, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Return a bracket as fractions `[bar, A]`, infinite where there is none."""
    array = _numbers(given)
    if array is None or isinstance(given, bool):
        raise ValueError(f"{name} must be a number, or one a target: {meaning_of_bracket(name)}")
    array = array[:, None] if array.ndim == 1 and shape[1] == 1 else array
    if array.shape not in ((), shape):
        raise ValueError(f"{name} has shape {array.shape}; give one fraction, or one a target, {shape}")
    array = np.where(np.isnan(array), np.inf, np.broadcast_to(array, shape))
    if not (array > 0).all():
        raise ValueError(f"{name} {array.min():g} must be above 0: {meaning_of_bracket(name)}")
    wrong = array[(array >= 1) & np.isfinite(array)]
    if name != "take_profit" and wrong.size:
        raise ValueError(f"{name} {wrong[0]:g} must be below 1: {meaning_of_bracket(name)}")
    return array.astype(dtype)


def _numbers(given: ArrayLike) -> np.ndarray | None:
    """Return what was given as float64, or None where these are not real numbers."""
    try:
        return None if given is None or np.iscomplexobj(given) else np.asarray(given, np.float64)
    except (TypeError, ValueError):
        return None
