"""`simulate` runs a user's own target exposures through the ledger, over one history or many.

The targets are given beforehand, so nothing here decides. `backtest.py` is for policies.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxtrader import compilation
from jaxtrader.envs.episode import Holdings, Rows, Trajectory, run
from jaxtrader.evaluation.result import BacktestResult, BacktestResults
from jaxtrader.evaluation.simulate_inputs import (
    Axes,
    PerBar,
    as_numbers,
    bracket_of,
    check_run,
    checked_bracket,
    checked_targets,
    rows_from,
    segment_of,
    symbols_of,
    unknown_symbol,
)
from jaxtrader.jax_settings import on_cpu, package_settings
from jaxtrader.ledger import ledger
from jaxtrader.ledger.account import Account, Brackets, Events, without_dust
from jaxtrader.ledger.bar import Bar, Columns, bar_between, ledger_columns
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.orders import delayed_targets, in_force
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.lengths import pad_rows, round_length
from jaxtrader.market.market import Market
from jaxtrader.setting_checks import is_labelled

NUMBERS_AT_ONCE = 1 << 24  # of many paths of targets, and of what is carried beside them: 128 MB of float64


@overload
def simulate(
    market: Market,
    targets: Mapping[str, PerBar],
    *,
    costs: Costs = ...,
    stop_loss: PerBar | Mapping[str, PerBar] | None = ...,
    take_profit: PerBar | Mapping[str, PerBar] | None = ...,
    trailing_stop: PerBar | Mapping[str, PerBar] | None = ...,
    dtype: Literal["float64", "float32"] = ...,
    rules: Rules = ...,
) -> BacktestResults: ...
@overload
def simulate(
    market: Market,
    targets: PerBar,
    *,
    costs: Costs = ...,
    stop_loss: PerBar | None = ...,
    take_profit: PerBar | None = ...,
    trailing_stop: PerBar | None = ...,
    dtype: Literal["float64", "float32"] = ...,
    start: int | None = ...,
    symbol: str | None = ...,
    rules: Rules = ...,
) -> BacktestResult: ...
def simulate(
    market: Market,
    targets: PerBar | Mapping[str, PerBar],
    *,
    rules: Rules = Rules(),  # noqa: B008  frozen
    costs: Costs = Costs(),  # noqa: B008  frozen
    stop_loss: PerBar | Mapping[str, PerBar] | None = None,
    take_profit: PerBar | Mapping[str, PerBar] | None = None,
    trailing_stop: PerBar | Mapping[str, PerBar] | None = None,
    dtype: Literal["float64", "float32"] = "float64",
    start: int | None = None,
    symbol: str | None = None,
) -> BacktestResult | BacktestResults:
    """Trade an account of 1.0 by target exposures, or one account for each of many histories.

    Args:
        market: one history, or several and `symbol`, or several and targets by symbol.
        targets: signed exposure wanted at each close, `[N]` (one asset) or `[N, A]`, or one number for all. N counts
            the bars from the segment's first decision, bar 0 of the result, to its end. NaN holds the units. A Series
            or DataFrame of pandas is matched by its labels instead: the index are times of bars, the columns symbols.
            Times without an offset are of the market's wall clock. A bar without a row, or an asset without a column,
            holds. Rows before bar 0 and after the end do not count. A mapping gives such targets for each of the
            histories that it names.
        rules: how orders fill. A band of None is 0 here, so that each bar trades to its target. `env.rules` has that
            of its environment.
        costs: what trading and holding cost. The default is not free.
        stop_loss: fraction of the entry price (below 1), against the position, at which it is closed, from the bar
            after each decision on. One number, or one a target, given as `targets` are. NaN or infinite means none.
            With targets by symbol, one number for all, or a mapping. A symbol that the mapping does not name has none.
        take_profit: the same in favour of the position. It may be above 1.
        trailing_stop: the same as `stop_loss`, but of the best price since the entry.
        dtype: the type of the account's numbers.
        start: another bar 0, as a row of the market's columns.
        symbol: which of several histories.

    Returns:
        The result (money rule 10). equity[t] is marked at close[t] after every fill up to it. A target on the last bar
        never fills unless `fill="close"`. Targets by symbol give a `BacktestResults`, which makes each result when it
        is first read. The accounts are carried at once, on all cores. Some rules carry an account only when its result
        is read: brackets, margin, limit orders, funding, interest inside bars, and orders on change that may wait for a
        bar or volume.

    Raises:
        ValueError: several histories and no `symbol`, targets of another length, infinite or no numbers, or labels
            that are no times of bars or no symbols. Or a setting out of range, or one that the market has no column
            for.

    Example:
        >>> _, test = jt.Market.from_bars(jt.load_bundled("IBM")).split("2011-01-01")
        >>> result = jt.simulate(test, 1.0, costs=jt.Costs.from_bps(fee=1, slippage=4))  # buy and hold
        >>> result
        BacktestResult(IBM: 543 bars 2011-01-03..2013-03-01, 1 became 1.427 in 1 trades)
    """
    check_run(market, costs, rules, dtype)
    rules = rules.with_band(0.0)
    brackets: dict[str, Any] = {"stop_loss": stop_loss, "take_profit": take_profit, "trailing_stop": trailing_stop}
    brackets = {name: x for name, x in brackets.items() if x is not None}
    if not isinstance(targets, Mapping):
        history = _History(market, targets, brackets, costs, rules, dtype, start, symbol)
        return history.result()
    if start is not None or symbol is not None:
        name = "symbol" if start is None else "start"
        raise ValueError(f"`{name}` chooses one history, and `targets` by symbol are for many; leave `{name}` out")
    if not targets:
        raise ValueError("`targets` name no history; name at least one, as in `{'AAPL': 1.0}`")
    for name, given in brackets.items():
        if isinstance(given, Mapping) and (others := [each for each in given if each not in targets]):
            raise ValueError(
                f"`{name}` names {others[0]!r}, and `targets` do not; they name {', '.join(map(str, targets))}"
            )
    costs = copy.deepcopy(costs)  # results are made later, and rates may be arrays
    histories = {}
    for each, own in targets.items():
        if market.symbols.count(each) != 1:
            raise ValueError(unknown_symbol(market, each))
        try:
            given = {name: bracket_of(name, x, each) for name, x in brackets.items()}
            histories[each] = _History(market, own, given, costs, rules, dtype, None, each)
        except ValueError as error:
            raise ValueError(f"{each}: {error}") from error
    return _results(histories)


def simulate_paths(
    market: Market,
    targets: Float[np.ndarray, "path bar A"],
    *,
    rules: Rules = Rules(),  # noqa: B008  frozen
    costs: Costs = Costs(),  # noqa: B008  frozen
    stop_loss: float | None = None,
    take_profit: float | None = None,
    trailing_stop: float | None = None,
    start: int | None = None,
    symbol: str | None = None,
) -> Float[np.ndarray, "path bar"]:
    """The equity of many paths of targets over one history, as `simulate` gives it for each by itself.

    All accounts step side by side, so a thousand paths take little longer than one with brackets. Only the equity is
    kept. The account is float64.

    Args:
        targets: `[path, N]` (one asset) or `[path, N, A]`, each path like the targets of `simulate`.
        stop_loss, take_profit, trailing_stop: one number for all bars and paths, or None.
        market, rules, costs, start, symbol: as in `simulate`.

    Raises:
        ValueError: as `simulate`.
    """
    given: dict[str, Any] = {"stop_loss": stop_loss, "take_profit": take_profit, "trailing_stop": trailing_stop}
    given = {name: x for name, x in given.items() if x is not None}
    check_run(market, costs, rules, "float64")
    rules = rules.with_band(0.0)
    paths = None if is_labelled(targets) else as_numbers(targets)
    if paths is None or paths.ndim < 2 or not len(paths):
        raise ValueError("`targets` must be numbers [path, bar] or [path, bar, asset], of one path at least")
    first = _History(market, paths[0], given, costs, rules, "float64", start, symbol)
    bars, assets = first.targets.shape
    rows = round_length(bars)
    columns, brackets = jax.tree.map(lambda column: pad_rows(column, rows), (first.columns, first.brackets))
    at_once = min(len(paths), max(1, NUMBERS_AT_ONCE // (rows * (assets + 2))))
    equity = np.empty((len(paths), bars))
    with jax.enable_x64(True), on_cpu():
        for begin in range(0, len(paths), at_once):
            block = [checked_targets(path, first.axes, "float64") for path in paths[begin : begin + at_once]]
            # The last block repeats its last path, so that all blocks share one compilation.
            block += block[-1:] * (at_once - len(block))
            stacked = np.stack([pad_rows(path, rows) for path in block])
            done = np.asarray(_run_paths(columns, stacked, brackets, costs.cast("float64"), rules))
            equity[begin : begin + at_once] = done[: len(paths) - begin, :bars]
    return equity


class _History:
    """One history with its targets and brackets, checked."""

    def __init__(
        self,
        market: Market,
        targets: PerBar,
        brackets: dict[str, PerBar],
        costs: Costs,
        rules: Rules,
        dtype: str,
        start: int | None,
        symbol: str | None,
    ) -> None:
        segment = segment_of(market, symbol)
        rows = rows_from(market, segment, start)
        self.name = market.symbols[segment]
        self.axes = axes = Axes(np.asarray(market.times[rows]), symbols_of(market, self.name), market.tz_of(self.name))
        self.targets = checked_targets(targets, axes, dtype)
        checked: dict[str, Any] = {name: checked_bracket(name, given, axes, dtype) for name, given in brackets.items()}
        self.brackets = Brackets(**checked) if checked else None
        rules.check_brackets(checked)
        columns = ledger_columns(market, costs, rules, brackets=bool(brackets))
        self.columns = {name: _typed(column[rows], dtype) for name, column in columns.items()}
        self.costs, self.rules, self.dtype = costs, rules, dtype
        self.periods_per_year = market.periods_of(self.name)

    def result(self, trajectory: Trajectory | None = None) -> BacktestResult:
        """The result. `trajectory` is that of a run together with other histories. None carries the account now."""
        with package_settings(x64=self.dtype == "float64"), on_cpu():
            if trajectory is None:
                (trajectory,) = _run_together([self], _rows_for([self]), with_events=not _holdings_suffice(self))
            if trajectory.events is None:
                trajectory = _with_events(self, trajectory)
        return BacktestResult.from_trajectory(
            trajectory,
            self.columns,
            self.targets.astype(np.float64),
            symbols=self.axes.symbols,
            times=self.axes.times,
            periods_per_year=self.periods_per_year,
            tz=self.axes.tz,
            costs=self.costs,
            rules=self.rules,
        )


def _results(histories: dict[str, _History]) -> BacktestResults:
    """The results of many histories. Those of about one length run together, where holdings suffice for a result."""
    first = next(iter(histories.values()))
    if not _holdings_suffice(first):
        return BacktestResults(tuple(histories), partial(_result, histories, {}))
    by_length: dict[int, list[str]] = {}
    for name, history in histories.items():
        by_length.setdefault(len(history.targets).bit_length(), []).append(name)
    trajectories: dict[str, Trajectory] = {}
    with ThreadPoolExecutor(compilation.cores()) as pool:
        for names in by_length.values():
            trajectories |= zip(names, _run_on_cores(pool, [histories[name] for name in names]), strict=True)
    equity = {}
    for name, history in histories.items():
        holdings = trajectories[name].account
        assert isinstance(holdings, Holdings)
        equity[name] = holdings.value(history.columns["close"])
    return BacktestResults(tuple(histories), partial(_result, histories, trajectories), equity)


def _result(histories: dict[str, _History], trajectories: dict[str, Trajectory], name: str) -> BacktestResult:
    """The result of one of many histories. It is a module's function, so that `BacktestResults` can be pickled."""
    return histories[name].result(trajectories.get(name))


