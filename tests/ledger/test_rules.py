"""Rules that cannot be are refused in one sentence by TradingEnv and by simulate, before anything is run.

The messages are tested for the offending value and the way out, not for their wording.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from rule_settings import env_settings, run_settings

from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.account import EQUITY_FLOOR, is_ruined, whole
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.ledger.settlement import equity_of_fill
from jaxtrader.market.bars import DataError
from jaxtrader.market.market import Market

NAN, INF = math.nan, math.inf
RULES = [  # what is given (the last is wrong), and what the message says of it and of the way out
    ({"max_leverage": 0}, r"max_leverage=0` .*\(0, 100\]"),
    ({"max_leverage": -2.0}, r"max_leverage=-2.0` .*\(0, 100\]"),
    ({"max_leverage": NAN}, r"max_leverage=nan` .*\(0, 100\]"),
    ({"max_leverage": 101}, r"max_leverage=101` .*\(0, 100\]"),
    ({"max_leverage": "2"}, r"max_leverage='2'` .*number"),
    ({"max_leverage": None}, r"max_leverage=None` .*number"),
    ({"max_leverage": True}, r"max_leverage=True` .*number"),
    ({"maintenance_margin": -0.1}, r"maintenance_margin=-0.1` .*\[0, 1\)"),
    ({"max_leverage": 4, "maintenance_margin": 0.25}, r"maintenance_margin=0.25` .*\[0, 0.25\)"),
    ({"maintenance_margin": NAN}, r"maintenance_margin=nan` .*\[0, 1\)"),
    ({"maintenance_margin": "none"}, r"maintenance_margin='none'` must be a number$"),
    ({"delay": -1}, r"delay=-1` .*whole number of bars, from 0 to 100"),
    ({"delay": 1.5}, r"delay=1.5` .*whole number of bars, from 0 to 100"),
    ({"delay": True}, r"delay=True` .*whole number of bars, from 0 to 100"),
    ({"delay": "1"}, r"delay='1'` .*whole number of bars, from 0 to 100"),
    ({"delay": 101}, r"delay=101` .*whole number of bars, from 0 to 100"),
    ({"capital": 0}, r"capital=0` .*above 0"),
    ({"capital": INF}, r"capital=inf` .*above 0"),
    ({"capital": NAN}, r"capital=nan` .*above 0"),
    ({"capital": "1e5"}, r"capital='1e5'` must be a number$"),
    ({"capital": 1e5, "lot": 0}, r"lot=0` .*above 0"),
    ({"capital": 1e5, "lot": NAN}, r"lot=nan` .*above 0"),
    ({"lot": 1.0}, r"`lot` needs `capital`"),
    ({"capital": 1e5, "min_trade": -5}, r"min_trade=-5` .*above 0"),
    ({"min_trade": 5}, r"`min_trade` needs `capital`"),
    ({"capital": 1e5, "volume_cap": 0}, r"volume_cap=0` .*\(0, 1\]"),
    ({"capital": 1e5, "volume_cap": 1.5}, r"volume_cap=1.5` .*\(0, 1\]"),
    ({"volume_cap": 0.1}, r"`volume_cap` needs `capital`"),
    ({"delist_return": 0.1}, r"delist_return=0.1` .*\[-1, 0\]"),
    ({"delist_return": -1.1}, r"delist_return=-1.1` .*\[-1, 0\]"),
    ({"rebalance_band": NAN}, r"rebalance_band=nan` .*\[0, 1\)"),
    ({"rebalance_band": 1.0}, r"rebalance_band=1.0` .*\[0, 1\)"),
    ({"rebalance_band": "5%"}, r"rebalance_band='5%'` .*number"),
    ({"ruin_level": 1}, r"ruin_level=1` .*\[0, 1\)"),
    ({"ruin_level": -0.1}, r"ruin_level=-0.1` .*\[0, 1\)"),
    ({"fill": "open"}, r"fill='open'` .*close, next_open, next_close"),
    ({"fill": None}, r"fill=None` .*close, next_open, next_close"),
    ({"rebalance": "never"}, r"rebalance='never'` .*always, on_change"),
    ({"flat_at_session_end": "yes"}, r"flat_at_session_end='yes'` .*True or False"),
    ({"flat_at_session_end": True}, r"flat_at_session_end.*bars shorter than a day"),
]
BRACKETS = [0, -0.1, "3%", True, [0.1, 0.2]]


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch) -> None:
    """Whatever reaches the ledger, and so casts its costs to the account's dtype, fails."""
    monkeypatch.setattr(Costs, "cast", None)


