"""The NumPy market that peers train on against jaxtrader's own ledger in float64, and the actor that is scored for
them."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_market import MarketData, NumpyMarket, Settings
from rule_settings import bars_after, env_settings

from jaxtrader.envs.episode import EnvAccount, EnvParams, EnvState, is_truncated
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger import ledger
from jaxtrader.ledger.costs import Costs
from jaxtrader.market.market import Market

NUM_ENVS = 64
MANY_ENVS, STEPS = 160, 80  # where each step is compared


def data_of(market: Market) -> MarketData:
    """The same columns. What the features' look-back forbids is taken off the segments."""
    segments = market.segments.copy()
    segments[:, 1] = market.first_decisions(1)
    features = np.float32(np.nan_to_num(market.features[:, 0]))
    return MarketData(market.open[:, 0], market.close[:, 0], features, market.volatility[:, 0], segments)


def state_of(peer: NumpyMarket) -> EnvState:
    """The peer's accounts and places as a state of TradingEnv."""
    accounts = peer.accounts
    column = lambda x: jnp.asarray(x)[:, None]  # noqa: E731
    account = EnvAccount(
        cash=jnp.asarray(accounts.cash),
        units=column(accounts.units),
        entry=column(accounts.entry),
        target=column(accounts.target),
        bars_since_fill=column(accounts.bars_since_fill.astype(np.int32)),
        equity=jnp.asarray(accounts.equity),
        ruined=jnp.zeros(peer.num_envs, bool),
    )
    return EnvState(account, *(jnp.asarray(x, jnp.int32) for x in (peer.cursor, peer.end, peer.time)))


def reference(env: TradingEnv) -> Callable:
    """One jitted bar of TradingEnv for target exposures: the state after restarts of ruin, and what happened."""

    def bar(state: EnvState, target: jax.Array, params: EnvParams) -> tuple:
        prices = bars_after(env, state.cursor, params)
        account, *_ = ledger.step(state.account, target[:, None], prices, params.costs, env.rules)
        reward = env.reward(state.account.equity, account.equity)
        moved = EnvState(account, state.cursor + 1, state.end, state.time + 1)
        truncated = is_truncated(env, moved.time, moved.cursor, moved.end)
        features = params.arrays.features[moved.cursor][:, 0]
        seen = env.account_features(account, prices.close, params.arrays.volatility[moved.cursor])[:, 0]
        final = jnp.concatenate([features.astype(jnp.float32), seen], -1)
        going_on = moved.replace(account=env.restart(account, account.ruined))
        return going_on, reward, account.ruined, truncated, final

    return jax.jit(bar)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("positions", "costs", "band", "ruin_level"),
    [
        ((-1.0, 0.0, 1.0), (1e-4, 5e-4), 0.05, 0.01),
        ((-1.0, -0.5, 0.0, 1.0), (0.0, 5e-4), 0.0, 0.01),
        ("continuous", (0.01, 0.02), 0.0, 0.9),
        ("continuous", (0.01, 0.0), 0.1, 0.8),
    ],
)
def test_numpy_market_is_trading_env_step_by_step(make_market, positions, costs, band, ruin_level) -> None:
    market = make_market((150, 60), seed=7)
    peer = NumpyMarket(data_of(market), Settings(positions, *costs, band, ruin_level, 50), MANY_ENVS, seed=1)
    shared = {"costs": Costs(*costs), "rebalance_band": band, "ruin_level": ruin_level}
    env = TradingEnv(market, window=1, episode_length=50, **env_settings(shared))
    bar = reference(env)
    rng = np.random.default_rng(0)
    ruins = limits = 0
    peer.reset()
    with jax.enable_x64(True):
        params, state = env.params("float64"), state_of(peer)
        for _ in range(STEPS):
            if positions == "continuous":
                action = np.where(rng.random(MANY_ENVS) < 0.2, 0.0, rng.uniform(-1.2, 1.2, MANY_ENVS))
                target = np.clip(action, -1, 1)
            else:
                action = rng.integers(0, len(positions), MANY_ENVS)
                target = np.asarray(positions)[action]
            obs, reward, terminated, truncated, final = peer.step(action)
            state, *expected = bar(state, jnp.asarray(target), params)
            # Both are float64. An observation is float32.
            np.testing.assert_allclose(reward, expected[0], atol=1e-13)
            np.testing.assert_array_equal(terminated, expected[1])
            np.testing.assert_array_equal(truncated, expected[2])
            np.testing.assert_allclose(final, expected[3], atol=1e-6)
            np.testing.assert_array_equal(obs[~(terminated | truncated)], final[~(terminated | truncated)])
            # Where an episode was truncated each draws its own start: the peer's is taken over.
            state = adopt(state_of(peer), state, truncated)
            chex.assert_trees_all_close(state, state_of(peer), atol=1e-12)
            ruins, limits = ruins + terminated.sum(), limits + truncated.sum()
    assert limits > 100
    assert (ruins > 100) == (ruin_level > 0.1)


