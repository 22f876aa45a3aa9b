"""`ruin_level`: everything is closed for good where little equity is left (money rule 7)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from ledger.paths import path, step
from ledger.worked_bars import NAN, SHORT, bar, near, one_bar, worked

from jaxtrader.ledger import ledger
from jaxtrader.ledger.bar import Bar
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules

CASES = [
    {
        "name": "ruin at the fill: everything closed there, the order cancelled, the true value shown",
        "start": SHORT,
        "settings": {"fee": 0.01, "cash_rate": 0.1},
        "bars": [
            bar(1.0, 199.5, 150.0),  # E = 2 - 1.995 = 0.005 <= 0.01, fee 0.01995
            bar(1.0, 150.0, prev_close=150.0, dt=1.0),  # frozen: no order, no interest
        ],
        "fills": [(0, 0, 0.01, 199.5, "ruin")],
        "financing": [0.0, 0.0],
        "cash": -0.01495,
        "units": [0.0],
        "equity": -0.01495,
        "ruined": True,
    },
    {
        "name": "what has no bar at the ruin is closed at the open of its next bar, and pays no interest until then",
        "start": {"cash": 2.0, "units": [-0.005, -0.005], "entry": [100.0, 100.0]},
        "settings": {"fee": 0.01, "short_rate": 0.1},
        "bars": [
            bar([NAN, 1.0], [299.5, 100.0], present=[True, False]),  # E = 2 - 1.4975 - 0.5, 1.4975 and 0.014975 paid
            bar([1.0, 1.0], [299.5, 100.0], prev_close=[299.5, 100.0], present=[True, False], dt=1.0),
            bar([1.0, 1.0], [299.5, 80.0], [299.5, 120.0], prev_close=[299.5, 100.0], present=[True, True], dt=1.0),
        ],
        "fills": [(0, 0, 0.005, 299.5, "ruin"), (2, 1, 0.005, 80.0, "ruin")],
        "financing": [0.0, 0.0, 0.0],
        "cash": 0.083525,  # 0.487525 - 0.4 - 0.004
        "units": [0.0, 0.0],
        "equity": 0.083525,
        "ruined": True,
    },
    {
        "name": "what has no bar at the ruin is delisted before its next bar",
        "start": {"cash": 2.0, "units": [-0.005, -0.005], "entry": [100.0, 100.0]},
        "settings": {"fee": 0.01, "short_rate": 0.1, "delist_return": -0.3},
        "bars": [
            bar([NAN, 1.0], [299.5, 100.0], present=[True, False]),  # as above
            bar([1.0, 1.0], [299.5, 100.0], prev_close=[299.5, 100.0], present=[True, False], delisted=[False, True]),
        ],
        "fills": [(0, 0, 0.005, 299.5, "ruin"), (1, 1, 0.005, 70.0, "delisted")],
        "financing": [0.0, 0.0],
        "cash": 0.134025,  # 0.487525 - 0.35 - 0.0035
        "units": [0.0, 0.0],
        "equity": 0.134025,
        "ruined": True,
    },
    {
        "name": "an open with next_open ruins without an order, an open with next_close does not",
        "start": SHORT,
        "settings": {"fill": "next_close"},
        "bars": [bar(NAN, 199.5, 150.0)],
        "fills": [],
        "cash": 2.0,
        "units": [-0.01],
        "equity": 0.5,
        "ruined": False,
    },
    {
        "name": "ruin at the close",
        "start": SHORT,
        "bars": [bar(NAN, 150.0, 199.5)],
        "fills": [(0, 0, 0.01, 199.5, "ruin")],
        "cash": 0.005,
        "units": [0.0],
        "equity": 0.005,
        "ruined": True,
    },
]


test_ruin_level_as_worked_by_hand = worked(CASES)


def test_ruin_at_an_open_gap_closes_everything_and_cancels_the_order():
    # Short 0.01 with 2.0 in cash. At 200 nothing is left. Buying back costs 2 * 1.0302 = 2.0604.
    account, fill, closing = one_bar(1.0, (100, 200, 100), units=-0.01, cash=2.0)
    assert account.ruined
    assert fill.units[0] == 0.01
    assert account.units[0] == 0.0
    assert account.equity == near(-0.0604)
    assert not closing.units.any()


def test_ruin_at_the_close_then_frozen():
    # 2 - 0.01 * 199.5 = 0.005 <= 0.01: bought back at 199.5, 1.995 * 1.0302 = 2.055249.
    closes = np.array([100.0, 100, 199.5, 50, 60])[:, None]
    opens = np.array([100.0, 150, 50, 60])[:, None]
    free_entry = path(closes[:3], opens[:2], np.array([-1.0, NAN])[:, None])[0]
    assert free_entry.units[0, 0] == -0.01
    assert free_entry.equity[1] == near(0.005)
    account, fill, closing = one_bar(NAN, (100, 150, 199.5), units=-0.01, cash=2.0)
    assert account.ruined
    assert not fill.units.any()
    assert closing.units[0] == 0.01
    assert closing.price[0] == 199.5
    assert account.equity == near(-0.055249)
    after, later, _ = path(closes, opens, np.array([-1.0, NAN, 1.0, -1.0])[:, None])
    np.testing.assert_array_equal(after.ruined, [False, True, True, True])
    # The rounding of a few operations on a price of 200, beside an equity of 0.005.
    np.testing.assert_allclose(after.equity, [1, 0.005, 0.005, 0.005], rtol=1e-12)
    assert not later.units[2:].any()


def test_a_ruined_account_is_frozen_to_the_bit():
    """Also what float32 could not result of its interest: from the first bar after ruin on, nothing is paid."""
    rates = Costs(fee=0.0, slippage=0.0, cash_rate=0.02, borrow_rate=0.02).cast("float32")
    number = lambda x: jnp.asarray([x], "float32")  # noqa: E731
    account = ledger.open_account(number(1.0), number(100.0), financing=True)
    account = account.replace(cash=jnp.float32(0.005), interest_residual=jnp.float32(1e-4), units=number(1e-4))
    rules, minute = Rules(rebalance_band=0.0), number(1 / 365 / 1440)
    still = Bar(*[number(10.0)] * 3, years=minute)
    ruined, _ = step(account, number(NAN), still, rates, rules)
    assert ruined.ruined
    assert ruined.units == 0
    ruined = ruined.replace(interest_residual=jnp.float32(1e-4))  # as rounding may leave it
    after, events = step(ruined, number(1.0), Bar(*[number(50.0)] * 3, years=minute), rates, rules)
    for name in ("cash", "units", "entry", "target", "equity", "ruined", "interest_residual"):
        np.testing.assert_array_equal(getattr(after, name), getattr(ruined, name), name)
    assert events.financing == 0
