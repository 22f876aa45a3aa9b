"""Market paths and single steps under the other money rules: the same accounts, whoever steps them."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from market_paths import ACCOUNTS, LENGTH, PATHS, Replay, collect, observe, step
from policies import init, loud
from rule_settings import bars_after, with_settings

from jaxtrader.envs.episode import EnvState
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger import ledger
from jaxtrader.ledger.account import Brackets
from jaxtrader.ledger.costs import Costs
from jaxtrader.training.rollout import MarketPaths, MarketRollouts
from jaxtrader.training.update import begin_rollouts

RATES = {"cash_rate": 0.02, "borrow_rate": 0.2, "short_rate": 0.1}
SETTINGS = {
    "every second bar, on credit, with brackets": {
        "decision_every": 2,
        "episode_length": 32,
        "max_leverage": 2.0,
        "positions": (-2.0, 0.0, 2.0),
        "stop_loss": (0.01, None, 0.03),
        "take_profit": 0.02,
        "costs": Costs(fee=1e-3, slippage=None, **RATES),
    },
    "late, in lots, with impact": {
        "delay": 2,
        "fill": "next_close",
        "capital": 10_000.0,
        "lot": 1.0,
        "min_trade": 500.0,
        "volume_cap": 0.5,
        "costs": Costs(fixed_fee=3.0, impact=1.0, **RATES),
    },
    "at costs drawn for each episode": {
        "costs": Costs.between(Costs(fee=0.0, slippage=1e-4), Costs(fee=0.05, slippage=2e-3)),
    },
}


reset, step_env, one_bar_after = (
    jax.jit(method, static_argnums=0) for method in (TradingEnv.reset, TradingEnv.step_env, bars_after)
)
ledger_step = jax.jit(ledger.step, static_argnames="rules")


def made(env, name):
    return with_settings(env, SETTINGS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_a_rollout_equals_stepping_the_environment_one_by_one(rollouts: MarketRollouts, env, raw_params, name):
    env = made(env, name)
    params = raw_params.replace(costs=env.costs.cast("float32"))
    params = params.replace(arrays=params.arrays.replace(adv=env.market.arrays().adv))
    cursor = jnp.asarray([30, 10, 60, 160, 200, 110], jnp.int32)
    end = jnp.asarray([150, 150, 150, 240, 240, 150], jnp.int32)
    price = params.arrays.close[cursor][:, None]
    account = env.open_accounts(jax.random.key(5), price, params, (PATHS, ACCOUNTS))
    age = jnp.zeros(PATHS, jnp.int32)
    start = MarketPaths(cursor, end, age, age > 0, account, jnp.zeros((PATHS, ACCOUNTS)))
    actions = jnp.asarray(np.random.default_rng(1).integers(0, 3, (LENGTH, PATHS, ACCOUNTS)), jnp.int32)
    mine = dataclasses.replace(rollouts, env=env)
    after, rollout, _ = collect(mine, start, Replay(actions), None, params, jax.random.key(0))

    wide = lambda x: jnp.broadcast_to(x[:, None], (PATHS, ACCOUNTS))  # noqa: E731
    state = EnvState(account, wide(cursor), wide(end), wide(age))
    for t in range(LENGTH):
        # The return since entry is over some 0.09, which makes that much more of its rounding.
        np.testing.assert_allclose(rollout.account[t], observe(env, state, params).account, atol=5e-6)
        state, paid, *_ = step(env, jax.random.key(t), state, actions[t], params)
        np.testing.assert_allclose(rollout.reward[t], paid, rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_close(after.account, state.account, atol=1e-6)
    assert int(after.cursor[0]) == int(cursor[0]) + LENGTH * env.decision_every
    assert np.abs(np.asarray(rollout.reward)).max() > 0


def test_a_decision_of_two_bars_is_the_same_order_at_both(env, raw_params):
    """By `ledger.step`, bar by bar: what an action asks for, what it costs and what it earns."""
    env = made(env, "every second bar, on credit, with brackets")
    params = raw_params.replace(costs=env.costs.cast("float32"))
    _, state = reset(env, jax.random.key(3), params)
    alone = dataclasses.replace(env, decision_every=1)
    for action, exposure, stop in ((2, 2.0, 0.03), (0, -2.0, 0.01), (1, 0.0, np.inf)):
        _, after, reward, _, info = step_env(env, jax.random.key(0), state, jnp.asarray(action), params)
        account, cost = state.account, 0.0
        for bar in (0, 1):
            one = one_bar_after(alone, state.cursor + bar, params)
            brackets = Brackets(jnp.full(1, stop, jnp.float32), jnp.full(1, 0.02, jnp.float32))
            account, events = ledger_step(account, jnp.full(1, exposure), one, params.costs, env.rules, brackets)
            cost += sum(float((fill.fee + fill.slippage).sum()) for fill in events.fills)
        chex.assert_trees_all_close(after.account, account, rtol=1e-6, atol=1e-7)
        assert float(reward) == pytest.approx(np.log(float(account.equity / state.account.equity)), abs=1e-6)
        assert float(info["cost"]) == pytest.approx(cost, rel=1e-5)
        assert int(after.cursor) == int(state.cursor) + 2
        state = after


def test_costs_are_drawn_anew_for_each_episode_within_their_range_and_charged(env, raw_params):
    env = made(env, "at costs drawn for each episode")
    env = dataclasses.replace(env, random_start=False)
    params = raw_params.replace(costs=env.costs.cast("float32"))
    keys = jax.random.split(jax.random.key(0), 500)
    _, states = jax.jit(jax.vmap(env.reset, (0, None)))(keys, params)
    fee = np.asarray(states.account.costs.fee)[:, 0]
    assert fee.min() >= 0
    assert fee.max() <= 0.05
    assert np.histogram(fee, 5, (0, 0.05))[0].min() > 60  # 100 each if uniform, deviation 9
    slippage = np.asarray(states.account.costs.slippage)[:, 0]
    assert abs(np.corrcoef(fee, slippage)[0, 1]) < 0.15
    long = jnp.full(500, 2, jnp.int32)
    _, after, _, _, info = jax.jit(jax.vmap(env.step_env, (0, 0, 0, None)))(keys, states, long, params)
    # All of 1.0 buys k = 1 / ((1 + s)(1 + f)) worth: the rest is what it cost.
    np.testing.assert_allclose(info["cost"], 1 - 1 / ((1 + slippage) * (1 + fee)), rtol=2e-3, atol=1e-6)
    back = jax.jit(env.restart)(after.account, np.ones(500, bool))
    np.testing.assert_array_equal(np.asarray(back.costs.fee)[:, 0], fee)  # as long as its market path goes on
    np.testing.assert_array_equal(back.cash, 1.0)


@pytest.mark.slow
def test_a_market_path_that_starts_anew_gets_new_costs_and_one_that_does_not_keeps_its_own(rollouts, env, raw_params):
    env = made(env, "at costs drawn for each episode")
    params = raw_params.replace(costs=env.costs.cast("float32"))
    mine = dataclasses.replace(rollouts, env=env)
    paths = begin_rollouts(jax.random.key(0), params, rollouts=mine)
    still = Replay(jnp.ones((LENGTH, PATHS, ACCOUNTS), jnp.int32))
    after, *_ = collect(mine, paths, still, None, params, jax.random.key(1))
    kept = (np.asarray(after.account.costs.fee) == np.asarray(paths.account.costs.fee)).all((1, 2))
    np.testing.assert_array_equal(kept, np.asarray(after.age) > 0)
    assert kept.any()
    assert not kept.all()


@pytest.mark.slow
def test_another_range_of_costs_compiles_nothing_and_is_charged(rollouts, env, raw_params):
    """Rollouts and single steps, in whose programs the costs of each episode are drawn."""
    actions, sizes, paid = np.resize(np.int32([0, 2]), (LENGTH, PATHS, ACCOUNTS)), [], []
    for costs in (
        SETTINGS["at costs drawn for each episode"]["costs"],
        Costs.between(Costs(0.1, 0.0), Costs(0.2, 0.0)),
    ):
        mine = dataclasses.replace(rollouts, env=dataclasses.replace(env, costs=costs))
        params = raw_params.replace(costs=costs.cast("float32"))
        paths = begin_rollouts(jax.random.key(0), params, rollouts=mine)
        _, _, stats = collect(mine, paths, Replay(actions), None, params, jax.random.key(1))
        wide = [np.broadcast_to(x, (ACCOUNTS, PATHS)).T for x in (paths.cursor, paths.end, paths.age)]
        *_, info = step(mine.env, jax.random.key(2), EnvState(paths.account, *wide), actions[1], params)
        sizes.append([program._cache_size() for program in (begin_rollouts, collect, step)])
        paid.append(float(stats["cost_per_bar"]))
    assert sizes[0] == sizes[1]
    assert paid[1] > 3 * paid[0] > 0
    fee = np.asarray(paths.account.costs.fee)[..., 0]
    assert fee.min() >= 0.1
    assert len(np.unique(fee)) == PATHS * ACCOUNTS
    traded = np.asarray(info["turnover"])
    assert traded.any()
    np.testing.assert_allclose(info["cost"], fee * traded, rtol=0.1)  # in equity, of which a bar moves some 2%


@pytest.mark.slow
def test_an_update_sees_the_windows_that_decisions_two_bars_apart_saw(env, agent, raw_params):
    env = with_settings(env, {"decision_every": 2, "episode_length": 32})
    state, params = agent.prepare(loud(init(agent, jax.random.key(0), env, raw_params), 300), raw_params)
    mine = MarketRollouts(env, LENGTH, PATHS, ACCOUNTS)
    paths = begin_rollouts(jax.random.key(1), params, rollouts=mine)
    _, rollout, _ = collect(mine, paths, agent, state, params, jax.random.key(2))

    @jax.jit
    def divergences(state, rollout):
        """Of the policy from the one that acted, with its own windows and with those of each bar. No gradient."""
        data, _ = agent._training_data(state, rollout, rollout.reward, rollout.reward)
        states = (state, state.replace(decision_every=1))
        return [agent._loss(state.params, each, data, params)[1]["approx_kl"] for each in states]

    own, others = divergences(state, rollout)
    assert own < 1e-9
    assert others > 1e-4, "other windows give other decisions"
