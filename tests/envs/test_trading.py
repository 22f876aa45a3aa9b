"""TradingEnv: gymnax 1.0's contract, where episodes begin and end, what is observed, and no look into the future."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from random_walks import masked, walk
from rule_settings import bars_after, env_account, env_settings

from jaxtrader.agents.ppo import PPOAgent, PPOState, ValueScale
from jaxtrader.envs.episode import EnvAccount, EnvParams, EnvState, draw_starts
from jaxtrader.envs.observation import ACCOUNT_FEATURES, Observation, chunks
from jaxtrader.envs.rewards import risk_penalized
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger import ledger
from jaxtrader.ledger.bar import Bar
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.market import Market

SHORT, FLAT, LONG = 0, 1, 2
BATCH = 8
KEYS = jax.random.split(jax.random.key(3), BATCH)


@partial(jax.jit, static_argnums=0)
def reset(env: TradingEnv, keys: jax.Array, params: EnvParams) -> tuple[Observation, EnvState]:
    return jax.vmap(env.reset, (0, None))(keys, params)


@partial(jax.jit, static_argnums=0)
def step(env: TradingEnv, keys: jax.Array, state: EnvState, action: jax.Array, params: EnvParams) -> tuple:
    return jax.vmap(env.step, (0, 0, 0, None))(keys, state, action, params)


@partial(jax.jit, static_argnums=0)
def observe(env: TradingEnv, state: EnvState, params: EnvParams) -> Observation:
    return jax.vmap(env.observe, (None, 0, None, None))(None, state, None, params)


@partial(jax.jit, static_argnums=(0, 3, 4))
def starts_of(env: TradingEnv, key: jax.Array, params: EnvParams, room: int, count: int) -> tuple:
    return draw_starts(env, key, params, room, (count,))


def place(env: TradingEnv, params: EnvParams, cursor: int, exposure: float = 0.0, time: int = 0) -> EnvState:
    """BATCH equal states at a bar of the first history."""
    price = np.asarray(params.arrays.close)[np.full(BATCH, cursor)]
    account = env_account(np.full((BATCH, 1), exposure, np.float32), price)
    end = int(env.market.segments[0, 2])
    return EnvState(account, *(np.full(BATCH, x, np.int32) for x in (cursor, end, time)))


def act(action: int) -> jax.Array:
    return np.full(BATCH, action, np.int32)


def crash(params: EnvParams, row: int, factor: float = 0.005) -> EnvParams:
    """The same arrays with all prices from `row` on multiplied by `factor`."""
    scale = np.where(np.arange(len(params.arrays.close)) >= row, np.float32(factor), 1)[:, None]
    fallen = {name: scale * np.asarray(getattr(params.arrays, name)) for name in ("open", "close")}
    return params.replace(arrays=params.arrays.replace(**fallen))


def history_of(market: Market, rows: np.ndarray) -> np.ndarray:
    return np.searchsorted(market.segments[:, 2], rows, side="right")


# --- the contract ---


def test_reset_and_step_keep_gymnax_1_shapes_and_their_structure(env: TradingEnv, raw_params: EnvParams) -> None:
    obs, state = reset(env, KEYS, raw_params)
    chex.assert_shape(obs.window, (BATCH, 4, 1, 3))
    chex.assert_shape(obs.account, (BATCH, 1, len(ACCOUNT_FEATURES)))
    new_obs, new_state, reward, terminated, truncated, info = step(env, KEYS, state, act(LONG), raw_params)
    chex.assert_trees_all_equal_shapes_and_dtypes((obs, state), (new_obs, new_state))
    chex.assert_trees_all_equal_shapes_and_dtypes(info["final_observation"], obs)
    chex.assert_shape([reward, terminated, truncated], (BATCH,))
    assert reward.dtype == jnp.float32
    assert terminated.dtype == truncated.dtype == bool
    np.testing.assert_array_equal(info["terminated"], terminated)
    np.testing.assert_array_equal(info["truncated"], truncated)
    chex.assert_tree_all_finite((new_obs, reward, new_state.account))
    weak = [x.weak_type for x in jax.tree.leaves(jax.eval_shape(env.reset, KEYS[0], raw_params))]
    assert not any(weak), "a weakly typed state compiles step twice"


def test_structure_is_the_same_one_by_one_and_side_by_side(env: TradingEnv, raw_params: EnvParams) -> None:
    obs, state = jax.eval_shape(env.reset, KEYS[0], raw_params)
    one = jax.eval_shape(env.step, KEYS[0], state, act(LONG)[0], raw_params)
    _, states = reset(env, KEYS, raw_params)
    many = step(env, KEYS, states, act(LONG), raw_params)
    chex.assert_trees_all_equal_structs((obs, state), one[:2])
    chex.assert_trees_all_equal_shapes_and_dtypes(one, jax.eval_shape(lambda x: jax.tree.map(lambda y: y[0], x), many))


def test_step_is_stable_in_float64(env: TradingEnv) -> None:
    with jax.enable_x64(True):
        params = env.params("float64")
        key = jax.random.key(0)
        obs, state = jax.eval_shape(env.reset, key, params)
        new = jax.eval_shape(env.step, key, state, jax.ShapeDtypeStruct((), jnp.int32), params)
    assert state.account.cash.dtype == jnp.float64
    chex.assert_trees_all_equal_shapes_and_dtypes((obs, state), new[:2])


def test_spaces_describe_the_observation_and_the_actions(env: TradingEnv, raw_params: EnvParams) -> None:
    from gymnax.environments import spaces

    obs, _ = reset(env, KEYS, raw_params)
    space = env.observation_space(raw_params)
    assert isinstance(space, spaces.Box)
    assert bool(space.contains(jax.tree.map(lambda x: x[0], obs)))
    assert np.isfinite(space.sample(KEYS[0])).all()
    assert space.spaces["window"].shape == obs.window.shape[1:]
    assert space.spaces["account"].shape == obs.account.shape[1:]
    assert env.action_space(raw_params).n == env.num_actions == 3
    assert env.name == "TradingEnv"


@pytest.mark.parametrize("method", ["reset", "step"])
def test_without_params_an_error_says_what_to_pass(env: TradingEnv, method: str) -> None:
    arguments = (KEYS[0],) if method == "reset" else (KEYS[0], None, act(FLAT)[0])
    with pytest.raises(ValueError, match=r"params=env\.default_params"):
        getattr(env, method)(*arguments)


def test_default_params_are_built_anew_and_kept_nowhere(market: Market) -> None:
    env = TradingEnv(market, window=4, costs=Costs(0.001, None))
    before = dict(vars(env))
    first, second = env.default_params, env.default_params
    assert first.arrays is not second.arrays
    assert vars(env).keys() == before.keys()
    assert first.costs.slippage is None
    np.testing.assert_array_equal(first.costs.fee, np.float32(0.001))
    np.testing.assert_array_equal(first.arrays.close, market.close.astype(np.float32))


def test_market_and_costs_are_no_part_of_identity(env: TradingEnv, make_market: Callable[..., Market]) -> None:
    other = dataclasses.replace(env.with_market(make_market((60,), seed=9)), costs=Costs(0.01, 0.01))
    assert other == env
    assert hash(other) == hash(env)
    changes = {
        "window": 5,
        "episode_length": 8,
        "positions": (0, 1),
        "reward": risk_penalized(1.0),
        "rules": env.rules.replace(fill="close"),
    }
    for name, value in changes.items():
        assert dataclasses.replace(env, **{name: value}) != env


def test_another_market_of_the_same_shape_compiles_nothing(
    env: TradingEnv, raw_params: EnvParams, make_market: Callable[..., Market]
) -> None:
    chex.clear_trace_counter()

    @partial(jax.jit, static_argnums=0)
    @chex.assert_max_traces(n=1)
    def begin(env: TradingEnv, key: jax.Array, params: EnvParams) -> tuple[Observation, EnvState]:
        return env.reset(key, params)

    other = dataclasses.replace(env.with_market(make_market(seed=5)), costs=Costs(0.002, 0.0))
    begin(env, KEYS[0], raw_params)
    obs, _ = begin(other, KEYS[0], other.default_params)
    first, _ = begin(env, KEYS[0], env.default_params)
    assert not np.array_equal(obs.window, first.window), "the second market must be read, not the first one again"


def test_the_arrays_is_an_argument_of_the_program_and_not_part_of_it(env: TradingEnv, raw_params: EnvParams) -> None:
    rows = 100_000
    arrays = raw_params.arrays
    columns = {name: column for name, column in vars(arrays).items() if column is not None}
    long = {name: column for name, column in columns.items() if name not in ("segments", "ready")}
    long = {name: jnp.ones((rows, *x.shape[1:]), x.dtype) for name, x in long.items()}
    big = raw_params.replace(arrays=arrays.replace(**long))
    _, state = jax.eval_shape(env.reset, KEYS[0], raw_params)
    text = [jax.jit(env.step).lower(KEYS[0], state, act(LONG)[0], p).as_text() for p in (raw_params, big)]
    assert "100000x1xf32" in text[1]
    assert len(text[1]) < len(text[0]) + 10_000
    assert len(text[1]) < 200_000


# --- continuous positions ---


@pytest.mark.parametrize(("positions", "low"), [("continuous", -1), ("weights", 0)])
def test_continuous_positions_have_a_box_of_actions_a_name_on_file_and_an_identity(
    env: TradingEnv, raw_params: EnvParams, positions: str, low: float
) -> None:
    mine = dataclasses.replace(env, positions=positions)
    space = mine.action_space(raw_params)
    assert (float(space.low), float(space.high), space.shape) == (low, 1, (1,))
    assert mine.num_actions == 1
    assert mine.to_dict()["positions"] == positions
    assert mine != env
    assert mine == dataclasses.replace(env, positions=positions)
    accounts = jax.jit(mine.open_accounts, static_argnums=3)
    exposure = accounts(jax.random.key(0), raw_params.arrays.close[:1], raw_params, (3000,)).target
    assert scipy.stats.kstest(np.asarray(exposure)[:, 0], "uniform", (low, 1 - low)).pvalue > 0.001


@pytest.mark.quick(1)
@pytest.mark.parametrize("positions", ["continuous", "weights"])
def test_an_exposure_does_what_its_discrete_action_does(env: TradingEnv, raw_params: EnvParams, positions: str) -> None:
    mine = dataclasses.replace(env, positions=positions)
    start = place(env, raw_params, 20, exposure=0.5)
    for index, exposure in ((FLAT, 0.0), (LONG, 1.0)):
        expected = step(env, KEYS, start, act(index), raw_params)
        got = step(mine, KEYS, start, np.full((BATCH, 1), exposure, np.float32), raw_params)
        chex.assert_trees_all_close(got, expected, rtol=3e-7)  # two programs: XLA may round one product otherwise
    _, state, _, _, _, info = step(mine, KEYS, start, np.full((BATCH, 1), 0.25, np.float32), raw_params)
    np.testing.assert_array_equal(info["target"], np.full((BATCH, 1), 0.25))
    assert info["fills"].all()
    np.testing.assert_allclose(state.account.target, 0.25)


@pytest.mark.parametrize(
    ("positions", "action"),
    [("continuous", 1.01), ("continuous", -1.01), ("continuous", math.nan), ("weights", -0.01), ("weights", math.inf)],
)
def test_an_exposure_out_of_range_holds_the_units_and_is_flagged(
    env: TradingEnv, raw_params: EnvParams, positions: str, action: float
) -> None:
    mine = dataclasses.replace(env, positions=positions)
    before = place(env, raw_params, 20, exposure=0.5)
    _, state, reward, _, _, info = step(mine, KEYS, before, np.full((BATCH, 1), action, np.float32), raw_params)
    assert info["invalid_action"].all()
    np.testing.assert_array_equal(state.account.units, before.account.units)
    np.testing.assert_array_equal(state.account.target, 0.5)
    assert np.isfinite(reward).all()


# --- settings ---


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"positions": (-1, 0, 1.5)}, r"positions=.* must be within \[-1, 1\], and 1\.5 is not"),
        ({"positions": (0, math.nan)}, "positions=.* and nan is not"),
        ({"positions": (1,)}, "at least two exposures"),
        ({"positions": ()}, "at least two exposures"),
        ({"positions": (0, 1, 1)}, "none twice"),
        ({"positions": "discrete"}, "positions='discrete'` is unknown; use continuous, weights, or exposures"),
        ({"positions": 1.0}, "must be exposures"),
        ({"positions": (False, True)}, "must be exposures"),
        ({"window": 0}, "window=0` must be"),
        ({"window": 2.5}, "window=2.5` must be"),
        ({"episode_length": 0}, "episode_length=0` must be"),
        ({"costs": Costs(fee=1.0)}, "fee=1.0` must be at least"),
        ({"fill": "open"}, "fill='open'` is unknown"),
        ({"rebalance_band": 1.0}, "rebalance_band=1.0` is outside"),
        ({"rebalance": "never"}, "rebalance='never'` is unknown"),
        ({"ruin_level": -0.1}, "ruin_level=-0.1` is outside"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(market: Market, setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TradingEnv(market, **env_settings(setting))


def test_lengths_of_numpy_become_those_of_python(market: Market) -> None:
    env = TradingEnv(market, window=np.int64(4), episode_length=np.int32(16))
    assert env == TradingEnv(market, window=4, episode_length=16)
    assert [type(x) for x in (env.window, env.episode_length, env.decision_every)] == [int] * 3


def test_features_in_another_order_are_another_market(env: TradingEnv, market: Market) -> None:
    turned = dataclasses.replace(market, feature_names=market.feature_names[::-1])
    with pytest.raises(ValueError, match="the markets have different features"):
        env.with_market(turned)


def test_positions_of_one_asset_and_markets_of_another_number_are_refused(
    market: Market, portfolio: TradingEnv, make_portfolio: Callable[..., Market]
) -> None:
    with pytest.raises(
        ValueError, match="is of one asset and the market has 3 in one history; use `positions='weights'` or"
    ):
        TradingEnv(portfolio.market)
    with pytest.raises(ValueError, match="the markets have 3 and 2 assets in one history; give the same number"):
        portfolio.with_market(make_portfolio(2))


def test_a_band_that_no_equal_weight_reaches_is_refused(portfolio: TradingEnv) -> None:
    """Three assets stand for the twenty at which the default of 5% would buy nothing, ever."""
    with pytest.raises(
        ValueError, match=r"rebalance_band=0\.34` is an equal weight of 3 assets or more.* such as 0\.07"
    ):
        dataclasses.replace(portfolio, rules=portfolio.rules.replace(rebalance_band=0.34))
    assert (
        dataclasses.replace(portfolio, rules=portfolio.rules.replace(rebalance_band=0.33)).rules.rebalance_band == 0.33
    )


def test_check_room_allows_exactly_what_draw_starts_can_draw(make_market: Callable[..., Market]) -> None:
    """30 bars: 1 without log return, the window's 4th is the first decision: bars 4..29, so 25 moves at most."""
    env = TradingEnv(make_market((30,)), window=4)
    env.check_room(25)
    params = env.default_params
    starts, _ = starts_of(env, jax.random.key(0), params, 25, 50)
    assert set(np.asarray(starts).tolist()) == {4}
    with pytest.raises(
        ValueError, match=r"too few bars: after 1 .* 4 for the window, 25 bars at most can be traded and 26 are needed"
    ):
        env.check_room(26)


