"""A backtest under many rules at once beside a closed loop: one `Policy.act` at a time, and the scalar reference."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from conftest import walk
from ledger_reference import LIQUIDATION, ORDER, STOP, TAKE, Ledger, Terms

from jaxtrader.agents.policy import Policy
from jaxtrader.agents.ppo import ValueScale
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.market.market import Market

RATES = {"cash_rate": 0.3, "borrow_rate": 1.0, "short_rate": 0.7}  # a year; high, so that a few bars show it


def loud(agent, env) -> Policy:
    """A fresh policy with weights whose decisions differ from bar to bar."""
    params = env.default_params
    state, _ = agent.prepare(agent.init(jax.random.key(0), env, params), params)
    rng = np.random.default_rng(1)
    weights = jax.tree.map(lambda x: x + rng.normal(0, 0.5, x.shape).astype(np.float32), state.params)
    if state.value_scale is not None:
        state = state.replace(value_scale=ValueScale(*jnp.asarray([0.1, 1.0, 1.0])))
    features = {"names": list(env.market.feature_names), "lookback": env.market.lookback}
    return Policy(agent, state.replace(params=weights), {"env": env.to_dict(), "features": features})


def seen_of(ledger, market, held, leverage, t):
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
            np.minimum(held, 20) / 20,
        ],
        -1,
    )


def closed_loop(policy, market, env, terms):
    """Targets, equity and the reasons of all fills; decisions every `decision_every` bars, asked for again between."""
    assets, every = market.close.shape[1], env.decision_every
    ledger, held = Ledger(assets), np.full(assets, 20)
    first, end = int(market.first_cursors(env.window)[0]), len(market.close)
    targets, equity, reasons = [], [1.0], []
    for t in range(first, end):
        if (t - first) % every == 0:
            seen, window = seen_of(ledger, market, held, max(env.max_leverage, 1), t), market.features[t - 3 : t + 1]
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
            more["last"] = list(market.delisted[t + 1])
        for word, given in (("stop", env.stop_loss), ("take", env.take_profit)):
            if given is not None:
                fraction = given[env.positions.index(chosen)]
                more[word] = [math.inf if fraction is None else fraction]
        prices = (list(market.close[t]), list(market.open[t + 1]), list(market.close[t + 1]))
        move = ledger.step(list(targets[-1]), *prices, terms, years=float(market.dt[t + 1]), **more)
        filled = [each.asset for each in move.executions]
        held = np.where(np.isin(np.arange(assets), filled), 0, held + 1)
        equity.append(ledger.equity)
        reasons += [each.reason for each in move.executions]
    return np.array(targets), np.array(equity), reasons


def test_delay_rare_decisions_brackets_leverage_margin_and_interest_at_once(agent, make_market):
    market = make_market((150,), seed=3)
    env = TradingEnv(
        market,
        positions=(-4.0, 0.0, 4.0),
        window=4,
        episode_length=16,
        costs=Costs(fee=1e-3, slippage=5e-4, **RATES),
        max_leverage=4.0,
        maintenance_margin=0.22,
        delay=1,
        decision_every=2,
        stop_loss=(0.015, None, None),
        take_profit=(None, 0.5, 0.03),
    )
    policy = loud(agent, env)
    terms = Terms(fee=1e-3, slippage=5e-4, band=0.05, leverage=4.0, maintenance=0.22, delay=1, **RATES)
    targets, equity, reasons = closed_loop(policy, market, env, terms)
    assert {ORDER, STOP, TAKE, LIQUIDATION} <= set(reasons), "all of it must happen, or this proves little"
    assert len(set(targets[:, 0])) == 3
    book = backtest(policy, market)
    np.testing.assert_array_equal(book.targets, targets)
    np.testing.assert_allclose(book.equity, equity, rtol=1e-11)
    assert len(book.fills) == len(reasons)
    assert np.count_nonzero(book.carry) > 100
    assert book.ruined_at is None


def test_a_portfolio_with_missing_bars_a_late_asset_and_one_that_leaves(agent):
    """Three assets that lack a third of their bars, each at times of its own; an order that meets none is cancelled."""
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
        delay=1,
        delist_return=-0.3,
    )
    policy = loud(agent, env)
    terms = Terms(fee=1e-3, slippage=5e-4, band=0.05, delay=1, delist_return=-0.3, **RATES)
    targets, equity, reasons = closed_loop(policy, market, env, terms)
    book = backtest(policy, market)
    assert book.dropped > 10
    assert set(book.fills["reason"]) == {"order", "delisted"}
    assert np.nanstd(targets, 0).min() > 0.05
    np.testing.assert_array_equal(np.isnan(book.targets), np.isnan(targets))
    np.testing.assert_allclose(book.targets, targets, atol=2e-5)
    np.testing.assert_allclose(book.equity, equity, rtol=2e-5)
    assert len(book.fills) == len(reasons)
