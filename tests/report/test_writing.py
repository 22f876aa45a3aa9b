"""The files of a report: the equity curve is rebuilt from each table on disk, with prices alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from evaluation.priced_markets import market_of, random_table

from jaxtrader.evaluation.baselines import BUY_AND_HOLD, EXPOSURE_MATCHED
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.evaluation.verdict import POLICY
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.report.evidence import Evidence
from jaxtrader.report.writing import write_report

BARS = 400
COSTS = Costs(fee=0.001, slippage=0.0005, cash_rate=0.03, short_rate=0.05)


@pytest.fixture(scope="module")
def market():
    return market_of(random_table(3, BARS), symbol="=X")


@pytest.fixture(scope="module", params=["always", "on_change"])
def written(request, market, tmp_path_factory):
    """Equity, fills and trades as a reader of the files has them. In "on_change" a trade has one entry and one exit."""
    rng = np.random.default_rng(0)
    choices = [-1.0, 0.0, 1.0] if request.param == "on_change" else [-1.0, -0.5, 0.0, 0.5, 1.0]
    targets = np.repeat(rng.choice(choices, BARS // 4), 4)
    result, held = (
        simulate(market, each, costs=COSTS, rules=Rules(rebalance=request.param)) for each in (targets, np.ones(BARS))
    )
    part = {POLICY: result, BUY_AND_HOLD: held, EXPOSURE_MATCHED: held}
    evidence = Evidence({"test": part}, {"test": market}, {}, {}, None, None)
    folder = tmp_path_factory.mktemp("written")
    write_report(folder, evidence, title="X")
    equity, fills, trades = (pd.read_csv(folder / f"{name}.csv") for name in ("equity", "fills", "trades"))
    return request.param, result, equity, fills, trades


@pytest.mark.quick(1)
def test_the_equity_is_rebuilt_from_fills(written, market):
    """Cash less what was paid and with what it earned, and units at the close."""
    _, result, equity, fills, _ = written
    paid = fills["units"] * fills["price"] + fills["fee"] + fills["slippage"]
    cash = 1 + (equity["financing"] - np.bincount(fills["bar"], paid, len(equity))).cumsum()
    units = np.bincount(fills["bar"], fills["units"], len(equity)).cumsum()
    close = market.close[-len(equity) :, 0]
    np.testing.assert_allclose(cash + units * close, result.equity, rtol=1e-9)
    np.testing.assert_allclose(equity["equity"], result.equity, rtol=1e-12)
    assert equity["financing"].abs().sum() > 0


def test_the_equity_is_rebuilt_from_trades(written, market):
    """At every close where each trade has one entry and one exit. Else where the account is flat, and at the end."""
    rebalance, result, equity, _, trades = written
    close, times = market.close[-len(equity) :, 0], equity["time"].to_numpy()
    known = 1 + equity["financing"].to_numpy().cumsum()
    for trade in trades.itertuples():
        entered = np.searchsorted(times, trade.entry_time)
        left = len(times) if trade.open else np.searchsorted(times, trade.exit_time)
        if rebalance == "on_change":
            moved = trade.side * trade.units * (close - trade.entry_price)
            known[entered:left] += moved[entered:left]
            known[left:] += 0.0 if trade.open else trade.side * trade.units * (trade.exit_price - trade.entry_price)
        else:
            known[left - trade.open :] += trade.pnl
    flat = equity["units"].to_numpy() == 0
    flat[-1] = True
    if rebalance == "on_change":
        known -= equity["costs"].cumsum().to_numpy()
        flat[:] = True
    assert len(trades) > 20
    assert flat.sum() > 15
    np.testing.assert_allclose(known[flat], result.equity[flat], rtol=1e-9)
