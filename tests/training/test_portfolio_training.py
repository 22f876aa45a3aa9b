"""Many assets, one account: rollouts, learning, policy files, backtests, and a market whose best is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from agents.test_own_modules import Assets
from ledger.reference import Ledger, Settings
from policies import about, init, with_noise
from random_walks import masked
from rule_settings import env_account

from jaxtrader.agents.networks import PortfolioActorCritic
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.agents.ppo import PPOAgent, PPOState, ValueScale
from jaxtrader.envs.episode import EnvParams, EnvState
from jaxtrader.envs.observation import Observation
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest, mean_reward
from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.market import Market
from jaxtrader.training.rollout import MarketRollouts
from jaxtrader.training.trainer import Trainer

LENGTH, PATHS, AGENTS, ASSETS = 8, 4, 2, 3


def loud(state: PPOState) -> PPOState:
    """Weights whose actions differ from bar to bar and from asset to asset."""
    weights = with_noise(state, 0, 0.3).params | {"log_std": np.zeros(1, np.float32)}
    return state.replace(params=weights, value_scale=ValueScale(*jnp.asarray([0.1, 1.0, 1.0])))


@partial(jax.jit, static_argnums=0)
def observed_and_chosen(
    env: TradingEnv, agent: PPOAgent, learned: PPOState, state: EnvState, params: EnvParams
) -> tuple[Observation, jax.Array]:
    """What is seen of a state, and the most likely action there."""
    obs = env.observe(None, state, None, params)
    return obs, agent.select_action(learned, obs, jax.random.key(0), deterministic=True)[0]


# Quick is the one with most in it. Exposures that are no weights are quick for one asset, in test_rollout.py.
LIVES = [("weights", True), pytest.param(("continuous", False), marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=LIVES)
def lived(request: pytest.FixtureRequest, portfolio: TradingEnv, agent: PPOAgent) -> dict[str, Any]:
    """A rollout of a portfolio by a loud policy, with everything that led to it."""
    positions, with_mask = request.param
    env = dataclasses.replace(portfolio, positions=positions)
    raw = masked(env.default_params) if with_mask else env.default_params
    state, params = agent.prepare(loud(init(agent, jax.random.key(0), env, raw)), raw)
    rollouts = MarketRollouts(env, LENGTH, PATHS, AGENTS)

    @jax.jit
    def collect(params: EnvParams, state: PPOState) -> tuple:
        paths = rollouts.begin(jax.random.key(1), params)
        return paths, *rollouts.collect(paths, agent, state, params, jax.random.key(2))

    paths, after, rollout, stats = collect(params, state)
    return {
        "env": env,
        "params": params,
        "state": state,
        "paths": paths,
        "after": after,
        "rollout": rollout,
        "stats": stats,
    }


def test_paths_of_a_portfolio_equal_stepping_the_environment(lived: dict[str, Any], agent: PPOAgent) -> None:
    """From one state, with the same actions: accounts, what is seen, rewards, and what the policy makes of it."""
    env, params, rollout, paths = (lived[name] for name in ("env", "params", "rollout", "paths"))
    present = params.arrays.present
    assert rollout.action.shape == (LENGTH, PATHS, AGENTS, ASSETS)
    assert rollout.account.shape == (LENGTH, PATHS, AGENTS, ASSETS, 4 if present is None else 5)
    assert int(lived["stats"]["invalid_actions"]) == 0
    wide = lambda x: np.broadcast_to(np.asarray(x)[:, None], (PATHS, AGENTS))  # noqa: E731
    rollout = jax.tree.map(np.asarray, rollout)

    @jax.jit
    def step(state: EnvState, action: jax.Array) -> tuple:
        def one(state: EnvState, action: jax.Array) -> tuple:
            obs = env.observe(None, state, None, params)
            _, extras = agent.select_action(lived["state"], obs, jax.random.key(0))
            return obs.account, extras["value"], env.step_env(jax.random.key(0), state, action, params)[1:3]

        return jax.vmap(jax.vmap(one))(state, action)

    state = EnvState(paths.account, wide(paths.cursor), wide(paths.end), wide(paths.age))
    for t in range(LENGTH):
        seen, value, (state, reward) = step(state, rollout.action[t])
        np.testing.assert_allclose(rollout.account[t], seen, atol=5e-6)  # float32's 1e-7 of a price, in 20-bar moves
        np.testing.assert_allclose(rollout.value[t], value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(rollout.reward[t], reward, atol=1e-6)
        if present is not None:
            listed = np.asarray(present)[np.asarray(paths.cursor) + t]
            np.testing.assert_array_equal(rollout.action[t] != 0, np.broadcast_to(listed[:, None], seen.shape[:3]))
    going_on = np.asarray(lived["after"].age) > 0
    assert going_on.any()
    pick = lambda tree: jax.tree.map(lambda x: np.asarray(x)[going_on], tree)  # noqa: E731
    chex.assert_trees_all_close(pick(lived["after"].account), pick(state.account), atol=1e-5)
    exposure = np.asarray(rollout.account[..., 0])
    np.testing.assert_allclose(lived["stats"]["exposure"], exposure.sum(-1).mean(), rtol=1e-5)
    np.testing.assert_allclose(lived["stats"]["gross_exposure"], np.abs(exposure).sum(-1).mean(), rtol=1e-5)


def test_the_ratio_of_a_portfolios_first_minibatch_is_1_and_all_weights_learn(
    lived: dict[str, Any], agent: PPOAgent
) -> None:
    state, params, rollout = (lived[name] for name in ("state", "params", "rollout"))
    tight = agent.replace(clip_range=1e-5, num_epochs=1, num_minibatches=1)  # clip_fraction counts |ratio - 1| > 1e-5
    learn = jax.jit(lambda s: tight.learn(s, rollout, params, jax.random.key(3)))
    after, metrics = learn(state)
    assert float(metrics["clip_fraction"]) == 0
    _, moved = learn(
        state.replace(params=jax.tree.map(lambda x: np.asarray(x) + np.float32(1e-3), state.params))
    )  # not what acted
    assert float(moved["clip_fraction"]) > 0.9
    assert np.isfinite(float(metrics["entropy"]))
    for path, new in jax.tree.leaves_with_path(after.params):
        old = state.params
        for key in path:
            old = old[key.key]
        assert np.isfinite(new).all()
        scheduled = path[0].key == "log_std" and lived["env"].positions == "continuous"
        assert np.array_equal(new, old) == scheduled, path


# --- in a file ---


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, lived: dict[str, Any], agent: PPOAgent) -> Policy:
    env, path = lived["env"], tmp_path_factory.mktemp("portfolio") / "policy.pkl"
    agent.save_model(path, lived["state"], about(env))
    return load_policy(path)


def test_a_portfolios_policy_comes_back_from_its_file(saved: Policy, lived: dict[str, Any]) -> None:
    assert saved.portfolio
    assert saved.symbols == ("P0,P1,P2",)
    assert isinstance(saved.state.network, PortfolioActorCritic)
    assert saved.state.network == lived["state"].network
    chex.assert_trees_all_equal(saved.state.params, lived["state"].params)
    assert saved.environment(lived["env"].market) == lived["env"]


def test_act_divides_the_account_between_any_number_of_assets(
    saved: Policy, lived: dict[str, Any], agent: PPOAgent
) -> None:
    env, params, rollout, paths = (lived[name] for name in ("env", "params", "rollout", "paths"))
    weights = env.positions == "weights"
    t = int(paths.cursor[0])
    window, account = env.market.features[t - 3 : t + 1], np.asarray(rollout.account[0, 0, 0])
    chosen = saved.act(window, account)
    account_of_path = jax.tree.map(lambda x: np.asarray(x)[0, 0], paths.account)
    _, expected = observed_and_chosen(env, agent, lived["state"], EnvState(account_of_path, t, 150, 0), params)
    listed = account[:, 4] > 0 if account.shape[1] == 5 else np.ones(ASSETS, bool)
    np.testing.assert_allclose(chosen[listed], expected[listed], rtol=1e-4, atol=1e-6)
    assert np.isnan(chosen[~listed]).all()
    order = [2, 0, 1]
    np.testing.assert_allclose(saved.act(window[:, order], account[order]), chosen[order], rtol=1e-4, atol=1e-6)
    more = saved.act(np.concatenate([window, window[:, :2]], 1))
    assert more.shape == (5,)
    np.testing.assert_allclose(more[:2], more[3:], rtol=1e-4, atol=1e-6)
    assert (more.min() > 0 and more.sum() < 1) if weights else np.abs(more).max() <= 1
    for wrong, message in [
        ((window[:, 0],), r"the window has shape \(4, 3\), the policy needs \(4, assets, 3\)"),
        ((window, account[:2]), r"the account has shape \(2, \d\), the policy needs \(3, 4\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            saved.act(*wrong)


# --- backtests ---


def test_a_backtest_is_one_result_of_all_assets_and_equals_a_walk_bar_by_bar(
    saved: Policy, make_portfolio: Callable[..., Market]
) -> None:
    """With `act` and the scalar reference ledger, on four assets, though it was trained on three."""
    market = make_portfolio(4, 60, seed=5)
    result = backtest(saved, market)
    assert result.symbols == ("P0", "P1", "P2", "P3")
    assert result.exposure.shape == result.targets.shape == (len(result), 4)
    ledger = Ledger(4, Settings(fee=1e-4, slippage=5e-4, rebalance_band=0.05))
    held, targets, equity = np.full(4, 20), [], [1.0]
    first = int(market.first_decisions(saved.window)[0])
    for t in range(first, len(market.close)):
        price, entry, units = market.close[t], np.array(ledger.entry), np.array(ledger.units)
        gain = np.sign(units) * (price / np.where(entry > 0, entry, price) - 1)
        moves = np.clip(gain / (market.volatility[t] * np.sqrt(20)), -5, 5)
        seen = [units * price / ledger.value(list(price)), np.array(ledger.target), moves, np.minimum(held, 20) / 20]
        targets.append(saved.act(market.features[t - saved.window + 1 : t + 1], np.stack(seen, -1)))
        if t + 1 < len(market.close):
            ledger.step(list(targets[-1]), list(price), list(market.open[t + 1]), list(market.close[t + 1]))
            held = np.where(np.array(ledger.units) != units, 0, held + 1)
            equity.append(ledger.equity)
    assert np.std(targets, 0).min() > 0.01
    np.testing.assert_allclose(result.targets, targets, atol=1e-5)
    np.testing.assert_allclose(result.equity, equity, rtol=1e-5)


def test_an_asset_that_comes_late_and_one_that_leaves_are_ordered_only_while_they_are_there(
    saved: Policy, make_portfolio: Callable[..., Market], portfolio: TradingEnv, agent: PPOAgent
) -> None:
    whole = make_portfolio(3, 60, seed=6)
    bars = [cut(whole, asset, slice(*rows)) for asset, rows in enumerate([(0, 60), (20, 60), (0, 40)])]
    market = Market.from_bars(bars, features=list(whole.feature_names), align=True)
    result = backtest(saved, market)
    first = int(market.first_decisions(saved.window)[0])
    can_decide = (market.present & market.listed)[first:]
    assert 0 < can_decide[:, 1].argmax() < len(result) > can_decide[:, 2].sum()
    np.testing.assert_array_equal(np.isnan(result.targets), ~can_decide)
    assert (result.units[: can_decide[:, 1].argmax() + 1, 1] == 0).all()
    last, gone = int(np.flatnonzero(can_decide[:, 2])[-1]), 39 + 15 - first  # 15 days after its last bar
    assert len(set(result.units[last:gone, 2])) == 1, "held while nobody knows whether it comes back"
    assert result.units[last, 2] != 0
    assert (result.units[gone:, 2] == 0).all(), "closed as delisted"
    assert result.units[-1, 0] != 0
    env = saved.environment(market)
    _, prepared = agent.prepare(saved.state, env.default_params)
    # Live, the market's own windows decide the same: their rows are NaN before an asset is listed.
    late = int(np.flatnonzero(market.listed[:, 1])[0])
    for t in (late - 1, late, late + 1, 45):
        account = env_account(np.zeros(3, np.float32), np.asarray(prepared.arrays.close)[t])
        obs, expected = observed_and_chosen(env, agent, saved.state, EnvState(account, t, 60, 0), prepared)
        window, now = market.features[t - 3 : t + 1], (market.present & market.listed)[t]
        chosen = saved.act(window, np.asarray(obs.account))
        np.testing.assert_allclose(chosen, np.where(now, expected, np.nan), rtol=1e-4, atol=1e-6)
        assert np.isnan(window).any() == (t < late + 3)
    assert np.isnan(market.features[late - 1, 1]).any()
    with pytest.raises(ValueError, match="not finite"):
        saved.act(market.features[late - 4 : late])  # as if all could be traded
    score = mean_reward(agent, saved.state, prepared, env=env)
    assert float(score) == pytest.approx(np.diff(np.log(result.equity)).mean(), abs=2e-5)


def cut(market: Market, asset: int, rows: slice) -> Bars:
    """Some bars of one asset."""
    prices = {name: getattr(market, name)[rows, asset] for name in ("open", "high", "low", "close", "volume")}
    own = {"signal": market.features[rows, asset, 1], "noise": market.features[rows, asset, 2]}
    bars = load_bars(pd.DataFrame({"time": market.times[rows], **prices, **own}), symbol=f"P{asset}")
    assert isinstance(bars, Bars)
    return bars


def test_a_policy_of_one_asset_refuses_a_portfolio(
    agent: PPOAgent, env: TradingEnv, portfolio: TradingEnv, raw_params: EnvParams, tmp_path: Path
) -> None:
    single = dataclasses.replace(env, positions="weights")
    state, _ = agent.prepare(init(agent, jax.random.key(0), single, raw_params), raw_params)
    agent.save_model(tmp_path / "policy.pkl", state, about(single))
    with pytest.raises(ValueError, match="trades one asset an account, the market has 3 in one history; give the symb"):
        backtest(tmp_path, portfolio.market)


# --- learning ---


def drifting(winner: int, seed: int, bars: int = 300) -> Market:
    """Four random walks, one of which rises by 1% a bar: the best is to hold it alone, ln 1.01 a bar and more."""
    histories = []
    for i in range(4):
        rng = np.random.default_rng(seed + i)
        close = 50 * np.exp(np.cumsum(rng.normal(0.01 if i == winner else 0.0, 0.01, bars)))
        open_ = np.append(50, close[:-1])
        frame = {"open": open_, "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close}
        times = pd.date_range("2020-01-01", periods=bars)
        histories.append(load_bars(pd.DataFrame({"time": times, **frame, "volume": 1.0}), symbol=f"D{i}"))
    return Market.from_bars(histories, features=["log_return_20"], align=True)


@pytest.mark.slow
@pytest.mark.parametrize("network", [None, Assets(32)], ids=["ours", "own network"])
def test_it_learns_to_hold_the_asset_that_rises_whichever_it_is(network: Any, tmp_path: Path) -> None:
    env = TradingEnv(drifting(2, seed=0), positions="weights", window=1, episode_length=32)
    settings: dict[str, Any] = {"learning_rate": 1e-2, "gamma": 0.8, "num_epochs": 4, "num_minibatches": 2}
    agent = PPOAgent(hidden=(16, 16), network=network, **settings)
    trainer = Trainer(
        env,
        agent,
        num_envs=64,
        rollout_length=16,
        total_steps=40 * 1024,
        eval_every=100,
        run_dir=tmp_path / "run",
        progress=False,
    )
    result = trainer.train()
    policy = load_policy(result.policy_path)
    assert policy.symbols == ("D0,D1,D2,D3",)
    for winner, seed in ((2, 0), (0, 50)):
        market = drifting(winner, seed)
        result = backtest(policy, market)
        held = result.exposure[5:].mean(0)
        assert held.argmax() == winner
        assert held[winner] > 0.75
        equal = np.log(market.close[-1] / market.close[-len(result)]).mean() / len(result)
        assert np.log(result.equity[-1]) / len(result) > 2.5 * equal
