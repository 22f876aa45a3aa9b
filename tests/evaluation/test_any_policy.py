"""`backtest` of what is no policy file: functions, models of other libraries, tables of targets.

The oracles: a trained policy's own backtest, for a function or model that decides as it does, and `simulate`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from policies import loud, policy_of

from jaxtrader.agents.gymnasium_form import GymnasiumForm
from jaxtrader.agents.policy import Policy
from jaxtrader.bridges.gymnasium_envs import to_gymnasium
from jaxtrader.envs.observation import Observation
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules


def assert_same(one: Any, other: Any) -> None:
    for symbol, result in one.by_symbol.items():
        np.testing.assert_array_equal(result.targets, other.by_symbol[symbol].targets)
        np.testing.assert_allclose(result.equity, other.by_symbol[symbol].equity, rtol=1e-12)
        np.testing.assert_array_equal(result.times, other.by_symbol[symbol].times)
    assert list(one.by_symbol) == list(other.by_symbol)


class Model:
    """Has the interface of Stable-Baselines3's models, and the network of a policy. It sees scaled, flat arrays."""

    def __init__(self, policy: Policy, env: TradingEnv) -> None:
        self.agent, self.state, self.shape = policy.agent, policy.state, (env.window, 1, len(env.market.feature_names))
        self.sizes: set[int] = set()
        self.starts: list[bool] = []
        self.act = jax.jit(self._act)

    def _act(self, flat: jax.Array) -> jax.Array:
        split = int(np.prod(self.shape))
        seen = Observation(flat[:, :split].reshape(-1, *self.shape), flat[:, split:].reshape(len(flat), 1, -1))
        return self.agent.select_action(self.state, seen, jax.random.key(0), deterministic=True)[0]

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        assert deterministic
        self.sizes.add(len(observation))
        self.starts.append(bool(episode_start.all()))
        return np.asarray(self.act(jnp.asarray(observation))), None


@pytest.mark.slow
@pytest.mark.parametrize("decision_every", [1, 3])
def test_a_function_and_a_model_that_decide_as_a_policy_earn_what_it_earns(
    decision_every: int, env: TradingEnv, agent: Any, state: Any
) -> None:
    env = dataclasses.replace(env, decision_every=decision_every, episode_length=18)
    policy = policy_of(agent, loud(state), env)
    wanted = backtest(policy, env.market)
    assert len(np.unique(wanted.by_symbol["S0"].targets)) == 3

    of_function = backtest(lambda seen: policy.act(seen.window[:, 0], seen.account[0]), env.market, env=env)
    assert_same(of_function, wanted)
    model = Model(policy, env)
    assert_same(backtest(model, env.market, env=env), wanted)
    assert model.sizes == {2}
    assert model.starts == [True, *[False] * (len(model.starts) - 1)]


def test_a_model_of_weights_is_scaled_to_what_an_account_can_hold(portfolio: TradingEnv) -> None:
    class Greedy:
        def predict(self, observation: np.ndarray) -> np.ndarray:
            return np.full((len(observation), 3), 0.9)

    result = backtest(Greedy(), portfolio.market, env=portfolio)
    np.testing.assert_allclose(result.targets, 1 / 3, rtol=1e-6)


def test_a_model_sees_the_scales_of_its_training_not_those_of_the_test(env: TradingEnv) -> None:
    seen = []

    class Watching:
        def predict(self, observation: dict[str, np.ndarray]) -> np.ndarray:
            seen.append(observation["window"])
            return np.zeros(len(observation["window"]), int)

    class Bridge:
        trading_env, form = env, GymnasiumForm.of(env, as_dict=True)

    _, test = env.market.split(0.5, 0.5)
    backtest(Watching(), test, env=Bridge())
    normalizer = GymnasiumForm.of(env).normalizer
    assert normalizer is not None
    first = test.first_decisions(env.window)[0]
    raw = jnp.asarray(test.features[first - env.window + 1 : first + 1], jnp.float32)
    np.testing.assert_allclose(seen[0][0], normalizer(raw), rtol=1e-6)


