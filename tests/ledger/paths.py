"""Random paths for the ledger, and all of them at once by `ledger.step` or one by one by the reference."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from ledger.against_reference import bar_of, costs_of
from ledger.reference import REASONS, Ledger
from ledger.worked_bars import NAN, NO_COSTS

from jaxtrader.ledger import ledger
from jaxtrader.ledger.account import Brackets
from jaxtrader.ledger.bar import late_bars
from jaxtrader.ledger.rules import BRACKETS, Rules

few = hypothesis_settings(max_examples=20, deadline=None, derandomize=True)  # the same in every run: a test of a commit
seeds = st.integers(0, 10_000)
step = jax.jit(ledger.step, static_argnames="rules")


@partial(jax.jit, static_argnames="rules")
def run(columns, costs, rules):
    """Accounts and events of paths from flat: each column is [N, *b, A]."""
    targets, bars, brackets = columns["target"], bar_of(columns, rules), None
    if "stop_loss" in columns:
        brackets = Brackets(*(columns.get(name) for name in BRACKETS))
    flat = jnp.zeros_like(targets[0]), columns["prev_close"][0]
    held = {"brackets": brackets is not None, "trailing": "trailing_stop" in columns}
    account = ledger.open_account(*flat, rules, **held)

    def move(account, row):
        target, bar, brackets = row
        account, events = ledger.step(account, target, bar, costs, rules, brackets)
        return account, (account, events)

    return jax.lax.scan(move, account, (targets, bars, brackets))[1]


def path(closes, opens, targets, costs=NO_COSTS, dtype="float64", **rules):
    """Accounts, fills and closings along closes [N+1, *b, A] and opens [N, *b, A], as NumPy pytrees."""
    rules = Rules(**{"rebalance_band": 0.0, **rules})
    with jax.enable_x64(dtype == "float64"):
        given = columns(*(np.asarray(column, dtype) for column in (closes, opens, targets)))
        account, events = jax.tree.map(np.asarray, run(given, costs.cast(dtype), rules))
        return account, events.order, events.closing


def walk(seed, bars, paths, assets, volatility=0.03):
    """Closes [bars + 1, paths, assets] and opens [bars, paths, assets] of a random walk with gaps."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, volatility, (2, bars, paths, assets))
    closes = 50 * np.exp(np.vstack([np.zeros((1, paths, assets)), np.cumsum(steps.sum(0), 0)]))
    return closes, closes[:-1] * np.exp(steps[0])


def busy(seed, bars, paths, assets, low=-1.3, high=1.3):
    """Targets that go long, short, flat, beyond the limit, repeat themselves, and hold."""
    rng = np.random.default_rng(seed + 1000)
    shape = (bars, paths, assets)
    targets = rng.uniform(low, high, shape)
    kind = rng.integers(0, 10, shape)
    targets = np.where(kind == 0, 0.0, np.where(kind == 1, NAN, np.where(kind == 2, 1.0, targets)))
    return repeated(targets, kind >= 8)


def repeated(targets, again):
    """Targets in which those marked repeat the one before."""
    for t in range(1, len(targets)):
        targets[t] = np.where(again[t], targets[t - 1], targets[t])
    return targets


def columns(closes, opens, targets):
    """Paths as the columns that `by_ledger` and `by_reference` take."""
    return {"prev_close": closes[:-1], "open": opens, "close": closes[1:], "target": targets}


def by_ledger(columns, settings, dtype="float64"):
    """Each figure `[bar, path, ...]` of all paths at once through `ledger.step`."""
    if settings.rules.flat_at_session_end and "present" in columns:
        columns = {**columns, "late": late_bars(columns["present"], columns["session_end"])}
    with jax.enable_x64(dtype == "float64"):
        given = {name: x if x.dtype == bool else x.astype(dtype) for name, x in columns.items()}
        moved = run(given, costs_of(settings).cast(dtype), settings.rules)
        accounts, events = jax.tree.map(np.asarray, moved)
    got = {name: getattr(accounts, name) for name in ("cash", "units", "entry", "equity", "ruined", "stopped")}
    got |= {name: sum(getattr(fill, name) for fill in events.fills) for name in ("fee", "slippage")}
    got["traded"] = sum(fill.units for fill in events.fills)
    got |= {name: getattr(events.order, name) for name in ("clipped", "dropped", "unmet")}
    got |= {"financing": events.financing}
    return {name: x for name, x in got.items() if x is not None}


def by_reference(columns, settings):
    """Each figure `[bar, path, ...]`, path by path and bar by bar, and how often each reason came."""
    bars, paths, assets = columns["close"].shape
    of_all = ("dt", "bar_dt", "session_end", "was_session_end")
    lists = {name: (x[..., 0] if name in of_all else x).tolist() for name, x in columns.items()}
    found = {name: [[None] * paths for _ in range(bars)] for name in FIGURES}
    reasons = dict.fromkeys(REASONS, 0)
    for b in range(paths):
        account = Ledger(assets, settings)
        for t in range(bars):
            move = account.step(**{name: x[t][b] for name, x in lists.items()})
            total = {name: [0.0] * assets for name in ("fee", "slippage", "units")}
            for each in move.executions:
                reasons[each.reason] += 1
                for name, column in total.items():
                    column[each.asset] += getattr(each, name)
            state = {"fee": total["fee"], "slippage": total["slippage"], "traded": total["units"]}
            state |= {name: getattr(account, name) for name in ("cash", "equity", "ruined")}
            state |= {name: list(getattr(account, name)) for name in ("units", "entry", "stopped")}
            state |= {name: getattr(move, name) for name in ("clipped", "dropped", "unmet", "financing")}
            for name, rows in found.items():
                rows[t][b] = state[name]
    return {name: np.array(x) for name, x in found.items()}, reasons


FIGURES = ("cash", "equity", "ruined", "units", "entry", "stopped", "clipped", "dropped", "financing")
FIGURES += ("fee", "slippage", "traded", "unmet")


def assert_agree(got, expected, rtol, atol):
    """Whole accounts, bar by bar. `atol` is a part of the largest number of each figure."""
    for name, mine in got.items():
        want = expected[name]
        if want.dtype == bool:
            np.testing.assert_array_equal(mine, want, name)
        else:
            scale = np.abs(want).max() + 1e-300
            np.testing.assert_allclose(mine, want, rtol=rtol, atol=atol * scale, err_msg=name)
