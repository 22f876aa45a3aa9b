"""A policy on a market: against a closed loop of `Policy.act` and the scalar reference ledger. No look-ahead."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from ledger.reference import Ledger, Settings
from policies import about, loud, with_random_weights
from random_walks import FEATURES, walk

from jaxtrader import files
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.envs import rewards
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest, mean_reward, rollout_policy
from jaxtrader.ledger import costs
from jaxtrader.ledger.costs import Costs
from jaxtrader.market.market import Market
from jaxtrader.training.validation import Validation


def saved(folder, agent, state, env) -> Path:
    """The path of a policy file."""
    agent.save_model(folder / "policy.pkl", state, about(env))
    return folder / "policy.pkl"


@pytest.fixture(scope="module")
def policy(tmp_path_factory, env, agent, state) -> Policy:
    return load_policy(saved(tmp_path_factory.mktemp("policy"), agent, loud(state), env))


def closed_loop(policy: Policy, market, segment: int, costs: Costs, fill: str, band: float):
    """Targets and equity by one decision a bar: raw windows cut by hand, account features and money in plain Python."""
    first, end = int(market.first_decisions(policy.window)[segment]), int(market.segments[segment, 2])
    settings = Settings(fee=float(costs.fee), slippage=float(costs.slippage), fill=fill, rebalance_band=band)
    ledger = Ledger(1, settings)
    bars_since_fill, targets, equity = 20, [], [1.0]
    for t in range(first, end):
        price, entry = market.close[t, 0], ledger.entry[0]
        exposure = ledger.units[0] * price / ledger.value([price])
        gain = np.sign(ledger.units[0]) * (price / entry - 1) if entry else 0.0
        moves = np.clip(gain / (market.volatility[t, 0] * np.sqrt(20)), -5, 5)
        account = [exposure, ledger.target[0], moves, min(bars_since_fill, 20) / 20]
        targets.append(policy.act(market.features[t - policy.window + 1 : t + 1, 0], account))
        if t + 1 < end:
            before = ledger.units[0]
            ledger.step([targets[-1]], [price], [market.open[t + 1, 0]], [market.close[t + 1, 0]])
            bars_since_fill = 0 if ledger.units[0] != before else bars_since_fill + 1
            equity.append(ledger.equity)
    return np.array(targets), np.array(equity)


def test_backtest_equals_a_closed_loop(policy, market):
    costs = Costs(fee=2e-3, slippage=1e-3)
    result = backtest(policy, market, costs=costs)
    for segment, symbol in enumerate(market.symbols):
        targets, equity = closed_loop(policy, market, segment, costs, "next_open", 0.05)
        one = result.by_symbol[symbol]
        assert len(set(targets)) == 3, "the policy must use every position, or this proves little"
        np.testing.assert_array_equal(one.targets[:, 0], targets)
        np.testing.assert_allclose(one.equity, equity, rtol=1e-12)
        assert one.times[0] == market.times[market.first_decisions(policy.window)[segment]]


@pytest.mark.slow
def test_backtest_of_a_continuous_policy_under_another_fill_equals_a_closed_loop(env, agent, market, tmp_path):
    env = dataclasses.replace(env, positions="continuous")
    state, params = agent.prepare(with_random_weights(agent, env), env.default_params)
    policy = load_policy(saved(tmp_path, agent, state, env))
    rules = policy.rules.replace(fill="next_close")
    result = backtest(policy, market, rules=rules)
    targets, equity = closed_loop(policy, market, 1, Costs(), "next_close", 0.05)
    np.testing.assert_allclose(result.by_symbol["S1"].targets[:, 0], targets, atol=1e-5)
    np.testing.assert_allclose(result.by_symbol["S1"].equity, equity, rtol=1e-6)
    assert np.std(targets) > 0.2
    score = mean_reward(agent, state, params, env=dataclasses.replace(env, rules=rules))
    exact = np.concatenate([np.diff(np.log(p.equity)) for p in result.by_symbol.values()]).mean()
    # A float32 mean of rewards of a hundredth, whose signs differ.
    assert float(score) == pytest.approx(exact, abs=2e-8)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["tcn", "attention"])
def test_backtest_of_an_encoder_equals_a_closed_loop(encoder, with_encoder, env, market, tmp_path):
    agent, state = with_encoder(encoder=encoder)
    policy = load_policy(saved(tmp_path, agent, state, env).parent)
    assert policy.state.network == state.network
    targets, equity = closed_loop(policy, market, 1, Costs(), "next_open", 0.05)
    one = backtest(policy, market).by_symbol["S1"]
    assert len(set(targets)) > 1, "a constant policy would prove nothing"
    np.testing.assert_array_equal(one.targets[:, 0], targets)
    np.testing.assert_allclose(one.equity, equity, rtol=1e-12)


def test_total_is_equal_capital_in_each_symbol(policy, market):
    result = backtest(policy, market)
    parts = list(result.by_symbol.values())
    assert result.equity[-1] == pytest.approx(np.mean([p.equity[-1] for p in parts]), rel=1e-12)


def test_first_decision_of_a_test_part_is_its_first_bar(policy, market):
    _, test = market.split(0.4, 0.6)
    result = backtest(policy, test)
    for i, symbol in enumerate(test.symbols):
        assert result.by_symbol[symbol].times[0] == test.times[test.segments[i, 1]]


def test_a_backtest_has_no_look_ahead(policy, market):
    """With the policy and the normaliser frozen, targets and equity up to t are the same bits, whatever comes after."""
    first, (_, _, end) = int(market.first_decisions(policy.window)[0]), market.segments[0]
    before = backtest(policy, market).by_symbol["S0"]
    for t in (first, first + 40, end - 2):
        changed = {}
        for name in ("open", "high", "low", "close", "features", "volatility"):
            column = getattr(market, name).copy()
            column[t + 1 :] = np.nan_to_num(column[t + 1 :]) * 5 + 2
            changed[name] = column
        after = backtest(policy, dataclasses.replace(market, **changed)).by_symbol["S0"]
        rows = slice(0, t - first + 1)
        np.testing.assert_array_equal(after.targets[rows], before.targets[rows])
        np.testing.assert_array_equal(after.equity[rows], before.equity[rows])
        if t < first + 50:
            assert not np.array_equal(after.equity, before.equity)


@pytest.mark.slow
def test_next_target_live_is_what_a_backtest_of_more_bars_follows(policy):
    """What the README tells a live trader to do: a market of the bars up to now, with features from those alone."""
    bars = walk("S0", 150, 0)
    whole, last = backtest(policy, Market.from_bars(bars, FEATURES)), []
    for count in (60, 61, 100, 150):
        columns = {name: getattr(bars, name)[:count] for name in ("times", "open", "high", "low", "close", "volume")}
        own = {name: column[:count] for name, column in bars.columns.items()}
        so_far = backtest(policy, Market.from_bars(dataclasses.replace(bars, **columns, columns=own), FEATURES))
        last.append(so_far.targets[-1, 0])
        assert np.isfinite(last[-1])
        np.testing.assert_array_equal(so_far.next_target, so_far.targets[-1])
        np.testing.assert_array_equal(so_far.targets, whole.targets[: len(so_far)])
        np.testing.assert_array_equal(so_far.equity, whole.equity[: len(so_far)])
    assert len(set(last)) > 1, "a constant policy would prove nothing"


def test_validation_in_float32_agrees_with_the_backtest(policy, market, env, agent, state, params):
    """With a reward of its own. That of the equity alone is below, where a market has grown."""
    parts = backtest(policy, market).by_symbol.values()
    exact = np.concatenate([np.diff(np.log(p.equity)) for p in parts]).mean()
    penalized = dataclasses.replace(env, reward=rewards.risk_penalized(5.0))
    lower = mean_reward(policy.agent, policy.state, params, env=penalized)
    simple = np.concatenate([np.diff(p.equity) / p.equity[:-1] for p in parts])
    assert float(lower) == pytest.approx(exact - 2.5 * (simple**2).mean(), abs=2e-6)


@struct.dataclass
class Foresight:
    """Long before every rise, short before every fall: the one feature tells."""

    def encode(self, state, chunk):
        return chunk[..., 3:, 0, :]

    def act(self, state, context, account, key, deterministic=False):
        return jnp.where(context[..., 0] > 0, 2, 0), {}


def test_a_long_path_with_a_strong_edge_does_not_overflow(env, params):
    """1,000 bars between 1 and 1.5, always on the right side: e^340 is far beyond float32, the rewards are not."""
    bars = 1000
    close = np.where(np.arange(bars) % 2 == 0, 1.0, 1.5)[:, None].astype(np.float32)
    ones = jnp.ones((bars, 1))
    arrays = params.arrays.replace(
        open=jnp.asarray(np.concatenate([close[:1], close[:-1]])),
        high=ones,
        low=ones,
        close=jnp.asarray(close),
        features=jnp.asarray(np.where(close == 1, 1, -1)[:, :, None], jnp.float32),
        volatility=ones,
        dt=ones[:, 0],
        segments=jnp.asarray([[0, 0, bars]], jnp.int32),
        ready=jnp.asarray([0], jnp.int32),
    )
    params = params.replace(arrays=arrays)
    found, _ = rollout_policy(Foresight(), None, params, env=env, decisions=bars - 3, rewards_only=True)
    reward = np.asarray(found)[10:-1, 0]
    assert np.isfinite(reward).all()
    # A short at 1.5 gains a third, and a long at 1 gains half, each less the costs of turning the whole position round.
    assert reward.sum() > 300
    np.testing.assert_allclose(reward[2:], reward[:-2], atol=1e-5)


def test_another_markets_features_are_refused(policy, make_market):
    other = Market.from_bars(walk("X", 100, 1), features=["signal"])
    with pytest.raises(ValueError, match=r"log_return_1, signal, noise.* signal; .*from_bars"):
        backtest(policy, other)


def test_too_few_bars_are_refused(policy, market):
    short = dataclasses.replace(market, segments=np.array([[0, 0, 4]]), symbols=("S0",))
    with pytest.raises(ValueError, match=r"S0: .*give more bars or leave the symbol out"):
        backtest(policy, short)


def test_a_policy_of_another_environment_is_refused(tmp_path, agent, state, market):
    agent.save_model(tmp_path / "policy.pkl", state, {})
    with pytest.raises(ValueError, match="not trained in a TradingEnv"):
        backtest(tmp_path / "policy.pkl", market)


def test_a_policy_without_its_features_is_refused(tmp_path, agent, state, env):
    agent.save_model(tmp_path / "policy.pkl", state, {"env": env.to_dict()})
    with pytest.raises(files.FileError, match="features"):
        load_policy(tmp_path / "policy.pkl")


def test_weights_that_are_not_finite_are_refused(tmp_path, agent, state, env):
    broken = state.replace(params={**state.params, "first_bias": state.params["first_bias"] * np.nan})
    path = saved(tmp_path, agent, broken, env)
    with pytest.raises(files.FileError, match="not finite"):
        load_policy(path)


def test_changes_override_the_files_rules(policy, market):
    free = backtest(policy, market, costs=Costs(fee=0.0, slippage=0.0))
    assert free.costs_paid.sum() == 0
    assert backtest(policy, market).costs_paid.sum() > 0


@pytest.mark.parametrize("change", [{"rules": None}, {"rules": {}}, {"costs": None}, {"costs": 0.001}])
def test_changes_of_another_type_are_refused(policy, market, change):
    with pytest.raises(ValueError, match=f"`{next(iter(change))}.* must be"):
        backtest(policy, market, **change)


def test_other_rates_compile_nothing(policy, market):
    results, sizes = [], []
    for rates in (Costs(fee=2e-3, slippage=1e-3), Costs(fee=0, slippage=0.01)):
        results.append(backtest(policy, market, costs=rates))
        sizes.append(rollout_policy._cache_size())
    assert sizes[0] == sizes[1]
    fills = [result.fills for result in results]
    np.testing.assert_allclose(fills[0]["slippage"], 1e-3 * np.abs(fills[0]["units"]) * fills[0]["price"])
    np.testing.assert_allclose(fills[1]["slippage"], 1e-2 * np.abs(fills[1]["units"]) * fills[1]["price"])
    assert not fills[1]["fee"].any()


def test_a_market_that_has_grown_compiles_nothing(policy, make_market):
    """Backtest, validation and decision of 90 and 120 bars, and of both histories one bar longer."""
    compilations = []

    def listen(event: str, *_: Any, **__: Any) -> None:
        compilations.extend([event] * event.endswith("backend_compile_duration"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        counts = []
        for lengths in ((90, 120), (91, 121)):
            market = make_market(lengths)
            parts = backtest(policy, market).by_symbol.values()
            env = policy.environment(market)
            validation = Validation.prepare(market, env, policy.agent, policy.state)
            score = float(validation.score(policy.agent, policy.state)["valid_reward_per_bar"])
            assert score == pytest.approx(np.concatenate([np.diff(np.log(p.equity)) for p in parts]).mean(), abs=2e-6)
            policy.act(market.features[-policy.window :, 0])
            counts.append(len(compilations))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert counts[0] > 0, "nothing was counted"
    assert counts[1] == counts[0]


def test_env_to_dict_round_trip(env, market):
    setting = dataclasses.replace(
        env, reward=rewards.risk_penalized(3.0), costs=Costs(fee=1e-3, slippage=None)
    ).to_dict()
    assert costs.from_dict(setting["costs"]) == Costs(fee=1e-3, slippage=None)
    assert rewards.from_dict(setting["reward"]) == rewards.risk_penalized(3.0)
    assert set(setting) == {f.name for f in dataclasses.fields(TradingEnv)} - {"market", "sees_best_price"}
    assert dataclasses.replace(env, trailing_stop=0.1).to_dict()["sees_best_price"]