# --- where episodes begin ---


@pytest.mark.parametrize("room", [1, 5])
def test_starts_are_uniform_over_the_bars_with_room(make_market: Callable[..., Market], room: int) -> None:
    lengths = (30, 9, 20)
    env = TradingEnv(make_market(lengths), window=4)
    params = env.default_params
    starts, ends = starts_of(env, jax.random.key(1), params, room, 20_000)
    allowed, offset = {}, 0
    for length in lengths:
        rows = range(offset, offset + length)
        for t in rows:
            if t - 3 >= rows.start + 1 and t + room <= rows[-1]:  # the log return of the first bar is unknown
                allowed[t] = rows.stop
        offset += length
    counts = np.bincount(starts, minlength=sum(lengths))
    assert set(np.flatnonzero(counts)) == set(allowed)
    assert scipy.stats.chisquare(counts[sorted(allowed)]).pvalue > 0.001
    np.testing.assert_array_equal(ends, [allowed[t] for t in np.asarray(starts).tolist()])
    assert any(30 <= t < 39 for t in allowed) == (room == 1), "9 bars have no room for 5 moves"


def test_starts_stay_inside_a_split(market: Market) -> None:
    train, test = market.split(0.6, 0.4)
    for part in (train, test):
        env = TradingEnv(part, window=4)
        starts, _ = starts_of(env, jax.random.key(2), env.default_params, 1, 5_000)
        starts = np.asarray(starts)
        segment = history_of(market, starts)
        assert set(segment) == set(range(len(part.segments)))
        assert (starts >= part.segments[segment, 1]).all()
        assert (starts + 1 < part.segments[segment, 2]).all()
    assert test.segments[0, 1] in starts, "the first bar of a test is traded"


