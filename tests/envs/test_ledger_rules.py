"""The ledger with its rules on, many at a time, along random bars: against the scalar reference, bar by bar."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ledger_adapter import costs_of, move_of, rules_of
from ledger_reference import Ledger, Terms

from jaxtrader.envs import ledger
from jaxtrader.envs.account import Brackets

BARS, LANES = 150, 12
INTEREST = {"cash_rate": 0.5, "borrow_rate": 1.0, "short_rate": 0.7}  # a year; high, so that a few bars show it
MARKET = {"lot": 7.0, "min_trade": 900.0, "capital": 1e5, "volume_cap": 0.2, "impact": 0.7, "fixed_fee": 3.0}
BY_ASSET = {"fee": [0.001, 0.0, 0.004], "slippage": [0.0, 0.003, 0.001], "fixed_fee": [0.0, 20.0, 5.0], "capital": 1e4}
ALL = {
    **MARKET,
    "delist_return": -0.3,
    **INTEREST,
    "fee": 0.001,
    "slippage": 0.002,
    "leverage": 5.0,
    "band": 0.02,
    "maintenance": 0.18,
}
# Terms, assets, and which inputs there are.
CASES = {
    "brackets": ({"fee": 0.002, "slippage": 0.001, "band": 0.05}, 1, "brackets"),
    "leverage, interest, brackets": ({"fee": 0.001, "leverage": 4.0, **INTEREST}, 1, "brackets years"),
    "leverage at the next close": ({"leverage": 3.0, "maintenance": 0.25, "fill": "next_close"}, 1, "brackets"),
    "leverage at the close, late": ({"leverage": 5.0, "fill": "close", "delay": 2, **INTEREST}, 1, "brackets years"),
    "margin without leverage": ({"maintenance": 0.9, "on_change": True, "delay": 1}, 1, "brackets missing"),
    "several with leverage": ({"leverage": 5.0, "fee": 0.001, **INTEREST}, 3, "brackets years funding"),
    "costs by asset": ({**BY_ASSET, "delay": 1, "fill": "next_close"}, 3, "brackets"),
    "missing bars": ({"fee": 0.002, "delist_return": -0.3}, 3, "brackets missing last"),
    "missing at the close": ({"leverage": 4.0, "fill": "close", "fee": 0.001}, 3, "brackets missing last"),
    "sessions": ({"leverage": 6.0, "on_change": True, "flat_at_session_end": True}, 3, "brackets session"),
    "lots, impact, volume": ({**MARKET, "fee": 0.001}, 3, "volume factor"),
    "lots on credit": ({**MARKET, "leverage": 6.0, "delay": 1}, 1, "volume factor brackets"),
    "all at the next open": (ALL, 3, "brackets years funding missing last volume factor"),
    "all at the next close": ({**ALL, "fill": "next_close"}, 3, "brackets years funding missing last volume factor"),
    "all at the close, of one": ({**ALL, "fill": "close"}, 1, "brackets years funding missing last volume factor"),
    "sessions at the close": ({"fill": "close", "flat_at_session_end": True, "fee": 0.001}, 3, "session missing last"),
}


@pytest.mark.parametrize("name", CASES)
def test_rules_together_match_the_scalar_reference(name: str) -> None:
    fields, assets, inputs = CASES[name]
    terms, kinds = Terms(**fields), inputs.split()
    columns = random_columns(list(CASES).index(name), assets, kinds, terms.leverage)
    expected = by_reference(columns, terms)
    got = by_ledger(columns, terms)
    frozen = expected["ruined"][..., None]  # a ruined account is never entered again
    for part, want in expected.items():
        if part in got:
            if part == "stopped":
                got[part], want = np.where(frozen, 0, got[part]), np.where(frozen, 0, want)
            scale = np.abs(want).max() + 1e-300
            message = f"{part}, (bar, lane, ...) {np.argwhere(~np.isclose(got[part], want, 1e-9, 1e-10 * scale))[:3]}"
            np.testing.assert_allclose(got[part], want, rtol=1e-9, atol=1e-10 * scale, err_msg=message)
    # What the agreement is about must have happened.
    reasons = expected["reasons"]
    for kind, needed in {"brackets": ("STOP", "TAKE"), "last": ("LAST",), "session": ("SESSION",)}.items():
        if kind in kinds:
            assert all(reasons[reason] >= 3 for reason in needed), reasons
    if terms.margin is not None:
        assert reasons["LIQUIDATION"] >= 3, reasons
    if "missing" in kinds or terms.min_trade:
        assert expected["dropped"].sum() >= 3
    assert reasons["ORDER"] > BARS


def random_columns(seed: int, assets: int, kinds: list[str], leverage: float) -> dict[str, np.ndarray]:
    """Inputs of every move, [bar, lane, asset]: prices that leap, targets of all kinds, and what `kinds` names."""
    rng = np.random.default_rng(seed)
    shape = (BARS, LANES, assets)
    steps = rng.normal(0, 0.03, (2, *shape)) * np.where(rng.random((2, *shape)) < 0.05, 4, 1)
    present = rng.random(shape) > 0.15 if "missing" in kinds else np.ones(shape, bool)
    last = np.zeros(shape, bool)
    if "last" in kinds:  # some are delisted on the way, and have no bar from then on
        ends = np.where(rng.random(shape[1:]) < 0.6, rng.integers(20, BARS, shape[1:]), BARS + 1)
        bars = np.arange(BARS)[:, None, None]
        present, last = (present | (bars == ends)) & (bars <= ends), bars == ends
    steps = np.where(present, steps, 0.0)
    close = 50 * np.exp(np.concatenate([np.zeros((1, *shape[1:])), np.cumsum(steps.sum(0), 0)]))
    open_ = close[:-1] * np.exp(steps[0])
    swing = np.where(present, np.abs(rng.normal(0, 0.02, (2, *shape))), 0.0)
    targets = rng.uniform(-1.3, 1.3, shape) * leverage / assets**0.5
    kind = rng.integers(0, 8, shape)
    targets = np.where(kind == 0, 0.0, np.where(kind == 1, np.nan, targets))
    for t in range(1, BARS):
        targets[t] = np.where(kind[t] >= 4, targets[t - 1], targets[t])
    was_present = np.concatenate([np.ones((1, *shape[1:]), bool), present[:-1]])
    ends = rng.random((BARS, LANES, 1)) < 0.1
    was_last, had_ended = (np.concatenate([np.zeros_like(flag[:1]), flag[:-1]]) for flag in (last, ends))
    columns = {
        "target": targets,
        "prev_close": close[:-1],
        "open": open_,
        "close": close[1:],
        "high": np.maximum(open_, close[1:]) * np.exp(swing[0]),
        "low": np.minimum(open_, close[1:]) * np.exp(-swing[1]),
    }
    more = {
        "brackets": {
            "stop": np.where(rng.random(shape) < 0.6, np.inf, rng.uniform(0.02, 0.3, shape)),
            "take": np.where(rng.random(shape) < 0.6, np.inf, rng.uniform(0.02, 0.3, shape)),
        },
        "years": {"years": rng.uniform(0.001, 0.02, (BARS, LANES, 1))},
        "funding": {"funding": rng.normal(0, 0.002, shape)},
        "missing": {"present": present, "was_present": was_present},
        "last": {"present": present, "was_present": was_present, "last": last, "was_last": was_last},
        "session": {"session_end": ends, "was_session_end": had_ended},
        "volume": {"volatility": rng.uniform(0.01, 0.05, shape), "adv": np.exp(rng.normal(13, 1, shape))},
        "factor": {"factor": rng.uniform(0.2, 1.0, shape)},
    }
    for kind_of in kinds:
        columns |= more[kind_of]
    return columns


def by_ledger(columns: dict[str, np.ndarray], terms: Terms) -> dict[str, np.ndarray]:
    """All lanes at once through `ledger.step`."""
    rules, costs = rules_of(terms, [{"stop": [0.1]}] if "stop" in columns else []), costs_of(terms)
    with jax.enable_x64(True):
        bars = jax.tree.map(jnp.asarray, move_of(columns, rules))
        brackets = Brackets(jnp.asarray(columns["stop"]), jnp.asarray(columns["take"])) if rules.stops else None
        targets = jnp.asarray(columns["target"])
        account = ledger.open_account(jnp.zeros_like(targets[0]), jnp.asarray(columns["prev_close"][0]), rules)
        moved = walk(account, (targets, bars, brackets), costs.cast("float64"), rules)
        accounts, events = jax.tree.map(np.asarray, moved)
    fills = [fill for fill in (events.jumped, events.order, events.inside, events.closing) if fill is not None]
    got = {name: getattr(accounts, name) for name in ("cash", "units", "entry", "equity", "ruined")}
    got |= {name: sum(getattr(fill, name) for fill in fills) for name in ("fee", "slippage")}
    got |= {"clipped": events.order.clipped, "dropped": events.order.dropped}
    if rules.stops:
        got["stopped"] = accounts.stopped
    if events.carry is not None:
        got["carry"] = events.carry
    return got


@partial(jax.jit, static_argnames="rules")
def walk(account, inputs, costs, rules):
    def move(account, row):
        target, bar, brackets = row
        account, events = ledger.step(account, target, bar, costs, rules, brackets)
        return account, (account, events)

    return jax.lax.scan(move, account, inputs)[1]


def by_reference(columns: dict[str, np.ndarray], terms: Terms) -> dict[str, np.ndarray]:
    """Lane by lane, bar by bar."""
    bars, lanes, assets = columns["close"].shape
    names = ("cash", "units", "entry", "equity", "ruined", "fee", "slippage", "clipped", "dropped", "stopped", "carry")
    out: dict = {name: [[None] * lanes for _ in range(bars)] for name in names}
    reasons = dict.fromkeys(("ORDER", "STOP", "TAKE", "LIQUIDATION", "RUIN", "LAST", "SESSION"), 0)
    single = ("years", "session_end", "was_session_end")
    for b in range(lanes):
        account = Ledger(assets)
        for t in range(bars):
            row = {name: x[t, b].tolist() if name not in single else x[t, b, 0].item() for name, x in columns.items()}
            row["open_"] = row.pop("open")
            move = account.step(terms=terms, **row)
            fee, slippage = [0.0] * assets, [0.0] * assets
            for each in move.executions:
                fee[each.asset] += each.fee
                slippage[each.asset] += each.slippage
                reasons[list(reasons)[each.reason]] += 1
            state = {name: getattr(account, name) for name in ("cash", "equity", "ruined")}
            state |= {name: list(getattr(account, name)) for name in ("units", "entry", "stopped")}
            state |= {"fee": fee, "slippage": slippage}
            state |= {name: getattr(move, name) for name in ("clipped", "dropped", "carry")}
            for name, value in state.items():
                out[name][t][b] = value
    return {**{name: np.array(out[name]) for name in names}, "reasons": reasons}
