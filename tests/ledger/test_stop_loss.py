"""`stop_loss`: positions closed at a fraction of their entry price against them (money rules 2 and 8)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from ledger.paths import few, seeds, step
from ledger.worked_bars import INF, LONG, NAN, SHORT, STOPPED_AT_95, bar, worked

from jaxtrader.ledger import ledger
from jaxtrader.ledger.account import Brackets
from jaxtrader.ledger.bar import Bar
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules

GAP = {"open": 90.0, "close": 91.0, "high": 92.0, "low": 88.0}  # through a stop of 5%, which stands at 95

CASES = [
    {
        "name": "the open jumps a stop: closed at the open",
        "start": LONG,
        "settings": {"fee": 0.01},
        "bars": [bar(NAN, **GAP, stop_loss=0.05)],
        # 0.01 x 90 = 0.9, fee 0.009
        "fills": [(0, 0, -0.01, 90.0, "stop")],
        "fees": 0.009,
        "cash": 0.891,
        "units": [0.0],
        "equity": 0.891,
        "stopped": [1],
    },
    {
        "name": "an order that trades the asset at that open stands instead of the stop",
        "start": LONG,
        "settings": {"fee": 0.01},
        "bars": [bar(0.0, **GAP, stop_loss=0.05)],
        "fills": [(0, 0, -0.01, 90.0, "order")],
        "cash": 0.891,
        "units": [0.0],
        "equity": 0.891,
        "stopped": [0],
    },
    {
        "name": "an order that is dust leaves the close to the stop, and may not buy back",
        "start": LONG,
        "settings": {"fee": 0.01},
        "bars": [bar(1.0, **GAP, stop_loss=0.05)],
        # Exposure is 1 = the target: no order. After the stop the target has not left the sign.
        "fills": [(0, 0, -0.01, 90.0, "stop")],
        "cash": 0.891,
        "units": [0.0],
        "equity": 0.891,
        "stopped": [1],
    },
    {
        "name": "an order inside the rebalance_band leaves the close to the stop too",
        "start": LONG,
        "settings": {"rebalance_band": 0.2},
        "bars": [bar(0.9, **GAP, stop_loss=0.05)],
        # |0.9 - 1| = 0.1 < 0.2
        "fills": [(0, 0, -0.01, 90.0, "stop")],
        "cash": 0.9,
        "units": [0.0],
        "equity": 0.9,
        "stopped": [1],
    },
    {
        "name": "an order that sells a part at the jumped open leaves the rest to the stop, at the open",
        "start": LONG,
        "settings": {"fee": 0.01},
        "bars": [bar(0.5, **GAP, stop_loss=0.05)],
        # E = 0.9, d = 0.5 x 0.9 / 90 - 0.01 = -0.005. The rest meets a level (95) that is behind the open: again 90.
        # Cash: 2 x (0.45 - 0.0045).
        "fills": [(0, 0, -0.005, 90.0, "order"), (0, 0, -0.005, 90.0, "stop")],
        "fees": 0.009,
        "cash": 0.891,
        "units": [0.0],
        "equity": 0.891,
        "stopped": [1],
    },
    {
        "name": "under next_close an order cannot save it: the stop closes at the open",
        "start": LONG,
        "settings": {"fill": "next_close"},
        "bars": [bar(0.5, **GAP, stop_loss=0.05)],
        "fills": [(0, 0, -0.01, 90.0, "stop")],
        "cash": 0.9,
        "units": [0.0],
        "equity": 0.9,
        "stopped": [1],
    },
    {
        "name": "a stop inside the bar fills at its level, and costs slippage and fee",
        **STOPPED_AT_95,
        "settings": {"fee": 0.01, "slippage": 0.1},
        # p' = 95 x 0.9 = 85.5, 0.855 comes in, fee 0.00855, slippage 0.095
        "fees": 0.00855,
        "slippage": 0.095,
        "cash": 0.84645,
        "equity": 0.84645,
        "stopped": [1],
    },
    {
        "name": "a low that touches the stop is enough",
        "start": LONG,
        "bars": [bar(NAN, 98.0, 97.0, high=99.0, low=75.0, stop_loss=0.25)],
        "fills": [(0, 0, -0.01, 75.0, "stop")],
        "cash": 0.75,
        "units": [0.0],
        "equity": 0.75,
        "stopped": [1],
    },
    {
        "name": "stop and take-profit in one bar: the adverse side first",
        "start": LONG,
        "bars": [bar(NAN, 100.0, 105.5, high=106.0, low=94.0, stop_loss=0.05, take_profit=0.05)],
        "fills": [(0, 0, -0.01, 95.0, "stop")],
        "cash": 0.95,
        "units": [0.0],
        "equity": 0.95,
        "stopped": [1],
    },
    {
        "name": "a short's stop that the open jumps",
        "start": SHORT,
        "bars": [bar(NAN, 108.0, 100.0, stop_loss=0.05)],
        # 2 - 1.08
        "fills": [(0, 0, 0.01, 108.0, "stop")],
        "cash": 0.92,
        "units": [0.0],
        "equity": 0.92,
        "stopped": [-1],
    },
    {
        "name": "a stop counts in the bar of the entry, from the entry's price without its costs",
        "settings": {"fee": 0.01},
        "bars": [bar(1.0, 100.0, 97.0, high=101.0, low=94.0, stop_loss=0.05)],
        # The buy is cut to 1 / 1.01 of 0.01 units and leaves no cash, 0.0099009901 x 95 x 0.99
        "fills": [(0, 0, 0.01 / 1.01, 100.0, "order"), (0, 0, -0.01 / 1.01, 95.0, "stop")],
        "cash": 0.931188118811881,
        "units": [0.0],
        "equity": 0.931188118811881,
        "stopped": [1],
    },
    {
        "name": "an add moves the entry price, a partial exit does not",
        "start": {"cash": 0.5, "units": [0.005], "entry": [100.0]},
        "bars": [
            # E = 0.5 + 0.6 = 1.1, target 0.8: d = 0.88 / 120 - 0.005 = 0.00233333, cash 0.22
            # entry (0.005 x 100 + 0.00233333 x 120) / 0.00733333 = 0.78 / 0.00733333 = 106.363636
            bar(0.8, 120.0, stop_loss=0.05),
            # E = 1.1, target 0.4: d = -0.00366667, cash 0.66, units 0.00366667, entry as it was
            bar(0.4, 120.0, prev_close=120.0, stop_loss=0.05),
            # stop level 0.95 x 106.363636 = 101.0454545, 0.66 + 0.00366667 x 101.0454545 = 0.66 + 0.3705
            bar(NAN, 120.0, 110.0, prev_close=120.0, low=101.0, high=121.0, stop_loss=0.05),
        ],
        "fills": [
            (0, 0, 0.28 / 120, 120.0, "order"),
            (1, 0, -0.44 / 120, 120.0, "order"),
            (2, 0, -0.44 / 120, 101.0454545454545, "stop"),
        ],
        "cash": 1.0305,
        "units": [0.0],
        "equity": 1.0305,
        "stopped": [1],
    },
    {
        "name": "a stopped asset is entered again only after its target has left the sign",
        "start": LONG,
        "bars": [
            bar(1.0, 99.0, 96.0, low=94.0, stop_loss=0.05),  # stopped at 95
            bar(0.5, 100.0),  # the same sign: not traded
            bar(NAN, 100.0),  # says nothing
            bar(1.0, 100.0),  # still not
            bar(0.0, 100.0),  # left
            bar(1.0, 100.0),  # 0.95 / 100
        ],
        "fills": [(0, 0, -0.01, 95.0, "stop"), (5, 0, 0.0095, 100.0, "order")],
        "cash": 0.0,
        "units": [0.0095],
        "equity": 0.95,
        "stopped": [0],
    },
    {
        "name": "the opposite sign lifts the block and trades at once; the stopped side is then free",
        "start": LONG,
        "bars": [
            bar(1.0, 99.0, 96.0, low=94.0, stop_loss=0.05),
            bar(-1.0, 100.0),  # -0.0095 units, cash 1.9
            bar(1.0, 100.0),  # back: +0.019
        ],
        "fills": [(0, 0, -0.01, 95.0, "stop"), (1, 0, -0.0095, 100.0, "order"), (2, 0, 0.019, 100.0, "order")],
        "cash": 0.0,
        "units": [0.0095],
        "equity": 0.95,
        "stopped": [0],
    },
    {
        "name": "under next_close the stop comes before the order, which it blocks",
        "start": LONG,
        "settings": {"fill": "next_close"},
        "bars": [bar(0.5, 99.0, 98.0, high=99.0, low=94.0, stop_loss=0.05)],
        "fills": [(0, 0, -0.01, 95.0, "stop")],
        "cash": 0.95,
        "units": [0.0],
        "equity": 0.95,
        "stopped": [1],
    },
    {
        "name": "brackets are those of the latest decision, also where a delay fills an older order",
        "settings": {"delay": 1},
        "bars": [
            bar(1.0, 100.0),  # held back
            bar(
                0.0, 100.0, 97.0, high=101.0, low=94.0, stop_loss=0.05
            ),  # fills the 1.0, under the stop of this decision
        ],
        "fills": [(1, 0, 0.01, 100.0, "order"), (1, 0, -0.01, 95.0, "stop")],
        "cash": 0.95,
        "units": [0.0],
        "equity": 0.95,
        "stopped": [1],
    },
    {
        "name": "each asset has its own brackets",
        "start": {"cash": 0.0, "units": [0.005, 0.005], "entry": [100.0, 100.0]},
        "bars": [
            bar(
                [NAN, NAN],
                [100.0, 100.0],
                [97.0, 97.0],
                low=[94.0, 94.0],
                stop_loss=[0.05, 0.1],
                take_profit=[INF, INF],
            )
        ],
        # 0.005 x 95, and 0.005 x 97 still held
        "fills": [(0, 0, -0.005, 95.0, "stop")],
        "cash": 0.475,
        "units": [0.0, 0.005],
        "equity": 0.96,
        "stopped": [1, 0],
    },
]


test_stop_loss_as_worked_by_hand = worked(CASES)


@few
@given(seeds)
def test_a_short_is_stopped_where_a_long_is_on_prices_mirrored_about_the_entry(seed):
    """Each price p becomes 2 x entry - p. A bracket closes the short where it closes the long, at that price."""
    rng = np.random.default_rng(seed)
    rules = Rules(ruin_level=0.0, rebalance_band=0.0)
    with jax.enable_x64(True):
        entry = rng.uniform(40, 60, (128, 3))
        open_, close = (entry * (1 + rng.uniform(-0.1, 0.1, entry.shape)) for _ in range(2))
        high = np.maximum(open_, close) + rng.uniform(0, 3, entry.shape)
        low = np.minimum(open_, close) - rng.uniform(0, 3, entry.shape)
        brackets = Brackets(*(jnp.asarray(rng.uniform(0.01, 0.15, entry.shape)) for _ in range(2)))
        free, hold = Costs(fee=None, slippage=None), jnp.full(entry.shape, jnp.nan)

        def after(side, *prices):
            # The entry is 1 in the units of each asset, so that the mirror of p is 2 - p.
            prev, *others = (jnp.asarray(p / entry) for p in prices)
            account = ledger.open_account(jnp.full(entry.shape, side * 0.3), prev, rules, brackets=True)
            return step(account, hold, Bar(prev, *others), free, rules, brackets)

        turned = [2 * entry - x for x in (open_, close, low, high)]
        long, events = after(1, entry, open_, close, high, low)
        short, mirrored = after(-1, entry, *turned)
        # Roundings of an equity near 1.
        np.testing.assert_allclose(short.equity - 1, long.equity - 1, rtol=0, atol=1e-14)
        np.testing.assert_array_equal(short.stopped, -long.stopped)
        for a, b in ((events.gap_exits, mirrored.gap_exits), (events.intrabar_exits, mirrored.intrabar_exits)):
            np.testing.assert_array_equal(a.reason, b.reason)
            assert {1, 2} <= set(np.asarray(a.reason).flat)


def test_a_low_at_the_level_meets_it_whatever_the_size_of_the_position():
    """Two orders of any size buy at 100. The stop at 5% stands at 95 to the last digit, and the low is 95."""
    rng = np.random.default_rng(0)
    rules, free, shape = Rules(ruin_level=0.0, rebalance_band=0.0), Costs(fee=None, slippage=None), (128, 3)
    with jax.enable_x64(True):
        price, high, low, at_level = (jnp.full(shape, x) for x in (100.0, 101.0, 99.0, 95.0))
        brackets = Brackets(jnp.full(shape, 0.05), jnp.full(shape, 0.15))
        account = ledger.open_account(jnp.zeros(shape), price, rules, brackets=True)
        for size, lowest in ((0.1, low), (0.3, at_level)):
            target = jnp.asarray(rng.uniform(size - 0.05, size, shape))
            account, events = step(account, target, Bar(price, price, price, high, lowest), free, rules, brackets)
        assert (np.asarray(events.order.units) > 0).all()
        assert (np.asarray(events.intrabar_exits.reason) == 1).all()
        assert (np.asarray(events.intrabar_exits.price) == 95).all()
