"""The ledger along random paths beside the scalar reference, bar by bar, plain and with all rules on."""

from __future__ import annotations

import numpy as np
import pytest
from ledger.paths import assert_agree, busy, by_ledger, by_reference, columns, path, repeated, walk
from ledger.reference import DELISTED, LIQUIDATION, ORDER, SESSION, STOP, TAKE, TRAIL, Settings

from jaxtrader.ledger.costs import Costs


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("assets", "rules"),
    [
        (3, {"fill": "next_open"}),
        (1, {"fill": "close"}),
        (3, {"fill": "next_close", "rebalance_band": 0.05}),
        (3, {"fill": "next_open", "rebalance": "on_change"}),
    ],
)
def test_busy_random_targets_match_the_scalar_reference_to_1e_12(assets, rules):
    closes, opens = walk(assets, 300, 8, assets)
    targets = busy(assets, 300, 8, assets)
    for fee, slippage in ((0.001, 0.002), (0.05, 0.0)):
        got, _ = assert_same(columns(closes, opens, targets), Settings(fee=fee, slippage=slippage, **rules))
    # The second, dear, round must have met ruin, and some path must have lived.
    assert got["ruined"][-1].any()
    assert not got["ruined"][5].all()


def assert_same(given, settings):
    """What the ledger made of the columns, and how often each reason came: all is that of the reference.

    The tolerance is the rounding of some hundred bars in float64.
    """
    got, (expected, reasons) = by_ledger(given, settings), by_reference(given, settings)
    assert_agree(got, expected, rtol=1e-12, atol=1e-12)
    return got, reasons


def test_the_random_cases_contain_every_rule():
    """Else the agreement above would prove less than it says."""
    closes, opens = walk(3, 300, 8, 3)
    targets = busy(3, 300, 8, 3)
    account, fill, _ = path(closes, opens, targets, Costs(fee=0.001, slippage=0.002))
    assert fill.clipped.any()
    assert fill.dropped.any()
    assert (account.cash == 0).any()
    assert (account.units < 0).any()
    assert (account.units > 0).any()


def test_ruin_level_on_wild_prices_at_the_fill_and_at_the_close():
    closes, opens = walk(10, 300, 8, 3, volatility=0.3)
    targets = busy(10, 300, 8, 3)
    account, _, closing = path(closes, opens, targets, Costs(fee=0.001, slippage=0.002))
    assert_same(columns(closes, opens, targets), Settings(fee=0.001, slippage=0.002))
    fell = np.diff(account.ruined, axis=0, prepend=False).any(-1)
    at_close = (closing.units != 0).any((1, 2))
    assert (fell & at_close).any()
    assert (fell & ~at_close).any()
    assert (account.equity < 0).any()  # the true value, also below 0


