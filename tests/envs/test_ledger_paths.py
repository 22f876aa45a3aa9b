"""The ledger along random paths: against a scalar reference of the money rules, and what any account must obey."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_paths import PRICEY, busy, path, walk
from ledger_reference import Ledger, Terms

from jaxtrader.envs.costs import Costs

# --- against the scalar reference -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assets", "rules"),
    [
        (1, {"fill": "next_open"}),
        (3, {"fill": "next_open"}),
        (1, {"fill": "close"}),
        (3, {"fill": "next_close"}),
        (3, {"fill": "next_open", "rebalance_band": 0.05}),
        (1, {"fill": "next_open", "rebalance": "on_change"}),
        (3, {"fill": "next_open", "rebalance": "on_change"}),
    ],
)
def test_busy_random_targets_match_the_scalar_reference_to_1e_12(assets, rules):
    closes, opens = walk(assets, 300, 8, assets)
    targets = busy(assets, 300, 8, assets)
    for fee, slippage in ((0.001, 0.002), (0.05, 0.0)):
        got = path(closes, opens, targets, Costs(fee=fee, slippage=slippage), **rules)
        terms = Terms(fee, slippage, rules["fill"], rules.get("rebalance_band", 0.0), "rebalance" in rules)
        agree(got, reference(closes, opens, targets, terms), 1e-12)
    # The second, dear, round must have met ruin, and some lane must have lived.
    assert got[0].ruined[-1].any()
    assert not got[0].ruined[5].all()


def test_the_random_cases_contain_every_rule():
    """Else the agreement above would prove less than it says."""
    closes, opens = walk(3, 300, 8, 3)
    targets = busy(3, 300, 8, 3)
    account, fill, _ = path(closes, opens, targets, Costs(fee=0.001, slippage=0.002), rebalance_band=0.05)
    assert fill.clipped.any()
    assert fill.dropped.any()
    assert (account.cash == 0).any()
    assert (account.units < 0).any()
    assert (account.units > 0).any()


@pytest.mark.parametrize("assets", [1, 3])
def test_ruin_on_wild_prices_at_the_fill_and_at_the_close(assets):
    closes, opens = walk(7 + assets, 300, 8, assets, volatility=0.3)
    targets = busy(7 + assets, 300, 8, assets)
    account, _, closing = got = path(closes, opens, targets, Costs(fee=0.001, slippage=0.002))
    agree(got, reference(closes, opens, targets, Terms(0.001, 0.002)), 1e-12)
    fell = np.diff(account.ruined, axis=0, prepend=False).any(-1)
    at_close = (closing.units != 0).any((1, 2))
    assert (fell & at_close).any()
    assert (fell & ~at_close).any()
    assert (account.equity < 0).any()  # the true value, also below 0


@pytest.mark.parametrize(("fee", "slippage"), [(None, None), (None, 0.003), (0.002, None)])
def test_an_absent_cost_is_no_cost(fee, slippage):
    closes, opens = walk(5, 100, 2, 1)
    targets = busy(5, 100, 2, 1)
    got = path(closes, opens, targets, Costs(fee=fee, slippage=slippage))
    agree(got, reference(closes, opens, targets, Terms(fee or 0.0, slippage or 0.0)), 1e-12)


@pytest.mark.parametrize("assets", [1, 3])
def test_float32_stays_within_1e_4_over_5000_bars(assets):
    closes, opens = walk(11, 5000, 2, assets, volatility=0.005)
    closes, opens = closes.astype(np.float32), opens.astype(np.float32)
    targets = busy(11, 5000, 2, assets, low=-0.8, high=1.0).astype(np.float32)
    got = path(closes, opens, targets, Costs(fee=1e-5, slippage=1e-5), dtype="float32")
    want = [column.astype(np.float64) for column in (closes, opens, targets)]
    expected = reference(*want, Terms(float(np.float32(1e-5)), float(np.float32(1e-5)), dust=1e-6))
    assert got[0].equity.dtype == np.float32
    assert not expected["ruined"].any()
    np.testing.assert_allclose(got[0].equity, expected["equity"], rtol=1e-4)


def reference(closes, opens, targets, terms):
    """The scalar account over every lane: each figure of it, bar by bar."""
    names = ("equity", "units", "entry", "traded", "fee", "slippage", "ruined", "clipped", "dropped")
    rows = {name: [] for name in names}
    lanes = [Ledger(closes.shape[-1]) for _ in range(closes.shape[1])]
    for t in range(len(targets)):
        row = {name: [] for name in names}
        for b, account in enumerate(lanes):
            move = account.step(
                list(targets[t, b]), list(closes[t, b]), list(opens[t, b]), list(closes[t + 1, b]), terms
            )
            total = {name: np.zeros(closes.shape[-1]) for name in ("units", "fee", "slippage")}
            for each in move.executions:
                for name, column in total.items():
                    column[each.asset] += getattr(each, name)
            row["equity"].append(account.equity)
            row["units"].append(list(account.units))
            row["entry"].append(list(account.entry))
            row["ruined"].append(account.ruined)
            row["traded"].append(total["units"])
            row["fee"].append(total["fee"])
            row["slippage"].append(total["slippage"])
            row["clipped"].append(move.clipped)
            row["dropped"].append(move.dropped)
        for name in names:
            rows[name].append(row[name])
    return {name: np.array(rows[name]) for name in names}


def agree(got, expected, rtol):
    """Whole accounts, bar by bar."""
    account, fill, closing = got
    np.testing.assert_array_equal(account.ruined, expected["ruined"])
    np.testing.assert_array_equal(fill.clipped, expected["clipped"])
    np.testing.assert_array_equal(fill.dropped, expected["dropped"])
    for name, value in (
        ("equity", account.equity),
        ("units", account.units),
        ("entry", account.entry),
        ("traded", fill.units + closing.units),
        ("fee", fill.fee + closing.fee),
        ("slippage", fill.slippage + closing.slippage),
    ):
        scale = np.abs(expected[name]).max() + 1e-300
        np.testing.assert_allclose(value, expected[name], rtol=rtol, atol=rtol * scale, err_msg=name)


# --- properties -------------------------------------------------------------------------------------------------------
# One shape each, so that hypothesis does not compile anew.

few = settings(max_examples=40, deadline=None, derandomize=True)  # the same in every run: a test of a commit
seeds = st.integers(0, 10_000)
BARS = 40


def rebuilt(closes, account, fill, closing):
    """Equity from the fills alone: what was paid and received, and the sum of the units at the close."""
    paid = sum((each.units * each.price + each.fee + each.slippage).sum(-1) for each in (fill, closing))
    units = np.cumsum(fill.units + closing.units, 0)
    return 1 - np.cumsum(paid, 0) + (units * closes[1:]).sum(-1)


@few
@given(seeds)
def test_equity_is_what_the_fills_paid_and_what_is_left(seed):
    closes, opens = walk(seed, BARS, 4, 3, volatility=0.1)
    account, fill, closing = path(closes, opens, busy(seed, BARS, 4, 3), PRICEY)
    np.testing.assert_allclose(rebuilt(closes, account, fill, closing), account.equity, rtol=1e-11, atol=1e-12)
    # The price of a fill is the open of its bar, and slippage and fee are those of rule 4.
    np.testing.assert_array_equal(fill.price, opens)
    np.testing.assert_allclose(fill.slippage, 0.02 * np.abs(fill.units) * opens, rtol=1e-13)
    traded = np.abs(fill.units) * opens * (1 + 0.02 * np.sign(fill.units))
    np.testing.assert_allclose(fill.fee, 0.01 * traded, rtol=1e-13)


@few
@given(seeds)
def test_flat_stays_flat(seed):
    closes, opens = walk(seed, BARS, 4, 3, volatility=0.1)
    account, fill, _ = path(closes, opens, np.zeros((BARS, 4, 3)), PRICEY)
    assert (account.equity == 1.0).all()
    assert not fill.units.any()


@few
@given(seeds, st.sampled_from([2.0**-20, 8.0, 2.0**30]) | st.floats(1e-6, 1e6))
def test_the_scale_of_prices_does_not_matter(seed, scale):
    """Random targets are no edges, and a target met before is none by the ledger's dust, 1e-12 of equity."""
    closes, opens = walk(seed, BARS, 4, 3, volatility=0.1)
    targets = busy(seed, BARS, 4, 3)
    plain = path(closes, opens, targets, PRICEY)[0]
    scaled = path(closes * scale, opens * scale, targets, PRICEY)[0]
    np.testing.assert_allclose(scaled.equity, plain.equity, rtol=1e-12, atol=1e-13)


