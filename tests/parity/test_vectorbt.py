"""vectorbt's equity at every bar, stored by `benchmarks/parity.py`, against `simulate` and the scalar reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ledger.reference import TRAIL
from parity.case_reference import reference_of
from parity_cases import Case, load

FOUND, VERSIONS = load(Path(__file__).with_name("vectorbt.npz"))
# Each kind once: rounding does not know at which price an order fills. The four walks are shorter than the four stocks.
FLOAT32 = [
    found
    for found in FOUND
    if found[0].settings["fill"] == "next_open" or ("trailing_stop" in found[0].settings and found[0].symbols)
    if not found[0].name.startswith("four walks")
]
each = pytest.mark.parametrize(("case", "equity"), FOUND, ids=[case.name for case, _ in FOUND])


@pytest.mark.quick(3)
@each
def test_simulate_is_vectorbt_in_float64(case: Case, equity: np.ndarray) -> None:
    result = case.result()
    assert (result.ruined_at, result.clipped, result.dropped) == (None, 0, 0)  # rules that vectorbt does not know
    # 1e-10: roundings of up to 5,000 bars of two programs.
    np.testing.assert_allclose(result.equity, equity, rtol=1e-10)


@pytest.mark.quick(1)
@pytest.mark.parametrize(("case", "equity"), FLOAT32, ids=[case.name for case, _ in FLOAT32])
def test_simulate_in_float32_stays_within_1e_4(case: Case, equity: np.ndarray) -> None:
    # 1e-4: roundings of float32 over up to 5,000 bars.
    np.testing.assert_allclose(case.result("float32").equity, equity, rtol=1e-4)


@pytest.mark.slow
@each
def test_the_scalar_reference_is_vectorbt_too(case: Case, equity: np.ndarray) -> None:
    """So that what agrees with the reference elsewhere has been held against something else."""
    got, opens = reference_of(case), case.columns()["open"]
    # 1e-10: roundings of up to 5,000 bars of two programs.
    np.testing.assert_allclose(got["equity"], equity, rtol=1e-10)
    if "trailing_stop" in case.settings:  # what there was to agree on
        closes = [fill for fill, reason in zip(got["fills"], got["reasons"], strict=True) if reason == TRAIL]
        at_open = [fill for fill in closes if fill[3] == opens[fill[0], 0]]
        assert len(closes) > 50
        assert {fill[2] > 0 for fill in closes} == {True, False}
        assert at_open or not case.symbols
    if "lot" in case.settings:
        contracts = [fill[2] * case.settings["capital"] / case.settings["multiplier"] for fill in got["fills"]]
        # 1e-9: units are a share of the capital, of up to 66 contracts.
        np.testing.assert_allclose(contracts, np.round(contracts), atol=1e-9)
        assert len(set(np.round(contracts))) > 30


def test_the_cases_hold_what_they_are_for() -> None:
    assert VERSIONS["vectorbt"] == "1.2.0"
    by_fill = {fill: [case for case, _ in FOUND if case.settings["fill"] == fill] for fill in ("close", "next_open")}
    for cases in by_fill.values():
        assert {case.targets.shape[1] for case in cases} == {1, 4}
        assert any(np.isnan(case.targets).any() for case in cases)
        assert max(len(case.targets) for case in cases) == 5000
        assert any(case.symbols == ("AAPL",) for case in cases)
        assert {case.settings["fee"] > 0 for case in cases} == {True, False}
        for case in cases:
            assert case.targets.shape[1] == 1 or np.abs(case.targets).sum(1).max() <= 0.95
            assert (case.targets > 0).any()
        # Some of the cash-bound buys were cut: a whole account is bought with a fee on top.
        assert any((case.targets == 1).any() and case.settings["fee"] > 0 for case in cases)
    assert any((case.targets[:, 0] < 0).any() and case.targets.shape[1] == 4 for case, _ in FOUND)
    for case, equity in FOUND:
        assert equity.shape == (len(case.targets),)
        assert np.ptp(equity) > 0.1