def test_episodes_start_at_every_position_or_flat(env: TradingEnv, raw_params: EnvParams) -> None:
    price = np.asarray(raw_params.arrays.close)[:1]
    opened = lambda env: jax.jit(env.open_accounts, static_argnums=3)(KEYS[0], price, raw_params, (3000,))  # noqa: E731
    account = jax.tree.map(np.asarray, opened(env))
    counts = np.bincount(account.target[:, 0].astype(int) + 1, minlength=3)
    assert scipy.stats.chisquare(counts).pvalue > 0.001
    np.testing.assert_allclose(account.units * price, account.target, rtol=1e-6)
    assert not np.any(opened(dataclasses.replace(env, random_start=False)).units)


# --- where they end ---


def test_the_time_limit_truncates_and_starts_anew(env: TradingEnv, raw_params: EnvParams) -> None:
    before_last = place(env, raw_params, 20, time=env.episode_length - 2)
    _, state, _, terminated, truncated, _ = step(env, KEYS, before_last, act(LONG), raw_params)
    assert not (terminated | truncated).any()
    np.testing.assert_array_equal(state.cursor, 21)
    obs, fresh, _, terminated, truncated, info = step(env, KEYS, state, act(LONG), raw_params)
    assert truncated.all()
    assert not terminated.any()
    np.testing.assert_array_equal(fresh.time, 0)
    np.testing.assert_array_equal(fresh.account.equity, 1)
    assert len(set(np.asarray(fresh.cursor).tolist())) > 3
    # The observation is of the new start, the final one of where the episode ended: bar 22, long since the open of 21.
    chex.assert_trees_all_equal(obs, observe(env, fresh, raw_params))
    np.testing.assert_array_equal(info["final_observation"].window[0], raw_params.arrays.features[19:23])
    np.testing.assert_array_equal(info["final_observation"].account[:, 0, 1], 1.0)
    assert not np.array_equal(obs.window, info["final_observation"].window)