def test_a_table_by_time_is_simulate_with_its_targets(env: TradingEnv) -> None:
    market = env.market
    rng = np.random.default_rng(0)
    first, end = market.segments[1, 1:]
    times = pd.DatetimeIndex(market.times[first:end])
    targets = rng.choice([-1.0, 0.5, np.nan], len(times))
    table = pd.DataFrame({"S1": targets}, index=times)[np.isfinite(targets)]  # without the rows that hold
    settings: dict[str, Any] = {"costs": Costs(fee=1e-3), "rules": Rules(rebalance_band=0.05)}
    np.testing.assert_array_equal(
        backtest(table, market, **settings).equity, simulate(market, targets, symbol="S1", **settings).equity
    )
    both = backtest(pd.DataFrame({"S0": 1.0, "S1": 0.5}, index=times), market, env=env)
    assert list(both.by_symbol) == ["S0", "S1"]
    assert both.by_symbol["S1"].rules == env.rules
    wrapped = backtest(pd.DataFrame({"S0": 1.0, "S1": 0.5}, index=times), market, env=to_gymnasium(env))
    np.testing.assert_array_equal(wrapped.equity, both.equity)
    assert backtest({"S0": 1.0}, market).equity[-1] == simulate(market, {"S0": 1.0})["S0"].equity[-1]
    zone = table.tz_localize("UTC").tz_convert("America/New_York")
    np.testing.assert_array_equal(backtest(zone, market).equity, backtest(table, market).equity)


def test_a_portfolio_takes_a_column_for_each_asset(portfolio: TradingEnv) -> None:
    market = portfolio.market
    table = pd.DataFrame({"P2": 0.5, "P0": 0.25}, index=market.times[[0, 9]])
    result = backtest(table, market)
    np.testing.assert_array_equal(result.targets[[0, 1, 9]], [[0.25, np.nan, 0.5], [np.nan] * 3, [0.25, np.nan, 0.5]])


def test_a_function_may_hold_and_ask_for_weights(env: TradingEnv, portfolio: TradingEnv) -> None:
    market = env.market
    held = backtest(lambda seen: 1.0 if seen.account[0, 0] == 0 else np.nan, market, env=env)
    assert held.by_symbol["S0"].metrics["num_fills"] == 1
    even = backtest(lambda seen: [0.2, 0.3, 0.5], portfolio.market, env=portfolio)
    np.testing.assert_allclose(even.targets, np.tile([0.2, 0.3, 0.5], (len(even.targets), 1)))


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no target": (lambda seen: None, {}, r"returned None; return a number, the target exposure"),
    "too much": (lambda seen: 2.0, {}, r"returned \[2.0\]; a target exposure is in \[-1, 1\]"),
    "too many": (lambda seen: [1, 1], {}, r"return a number"),
    "a setting": (lambda seen: 0.0, {"windows": 3}, r"`windows` is no setting of a TradingEnv; those are positions"),
    "no env": (
        type("M", (), {"predict": lambda self, seen: 0})(),
        {},
        r"give it, as in `backtest\(model, market, env=",
    ),
    "another env": (lambda seen: 0.0, {"env": 3}, r"env is a int; give the TradingEnv"),
    "another env of a table": ({"S0": 1.0}, {"env": 3}, r"env is a int; give the TradingEnv"),
    "a time": (pd.Series([1.0], [pd.Timestamp("2020-02-01 12:00")]), {}, r"give a column for each"),
    "a symbol": (
        pd.DataFrame({"XYZ": [1.0]}, [pd.Timestamp("2020-02-01")]),
        {},
        r"a column 'XYZ'; the market has .*S0",
    ),
    "no bar": (pd.DataFrame({"S0": [1.0]}, [pd.Timestamp("2020-02-01 12:00")]), {}, r"S0 has no bar at 2020-02-01 12"),
    "no times": (pd.DataFrame({"S0": [1.0]}, ["one"]), {}, r"index of `targets` must be the times of bars"),
    "twice": (pd.DataFrame({"S0": [1.0, 0]}, [pd.Timestamp("2020-02-01")] * 2), {}, r"two rows at 2020-02-01"),
    "an argument": ({"S0": 1.0}, {"window": 3}, r"`window` means nothing for a table"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_backtested_says_the_way_out(case: str, env: TradingEnv) -> None:
    policy, settings, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        backtest(policy, env.market, **settings)


def test_a_model_of_one_answer_or_of_an_unknown_action_is_refused(env: TradingEnv) -> None:
    model = type("M", (), {"predict": lambda self, seen: np.array([0])})()
    with pytest.raises(ValueError, match="for 2 observations; its predict must take a batch"):
        backtest(model, env.market, env=env)
    model = type("M", (), {"predict": lambda self, seen: np.array([0, 3])})()
    with pytest.raises(ValueError, match=r"none of 0 to 2"):
        backtest(model, env.market, env=env)
