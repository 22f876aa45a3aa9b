"""A backtest under many rules at once against a closed loop of `Policy.act` and the scalar reference ledger."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from ledger.reference import LIQUIDATION, ORDER, STOP, TAKE, Ledger, Settings
from policies import policy_of, with_random_weights
from random_walks import walk

from jaxtrader.agents.policy import Policy
from jaxtrader.agents.ppo import ValueScale
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.market import Market

RATES = {"cash_rate": 0.3, "borrow_rate": 1.0, "short_rate": 0.7}  # a year, and high, so that a few bars show it


def loud(agent, env, seed=1) -> Policy:
    """A policy with drawn weights, whose decisions differ from bar to bar."""
    state = with_random_weights(agent, env, seed)
    if state.value_scale is not None:
        state = state.replace(value_scale=ValueScale(*jnp.asarray([0.1, 1.0, 1.0])))
    return policy_of(agent, state, env)


def seen_of(ledger, market, bars_since_fill, leverage, t):
    """What a decision sees of the account, a row an asset, from the reference's numbers."""
    price, units, entry = market.close[t], np.array(ledger.units), np.array(ledger.entry)
    asked = np.array(ledger.target)
    for waiting in ledger.waiting:
        asked = np.where(np.isnan(waiting), asked, waiting)
    gain = np.sign(units) * (price / np.where(entry > 0, entry, price) - 1)
    return np.stack(
        [
            np.clip(units * price / ledger.value(list(price)) / leverage, -2, 2),
            asked / leverage,
            np.clip(gain / (market.volatility[t] * math.sqrt(20)), -5, 5),
            np.minimum(bars_since_fill, 20) / 20,
        ],
        -1,
    )


def closed_loop(policy, market, env, settings):
    """Targets, equity and the reasons of all fills. Decisions every `decision_every` bars, asked for again between."""
    assets, every = market.close.shape[1], env.decision_every
    ledger, bars_since_fill = Ledger(assets, settings), np.full(assets, 20)
    first, end = int(market.first_decisions(env.window)[0]), len(market.close)
    targets, equity, reasons = [], [1.0], []
    for t in range(first, end):
        if (t - first) % every == 0:
            seen = seen_of(ledger, market, bars_since_fill, max(env.rules.max_leverage, 1), t)
            window = market.features[t - 3 : t + 1]
            if market.present is not None:
                now = market.present[t] if market.listed is None else market.present[t] & market.listed[t]
                seen = np.concatenate([seen, now[:, None]], 1)
            chosen = policy.act(window, seen) if assets > 1 else policy.act(window[:, 0], seen[0])
        targets.append(np.atleast_1d(chosen))
        if t + 1 == end:
            break
        more = {name: list(getattr(market, name)[t + 1]) for name in ("high", "low")}
        if market.present is not None:
            more["present"] = list(market.present[t + 1])
        if market.delisted is not None:
            more["delisted"] = list(market.delisted[t + 1])
        for name, given in (("stop_loss", env.stop_loss), ("take_profit", env.take_profit)):
            if given is not None:
                fraction = given[env.positions.index(chosen)]
                more[name] = [math.inf if fraction is None else fraction]
        prices = (list(market.close[t]), list(market.open[t + 1]), list(market.close[t + 1]))
        move = ledger.step(list(targets[-1]), *prices, dt=float(market.dt[t + 1]), **more)
        filled = [each.asset for each in move.executions]
        bars_since_fill = np.where(np.isin(np.arange(assets), filled), 0, bars_since_fill + 1)
        equity.append(ledger.equity)
        reasons += [each.reason for each in move.executions]
    return np.array(targets), np.array(equity), reasons


def test_delay_decision_every_stop_loss_take_profit_leverage_margin_and_interest_at_once(agent, make_market):
    market = make_market((150,), seed=3)
    env = TradingEnv(
        market,
        positions=(-4.0, 0.0, 4.0),
        window=4,
        episode_length=16,
        costs=Costs(fee=1e-3, slippage=5e-4, **RATES),
        rules=Rules(max_leverage=4.0, maintenance_margin=0.22, delay=1),
        decision_every=2,
        stop_loss=(0.015, None, None),
        take_profit=(None, 0.5, 0.03),
    )
    policy = loud(agent, env, seed=3)
    rules = {"rebalance_band": 0.05, "max_leverage": 4.0, "maintenance_margin": 0.22, "delay": 1}
    settings = Settings(fee=1e-3, slippage=5e-4, **rules, **RATES)
    targets, equity, reasons = closed_loop(policy, market, env, settings)
    assert {ORDER, STOP, TAKE, LIQUIDATION} <= set(reasons), "all of it must happen, or this proves little"
    assert len(set(targets[:, 0])) == 3
    result = backtest(policy, market)
    np.testing.assert_array_equal(result.targets, targets)
    np.testing.assert_allclose(result.equity, equity, rtol=1e-11)
    assert len(result.fills) == len(reasons)
    assert np.count_nonzero(result.financing) > 100
    assert result.ruined_at is None


@pytest.mark.slow
def test_a_portfolio_with_missing_bars_a_late_asset_and_one_that_leaves(agent):
    """Three assets that lack a third of their bars, each at times of its own. An order that meets none is cancelled."""
    rng, parts = np.random.default_rng(2), []
    for name, first, last in (("A", 0, 90), ("B", 20, 90), ("C", 0, 60)):
        kept = np.flatnonzero(rng.random(last - first) > 0.3) + first
        bars = walk(name, 90, ord(name))
        columns = ("times", "open", "high", "low", "close", "volume")
        own = {each: column[kept] for each, column in bars.columns.items()}
        parts.append(dataclasses.replace(bars, **{each: getattr(bars, each)[kept] for each in columns}, columns=own))
    market = Market.from_bars(parts, features=("log_return_1", "signal", "noise"), align=True)
    env = TradingEnv(
        market,
        positions="continuous",
        window=4,
        episode_length=16,
        costs=Costs(fee=1e-3, slippage=5e-4, **RATES),
        rules=Rules(delay=1, delist_return=-0.3),
    )
    policy = loud(agent, env)
    settings = Settings(fee=1e-3, slippage=5e-4, rebalance_band=0.05, delay=1, delist_return=-0.3, **RATES)
    targets, equity, reasons = closed_loop(policy, market, env, settings)
    result = backtest(policy, market)
    assert result.dropped > 10
    assert set(result.fills["reason"]) == {"order", "delisted"}
    assert np.nanstd(targets, 0).min() > 0.05
    np.testing.assert_array_equal(np.isnan(result.targets), np.isnan(targets))
    # The network is float32, and its inputs are sums in another order.
    np.testing.assert_allclose(result.targets, targets, atol=3e-6)
    np.testing.assert_allclose(result.equity, equity, rtol=2e-5)
    assert len(result.fills) == len(reasons)