def run(market: Market, **settings):
    return simulate(market, 0.5, symbol="S0" if len(market.symbols) > 1 else None, **run_settings(settings))


@pytest.mark.parametrize(("rules", "message"), RULES, ids=[f"{list(rules)[-1]}-{rules}" for rules, _ in RULES])
def test_a_rule_that_cannot_be_is_refused(rules, message, market) -> None:
    with pytest.raises(ValueError, match=message):
        TradingEnv(market, **env_settings(rules))
    with pytest.raises(ValueError, match=message):
        run(market, **rules)


@pytest.mark.parametrize("name", ["stop_loss", "take_profit"])
@pytest.mark.parametrize("given", BRACKETS)
def test_a_bracket_that_cannot_be_is_refused(name, given, market) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*(fraction|shape)"):
        TradingEnv(market, **env_settings({name: given}))
    with pytest.raises(ValueError, match=rf"{name}.*(fraction|shape)"):
        run(market, **{name: given})


@pytest.mark.parametrize("given", [1, 3.0, (0.1, None, 3.0), [[0.1], [3.0]]])
def test_a_stop_loss_in_percent_is_refused_and_a_take_profit_above_one_is_not(given, market) -> None:
    words = r"stop_loss=(1|3)(\.0)?` .*below 1.*0.03 is 3%"
    if not isinstance(given, list):
        with pytest.raises(ValueError, match=words):
            TradingEnv(market, stop_loss=given)
        assert TradingEnv(market, take_profit=given).take_profit == given
    if not isinstance(given, tuple):
        column = np.resize(given, (150, 1)) if isinstance(given, list) else given
        with pytest.raises(ValueError, match=words):
            run(market, stop_loss=column)
        with pytest.raises(TypeError, match="not callable"):  # it reaches the ledger, which this module takes away
            run(market, take_profit=column)
        with pytest.raises(TypeError, match="not callable"):
            run(market, stop_loss=np.resize([[np.nan], [np.inf], [0.99]], (150, 1)))


def test_brackets_by_action_are_one_for_each_position(market) -> None:
    words = r"stop_loss=\(0.1, 0.2\)` .*one for each"
    with pytest.raises(ValueError, match=words):
        TradingEnv(market, stop_loss=(0.1, 0.2))
    with pytest.raises(ValueError, match=words):
        TradingEnv(market, positions="continuous", stop_loss=(0.1, 0.2))
    with pytest.raises(ValueError, match=r"stop_loss=-1` .*above 0"):
        TradingEnv(market, stop_loss=(0.1, None, -1))
    by_array = TradingEnv(market, stop_loss=np.array([0.1, 0.2, 0.3]), take_profit=np.float32(0.25))
    assert by_array == TradingEnv(market, stop_loss=(0.1, 0.2, 0.3), take_profit=0.25)
    assert hash(by_array) == hash(TradingEnv(market, stop_loss=(0.1, 0.2, 0.3), take_profit=0.25))


def test_a_bracket_of_every_bar_fits_the_targets(portfolio) -> None:
    bars = len(portfolio.market.close)
    words = rf"take_profit.*\({bars},\).*\({bars}, 3\)"
    with pytest.raises(ValueError, match=words):
        simulate(portfolio.market, 0.2, take_profit=np.full(bars, 0.1))
    with pytest.raises(ValueError, match=r"take_profit=-0.1` .*above 0: it is a fraction of the entry price"):
        simulate(portfolio.market, 0.2, take_profit=np.full((bars, 3), -0.1))


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ((-2, 0, 2), r"positions=.*\[-1, 1\], and -2 is not.*max_leverage"),
        (("a", 1), r"positions=\('a', 1\)` must be exposures"),
        ((1, None), r"positions=\(1, None\)` must be exposures"),
        ([[1, 2]], r"positions=.*\[1, 2\].* must be exposures"),
        ("weight", r"positions='weight'`"),
    ],
)
def test_positions_that_cannot_be_are_refused(positions, message, market) -> None:
    with pytest.raises(ValueError, match=message):
        TradingEnv(market, positions=positions)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (None, "targets.*numbers"),
        (1j, "targets.*numbers"),
        ("long", "targets.*numbers"),
        (INF, r"targets\[0\].*\[inf, inf, inf\].*NaN to hold"),
        ([0.1, 0.2, 0.3], r"targets.*\(3,\) .*\(150, 3\)"),
    ],
)
def test_targets_that_are_none_are_refused(targets, message, portfolio) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(portfolio.market, targets)