def test_the_end_of_a_segment_truncates_before_its_last_bar_is_decided_on(
    env: TradingEnv, raw_params: EnvParams
) -> None:
    end = int(env.market.segments[0, 2])
    _, state, _, _, truncated, _ = step(env, KEYS, place(env, raw_params, end - 3), act(LONG), raw_params)
    assert not truncated.any()
    np.testing.assert_array_equal(state.cursor, end - 2)
    _, state, reward, _, truncated, info = step(env, KEYS, state, act(LONG), raw_params)
    assert truncated.all()
    np.testing.assert_array_equal(state.time, 0)
    close = np.asarray(raw_params.arrays.close, np.float64)[:, 0]
    np.testing.assert_allclose(reward, math.log(close[end - 1] / close[end - 2]), rtol=1e-4)
    np.testing.assert_array_equal(info["final_observation"].window[0], raw_params.arrays.features[end - 4 : end])


def test_ruin_terminates_and_a_new_episode_begins_as_reset_begins_it(env: TradingEnv, raw_params: EnvParams) -> None:
    falling = crash(raw_params, 31)
    ruined = place(env, falling, 30, exposure=1.0, time=5)
    obs, state, reward, terminated, truncated, info = step(env, KEYS, ruined, act(LONG), falling)
    assert terminated.all()
    assert not truncated.any()
    chex.assert_trees_all_close((obs, state), reset(env, KEYS, falling), rtol=1e-6)
    np.testing.assert_array_equal(state.time, 0)
    assert len(set(np.asarray(state.cursor).tolist())) > 3
    arrays = falling.arrays
    left = float(arrays.open[31, 0] / arrays.close[30, 0]) * (1 - 5e-4) * (1 - 1e-4)
    np.testing.assert_allclose(reward, math.log(left), rtol=1e-5)
    # The final observation is of the bar of the ruin, and of an account that holds nothing.
    np.testing.assert_array_equal(info["final_observation"].window[0], arrays.features[28:32])
    np.testing.assert_array_equal(info["final_observation"].account[:, 0, 0], 0)
    chex.assert_tree_all_finite((info, reward))


