"""Decisions every few bars, of portfolios and with sessions that end flat: the account beside the scalar reference."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ledger.against_reference import moves_of
from ledger.markets import BARS, RATES, full_market
from ledger.reference import LIQUIDATION, RUIN, SESSION
from rule_settings import bars_after, env_settings

from jaxtrader.envs.episode import EnvState, rows_ahead
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger.costs import Costs

EVERY, ASSETS = 3, 3
DECISIONS = (BARS - 1) // EVERY
COSTS = Costs(fee=0.001, slippage=0.002, **RATES)
SETTINGS = {
    "weights at the next open": {"positions": "weights", "fill": "next_open"},
    "exposures on credit at the close, late": {
        "positions": "continuous",
        "fill": "close",
        "max_leverage": 2.0,
        "delay": 1,
    },
}


def made(name, seed, volatility=0.03):
    """An environment of a market with missing and last bars, its settings, and actions, a few of which are none."""
    market = dataclasses.replace(full_market(seed, ASSETS, volatility), features=np.zeros((BARS, ASSETS, 1)))
    rules = {**SETTINGS[name], "flat_at_session_end": True, "rebalance_band": 0.05}
    env = TradingEnv(market, window=1, episode_length=EVERY, decision_every=EVERY, costs=COSTS, **env_settings(rules))
    rng = np.random.default_rng(seed)
    if env.positions == "weights":
        actions = rng.dirichlet(np.ones(ASSETS + 1), DECISIONS)[:, :ASSETS]
    else:
        actions = rng.uniform(-2, 2, (DECISIONS, ASSETS))
    actions = np.where(rng.random(actions.shape) < 0.2, 0, actions)
    actions[rng.random(DECISIONS) < 0.1, 1] = 2.1
    return env, {name: x for name, x in rules.items() if name != "positions"}, actions


@partial(jax.jit, static_argnums=0)
def live(env, params, actions):
    """What one account and its decisions become from flat at bar 0: a row a decision."""

    def move(state, action):
        obs, state, reward, _, info = env.step_env(jax.random.key(0), state, action, params)
        return state, (obs.account, state.account, reward, info)

    account = env.open_account(jnp.zeros(ASSETS), params.arrays.close[0], financing=params.has_financing)
    return jax.lax.scan(move, EnvState(account, jnp.int32(0), jnp.int32(BARS), jnp.int32(0)), actions)[1]


def lived(env, actions):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, live(env, env.params("float64"), jnp.asarray(actions)))


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", SETTINGS)
def test_an_account_that_decides_every_third_bar_is_that_of_the_scalar_reference(name):
    """What is asked for is asked for again at both bars between, whatever session ends there. So is what is held.

    An asset without a bar at the decision is held until the next, and so is all where an action is none.
    """
    closed, held, invalid = 0, 0, 0
    for seed, volatility in ((0, 0.03), (1, 0.03), (2, 0.1), (3, 0.3)):
        env, rules, actions = made(name, seed, volatility)
        seen, account, reward, info = lived(env, actions)
        none = (actions > 2).any(1)
        targets = np.where(env.market.present[:-1:EVERY] & ~none[:, None], actions, np.nan)
        np.testing.assert_allclose(info["target"], targets, rtol=1e-15)
        np.testing.assert_array_equal(info["invalid_action"], none)
        targets = np.concatenate([np.repeat(targets, EVERY, 0), targets[-1:]])
        paid = dict.fromkeys(("reward", "turnover", "cost", "financing"), 0.0)
        for t, mark, reference, move in moves_of(env.market, targets, COSTS, **rules):
            paid["reward"] += math.log(max(reference.equity, 1e-4) / max(mark, 1e-4))
            paid["financing"] += move.financing
            for each in move.executions:
                worth = mark if each.reason in (LIQUIDATION, RUIN) else each.equity
                paid["turnover"] += abs(each.units) * each.price / max(worth, 1e-4)
                paid["cost"] += each.fee + each.slippage
                closed += each.reason == SESSION
            if t % EVERY:
                continue
            row = t // EVERY - 1
            for part in ("cash", "units", "entry", "equity", "ruined"):
                want = getattr(reference, part)
                np.testing.assert_allclose(getattr(account, part)[row], want, rtol=1e-11, atol=1e-13, err_msg=part)
            for part, want in paid.items():
                got = reward[row] if part == "reward" else info[part][row]
                np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-13, err_msg=part)
            exposure = np.array(reference.units) * env.market.close[t] / reference.value(env.market.close[t])
            np.testing.assert_allclose(seen[row, :, 0], exposure / env.rules.max_leverage, rtol=1e-6, atol=1e-7)
            paid = dict.fromkeys(paid, 0.0)
            held += any(reference.units)
        invalid += none.sum()
    assert closed > 20
    assert held > DECISIONS
    assert invalid > 3


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("last", [24, 40])
def test_nothing_up_to_a_bar_depends_on_later_ones_where_decisions_are_rare(name, last):
    """Every column after the bar is another market's: what was seen, paid and held by then is the same to the bit."""
    (env, _, actions), (other, *_) = made(name, 5), made(name, 6)
    later = np.arange(BARS) > last
    mixed = {}
    for column in ("open", "high", "low", "close", "volatility", "dt", "present", "delisted", "funding", "session_end"):
        mine, theirs = getattr(env.market, column), getattr(other.market, column)
        mixed[column] = np.where(later[:, None] if mine.ndim > 1 else later, theirs, mine)
    changed = env.with_market(dataclasses.replace(env.market, **mixed))
    before, after = (lived(each, actions) for each in (env, changed))
    rows = last // EVERY  # decisions whose bars are all known
    for one, two in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(one[:rows], two[:rows])
    assert (before[1].equity[rows:] != after[1].equity[rows:]).all()


def test_market_paths_take_their_bars_as_single_steps_do():
    """Of three assets, three bars a decision, with every column: missing and last bars and session ends among them."""
    env, _, _ = made("weights at the next open", 0)
    params, first = env.default_params, np.array([0, 9], np.int32)
    rows = first + np.arange(4, dtype=np.int32)[:, None] * EVERY

    def both(params):
        ahead = rows_ahead(env, params, jnp.asarray(first), 4).for_accounts()
        return ahead.bars, ahead.price, bars_after(env, jnp.asarray(rows), params)

    moves, price, alone = jax.tree.map(np.asarray, jax.jit(both)(params))
    jax.tree.map(
        lambda path, one: np.testing.assert_array_equal(path[:, :, :, 0], np.moveaxis(one, 0, 1)), moves, alone
    )
    np.testing.assert_array_equal(alone.close[:, 1, 0], env.market.close[4:7].astype(np.float32))
    np.testing.assert_array_equal(price[:, :, 0], env.market.close[rows].astype(np.float32))
    assert moves.session_end.any()
    assert not moves.present.all()
