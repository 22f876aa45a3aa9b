"""The ledger over the bars of a history, or of many side by side: one sequential pass, and what happened from it.

The pass carries the account and keeps little; all else (the fills, their costs) is computed for all bars at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Bool, Float

from jaxtrader.envs import bars, ledger
from jaxtrader.envs.account import Account, Bar, Brackets, Events
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.rules import Rules
from jaxtrader.evaluation.book import Run

FEW = 16  # paths that are as fast one after the other as side by side


class Path(struct.PyTreeNode):
    """What an account meets, one row a bar of the book: row t carries it from close[t-1] to close[t].

    Attributes:
        order: the target that comes to its fill in the row.
        bar: the prices of the move.
        after: what sizes an order at close[t] itself; None where orders do not fill there.
        brackets: in force within the row; None where there are none.
    """

    order: Float[Array, "bar *path A"]
    bar: Bar
    after: Bar | None
    brackets: Brackets | None


class Walked(struct.PyTreeNode):
    """An account after each row of a pass."""

    cash: Float[Array, "bar *path"]
    units: Float[Array, "bar *path A"]
    ruined: Bool[Array, "bar *path"]


class Many(struct.PyTreeNode):
    """What a pass of many leaves of each: the account after each row, and what it is worth at the close."""

    walked: Walked
    equity: Float[Array, "bar *path"] | Float[np.ndarray, "bar *path"]


def run(
    found: bars.Columns,
    targets: Float[np.ndarray, "bar A"],
    stops: dict[str, np.ndarray],
    costs: Costs,
    rules: Rules,
    made: Many | None = None,
) -> Run:
    """The ledger over the rows of one history, in the dtype of the columns; every array comes back in float64.

    `made`: the account over these rows, where `run_many` has it already.
    """
    rows = len(targets)
    path, stopped = _padded_path(found, targets, stops, rules), None
    if made is None and not _in_one_pass(path, rules):
        whole, events = _walk_all(path, costs, rules)
        accounts = Walked(whole.cash, whole.units, whole.ruined)
        stopped = None if whole.stopped is None else np.asarray(whole.stopped[rows - 1])
    else:
        accounts = _walk(path, costs, rules) if made is None else jax.tree.map(_padded, made.walked)
        none = np.zeros(path.order.shape, path.order.dtype)
        last = _last_known(path.order) if rules.rebalance == "on_change" else none
        events = _events(accounts, path, last, costs, rules)
    accounts, events = jax.tree.map(lambda leaf: on_host(leaf)[:rows], (accounts, events))
    close = np.asarray(found["close"], np.float64)
    equity = _worth(accounts, close) if made is None else np.array(made.equity, np.float64)  # not a view of all
    return Run(equity, close, accounts.units, accounts.ruined, events, stopped)


def run_many(
    found: Sequence[bars.Columns], targets: Sequence[Float[np.ndarray, "bar A"]], costs: Costs, rules: Rules
) -> list[Many] | None:
    """The account of each of many histories; None where it does not tell what happened (see `_in_one_pass`).

    FEW are walked one after the other, each a machine loop. More take one pass side by side: one of 64 takes twice as
    long as one of 8, since most of it is waiting for a dozen small kernels a bar. Shorter histories wait at their last
    bar for the longest.
    """
    first = {name: column[:1] for name, column in found[0].items()}
    if not _in_one_pass(_rows(first, first, targets[0][:1], None, rules), rules):
        return None
    if len(found) <= FEW:
        return [_alone(columns, orders, costs, rules) for columns, orders in zip(found, targets, strict=True)]
    rows = _round(max(map(len, targets)))
    columns = {name: _side_by_side([each[name] for each in found], rows, 1) for name in first}
    before, after = ({name: column[part] for name, column in columns.items()} for part in (slice(rows), slice(1, None)))
    orders = _side_by_side(targets, rows, _wait(rules), np.nan)[:rows]
    passed = jax.tree.map(np.asarray, _walk_many(before, after, orders, costs, rules))
    return [jax.tree.map(lambda x, i=i, n=n: x[:n, i], passed) for i, n in enumerate(map(len, targets))]


def _alone(found: bars.Columns, targets: Float[np.ndarray, "bar A"], costs: Costs, rules: Rules) -> Many:
    """One account of `run_many`."""
    walked = _walk(_padded_path(found, targets, {}, rules), costs, rules)
    walked = jax.tree.map(lambda x: on_host(x)[: len(targets)], walked)
    return Many(walked, _worth(walked, found["close"]))


def _worth(walked: Walked, close: Float[np.ndarray, "bar A"]) -> Float[np.ndarray, " bar"]:
    """What an account is worth at each close, in float64."""
    return np.asarray(walked.cash) + (np.asarray(walked.units) * np.asarray(close, np.float64)).sum(-1)


def _padded_path(
    found: bars.Columns, targets: Float[np.ndarray, "bar A"], stops: dict[str, np.ndarray], rules: Rules
) -> Path:
    """The rows of one history, and more up to a round number."""
    return _path(
        {name: _padded(column) for name, column in found.items()},
        _padded(targets),
        {name: _padded(column) for name, column in stops.items()},
        rules,
    )


def _path(found: bars.Columns, targets: Float[np.ndarray, "bar A"], stops: dict[str, np.ndarray], rules: Rules) -> Path:
    """Rows for the walk of one history."""

    def late(column: np.ndarray, by: int, first: float) -> Any:
        return np.concatenate([np.full_like(column[:by], first), column[: max(len(column) - by, 0)]])

    before = {name: np.concatenate([column[:1], column[:-1]]) for name, column in found.items()}
    brackets = Brackets(**{name: late(column, 1, np.inf) for name, column in stops.items()}) if stops else None
    return jax.tree.map(jnp.asarray, _rows(before, found, late(targets, _wait(rules), np.nan), brackets, rules))


def _wait(rules: Rules) -> int:
    """Rows from a bar to the one in which its target comes to its fill: the next, or its own at `fill="close"`."""
    return rules.delay + (rules.fill != "close")


def _rows(
    before: bars.Columns, found: bars.Columns, orders: Any, brackets: Brackets | None, rules: Rules, xp: Any = np
) -> Path:
    """Rows for the walk: what was known at the bars before them, and orders and brackets, already in their rows.

    `xp` makes columns: NumPy, or within jit jax.numpy.
    """
    if "dt" in found:  # there is no account before bar 0
        found = {**found, "dt": xp.concatenate([xp.zeros_like(found["dt"][:1]), found["dt"][1:]])}
    after = None
    if rules.fill == "close":
        following = {name: xp.concatenate([column[1:], column[-1:]]) for name, column in found.items()}
        after = bars.between(found, following, rules)
    return Path(orders, bars.between(before, found, rules), after, brackets)


def _padded(column: np.ndarray) -> np.ndarray:
    """A column with its last row repeated up to a round number of rows.

    Histories of many lengths then share a few compilations. Nothing is cut off that matters: no row sees a later one.
    """
    more = _round(len(column)) - len(column)
    return np.pad(column, ((0, more), *[(0, 0)] * (column.ndim - 1)), mode="edge")


def _round(rows: int) -> int:
    """A round number of rows, at most an eighth more."""
    step = max(64, 2 ** (rows.bit_length() - 4))
    return rows + -rows % step


def _side_by_side(columns: Sequence[np.ndarray], rows: int, lead: int, leading: float | None = None) -> np.ndarray:
    """Columns of several histories as `[lead + row, path, A]`, the last row of each repeated up to so many.

    And the last of them up to a multiple of FEW, so that not every number of paths is a program of its own. The rows
    that lead are `leading`, or each column's first.
    """
    shape, count = columns[0].shape[1:], len(columns)
    whole = np.empty((count + -count % FEW, lead + rows, *shape), columns[0].dtype)
    for path, column in zip(whole, columns, strict=False):
        path[:lead] = column[0] if leading is None else leading
        path[lead : lead + len(column)], path[lead + len(column) :] = column, column[-1]
    whole[count:] = whole[count - 1]
    turned = _aligned((lead + rows, len(whole), *shape), whole.dtype)
    turned[...] = whole.swapaxes(0, 1)  # at once: three times as fast as path by path
    return turned


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array that begins at a multiple of 64 bytes: JAX takes it as it is, and others it copies."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    first = -raw.ctypes.data % 64
    return raw[first : first + size].view(dtype).reshape(shape)


@partial(jax.jit, static_argnames="rules")
def _walk(path: Path, costs: Costs, rules: Rules) -> Walked:
    """The account after each row, from flat.

    It keeps no more than that on purpose: XLA compiles a scan on the CPU to one machine loop only while its body moves
    less than 1 kB, and runs it 15 times slower above (10M against 0.6M bars/s with the fills among the outputs).
    """

    def move(account: Account, row: Path) -> tuple[Account, Walked]:
        account, _ = _row(account, row, costs, rules)
        return account, Walked(account.cash, account.units, account.ruined)

    return jax.lax.scan(move, _flat(path, rules), path)[1]


# Paths side by side fill the widest vectors; XLA's choice is half as wide, and takes 1.6 times as long.
@partial(jax.jit, static_argnames="rules", compiler_options={"xla_cpu_prefer_vector_width": 512})
def _walk_many(before: bars.Columns, found: bars.Columns, orders: Array, costs: Costs, rules: Rules) -> Many:
    """`_walk` over columns `[bar, path, A]`, and the equity: it is no machine loop anyway."""
    path = _rows(before, found, orders, None, rules, jnp)

    def move(account: Account, row: Path) -> tuple[Account, Many]:
        account, _ = _row(account, row, costs, rules)
        equity = account.cash + (account.units * row.bar.close).sum(-1)
        return account, Many(Walked(account.cash, account.units, account.ruined), equity)

    return jax.lax.scan(move, _flat(path, rules), path)[1]


def _walk_all(path: Path, costs: Costs, rules: Rules) -> tuple[Account, Events]:
    """The same with all that happened: with brackets, margin or orders tried again, two ends do not tell a row.

    The scan keeps the accounts, and all rows are stepped again from them at once, which with every rule on takes half
    of the time that keeping what happened in the scan takes. A row's end and its events are those of one step, so that
    what closed a position leaves exactly none. Where a rounding let any row go another way then, and in float32, whose
    roundings are no smaller than the least order, all is kept in the scan.
    """
    if path.order.dtype == jnp.float64:
        walked = _accounts(path, costs, rules)
        accounts, events = _stepped(walked, path, costs, rules)
        if _agree(walked, accounts, path):
            return accounts, events
    return _accounts_and_events(path, costs, rules)


@partial(jax.jit, static_argnames="rules")
def _accounts(path: Path, costs: Costs, rules: Rules) -> Account:
    """The account after each row."""
    return jax.lax.scan(lambda x, row: (_row(x, row, costs, rules)[0],) * 2, _flat(path, rules), path)[1]


@partial(jax.jit, static_argnames="rules")
def _accounts_and_events(path: Path, costs: Costs, rules: Rules) -> tuple[Account, Events]:
    """The account after each row, and what happened in it."""

    def move(account: Account, row: Path) -> tuple[Account, tuple[Account, Events]]:
        account, events = _row(account, row, costs, rules)
        return account, (account, events)

    return jax.lax.scan(move, _flat(path, rules), path)[1]


@partial(jax.jit, static_argnames="rules")
def _stepped(accounts: Account, path: Path, costs: Costs, rules: Rules) -> tuple[Account, Events]:
    """Every row again, from the account after the one before."""
    before = jax.tree.map(lambda x, first: jnp.concatenate([first[None], x[:-1]]), accounts, _flat(path, rules))
    return _row(before, path, costs, rules)


@jax.jit
def _agree(one: Account, other: Account, path: Path) -> Bool[Array, ""]:
    """Whether two walks are the same but for roundings."""
    worth = one.units * path.bar.close
    size = jnp.abs(one.cash) + jnp.abs(worth).sum(-1)
    near = 32 * jnp.finfo(one.cash.dtype).eps * size  # below the least order (ledger DUST) up to a leverage of 60
    moved = jnp.abs((other.units - one.units) * path.bar.close).sum(-1)
    same = (jnp.abs(other.cash - one.cash) <= near) & (moved <= near) & (other.ruined == one.ruined)
    return same.all()


def _flat(path: Path, rules: Rules) -> Account:
    carries = path.bar.years is not None or path.bar.funding is not None
    return ledger.open_account(jnp.zeros_like(path.order[0]), path.bar.close[0], rules, carries=carries)


@partial(jax.jit, static_argnames="rules")
def _events(walked: Walked, path: Path, last: Float[Array, "bar A"], costs: Costs, rules: Rules) -> Events:
    """What happened in all rows of a walk without brackets, margin and orders tried again, at once.

    Every row is stepped again from the account before it, for its flags and for what was closed. The units ordered are
    the difference that the walk made: a rounding on the edge of the band could decide otherwise here.
    """
    flat = ledger.open_account(jnp.zeros_like(path.order), path.bar.close)
    earlier = {name: jnp.concatenate([getattr(flat, name)[:1], x[:-1]]) for name, x in vars(walked).items()}
    before = dataclasses.replace(flat, **earlier, target=last)
    _, events = _row(before, path, costs, rules)
    order, closing = events.order, events.closing
    assert order is not None
    traded = walked.units - before.units - closing.units
    at = path.bar if path.after is None else path.after
    fee, slippage = ledger.charges(traded, order.price, costs, at, rules)
    return events.replace(order=order.replace(units=traded, fee=fee, slippage=slippage))


def _row(account: Account, row: Path, costs: Costs, rules: Rules) -> tuple[Account, Events]:
    """One row of a book: the move with the order due in it; at `fill="close"` the order comes last, at the mark."""
    if row.after is None:
        return ledger.move(account, row.order, row.bar, costs, rules, row.brackets)
    account, events = ledger.move(account, None, row.bar, costs, rules, row.brackets)
    account, fill = ledger.execute(account, row.order, row.bar.close, row.after, costs, rules)
    return account, events.replace(order=fill)


def _in_one_pass(path: Path, rules: Rules) -> bool:
    """Whether the account after each row tells what happened in it, and is little enough for a fast scan.

    Not with brackets or margin, nor where an order on change may find no bar or too little volume, and so be tried
    again at a later row.
    """
    at = path.bar if path.after is None else path.after
    again = rules.rebalance == "on_change" and (rules.volume_cap is not None or at.present is not None)
    return not (rules.stops or rules.margin or again)


def _last_known(orders: np.ndarray | Array) -> np.ndarray:
    """The target that stood before each row's: the last that was no NaN, 0 before the first."""
    orders = np.asarray(orders)
    rows = np.where(np.isnan(orders), -1, np.arange(len(orders))[:, None])
    rows = np.concatenate([np.full_like(rows[:1], -1), np.maximum.accumulate(rows, 0)[:-1]])
    return np.where(rows < 0, 0, np.take_along_axis(orders, np.maximum(rows, 0), 0))


def on_host(leaf: Any) -> np.ndarray:
    """As NumPy's float64, or as the truth values that it holds."""
    array = np.asarray(leaf)
    return array if array.dtype == bool else array.astype(np.float64, copy=False)