@pytest.mark.parametrize(
    ("positions", "rules", "margin"),
    [
        ((-1, 0, 1), {}, 0.25),
        ("continuous", {"max_leverage": 0.5}, 0.25),
        ((-1, 0, 1), {"maintenance_margin": 0.0}, 0.0),
        ((-1, 0, 1), {"maintenance_margin": 0.1}, 0.1),
        ((-2, 0, 2), {"max_leverage": 2.0}, 0.25),
        ((0, 0.5, 1), {}, 0.0),
        ("weights", {}, 0.0),
    ],
)
def test_an_agent_that_may_be_short_has_a_maintenance_margin(
    market: Market, positions: Any, rules: dict, margin: float
) -> None:
    env = TradingEnv(market, window=2, positions=positions, rules=Rules(rebalance_band=0.0, **rules))
    assert env.rules.margin == margin
    assert dataclasses.replace(env, window=3).rules == env.rules
    assert env.to_dict()["rules"]["maintenance_margin"] == env.rules.maintenance_margin


def test_a_short_is_liquidated_at_the_bars_high(env: TradingEnv, raw_params: EnvParams) -> None:
    """A short of 1.0 has cash 2.0: 2 - u p = 0.25 u p at 1.6 times its price. The next open is its close before."""
    arrays = raw_params.arrays
    before = arrays.close[30, 0]
    wild = {name: arrays_at.at[31].set(before) for name, arrays_at in (("open", arrays.open), ("close", arrays.close))}
    spike = raw_params.replace(arrays=arrays.replace(high=arrays.high.at[31].set(1.7 * before), **wild))
    free = spike.replace(costs=Costs(fee=0.0, slippage=0.0).cast("float32"))
    _, state, _, terminated, _, _ = step(env, KEYS, place(env, free, 30, exposure=-1.0), act(SHORT), free)
    assert not terminated.any()
    np.testing.assert_array_equal(state.account.units, 0)
    np.testing.assert_allclose(state.account.equity, 0.4, rtol=1e-5)