def test_a_rule_by_a_wrong_name_is_no_argument(market) -> None:
    for make in (Rules, lambda **given: simulate(market, 0.5, symbol="S0", **given), partial(TradingEnv, market)):
        for name in ("leverage", "stops"):
            with pytest.raises(TypeError, match=name):
                make(**{name: 2})


def test_rules_are_given_as_rules(market) -> None:
    with pytest.raises(ValueError, match=r"'next_open'.*`Rules"):
        simulate(market, 0.5, symbol="S0", rules="next_open")


def test_assets_out_of_step_are_refused() -> None:
    from random_walks import FEATURES, walk

    at_midnight, first, later = (
        dataclasses.replace(bars, times=bars.times + np.timedelta64(hours, "h"))
        for bars, hours in ((walk("A", 60, 0), 0), (walk("A", 60, 0), 3), (walk("B", 60, 1), 9))
    )
    for pair, says in (
        ((first, later), r"of A begin before .*without `align`"),
        ((at_midnight, later), "not known which bar of B is of the same day"),
        ((first, first), "'A'"),
    ):
        with pytest.raises(DataError, match=says):
            Market.from_bars(pair, FEATURES, align=True)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    assert Rules(delay=np.int64(2)) == Rules(delay=2)
    assert hash(Rules(max_leverage=np.float64(2))) == hash(Rules(max_leverage=2.0))


def test_a_capital_too_small_for_any_order_is_told_before_training(market, portfolio) -> None:
    """An agent could only learn to do nothing. An environment by itself may be a policy's, whose result tells."""

    def check(market: Market, **rules: object) -> None:
        TradingEnv(market, window=1, **env_settings(rules)).check_room(1)

    starts = market.first_decisions(1)
    lows = [float(market.low[start:end].min()) for start, end in zip(starts, market.segments[:, 2], strict=True)]
    least, most = min(lows), max(lows)
    words = rf"lot of 10 .*{10 * least:,.6g}.* more `capital`"
    with pytest.raises(ValueError, match=words):
        check(market, lot=10.0, capital=9.9 * least)
    TradingEnv(market, rules=Rules(lot=10.0, capital=9.9 * least))
    assert least < most
    check(market, lot=10.0, capital=10.1 * least)  # one of two histories is within reach
    check(market, lot=10.0, capital=5.1 * least, positions=(0, 2), max_leverage=2.0)
    with pytest.raises(ValueError, match=r"up to 0.25"):
        check(market, lot=10.0, capital=10.1 * least, positions=(0, 0.25))
    split = dataclasses.replace(market, price_factor=np.full_like(market.close, 0.5))  # raw prices are twice as high
    with pytest.raises(ValueError, match=r"lot of 10 .*more `capital`"):
        check(split, lot=10.0, capital=10.1 * least)
    cheap_before = dataclasses.replace(
        market, low=np.where(np.arange(len(market.low))[:, None] < starts[0], 0.01, 50.0)
    )
    with pytest.raises(ValueError, match=r"lot of 10 .*500"):
        check(cheap_before, lot=10.0, capital=400.0)  # what is cheap before the first decision is no help
    with pytest.raises(ValueError, match=r"min_trade=2000.0` .*1,000"):
        check(market, min_trade=2_000.0, capital=1_000.0)
    one = float(portfolio.market.low[portfolio.market.first_decisions(1)[0] :].min())
    check(portfolio.market, positions="weights", lot=10.0, capital=10.1 * one)


def test_one_function_says_what_is_whole_ruined_and_measured_by_which_equity() -> None:
    counts = jnp.asarray([2.9999999, 2.9, -3.0000001, -2.9], jnp.float32)
    np.testing.assert_array_equal(whole(counts, jnp.trunc(counts)), [3, 2, -3, -2])
    assert is_ruined(np.asarray([0.01, 0.0101, -1.0]), Rules()).tolist() == [True, False, True]
    forced, before, equity = np.asarray([True, False, False]), np.ones(3), np.asarray([-2.0, 0.5, -2.0])
    for kind in (np.asarray, jnp.asarray):
        measured = equity_of_fill(*map(kind, (forced, before, equity)))
        assert isinstance(measured, type(kind(0.0)))
        np.testing.assert_allclose(measured, [1, 0.5, EQUITY_FLOOR])
