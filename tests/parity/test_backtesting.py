"""backtesting.py at every bar, its answers stored by `benchmarks/parity.py`: `simulate` and the reference beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ledger.reference import ORDER, STOP, TAKE, Settings
from ledger.reference import result as reference_result
from parity_cases import Case, load

FOUND, VERSIONS = load(Path(__file__).with_name("backtesting.npz"))
each = pytest.mark.parametrize(("case", "equity"), FOUND, ids=[case.name for case, _ in FOUND])
BRACKETED = [found for found in FOUND if "stop_loss" in found[0].settings]


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
    columns = {name: values.tolist() for name, values in case.columns().items()}
    prices = {name: columns[name] for name in ("high", "low")}
    bars = len(equity)
    brackets = {
        "stop_loss": [[case.settings["stop_loss"]]] * bars,
        "take_profit": [[case.settings["take_profit"]]] * bars,
    }
    settings = Settings(**{name: case.settings[name] for name in ("fee", "slippage", "fill")})
    got = reference_result(columns["open"], columns["close"], columns["targets"], settings, **prices, **brackets)
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


def test_it_is_the_pinned_release() -> None:
    assert VERSIONS["backtesting"] == "0.6.6"
    assert (len(FOUND), len(BRACKETED)) == (3, 1)
