"""One decision explained: all that it saw is what the backtest had there, and its numbers are those of the weights."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime
from typing import Any

import jax
import numpy as np
import pytest
from policies import fresh, policy_of, with_noise

from jaxtrader.agents.normalization import ValueScale
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import ensemble
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.simulate import simulate

WINDOW = 4


def noisy(agent: Any, state: Any, env: TradingEnv, seed: int) -> Policy:
    scale = ValueScale(*(np.float32(x) for x in (0.02, 0.05, 0.1)))  # of weight 0.1: mean 0.2, mean square 0.5
    return policy_of(agent, with_noise(state, seed).replace(value_scale=scale), env)


@pytest.fixture(scope="module")
def policy(agent, state, env) -> Policy:
    return noisy(agent, state, env, 1)


@pytest.fixture(scope="module")
def result(policy, market):
    return backtest(policy, market)


def by_hand(policy: Policy, window: np.ndarray, account: np.ndarray) -> tuple[np.ndarray, float]:
    """The probabilities and the value of the tanh network, in float64."""
    weights = jax.tree.map(lambda x: np.asarray(x, np.float64), policy.state.params)
    scaled = np.clip((window - policy.state.normalizer.mean) / policy.state.normalizer.std, -5, 5)
    hidden = np.concatenate([scaled.ravel(), account.ravel()]) @ weights["first_kernel"] + weights["first_bias"]
    actor, critic = np.split(np.tanh(hidden), 2)
    actor = np.tanh(actor @ weights["torsos_0_0"]["kernel"] + weights["torsos_0_0"]["bias"])
    critic = np.tanh(critic @ weights["torsos_1_0"]["kernel"] + weights["torsos_1_0"]["bias"])
    logits = actor @ weights["policy"]["kernel"] + weights["policy"]["bias"]
    value = (critic @ weights["critic"]["kernel"] + weights["critic"]["bias"])[0]
    shares = np.exp(logits - logits.max())
    return shares / shares.sum(), 0.2 + np.sqrt(0.5 - 0.2**2) * value


def test_every_decision_is_that_of_the_backtest_to_the_bit(policy, market, result):
    member = result.by_symbol["S1"]
    first, end = int(market.first_decisions(WINDOW)[1]), int(market.segments[1, 2])
    for bar in range(0, end - first, 7):
        told = policy.explain(result, bar, "S1")
        assert told.seen.bar == bar
        assert told.target == member.targets[bar]
        window = market.features[first + bar - WINDOW + 1 : first + bar + 1].astype(np.float32)
        np.testing.assert_array_equal(told.seen.window, window)
        assert told.account["exposure"][0] == np.float32(np.clip(member.exposure[bar, 0], -2, 2))
        assert told.account["last target"][0] == (0 if bar == 0 else member.targets[bar - 1, 0])
        probabilities, value = by_hand(policy, window, told.seen.account)
        assert told.probabilities is not None
        assert list(told.probabilities) == list(policy.positions)
        np.testing.assert_allclose(list(told.probabilities.values()), probabilities, rtol=1e-4)
        assert told.value == pytest.approx(value, rel=1e-4)
    assert len(set(member.targets[::7, 0])) > 1, "a constant policy would prove little"


def test_the_table_has_the_order_the_account_and_the_features_raw_and_normalised(policy, result):
    member = result.by_symbol["S0"]
    fill = member.fills[5]
    told = policy.explain(result, int(fill["bar"]) - 1, "S0")
    text = str(told)
    side = "bought" if fill["units"] > 0 else "sold"
    assert f"{side} {abs(fill['units']):.4g} S0 at {fill['price']:.6g}" in text
    frame = told.to_frame()
    assert list(frame.index) == list(policy.features)
    normalizer = policy.state.normalizer
    scaled = (frame["raw"] - np.asarray(normalizer.mean)) / np.asarray(normalizer.std)
    np.testing.assert_allclose(frame["normalized"], np.clip(scaled, -5, 5), rtol=1e-5)
    for name in (*policy.account_names, *policy.features, "probabilities", f"{told.value:.4g}"):
        assert name in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_table_counts_bars_and_exposures_as_the_result_has_them(agent, state, env, market):
    """The network sees a twentieth of a bar and, at a leverage of 2, half of an exposure."""
    policy = noisy(agent, state, dataclasses.replace(env, rules=env.rules.replace(max_leverage=2.0)), 1)
    leveraged = backtest(policy, market).by_symbol["S0"]
    filled = np.unique(leveraged.fills["bar"])
    for bar in (0, int(filled[3]), int(filled[3]) + 1, len(leveraged) - 1):
        rows = dict(line.rsplit("  ", 1) for line in str(policy.explain(leveraged, bar)).splitlines() if "  " in line)
        rows = {name.strip(): text for name, text in rows.items()}
        before = filled[filled <= bar]
        count = bar - before[-1] if len(before) else 20
        assert rows["bars since the last fill"] == ("20 or more" if count >= 20 else str(count))
        # The table prints four digits.
        assert float(rows["exposure"]) == pytest.approx(leveraged.exposure[bar, 0], rel=1e-3)
        assert float(rows["last target"]) == (0 if bar == 0 else leveraged.targets[bar - 1, 0])


def test_a_bar_is_found_by_number_day_or_time(policy, result):
    times = result.by_symbol["S0"].times
    day = str(times[30].astype("datetime64[D]"))
    moment = datetime.fromisoformat(day)
    ways = (30, np.int64(30), 30 - len(times), day, date.fromisoformat(day), moment, times[30], f"{day} 13:00")
    assert [policy.explain(result, way, "S0").seen.bar for way in ways] == [30] * len(ways)


@pytest.mark.parametrize("at", [10_000, -10_000, "2012-01-01", "2012-01-01 10:00", "soon", 1.5, True, None])
def test_what_is_no_bar_is_refused(at, policy, result):
    with pytest.raises(ValueError, match=str(at)):
        policy.explain(result, at, "S0")


def test_results_of_others_are_refused(policy, market, result, agent, state, env):
    with pytest.raises(ValueError, match="S0, S1"):
        policy.explain(result, 3)
    with pytest.raises(ValueError, match="S0, S1"):
        policy.explain(result, 3, "S9")
    with pytest.raises(ValueError, match="S9"):
        policy.explain(result.by_symbol["S0"], 3, "S9")
    with pytest.raises(ValueError, match=r"explain needs a BacktestResult, not an int; give that of `backtest\("):
        policy.explain(5, 3)
    with pytest.raises(ValueError, match="backtest"):
        policy.explain(simulate(market, 1.0, symbol="S0"), 3)
    other = noisy(agent, state, env, 2)
    differ = np.flatnonzero(backtest(other, market).by_symbol["S0"].targets != result.by_symbol["S0"].targets)
    with pytest.raises(ValueError, match="backtest of this policy"):
        other.explain(result, int(differ[0]), "S0")


def test_an_ensemble_tells_what_each_member_wanted(agent, state, env, market):
    members = [noisy(agent, state, env, seed) for seed in (1, 2, 3)]
    together = ensemble(members)
    result = backtest(together, market)
    told = together.explain(result, 40, "S0")
    assert list(told.members) == ["seed 0", "seed 1", "seed 2"]
    alone = [by_hand(each, told.seen.window, told.seen.account) for each in members]
    for one, (probabilities, value) in zip(told.members.values(), alone, strict=True):
        assert one.target == together.members[0].positions[int(np.argmax(probabilities))]
        assert one.value == pytest.approx(value, rel=1e-4)
    assert told.target[0] == pytest.approx(np.mean([one.target for one in told.members.values()]), abs=1e-7)
    np.testing.assert_allclose(list(told.probabilities.values()), np.mean([one[0] for one in alone], 0), rtol=1e-4)
    assert told.value == pytest.approx(np.mean([value for _, value in alone]), rel=1e-4)
    assert "seed 2" in str(told)


@pytest.mark.slow
def test_a_portfolio_tells_its_weights_and_decisions_between_are_those_before(agent, portfolio):
    listed = np.ones(portfolio.market.close.shape, bool)
    listed[:60, 2] = False
    features = np.where(listed[..., None], portfolio.market.features, np.nan)
    market = dataclasses.replace(portfolio.market, listed=listed, features=features)
    env = dataclasses.replace(portfolio, decision_every=4, market=market)
    policy = noisy(agent, fresh(agent, env), env, 1)
    result = backtest(policy, market)
    late = policy.explain(result, 11)
    assert late.seen.bar == 8
    assert np.isnan(late.target[2]), "P2 is not listed yet"
    told = policy.explain(result, 103)
    assert told.seen.bar == 100
    np.testing.assert_array_equal(told.target, result.targets[100])
    np.testing.assert_allclose(told.members["seed 0"].target, result.targets[100], atol=1e-6)
    assert told.probabilities is None
    assert (told.members["seed 0"].deviation > 0).all()
    assert told.to_frame().index.names == ["symbol", "feature"]
    assert f"P1 {told.target[1]:.4g}" in str(told)


def test_a_policy_of_before_its_file_held_the_units_of_values_tells_none(agent, state, env, market, result):
    """Its actions do not depend on them."""
    old = noisy(agent, state, env, 1)
    old = dataclasses.replace(old, state=old.state.replace(value_scale=ValueScale.fresh()))
    told = old.explain(result, 20, "S0")
    assert np.isnan(told.value)
    assert "value" in str(told)
    assert told.probabilities is not None