def test_a_short_that_loses_everything_and_more_has_a_finite_reward(env: TradingEnv, raw_params: EnvParams) -> None:
    rising = crash(raw_params, 31, factor=30.0)
    _, state, reward, terminated, _, info = step(env, KEYS, place(env, rising, 30, exposure=-1.0), act(SHORT), rising)
    assert terminated.all()
    np.testing.assert_allclose(reward, math.log(1e-4), rtol=1e-5)
    np.testing.assert_allclose(state.account.equity, 1, rtol=1e-6)
    chex.assert_tree_all_finite(info)


def test_turnover_is_finite_after_ruin_at_level_0(env: TradingEnv, raw_params: EnvParams) -> None:
    bare = dataclasses.replace(env, rules=env.rules.replace(ruin_level=0.0))
    price = jnp.asarray([1.0], jnp.float32)
    account, _, ruined, info = jax.jit(bare.advance)(
        env_account(-price, price),
        jnp.int32(SHORT),
        Bar(price, 30 * price, 30 * price, 30 * price, 30 * price),
        raw_params,
    )
    assert ruined
    assert float(account.equity) < -28
    assert math.isfinite(info["turnover"])


def test_ruin_at_the_time_limit_is_both_and_starts_anew(env: TradingEnv, raw_params: EnvParams) -> None:
    falling = crash(raw_params, 31)
    last = place(env, falling, 30, exposure=1.0, time=env.episode_length - 1)
    _, state, _, terminated, truncated, _ = step(env, KEYS, last, act(LONG), falling)
    assert (terminated & truncated).all()
    np.testing.assert_array_equal(state.time, 0)
    assert not state.account.ruined.any()


@pytest.mark.parametrize("action", [-1, 3])
def test_an_action_out_of_range_holds_the_units_and_is_flagged(
    env: TradingEnv, raw_params: EnvParams, action: int
) -> None:
    before = place(env, raw_params, 20, exposure=0.5)
    _, state, _, _, _, info = step(env, KEYS, before, act(action), raw_params)
    assert info["invalid_action"].all()
    np.testing.assert_array_equal(state.account.units, before.account.units)
    np.testing.assert_array_equal(state.account.target, 0.5)
    assert not info["fills"].any()


def test_the_info_of_a_fill_against_hand_numbers(env: TradingEnv, raw_params: EnvParams) -> None:
    """From half long to flat: half the equity changes hands at the open, 1 and 5 basis points of it are lost."""
    _, state, reward, _, _, info = step(env, KEYS, place(env, raw_params, 20, exposure=0.5), act(FLAT), raw_params)
    opened, before = (float(x) for x in (raw_params.arrays.open[21, 0], raw_params.arrays.close[20, 0]))
    sold = 0.5 * opened / before
    slippage = sold * 5e-4
    cost = slippage + (sold - slippage) * 1e-4
    np.testing.assert_allclose(info["turnover"], sold / (0.5 + sold), rtol=1e-5)
    np.testing.assert_allclose(info["cost"], cost, rtol=1e-4)
    np.testing.assert_allclose(state.account.equity, 0.5 + sold - cost, rtol=1e-6)
    np.testing.assert_allclose(reward, math.log(0.5 + sold - cost), atol=1e-6)
    assert info["fills"].all()
    np.testing.assert_array_equal(info["target"], 0.0)


def test_restart_leaves_the_living_untouched(env: TradingEnv) -> None:
    account = env_account(np.float32([[0.5], [-1.0]]), np.float32([[10.0], [20.0]]))
    after = jax.jit(env.restart)(account, np.array([False, True]))
    after, account = jax.tree.map(np.asarray, (after, account))
    chex.assert_trees_all_equal(jax.tree.map(lambda x: x[0], after), jax.tree.map(lambda x: x[0], account))
    assert float(after.cash[1]) == 1.0
    assert not after.units[1].any()


# --- what is observed ---


