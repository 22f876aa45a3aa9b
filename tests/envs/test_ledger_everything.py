"""The ledger with all its rules at once, along random paths, against the scalar reference; and books against both."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ledger_adapter import costs_of, rules_of
from ledger_orders import Terms
from ledger_paths import busy
from ledger_reference import Ledger

from jaxtrader.envs import ledger
from jaxtrader.envs.account import Bar, Brackets

BARS, LANES = 150, 4
DEAR = {"fee": 0.001, "slippage": 0.002, "fixed_fee": 2.0, "capital": 10_000.0, "impact": 0.8}
HELD = {"cash_rate": 0.03, "borrow_rate": 0.08, "short_rate": 0.05}
TERMS = [
    (1, Terms(**DEAR, **HELD, leverage=3.0, band=0.05, lot=5.0)),
    (1, Terms(**HELD, fee=0.001, leverage=2.0, fill="next_close", maintenance=0.3, delay=1, on_change=True)),
    (1, Terms(**DEAR, **HELD, fill="close", delay=2, min_trade=300.0, ruin_level=0.3)),
    (3, Terms(**DEAR, **HELD, volume_cap=0.02, lot=1.0, min_trade=50.0, delist_return=-0.3)),
    (
        3,
        Terms(
            **HELD, fee=[0.001, 0.0, 0.01], slippage=0.002, leverage=2.0, fill="next_close", flat_at_session_end=True
        ),
    ),
]


def everything(seed: int, assets: int) -> dict[str, np.ndarray]:
    """Columns `[BARS + 1, LANES, A]` of random bars with gaps, missing ones and last ones; row t is bar t."""
    rng = np.random.default_rng(seed)
    shape = (BARS + 1, LANES, assets)
    gaps, inside = rng.normal(0, 0.02, shape), rng.normal(0, 0.03, shape)
    close = 40 * np.exp(np.cumsum(gaps + inside, 0))
    open_ = close * np.exp(-inside)
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, 0.02, shape)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, 0.02, shape)))
    present = rng.random(shape) < 0.9
    present[0] = True
    ends = rng.integers(BARS // 2, 2 * BARS, (LANES, assets))
    ends[:, 0] = 2 * BARS  # one asset is always there
    at = np.arange(BARS + 1)[:, None, None]
    last = (at == ends) & (ends <= BARS)
    present = (present | last) & (at <= ends)
    columns = {"open": open_, "high": high, "low": low, "close": close}
    for t in range(1, BARS + 1):  # what is missing stands at its last close
        for column in columns.values():
            column[t] = np.where(present[t], column[t], close[t - 1])
    return {
        **columns,
        "present": present,
        "last": last,
        "years": rng.choice([1, 1, 3], (BARS + 1, LANES, 1)) / 365,
        "funding": rng.choice([0, 0, 1e-3, -5e-4], shape),
        "factor": np.exp(rng.normal(0, 0.1, shape)),
        "volatility": rng.uniform(0.01, 0.05, shape),
        "adv": rng.uniform(1e4, 1e6, shape),
        "session_end": np.broadcast_to(rng.random((BARS + 1, LANES, 1)) < 0.2, (BARS + 1, LANES, 1)),
        "stop": rng.choice([np.inf, 0.02, 0.08], (BARS, LANES, assets)),
        "take": rng.choice([np.inf, 0.03, 0.1], (BARS, LANES, assets)),
    }


def ours(columns, targets, terms: Terms, brackets: bool):
    rules, costs = rules_of(terms, [{"stop": [0.1]}] if brackets else ()), costs_of(terms)
    now, then = ({name: x[part] for name, x in columns.items()} for part in (slice(-1), slice(1, None)))
    bars = Bar(
        prev_close=now["close"],
        **{name: then[name] for name in ("open", "high", "low", "close", "years", "funding", "factor", "session_end")},
        **{name: now[name] for name in ("volatility", "adv")},
        present=(now if terms.fill == "close" else then)["present"],
        inside=then["present"],
        delisted=then["last"],
    )
    given = Brackets(columns["stop"], columns["take"]) if brackets else None

    @partial(jax.jit, static_argnames="rules")
    def run(bars, targets, given, costs, rules):
        def move(account, row):
            account, events = ledger.step(account, row[0], row[1], costs, rules, row[2])
            return account, (account, events)

        flat = ledger.open_account(jnp.zeros_like(targets[0]), jnp.ones_like(targets[0]), rules)
        return jax.lax.scan(move, flat, (targets, bars, given))[1]

    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, run(bars, targets, given, costs.cast("float64"), rules))


@pytest.mark.parametrize("brackets", [True, False])
@pytest.mark.parametrize(("assets", "terms"), TERMS, ids=range(len(TERMS)))
def test_all_rules_at_once_match_the_scalar_reference_to_1e_10(assets, terms, brackets):
    columns = everything(assets, assets)
    scale = terms.leverage * 0.9
    targets = busy(3, BARS, LANES, assets, -scale / assets, scale / assets)
    account, events = ours(columns, targets, terms, brackets)
    known, asked = ("volatility", "adv"), ("stop", "take") if brackets else ()
    there = ("high", "low", "funding", "factor", "present", "last")
    seen = set()
    for lane in range(LANES):
        book = Ledger(assets)
        for t in range(BARS):
            was_stopped = list(book.stopped)
            more = {name: columns[name][t, lane].tolist() for name in (*known, *asked)}
            more |= {name: columns[name][t + 1, lane].tolist() for name in there}
            more["years"] = float(columns["years"][t + 1, lane, 0])
            more["session_end"] = bool(columns["session_end"][t + 1, lane, 0])
            more["was_present"] = columns["present"][t, lane].tolist()
            prices = (columns["close"][t, lane], columns["open"][t + 1, lane], columns["close"][t + 1, lane])
            move = book.step(targets[t, lane], *prices, terms, **more)
            at = f"lane {lane}, bar {t}, {move}, stopped {was_stopped}"
            near = partial(pytest.approx, rel=1e-10, abs=1e-12)
            assert float(account.cash[t, lane]) == near(book.cash), at
            assert account.units[t, lane].tolist() == near(book.units), at
            assert account.entry[t, lane].tolist() == near(book.entry), at
            assert float(account.equity[t, lane]) == near(book.equity), at
            assert bool(account.ruined[t, lane]) == book.ruined, at
            assert float(events.carry[t, lane]) == near(move.carry), at
            assert bool(events.order.clipped[t, lane]) == move.clipped, at
            assert bool(events.order.dropped[t, lane]) == move.dropped, at
            if brackets:
                assert account.stopped[t, lane].tolist() == book.stopped, at
            for name in ("fee", "slippage"):
                paid = sum(float(getattr(fill, name)[t, lane].sum()) for fill in events.fills)
                assert paid == near(sum(getattr(each, name) for each in move.executions)), at
            seen |= {each.reason for each in move.executions}
    # Orders, and with brackets stops and take-profits, must have been among what happened.
    assert {0, 1, 2} <= seen if brackets else 0 in seen