@pytest.mark.parametrize("assets", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_float32_stays_within_1e_4_over_5000_bars(assets):
    """Roundings of 6e-8 a bar add up to 3e-4 at worst, and to less where they fall to both sides."""
    closes, opens = (x.astype(np.float32) for x in walk(11, 5000, 2, assets, volatility=0.005))
    targets = busy(11, 5000, 2, assets, low=-0.8, high=1.0).astype(np.float32)
    rate = float(np.float32(1e-5))
    settings, given = Settings(fee=rate, slippage=rate, dust=1e-6), columns(closes, opens, targets)
    got, (expected, _) = by_ledger(given, settings, "float32"), by_reference(given, settings)
    assert got["equity"].dtype == np.float32
    assert not expected["ruined"].any()
    np.testing.assert_allclose(got["equity"], expected["equity"], rtol=1e-4)


BARS, PATHS = 150, 16
INTEREST = {"cash_rate": 0.5, "borrow_rate": 1.0, "short_rate": 0.7}  # a year, and high, so that a few bars show it
IN_CURRENCY = {"lot": 7.0, "min_trade": 900.0, "capital": 1e5, "volume_cap": 0.2, "impact": 0.7, "fixed_fee": 3.0}
BY_ASSET = {"fee": [0.001, 0.0, 0.004], "slippage": [0.0, 0.003, 0.001], "fixed_fee": [0.0, 20.0, 5.0], "capital": 1e4}
COMMISSION = {"share_fee": 0.05, "min_fee": 90.0, "max_fee": 0.02, "capital": 1e5}
FUTURES = {"multiplier": (5.0, 20.0, 1.0), "tick": (0.25, 0.01, 1.0), "lot": 1.0, "share_fee": 2.0, "capital": 1e5}
FUTURES |= {"slippage": 0.001, "fee": 0.0, "impact": 0.3}
LIMIT = {"fill": "limit", "fee": 0.001, "slippage": 0.002}


# What all rules do together is in test_results.py, test_limit_offset.py and test_flat_at_session_end.py. Here are few
# of them at a time, so that none hides another: each fill, of one asset and of several, with and without credit.
CASES = {
    "brackets, on credit": (
        {"fee": 0.002, "slippage": 0.001, "max_leverage": 4.0, "rebalance_band": 0.05, **INTEREST},
        1,
        "brackets dt",
    ),
    "leverage at the next close": (
        {"max_leverage": 3.0, "maintenance_margin": 0.25, "fill": "next_close"},
        1,
        "brackets",
    ),
    "margin without leverage": (
        {"maintenance_margin": 0.9, "rebalance": "on_change", "delay": 1},
        1,
        "brackets missing",
    ),
    "costs by asset, trailing, at the next close": (
        {**BY_ASSET, "delay": 1, "fill": "next_close", "rebalance_band": 0.02},
        3,
        "trailing missing",
    ),
    "missing bars": ({"fee": 0.002, "delist_return": -0.3}, 3, "brackets missing delisted"),
    "missing at the close, late": (
        {"max_leverage": 4.0, "fill": "close", "fee": 0.001, "delay": 2, **INTEREST},
        3,
        "brackets missing delisted dt",
    ),
    "sessions": (
        {"max_leverage": 6.0, "rebalance": "on_change", "flat_at_session_end": True},
        3,
        "brackets session missing",
    ),
    "lots on credit": ({**IN_CURRENCY, "max_leverage": 6.0, "delay": 1}, 1, "volume factor brackets"),
    "commission at the close": (
        {"fee": 0.001, "slippage": 0.001, "fill": "close", **COMMISSION},
        3,
        "brackets factor",
    ),
    "commission, lots, impact": ({**IN_CURRENCY, **COMMISSION, "max_fee": None}, 3, "volume factor"),
    "trailing": ({"fee": 0.001, "max_leverage": 5.0}, 1, "trailing"),
    "limits of one, on credit": ({**LIMIT, "max_leverage": 4.0, "limit_offset": 0.01, **INTEREST}, 1, "stops dt"),
    "limits on change": (
        {**LIMIT, **COMMISSION, "maker_fee": 0.0002, "rebalance": "on_change", "limit_offset": 0.004, "delay": 1},
        3,
        "stops missing delisted funding dt",
    ),
    "futures": ({**FUTURES, "max_leverage": 6.0, "maintenance_margin": 0.16}, 3, "brackets factor volume"),
    "dividends": (
        {"fee": 0.001, "max_leverage": 3.0, "maintenance_margin": 0.3, "delist_return": -0.3, **INTEREST},
        3,
        "brackets missing delisted dividend dt funding",
    ),
    "dividends at the close, of one": ({"fee": 0.001, "fill": "close", "rebalance_band": 0.02}, 1, "dividend"),
}


@pytest.mark.quick(5)
@pytest.mark.parametrize("name", CASES)
def test_rules_together_match_the_scalar_reference(name: str) -> None:
    fields, assets, inputs = CASES[name]
    settings, kinds = Settings(**fields), inputs.split()
    given = random_columns(list(CASES).index(name), assets, kinds, settings.rules.max_leverage)
    got, (expected, reasons) = by_ledger(given, settings), by_reference(given, settings)
    if "stopped" in got:  # a ruined account is never entered again
        for each in (got, expected):
            each["stopped"] = np.where(expected["ruined"][..., None], 0, each["stopped"])
    # Leverage and impact enlarge the roundings of 1e-12 of plain accounts.
    assert_agree(got, expected, rtol=1e-9, atol=1e-10)
    # What the agreement is about must have happened.
    for kind, needed in {
        "brackets": (STOP, TAKE),
        "stops": (STOP,),
        "trailing": (STOP, TAKE, TRAIL),
        "delisted": (DELISTED,),
        "session": (SESSION,),
    }.items():
        if kind in kinds:
            assert all(reasons[reason] >= 3 for reason in needed), reasons
    if settings.margin is not None:
        assert reasons[LIQUIDATION] >= 3, reasons
    if settings.rules.fill == "limit":
        assert 30 < expected["unmet"].sum() < expected["unmet"].size - 30
    elif "missing" in kinds or settings.rules.min_trade:  # who places a limit order does not know of missing bars
        assert expected["dropped"].sum() >= 3
    assert reasons[ORDER] > BARS


def random_columns(seed: int, assets: int, kinds: list[str], leverage: float) -> dict[str, np.ndarray]:
    """Inputs of every move, [bar, path, asset]: prices that leap, targets of all kinds, and what `kinds` names."""
    rng = np.random.default_rng(seed)
    shape = (BARS, PATHS, assets)
    steps = rng.normal(0, 0.03, (2, *shape)) * np.where(rng.random((2, *shape)) < 0.05, 4, 1)
    present = rng.random(shape) > 0.15 if "missing" in kinds else np.ones(shape, bool)
    delisted = np.zeros(shape, bool)
    if "delisted" in kinds:  # some are delisted on the way, with or without a bar, and have no bar from then on
        ends = np.where(rng.random(shape[1:]) < 0.6, rng.integers(20, BARS, shape[1:]), BARS + 1)
        bars = np.arange(BARS)[:, None, None]
        present, delisted = present & (bars <= ends), bars == ends
    steps = np.where(present, steps, 0.0)
    close = 50 * np.exp(np.concatenate([np.zeros((1, *shape[1:])), np.cumsum(steps.sum(0), 0)]))
    open_ = close[:-1] * np.exp(steps[0])
    swing = np.where(present, np.abs(rng.normal(0, 0.02, (2, *shape))), 0.0)
    targets = rng.uniform(-1.3, 1.3, shape) * leverage / assets**0.5
    kind = rng.integers(0, 8, shape)
    targets = np.where(kind == 0, 0.0, np.where(kind == 1, np.nan, targets))
    targets = repeated(targets, kind >= 4)
    was_present = np.concatenate([np.ones((1, *shape[1:]), bool), present[:-1]])
    ends = rng.random((BARS, PATHS, 1)) < 0.1
    was_delisted, had_ended = (np.concatenate([np.zeros_like(flag[:1]), flag[:-1]]) for flag in (delisted, ends))
    columns = {
        "target": targets,
        "prev_close": close[:-1],
        "open": open_,
        "close": close[1:],
        "high": np.maximum(open_, close[1:]) * np.exp(swing[0]),
        "low": np.minimum(open_, close[1:]) * np.exp(-swing[1]),
    }
    years = rng.uniform(0.001, 0.02, (BARS, PATHS, 1))
    more = {
        "brackets": {
            "stop_loss": np.where(rng.random(shape) < 0.6, np.inf, rng.uniform(0.02, 0.3, shape)),
            "take_profit": np.where(rng.random(shape) < 0.6, np.inf, rng.uniform(0.02, 0.3, shape)),
        },
        "trailing": {
            name: np.where(rng.random(shape) < 0.4, np.inf, rng.uniform(*size, shape))
            for name, size in (("stop_loss", (0.02, 0.3)), ("take_profit", (0.05, 0.5)), ("trailing_stop", (0.02, 0.3)))
        },
        "stops": {"stop_loss": np.where(rng.random(shape) < 0.5, np.inf, rng.uniform(0.02, 0.3, shape))},
        "dt": {"dt": years, "bar_dt": years * rng.choice([0.0, 0.3, 1.0], years.shape)},
        "dividend": {"dividend": np.where(present & (rng.random(shape) < 0.1), rng.uniform(0.1, 3.0, shape), 0.0)},
        "funding": {"funding": rng.normal(0, 0.002, shape)},
        "missing": {"present": present, "was_present": was_present},
        "delisted": {
            "present": present,
            "was_present": was_present,
            "delisted": delisted,
            "was_delisted": was_delisted,
        },
        "session": {"session_end": ends, "was_session_end": had_ended},
        "volume": {"volatility": rng.uniform(0.01, 0.05, shape), "adv": np.exp(rng.normal(13, 1, shape))},
        "factor": {"price_factor": rng.uniform(0.2, 1.0, shape)},
    }
    for kind_of in kinds:
        columns |= more[kind_of]
    return columns
