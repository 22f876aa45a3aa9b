"""A table of targets on a market: a pandas Series or DataFrame by time, or what `simulate` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtrader.agents.gymnasium_form import trading_env_of
from jaxtrader.evaluation.combined import one_account
from jaxtrader.evaluation.result import BacktestResult, BacktestResults
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.evaluation.simulate_inputs import symbols_of
from jaxtrader.ledger.rules import BRACKETS
from jaxtrader.market.market import Market
from jaxtrader.setting_checks import is_labelled, setting

SETTINGS = ("rules", "costs", *BRACKETS, "dtype")


def backtest_table(table: Any, market: Market, env: Any, changes: Mapping[str, Any]) -> BacktestResult:
    """Trade an account by a table of target exposures, see `backtest`.

    Args:
        table: targets as `simulate` takes them. A DataFrame may have the symbols of several histories.
        market: the bars.
        env: a TradingEnv, what `jt.to_gymnasium` made of one, or None. Its rules, costs and brackets hold where
            `changes` do not name them.
        changes: arguments of `simulate`, of SETTINGS.

    Raises:
        ValueError: what `simulate` refuses, or `env` is of another kind, or `changes` name no such argument.
    """
    unknown = [name for name in changes if name not in SETTINGS]
    if unknown:
        raise ValueError(f"{setting(unknown[0])} means nothing for a table of targets; those are {', '.join(SETTINGS)}")
    settings: dict[str, Any] = {}
    if env is not None:
        trading = trading_env_of(env)
        settings = {name: getattr(trading, name) for name in SETTINGS if name != "dtype"}
    targets = _by_history(table, market) if is_labelled(table) and len(market.symbols) > 1 else table
    results = simulate(market, targets, **settings | dict(changes))
    if not isinstance(results, BacktestResults):
        return results
    return one_account(results, market)


def _by_history(table: Any, market: Market) -> dict[str, Any]:
    """Return a Series or DataFrame as one DataFrame for each history of which it has a symbol."""
    histories = {history: symbols_of(market, history) for history in market.symbols}
    known = [symbol for symbols in histories.values() for symbol in symbols]
    if table.ndim == 1:
        raise ValueError(f"the Series has no symbols and the market has {', '.join(known)}; give a column for each")
    names = table.columns.map(str)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"the table has a column {unknown[0]!r}; the market has the symbols {', '.join(known)}")
    if not len(names):
        raise ValueError("the table has no column; give one for each symbol")
    parts = {history: table.loc[:, names.isin(symbols)] for history, symbols in histories.items()}
    return {history: part for history, part in parts.items() if part.shape[1]}