def test_account_features_against_hand_numbers(env: TradingEnv) -> None:
    """A short of 0.3 units from 100, now at 98 with 5% volatility: gain 2% against a 20-bar move of 0.05 sqrt 20."""
    account = EnvAccount(
        cash=np.float32(131.0),
        units=np.float32([-0.3]),
        entry=np.float32([100.0]),
        target=np.float32([-0.25]),
        bars_since_fill=np.array([7], np.int32),
        equity=np.float32(0.0),
        ruined=np.bool_(False),
    )
    price, volatility = np.float32([98.0]), np.float32([0.05])
    features = jax.jit(env.account_features)(account, price, volatility)
    equity = 131 - 0.3 * 98
    expected = [[-0.3 * 98 / equity, -0.25, 0.02 / (0.05 * math.sqrt(20)), 7 / 20]]
    np.testing.assert_allclose(features, expected, rtol=1e-5)
    assert features.dtype == jnp.float32
    # Its best price was 96, and it is 2.08% above that.
    trailing, account = dataclasses.replace(env, trailing_stop=0.03), account.replace(best=np.float32([96.0]))
    features = jax.jit(trailing.account_features)(account, price, volatility)
    np.testing.assert_allclose(features, [[*expected[0], (1 - 98 / 96) / (0.05 * math.sqrt(20))]], rtol=1e-5)
    assert trailing.account_names == (*ACCOUNT_FEATURES, "return from the best price")


def test_account_features_are_bounded_whatever_happened(env: TradingEnv) -> None:
    rng = np.random.default_rng(0)
    n = 500
    price = rng.lognormal(0, 3, (n, 1)).astype(np.float32)
    account = EnvAccount(
        cash=rng.normal(0, 3, n).astype(np.float32),
        units=rng.normal(0, 3, (n, 1)).astype(np.float32),
        entry=rng.lognormal(0, 3, (n, 1)).astype(np.float32),
        target=rng.uniform(-1, 1, (n, 1)).astype(np.float32),
        bars_since_fill=rng.integers(0, 21, (n, 1)).astype(np.int32),
        equity=np.ones(n, np.float32),
        ruined=np.zeros(n, bool),
    )
    features = np.asarray(jax.jit(env.account_features)(account, price, np.full((n, 1), 1e-6, np.float32)))[:, 0]
    assert np.isfinite(features).all()
    for column, bound in enumerate((2, 1, 5, 1)):
        assert np.abs(features[:, column]).max() <= bound
    assert np.abs(features[:, 0]).max() == 2
    assert np.abs(features[:, 2]).max() == 5


def test_the_observation_holds_no_place_no_age_and_no_level_of_equity() -> None:
    """The same bars elsewhere in the market, at another age, with half the money: the same observation, bit for bit."""
    bars = walk("A", 60, seed=4)
    market = Market.from_bars([bars, dataclasses.replace(bars, symbols=("B",))], features=["log_return_1", "signal"])
    env = TradingEnv(market, window=4)
    params = env.default_params
    here = place(env, params, 30, exposure=0.5, time=2)
    account = here.account.replace(
        cash=here.account.cash / 2, units=here.account.units / 2, equity=here.account.equity / 2
    )
    there = EnvState(account, here.cursor + 60, here.end + 60, here.time + 100)
    chex.assert_trees_all_equal(observe(env, here, params), observe(env, there, params))
    elsewhere = EnvState(account, here.cursor + 61, here.end + 60, here.time)
    assert not np.array_equal(observe(env, here, params).window, observe(env, elsewhere, params).window)


def test_chunks_hold_the_windows_of_all_their_decisions(env: TradingEnv, raw_params: EnvParams) -> None:
    cursor = np.array([10, 90, 170], np.int32)
    found = jax.jit(lambda params, cursor: chunks(params.arrays, cursor, env.window, 6))(raw_params, cursor)
    assert found.shape == (3, 9, 1, 3)
    for path, c in enumerate(cursor.tolist()):
        for k in range(6):
            state = place(env, raw_params, c + k)
            np.testing.assert_array_equal(found[path, k : k + 4], observe(env, state, raw_params).window[0])


@partial(jax.jit, static_argnums=0)
def live_through(env: TradingEnv, agent: PPOAgent, state: PPOState, start: EnvState, params: EnvParams) -> tuple:
    """12 steps of the policy by TradingEnv.step, BATCH accounts side by side."""

    def one(carry: EnvState, key: jax.Array) -> tuple[EnvState, tuple]:
        seen = jax.vmap(env.observe, (None, 0, None, None))(None, carry, None, params)
        action, extras = agent.select_action(state, seen, key)
        keys = jax.random.split(key, BATCH)
        _, after, reward, *_ = jax.vmap(env.step, (0, 0, 0, None))(keys, carry, action, params)
        return after, (carry.cursor, seen, action, extras, carry.account, reward)

    return jax.lax.scan(one, start, jax.random.split(jax.random.key(5), 12))[1]


