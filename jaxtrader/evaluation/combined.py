"""Several results as one account: equal capital in each, never rebalanced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxtrader.evaluation.result import ORDERS, BacktestResult, joined, ratio
from jaxtrader.market.calendar import total_periods_per_year
from jaxtrader.market.clock import common_zone, union
from jaxtrader.market.market import Market


def one_account(results: Mapping[str, BacktestResult], market: Market) -> BacktestResult:
    """The results of a market's histories, combined where there are several."""
    return next(iter(results.values())) if len(results) == 1 else combine(results, market.shared_periods_per_year)


def combine(results: Mapping[str, BacktestResult], periods_per_year: float | None = None) -> BacktestResult:
    """Equal capital in each result, never rebalanced, on the union calendar (money rule 10).

    A result that has not begun counts as its capital in cash. One that has ended stays at its last equity, out of the
    market. Exposure has a column a member's asset, position value / total equity, so that the columns add up to the
    total's. Turnover weighs a member by its share of the total at the bar before. Amounts are in units of all the
    capital, of which each member had an equal part. With a `capital` in currency, each member had that much.

    Args:
        results: the results by symbol, under the same rules and costs.
        periods_per_year: the bars in a year of the union calendar. None finds them from the union of their times.

    Raises:
        ValueError: no result, or results under different rules or costs.
    """
    _check_alike(results)
    members, share = list(results.values()), 1 / len(results)
    first, times = members[0], union([member.times for member in members])
    rows = [np.searchsorted(times, member.times) for member in members]
    equity = np.stack([share * _forward_filled(times, member, member.equity, 1.0) for member in members])
    weights = ratio(equity, equity.sum(0))
    equal = np.full_like(weights, share)
    before = np.hstack([equal[:, :1], weights[:, :-1]])

    def at_own_bars(name: str, otherwise: float = 0.0) -> list[np.ndarray]:
        """A column of each member at its bars, and something else at all others."""
        columns = []
        for at, member in zip(rows, members, strict=True):
            own = getattr(member, name)
            columns.append(np.full((len(times), *own.shape[1:]), otherwise))
            columns[-1][at] = own
        return columns

    def total(name: str, weights: np.ndarray) -> np.ndarray:
        """A column of amounts over all members, each weighted at its bars."""
        return (np.stack(at_own_bars(name)) * weights).sum(0)

    def side_by_side(name: str, weights: np.ndarray) -> np.ndarray:
        """A column of each member's assets, weighted at each bar, and 0 out of the market."""
        parts = zip(members, weights, strict=True)
        return np.hstack([_in_market(times, member, getattr(member, name)) * w[:, None] for member, w in parts])

    tz = common_zone(member.tz for member in members)
    periods = periods_per_year or total_periods_per_year(
        [member.times for member in members], [member.periods_per_year for member in members], tz
    )
    ruins = [member.times[member.ruined_at] for member in members if member.ruined_at is not None]
    orders: dict[str, Any] = {name: sum(getattr(member, name) for member in members) for name in ORDERS}
    return BacktestResult(
        symbols=tuple(symbol for member in members for symbol in member.symbols),
        times=times,
        equity=equity.sum(0),
        exposure=side_by_side("exposure", weights),
        intrabar_exposure=side_by_side("intrabar_exposure", weights),
        units=side_by_side("units", equal),
        targets=np.hstack(at_own_bars("targets", otherwise=np.nan)),
        turnover=total("turnover", before),
        costs_paid=total("costs_paid", equal),
        financing=total("financing", equal),
        position_financing=share * np.hstack(at_own_bars("position_financing")),
        position_financing_after_open=share * np.hstack(at_own_bars("position_financing_after_open")),
        cash_returns=total("cash_returns", before),
        fills=joined([member.fills for member in members], share, rows),
        last_price=np.concatenate([member.last_price for member in members]),
        next_target=np.concatenate([member.next_target for member in members]),
        ruined_at=int(np.searchsorted(times, max(ruins))) if len(ruins) == len(members) else None,
        **orders,
        periods_per_year=periods,
        costs=first.costs,
        rules=first.rules,
        by_symbol=dict(results),
        tz=tz,
    )


def _check_alike(results: Mapping[str, BacktestResult]) -> None:
    if not results:
        raise ValueError("combine needs at least one result, and got none")
    first = next(iter(results.values()))
    for symbol, member in results.items():
        if (member.rules, member.costs.to_dict()) != (first.rules, first.costs.to_dict()):
            raise ValueError(
                f"the result of {symbol} was run under {member.rules} and {member.costs}, the first under "
                f"{first.rules} and {first.costs}; combine results of the same rules and costs"
            )


def _forward_filled(times: np.ndarray, result: BacktestResult, column: np.ndarray, before: float) -> np.ndarray:
    """A result's column on other times: its last known row, `before` where it has not begun."""
    row = np.searchsorted(result.times, times, side="right") - 1
    known = (row >= 0).reshape(-1, *[1] * (column.ndim - 1))
    return np.where(known, column[np.maximum(row, 0)], before)


def _in_market(times: np.ndarray, result: BacktestResult, column: np.ndarray) -> np.ndarray:
    """A result's `[bar, A]` column on other times, 0 before it begins and after it ends."""
    return np.where((times <= result.times[-1])[:, None], _forward_filled(times, result, column, 0.0), 0.0)
