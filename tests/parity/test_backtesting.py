"""backtesting.py at every bar, its answers stored by `benchmarks/parity.py`: `simulate` and the reference beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ledger.reference import ORDER, STOP, TAKE
from parity.case_reference import reference_of
from parity_cases import Case, load

FOUND, VERSIONS = load(Path(__file__).with_name("backtesting.npz"))
each = pytest.mark.parametrize(("case", "equity"), FOUND, ids=[case.name for case, _ in FOUND])
BRACKETED, CURRENCY, LIMITS = (
    [found for found in FOUND if name in found[0].settings] for name in ("stop_loss", "share_fee", "limit_offset")
)


@pytest.mark.quick(2)
@each
def test_simulate_is_backtesting_py(case: Case, equity: np.ndarray) -> None:
    assert (case.targets > 0).any()
    assert (case.targets < 0).any()
    result = case.result()
    assert (result.ruined_at, result.clipped, result.dropped) == (None, 0, 0)
    # Roundings of up to 3,270 bars of two programs, in float64 and float32.
    np.testing.assert_allclose(case.marks(), equity, rtol=1e-10)
    np.testing.assert_allclose(case.marks("float32"), equity, rtol=1e-4)


@pytest.mark.parametrize(("case", "equity"), BRACKETED, ids=[case.name for case, _ in BRACKETED])
def test_the_scalar_reference_keeps_its_brackets(case: Case, equity: np.ndarray) -> None:
    """Stops and take-profits of real bars: gaps, the bar of the entry, both levels in one bar."""
    columns, got = case.columns(), reference_of(case)
    # 1e-10: roundings of 3,270 bars.
    np.testing.assert_allclose(got["equity"], equity, rtol=1e-10)
    # What there was to agree on.
    closes = [(fill, reason) for fill, reason in zip(got["fills"], got["reasons"], strict=True) if reason != ORDER]
    at_open = [fill for fill, _ in closes if fill[3] == columns["open"][fill[0]][0]]
    entries = {fill[0] for fill, reason in zip(got["fills"], got["reasons"], strict=True) if reason == ORDER}
    assert min(sum(reason == kind for _, reason in closes) for kind in (STOP, TAKE)) > 50
    assert len(at_open) >= 10
    assert len(entries & {fill[0] for fill, _ in closes}) > 10
    assert {fill[2] > 0 for fill, _ in closes} == {True, False}


@pytest.mark.parametrize(("case", "equity"), CURRENCY, ids=[case.name for case, _ in CURRENCY])
def test_the_scalar_reference_charges_its_commission(case: Case, equity: np.ndarray) -> None:
    """Fees of shares and contracts in currency. Each of least, share and most is what some orders pay."""
    got, terms = reference_of(case), case.settings
    # 1e-10: roundings of 2,000 bars.
    np.testing.assert_allclose(got["equity"], equity, rtol=1e-10)
    count = np.abs([fill[2] for fill in got["fills"]]) * terms["capital"] / terms.get("multiplier", 1.0)
    fees = np.array([fill[4] for fill in got["fills"]]) * terms["capital"]
    by_count = np.isclose(fees, terms["share_fee"] * count)
    if "min_fee" not in terms:
        assert by_count.all()
        np.testing.assert_allclose(count, np.round(count), atol=1e-9)
        return
    value = count * [fill[3] for fill in got["fills"]]
    least, most = np.isclose(fees, terms["min_fee"]), np.isclose(fees, terms["max_fee"] * value)
    assert min(each.sum() for each in (by_count, least, most)) > 50
    assert (by_count | least | most).all()


@pytest.mark.parametrize(("case", "equity"), LIMITS, ids=[case.name for case, _ in LIMITS])
def test_the_scalar_reference_fills_its_limit_orders(case: Case, equity: np.ndarray) -> None:
    """At the limit, at an open beyond it, or not at all, of buys and of sales."""
    got, terms = reference_of(case), case.settings
    np.testing.assert_allclose(got["equity"], equity, rtol=1e-10)  # roundings of 3,270 bars
    rates = np.array([fill[4] / (abs(fill[2]) * fill[3]) for fill in got["fills"]])
    makers = np.isclose(rates, terms["maker_fee"])
    assert (makers | np.isclose(rates, terms["fee"])).all()
    buys = np.array([fill[2] > 0 for fill in got["fills"]])
    assert min((makers == maker).sum() for maker in (True, False)) > 50
    assert min((buys & makers).sum(), (~buys & makers).sum(), (buys & ~makers).sum(), (~buys & ~makers).sum()) > 20
    assert len(got["unmet"]) > 50
    assert case.result().unmet == len(got["unmet"])


def test_it_is_the_pinned_release() -> None:
    assert VERSIONS["backtesting"] == "0.6.6"
    assert [len(each) for each in (FOUND, BRACKETED, CURRENCY, LIMITS)] == [6, 1, 2, 1]