def test_nothing_up_to_a_bar_depends_on_what_comes_after_it(
    env: TradingEnv, agent: PPOAgent, state: PPOState, params: EnvParams
) -> None:
    state = state.replace(value_scale=ValueScale(*jnp.asarray([0.1, 1.0, 1.0])))  # before the first update V is 0
    last = 36
    later = np.arange(len(params.arrays.close)) > last
    noise = {
        name: np.where(later.reshape(-1, *[1] * (x.ndim - 1)), x * np.float32(1.7) + np.float32(0.3), x)
        for name in ("open", "high", "low", "close", "features", "volatility")
        for x in [np.asarray(getattr(params.arrays, name))]
    }
    start = place(env, params, 30, exposure=0.5)
    first = live_through(env, agent, state, start, params)
    second = live_through(env, agent, state, start, params.replace(arrays=params.arrays.replace(**noise)))
    first, second = jax.tree.map(np.asarray, (first, second))
    cursor, *known, reward = first
    np.testing.assert_array_equal(cursor[:, 0], np.arange(30, 42))
    rows = last - 30 + 1  # decisions at bars 30..36: their windows, accounts and actions
    for name, a, b in zip(("window", "action", "extras", "account"), known, second[1:5], strict=True):
        chex.assert_trees_all_equal(*jax.tree.map(lambda x: x[:rows], (a, b)), custom_message=name)
    np.testing.assert_array_equal(reward[: rows - 1], second[5][: rows - 1])
    assert not np.array_equal(reward[rows - 1], second[5][rows - 1]), "the bars after must matter after"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"market": "AAPL"}, "needs a Market, not a str"),
        ({"costs": 0.001}, r"`costs.* must be .?Costs\(fee"),
        ({"reward": "sharpe"}, "reward='sharpe'` must be a function"),
    ],
)
def test_a_thing_of_another_kind_is_refused(market: Market, setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TradingEnv(**env_settings({"market": market, **setting}))


# --- several assets, one account ---


def test_a_portfolio_steps_like_its_ledger(portfolio: TradingEnv) -> None:
    """Shapes, spaces, and one bar against the ledger: 3 assets, one cash."""
    params = portfolio.default_params
    assert portfolio.num_actions == 3
    space = portfolio.observation_space(params).spaces
    obs, state = jax.jit(portfolio.reset)(jax.random.key(0), params)
    assert obs.window.shape == space["window"].shape == (4, 3, 3)
    assert obs.account.shape == space["account"].shape == (3, 4)
    assert float(state.account.units.min()) > 0
    np.testing.assert_allclose(state.account.equity, 1)
    action = jnp.asarray([0.2, 0.0, 0.7])
    _, after, reward, *_, info = jax.jit(portfolio.step)(jax.random.key(1), state, action, params)
    bar = jax.jit(bars_after, static_argnums=0)(portfolio, state.cursor, params)
    account = jax.jit(ledger.step, static_argnums=4)(state.account, action, bar, params.costs, portfolio.rules)[0]
    chex.assert_trees_all_close(after.account, account, rtol=1e-6)
    np.testing.assert_allclose(reward, np.log(account.equity), atol=1e-6)
    np.testing.assert_allclose(info["target"], action)


@pytest.mark.quick(1)
@pytest.mark.parametrize("positions", ["weights", "continuous"])
def test_an_asset_without_a_bar_is_seen_and_held_as_it_is(portfolio: TradingEnv, positions: str) -> None:
    env = dataclasses.replace(portfolio, positions=positions)
    params = masked(env.default_params)
    assert env.observation_space(params).spaces["account"].shape == (3, 5)
    present = np.asarray(params.arrays.present)
    step, reset = jax.jit(env.step), jax.jit(env.reset)
    missed = 0
    for seed in range(12):
        obs, state = reset(jax.random.key(seed), params)
        listed = present[int(state.cursor)]
        np.testing.assert_array_equal(np.asarray(obs.account)[:, 4], listed)
        np.testing.assert_array_equal(np.asarray(state.account.units) != 0, listed)
        close = np.asarray(params.arrays.close)[int(state.cursor)]
        state = state.replace(account=env_account(np.full(3, 0.3, np.float32), close))
        _, after, *_, info = step(jax.random.key(1), state, jnp.asarray([0.0, 0.5, 0.1]), params)
        np.testing.assert_array_equal(np.isnan(info["target"]), ~listed)
        moved = np.asarray(after.account.units) != np.asarray(state.account.units)
        assert not moved[~listed].any()
        fills = listed & present[int(state.cursor) + 1]  # at the next open
        assert moved[fills & np.asarray([True, False, True])].all()
        assert not info["invalid_action"]
        missed += int((~listed).sum())
    assert missed > 3
