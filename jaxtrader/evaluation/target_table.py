"""A table of targets on a market: a pandas Series or DataFrame by time, or what `simulate` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxtrader.agents.gymnasium_form import trading_env_of
from jaxtrader.evaluation.combined import one_account
from jaxtrader.evaluation.result import BacktestResult, BacktestResults
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.rules import BRACKETS
from jaxtrader.market.market import Market

SETTINGS = ("rules", "costs", *BRACKETS, "dtype")


def backtest_table(table: Any, market: Market, env: Any, changes: Mapping[str, Any]) -> BacktestResult:
    """Trade an account by a table of target exposures, see `backtest`.

    Args:
        table: a Series or DataFrame by time, or targets as `simulate` takes them.
        market: the bars.
        env: a TradingEnv, what `jt.to_gymnasium` made of one, or None. Its rules, costs and brackets hold where
            `changes` do not name them.
        changes: arguments of `simulate`, of SETTINGS.

    Raises:
        ValueError: the table names a time or a symbol that the market does not have. Or `env` is of another kind, or
            `changes` name no such argument.
    """
    import pandas as pd

    unknown = [name for name in changes if name not in SETTINGS]
    if unknown:
        raise ValueError(f"{unknown[0]} means nothing for a table of targets; those are {', '.join(SETTINGS)}")
    settings: dict[str, Any] = {}
    if env is not None:
        trading = trading_env_of(env)
        settings = {name: getattr(trading, name) for name in SETTINGS if name != "dtype"}
    targets = by_time(table, market) if isinstance(table, pd.Series | pd.DataFrame) else table
    results = simulate(market, targets, **settings | dict(changes))
    if not isinstance(results, BacktestResults):
        return results
    return one_account(results, market)


def by_time(table: Any, market: Market) -> dict[str, np.ndarray]:
    """Return a Series or DataFrame as targets for each bar of the market's segments, NaN where it has none.

    Times without an offset are of the market's wall clock. Rows outside of a segment are not of it.
    """
    import pandas as pd

    portfolio = market.close.shape[1] > 1
    histories = {name: name.split(",") if portfolio else [name] for name in market.symbols}
    known = [symbol for symbols in histories.values() for symbol in symbols]
    if table.ndim == 1:
        if len(known) > 1:
            raise ValueError(f"the table has no symbols and the market has {', '.join(known)}; give a column for each")
        table = table.to_frame(known[0])
    table = table.set_axis(table.columns.map(str), axis=1)
    names = list(table.columns)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"the table has a column {unknown[0]!r}; the market has the symbols {', '.join(known)}")
    try:
        index = pd.DatetimeIndex(table.index)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the table's index must be the times of bars, not {table.index[:1].tolist()}") from error
    if index.has_duplicates:
        raise ValueError(f"the table has two rows at {index[index.duplicated()][0]}; leave one")
    targets = {}
    for i, (history, symbols) in enumerate(histories.items()):
        if not set(symbols) & set(names):
            continue
        _, first, end = market.segments[i]
        times = pd.DatetimeIndex(market.times[first:end], tz="UTC")
        moments = (index.tz_localize(market.tz_of(history) or "UTC") if index.tz is None else index).tz_convert("UTC")
        own = table.set_axis(moments)[(times[0] <= moments) & (moments <= times[-1])]
        if len(strange := own.index.difference(times)):
            raise ValueError(
                f"{history} has no bar at {index[moments == strange[0]][0]}; give the times of its bars, as in "
                "table.reindex(result.times, method='ffill')"
            )
        targets[history] = own.reindex(index=times, columns=symbols).to_numpy(np.float64)
    if not targets:
        raise ValueError("the table has no column; give one for each symbol")
    return targets