# --- the pass over the bars ---


def _holdings_suffice(history: _History) -> bool:
    """Whether the events between two closes follow from the holdings at these closes.

    Brackets and margin need more of the account, and so does an order on change that found no bar or too little volume
    and is tried again. Funding, and the interest of a bar's own time, are on what is held inside the bar.
    """
    rules, columns = history.rules, history.columns
    retries = rules.rebalance == "on_change" and (
        rules.volume_cap is not None or not columns.keys().isdisjoint(("present", "delisted", "volatility"))
    )
    has_own_time = not columns.keys().isdisjoint(("funding", "bar_dt"))
    return not (history.brackets is not None or rules.margin or retries or has_own_time or rules.fill == "limit")


def _run_on_cores(pool: ThreadPoolExecutor, histories: list[_History]) -> list[Trajectory]:
    """Carry an account over each history, an equal part of them in each thread. XLA runs a loop on one core only."""
    each, rows = -(-len(histories) // compilation.cores()), _rows_for(histories)
    # The last part repeats its last history, and all have one length, so that the parts share one program.
    filled = histories + histories[-1:] * (-len(histories) % each)
    parts = [filled[first : first + each] for first in range(0, len(filled), each)]
    return list(chain.from_iterable(pool.map(partial(_run_holdings, rows=rows), parts)))[: len(histories)]


def _run_holdings(histories: Sequence[_History], rows: int) -> list[Trajectory]:
    """Carry an account over each history without events. JAX's settings are those of a thread."""
    with package_settings(x64=histories[0].dtype == "float64"), on_cpu():
        return _run_together(histories, rows, with_events=False)


def _rows_for(histories: Sequence[_History]) -> int:
    """The number of rows that histories are padded to."""
    return round_length(max(len(history.targets) for history in histories))


def _run_together(histories: Sequence[_History], rows: int, *, with_events: bool) -> list[Trajectory]:
    """Carry an account over each history. Padding to one length changes nothing, as no row sees later ones."""
    first = histories[0]
    given = [(history.columns, history.targets, history.brackets) for history in histories]
    stacked = jax.tree.map(lambda *columns: np.stack([pad_rows(column, rows) for column in columns]), *given)
    kept = _run_targets(*stacked, first.costs.cast(first.dtype), first.rules, with_events=with_events)
    kept = jax.tree.map(np.asarray, kept)
    return [
        jax.tree.map(lambda x, i=i, n=n: x[i, :n], kept) for i, n in enumerate(len(each.targets) for each in histories)
    ]


@partial(compilation.Jitted, cpu_options=compilation.SHORT_TO_COMPILE, static_argnames=("rules", "with_events"))
def _run_targets(
    columns: Columns,
    targets: Float[Array, "history bar A"],
    brackets: Brackets | None,
    costs: Costs,
    rules: Rules,
    *,
    with_events: bool,
) -> Trajectory:
    """Carry an account over each history, one after another, each from flat.

    Without events the pass keeps `Holdings` alone. On the CPU, XLA compiles a scan to one machine loop only while its
    body moves less than 1 kB. Above, it runs 30 times slower.
    """

    def one(history: Any) -> Trajectory:
        columns, targets, brackets = history
        return _run_history(columns, targets, brackets, costs, rules, with_events=with_events)

    return jax.lax.map(one, (columns, targets, brackets))


@partial(compilation.Jitted, cpu_options=compilation.SHORT_TO_COMPILE, static_argnames="rules")
def _run_paths(
    columns: Columns,
    targets: Float[Array, "path bar A"],
    brackets: Brackets | None,
    costs: Costs,
    rules: Rules,
) -> Float[Array, "path bar"]:
    """The equity of an account for each path of targets over one history. All accounts step side by side."""

    def equity(targets: Array) -> Array:
        holdings = _run_history(columns, targets, brackets, costs, rules, with_events=False).account
        return ledger.value(holdings, columns["close"])

    return jax.vmap(equity)(targets)


def _run_history(
    columns: Columns,
    targets: Float[Array, "bar A"],
    brackets: Brackets | None,
    costs: Costs,
    rules: Rules,
    *,
    with_events: bool,
) -> Trajectory:
    """Carry one account over one history, from flat."""

    def move(account: Account, decision: Any, bar: Bar, tradable: None) -> tuple[Account, Trajectory]:
        target, brackets = decision
        at_close, after, events = ledger.step_from_close(account, target, bar, costs, rules, brackets)
        return after, Trajectory(at_close, None, events)

    def keep(account: Account, trajectory: Trajectory, row: Rows) -> tuple[Account, Trajectory]:
        assert isinstance(trajectory.account, Account)
        return account, Trajectory(Holdings.of(trajectory.account), None, trajectory.events if with_events else None)

    targets = without_dust(targets)
    bars = _bars(columns, rules)
    financing = bars.years is not None or bars.funding is not None
    trailing = brackets is not None and brackets.trailing_stop is not None
    optional = {"brackets": brackets is not None, "trailing": trailing}
    flat = ledger.open_account(jnp.zeros_like(targets[0]), columns["close"][0], rules, **optional, financing=financing)
    rows = Rows(bars=bars, inputs=(targets, brackets))
    return run(lambda account, row: (row.inputs, None), move, flat, rows, finish=keep)[1]


def _bars(columns: Columns, rules: Rules) -> Bar:
    """The bar after each row. The last row leads to itself, and its events are ignored."""
    then = {name: jnp.concatenate([column[1:], column[-1:]]) for name, column in columns.items()}
    return bar_between(columns, then, rules)


def _with_events(history: _History, trajectory: Trajectory) -> Trajectory:
    """The trajectory of one history with its events, from the holdings at each close."""
    filling = delayed_targets(history.targets, history.rules)
    before = np.concatenate([np.zeros_like(filling[:1]), in_force(filling)[:-1]])
    given = (history.columns, filling, before, trajectory.account)
    padded = jax.tree.map(lambda x: pad_rows(np.asarray(x), _rows_for([history])), given)
    without_delay = history.rules.replace(delay=0)  # which shares a program
    events = _events(*padded, history.costs.cast(history.dtype), without_delay)
    return trajectory.replace(events=jax.tree.map(lambda x: np.asarray(x)[: len(filling)], events))


@partial(compilation.Jitted, cpu_options=compilation.SHORT_TO_COMPILE, static_argnames="rules")
def _events(columns: Columns, filling: Array, before: Array, holdings: Holdings, costs: Costs, rules: Rules) -> Events:
    """The events after each close."""
    return ledger.events_between(holdings, without_dust(filling), before, _bars(columns, rules), costs, rules)


def _typed(column: np.ndarray, dtype: str) -> np.ndarray:
    kind = column.dtype if column.dtype == bool else dtype
    # Results may be made later, so an array that the user could write to by then is copied.
    return np.array(column, kind) if column.flags.writeable else np.asarray(column, kind)
