"""vectorbt's equity at every bar, stored by `benchmarks/parity.py`, against `simulate` and the scalar reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ledger_reference import Terms
from ledger_reference import book as reference_book
from parity_cases import Case, load

FOUND, VERSIONS = load(Path(__file__).with_name("vectorbt.npz"))
each = pytest.mark.parametrize(("case", "equity"), FOUND, ids=[case.name for case, _ in FOUND])


@each
def test_simulate_is_vectorbt_in_float64(case: Case, equity: np.ndarray) -> None:
    book = case.book()
    assert (book.ruined_at, book.clipped, book.dropped) == (None, 0, 0)  # rules that vectorbt does not know
    np.testing.assert_allclose(book.equity, equity, rtol=1e-10)


@each
def test_simulate_in_float32_stays_within_1e_4(case: Case, equity: np.ndarray) -> None:
    np.testing.assert_allclose(case.book("float32").equity, equity, rtol=1e-4)


@each
def test_the_scalar_reference_is_vectorbt_too(case: Case, equity: np.ndarray) -> None:
    """So that what agrees with the reference elsewhere has been held against something else."""
    columns = {name: values.tolist() for name, values in case.columns().items()}
    terms = Terms(case.settings["fee"], case.settings["slippage"], case.settings["fill"])
    got = reference_book(columns["open"], columns["close"], columns["targets"], terms)
    np.testing.assert_allclose(got["equity"], equity, rtol=1e-10)


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