@few
@given(seeds, st.floats(0, 0.05), st.floats(0, 0.05))
def test_a_higher_fee_never_leaves_more_after_one_fill(seed, low, more):
    closes, opens = walk(seed, 1, 4, 3)
    targets = busy(seed, 1, 4, 3)
    targets[..., :] = np.clip(np.nan_to_num(targets), -1, 1)
    at = opens[-1:]  # marked at the price of the fill: what is gone is cost alone
    cheap = path(np.concatenate([closes[:1], at]), opens, targets, Costs(fee=low, slippage=0.0))[0]
    dear = path(np.concatenate([closes[:1], at]), opens, targets, Costs(fee=low + more, slippage=0.0))[0]
    assert (dear.equity <= cheap.equity + 1e-15).all()


@few
@given(seeds, st.floats(0.3, 3.0))
def test_valid_bars_never_give_nan(seed, wild):
    """Targets of any size, prices that leap: the account stays a number, in float32 too."""
    closes, opens = walk(seed, BARS, 4, 3, volatility=wild)
    targets = busy(seed, BARS, 4, 3) * 10.0 ** np.random.default_rng(seed).integers(-8, 8, (BARS, 4, 3))
    account, fill, closing = path(closes, opens, targets, PRICEY, dtype="float32")
    for tree in (account, fill, closing):
        for name, leaf in vars(tree).items():
            if name != "target" and leaf is not None:
                assert np.isfinite(leaf).all(), name


@few
@given(seeds, st.floats(0.01, 1.0))
def test_long_and_short_mirror_in_one_step_without_costs(seed, weight):
    closes, opens = walk(seed, 1, 4, 3)
    targets = np.full((1, 4, 3), weight / 3)
    long, short = path(closes, opens, targets)[0], path(closes, opens, -targets)[0]
    np.testing.assert_array_equal(short.units, -long.units)
    np.testing.assert_allclose(short.equity - 1, 1 - long.equity, rtol=1e-9, atol=1e-14)