def adopt(theirs: EnvState, ours: EnvState, which: np.ndarray) -> EnvState:
    """`theirs` at the index `which`, else `ours`."""
    pick = lambda a, b: jnp.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b)  # noqa: E731
    return jax.tree.map(pick, theirs, ours)


def test_new_episodes_begin_anywhere_with_room_and_at_any_exposure(make_market) -> None:
    market = make_market((30, 9), seed=3)
    peer = NumpyMarket(data_of(market), Settings(), 20_000, seed=2)
    obs = peer.reset()
    assert set(peer.cursor.tolist()) == {*range(1, 29), *range(31, 38)}
    # Five standard deviations and more of the shares of 20,000 draws.
    np.testing.assert_allclose(np.bincount(peer.cursor)[1:29] / 20_000, 1 / 35, atol=0.006)
    np.testing.assert_allclose(np.bincount(peer.accounts.target.astype(int) + 1) / 20_000, 1 / 3, atol=0.02)
    np.testing.assert_array_equal(peer.accounts.equity, 1)
    np.testing.assert_allclose(obs[:, -4:-2], np.repeat(peer.accounts.target[:, None], 2, 1), atol=1e-6)
    np.testing.assert_array_equal(obs[:, -1], 1)


@pytest.fixture
def peer_policy(monkeypatch) -> Any:
    """The class of benchmarks/races.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    return importlib.import_module("races").PeerPolicy


def forward(layers: list[tuple[np.ndarray, np.ndarray]], seen: np.ndarray) -> list[float]:
    """The outputs of one observation: each neuron by hand, tanh in all layers but the last."""
    values = [float(x) for x in seen]
    for depth, (kernel, bias) in enumerate(layers):
        sums = [sum(x * float(kernel[i, j]) for i, x in enumerate(values)) + float(bias[j]) for j in range(len(bias))]
        values = [math.tanh(x) for x in sums] if depth < len(layers) - 1 else sums
    return values


@pytest.mark.parametrize(("continuous", "outputs"), [(False, 3), (True, 1)])
def test_the_actor_of_a_peer_acts_as_its_layers_say(
    make_market, peer_policy: Any, continuous: bool, outputs: int
) -> None:
    """On what the peer itself observes: its features, then its account."""
    rng = np.random.default_rng(0)
    peer = NumpyMarket(data_of(make_market((150, 60), seed=7)), Settings("continuous"), NUM_ENVS, seed=1)
    peer.reset()
    obs = peer.step(rng.uniform(-1, 1, NUM_ENVS))[0]
    features = obs.shape[1] - 4
    sizes = [obs.shape[1], 5, 4, outputs]
    layers = [(rng.normal(0, 1, (a, b)), rng.normal(0, 0.5, b)) for a, b in itertools.pairwise(sizes)]
    policy = peer_policy([tuple(jnp.asarray(x, jnp.float32) for x in layer) for layer in layers], continuous)
    context = policy.encode(None, jnp.asarray(obs[:, None, None, :features]))  # [env, bar, asset, feature]
    assert context.shape == (NUM_ENVS, 1, features)
    action, extras = policy.act(None, context[:, 0], jnp.asarray(obs[:, None, features:]), None)
    expected = np.array([forward(layers, seen) for seen in obs])
    assert extras == {}
    if continuous:
        assert 10 < (np.abs(expected) > 1).sum() < NUM_ENVS - 10
        np.testing.assert_allclose(action, np.clip(expected, -1, 1), atol=1e-5)
    else:
        assert set(expected.argmax(1)) == {0, 1, 2}
        np.testing.assert_array_equal(action, expected.argmax(1))
