"""What a policy is measured against: holding the same market over the same bars, at the same costs.

Buy and hold says what the market gave. Buy and hold at the policy's mean exposure says what its amount of risk gave,
and is the fairer of the two. Both hold patiently. They pay the costs and interest of the result, and they keep its
fill, delay, lots, leverage and margin. No session end, volume cap, minimum trade or bracket binds them. They rebalance
by the band alone, whatever the result does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxtrader.evaluation.combined import combine
from jaxtrader.evaluation.result import BacktestResult, ratio
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.account import EQUITY_FLOOR
from jaxtrader.ledger.orders import in_force
from jaxtrader.market.market import Market, check_market_type
from jaxtrader.market.trailing import VALUE_FLOOR
from jaxtrader.setting_checks import check_type

BUY_AND_HOLD = "buy and hold"
EXPOSURE_MATCHED = "buy and hold at mean exposure"
DRIFT = 0.02  # without a band, prices may move a mean exposure so far
FITTINGS = 200  # the most iterations of a proportional fitting
PROPORTION = 1e-4  # Targets within this share of equity have one proportion, since a network computes in float32
MIN_EXCESS_TURNOVER = 0.01  # a share of the result's turnover, below which there is no break-even cost

Baseline = Callable[[Market, BacktestResult], BacktestResult]


def baselines(market: Market, result: BacktestResult) -> dict[str, BacktestResult]:
    """The baselines of a result, by name, over its bars and by its rules and costs.

    Args:
        market: the market that the result was run on, with the same segments.
        result: the result of one symbol, or a combined one. Then each symbol has its own baseline, matched to its own
            mean exposure, and these are combined like the result.

    Raises:
        ValueError: the market lacks a symbol or the bars of the result, or one of the two has another type.
    """
    _check_types(market, result)
    functions = {BUY_AND_HOLD: buy_and_hold, EXPOSURE_MATCHED: exposure_matched}
    return {name: of_each_symbol(baseline, market, result) for name, baseline in functions.items()}


def buy_and_hold(market: Market, result: BacktestResult) -> BacktestResult:
    """Buy with all the capital at bar 0 of a result, in equal parts where there are several assets, and hold.

    An asset that is listed later is ordered at its first bar. It gets an equal part of the cash that is left for it and
    for the assets still to come. An order waits until it can fill: its asset needs a bar, and impact a traded value to
    be sized by. Nothing is bought on credit. There is no band, so that a part of 1/30 is bought too.
    """
    _check_types(market, result)
    listed = np.ones(result.targets.shape, bool)
    if market.present is not None:
        listed = np.logical_or.accumulate(market.present[rows_of(market, result)])
    possible = listed & fillable(market, result)
    first = np.where(possible.any(0), possible.argmax(0), -1)
    targets = np.full(possible.shape, np.nan)
    capital = result.rules.exposure_without_credit
    rules = {"rebalance_band": 0.0, "max_leverage": capital, "maintenance_margin": None}
    unbought, wait = len(first), result.rules.bars_to_fill
    for row in np.unique(first[first >= 0]):
        invested = 0.0
        if unbought < len(first):
            invested = float(hold(market, result, targets, **rules).exposure[row].sum())
        # An order that still waits for its fill has its part already.
        waiting = np.flatnonzero((first >= 0) & (first < row) & (first + wait > row))
        invested += sum(targets[first[asset], asset] for asset in waiting)
        targets[row, first == row] = max(capital - invested, 0.0) / unbought
        unbought -= int((first == row).sum())
    return hold(market, result, targets, **rules)


def exposure_matched(market: Market, result: BacktestResult) -> BacktestResult:
    """Ask for the mean exposure of a result of one segment at every bar, and rebalance by the result's band.

    The mean is over what stood in each bar. The rest is cash, which earns what the result's cash does. A mean exposure
    smaller than the band is never bought. The policy itself could not have bought it either.

    Among several assets it is divided as the result's fills left it, see `_stood`. Where an asset lacks bars, a mean
    over all bars would know how long it is there. Then the assets are weighed against each other on the bars that they
    share, see `_levels`. Each is asked for wherever it has a bar. The mean exposure is that of the result.

    A result that holds one target of each asset is its own match: that target is asked for. So is a result whose
    targets have one proportion to each other and to cash, among the assets that can be ordered. Where its asset has no
    bar or is not listed, a target may be NaN, and 0 says as little.
    """
    _check_types(market, result)
    can = fillable(market, result)
    targets = _unchanging(market, result)
    if targets is not None:
        own = hold(market, result, np.where(can, targets, np.nan), rebalance="always")
        if _hold_the_same(result, own):
            return own
    stood = _stood(result)
    levels = stood.mean(0)
    if market.present is not None:
        levels = _levels(market.present[rows_of(market, result)], stood, result.rules.max_leverage)
    return hold(market, result, np.where(can, levels, np.nan), rebalance="always")


def _check_types(market: Market, result: BacktestResult) -> None:
    check_market_type(market, "a baseline")
    check_type("a baseline", result, BacktestResult, "give that of `backtest(policy, market)`")


def _unchanging(market: Market, result: BacktestResult) -> Float[np.ndarray, "bar A"] | None:
    """The targets, where each asset has one, or all keep one proportion, at all bars that can have any. Else None."""
    needed, rows = np.ones(result.targets.shape, bool), rows_of(market, result)
    for mask in (market.present, market.listed):
        if mask is not None:
            needed &= mask[rows]
    given = np.isfinite(result.targets) & (needed | (result.targets != 0))
    if (needed & ~given).any():
        return None
    own = np.where(given, result.targets, np.nan)
    first = np.take_along_axis(own, given.argmax(0)[None], 0)
    if (~given | (own == first)).all():
        return own
    targets = np.where(given, own, 0.0)
    cash = 1 - targets.sum(1, keepdims=True)
    parts = np.concatenate([targets, cash], 1)[given.any(1)]
    if parts.min() < -PROPORTION:  # a proportion of positive parts alone
        return None
    available = np.concatenate([given, np.ones_like(cash, bool)], 1)[given.any(1)].astype(float)
    scales, sizes = _factors(np.maximum(parts, 0.0), available)
    return own if np.allclose(available * np.outer(scales, sizes), parts, rtol=0, atol=PROPORTION) else None


def _stood(result: BacktestResult) -> Float[np.ndarray, "bar A"]:
    """The exposure that was held in each bar, divided among the assets as the last fill of each left it.

    Since then prices have made more of some and less of others. A mean of that would hold more from the first bar of
    what rose later.
    """
    filled = np.full(result.targets.shape, np.nan)
    fills = result.fills[result.fills["position"] != 0]
    column = {symbol: i for i, symbol in enumerate(result.symbols)}
    equity = np.maximum(fills["equity"], EQUITY_FLOOR)
    filled[fills["bar"], [column[symbol] for symbol in fills["symbol"]]] = fills["position"] * fills["price"] / equity
    divided = np.where(result.intrabar_exposure != 0, in_force(filled), 0.0)
    gross, held = (np.abs(each).sum(1, keepdims=True) for each in (divided, result.intrabar_exposure))
    return ratio(divided, gross) * held


def _hold_the_same(result: BacktestResult, other: BacktestResult) -> bool:
    """Whether two accounts of the same targets hold alike: no bracket closed the first, and no cap kept it small."""
    held, others = result.intrabar_exposure, other.intrabar_exposure
    near = np.abs(held.mean(0) - others.mean(0)) <= max(result.rules.rebalance_band or 0.0, DRIFT)
    return bool((np.sign(held) == np.sign(others)).all() and near.all())


def _factors(
    parts: Float[np.ndarray, "bar A"], available: Float[np.ndarray, "bar A"]
) -> tuple[Float[np.ndarray, " bar"], Float[np.ndarray, " A"]]:
    """Find one factor for each bar and one for each asset, whose products have the same sums as the parts.

    Only parts count where `available` is 1 and not 0. The numbers are found by iterative proportional
    fitting (Deming and Stephan 1940, Annals of Mathematical Statistics 11).
    """
    by_bar, by_asset, sizes = parts.sum(1), parts.sum(0), np.ones(parts.shape[1])
    scales = by_bar
    for _ in range(FITTINGS):
        scales = ratio(by_bar, available @ sizes)
        sizes, before = ratio(by_asset, scales @ available), sizes
        if np.allclose(sizes, before, rtol=1e-9, atol=0):
            break
    return scales, sizes


def _levels(
    present: Bool[np.ndarray, "bar A"], held: Float[np.ndarray, "bar A"], leverage: float
) -> Float[np.ndarray, "bar A"]:
    """The exposures to ask for. They must not tell in advance when an asset's bars end.

    What stood is taken for a product: a number of the bar times a number of the asset. That is wherever the asset has a
    bar, or stands without one. So an asset that all the exposure goes to when others leave weighs no more before. One
    scale then gives the mean exposure of the result. Where that asks for more than the largest leverage, the bar is
    cut.

    A result without shorts and debt may give what an asset leaves to the others instead of to cash. So cash is tried
    as one more part of such a product, which always sums to 1. Of the two, the one nearer to what stood is taken.
    """
    available = (present | (held != 0)).astype(float)
    scales, _ = _factors(np.abs(held), available)
    shape = available * ratio(held.sum(0), scales @ available)
    gross, wanted = np.abs(shape).sum(1), np.abs(held.sum(0)).sum()
    largest = max(leverage, float(np.abs(held).sum(1).max()))
    # Each bar asks for min(scale * gross, largest). Those that ask for the most are cut first.
    order = np.sort(gross[gross > 0])[::-1]
    tried = (wanted - largest * np.arange(len(order))) / np.cumsum(order[::-1])[::-1]
    scale = next((one for one, most in zip(tried, order, strict=True) if one * most <= largest), math.inf)
    kept = shape * np.minimum(scale, ratio(largest, gross))[:, None]
    parts = np.concatenate([held, 1 - held.sum(1, keepdims=True)], 1)
    if parts.min() < -DRIFT:
        return kept
    scales, sizes = _factors(np.maximum(parts, 0.0), np.concatenate([available, np.ones((len(available), 1))], 1))
    given_on = available * np.outer(scales, sizes[:-1])
    return min(kept, given_on, key=lambda levels: float(np.square(levels - held).sum()))


def break_even(result: BacktestResult, matched: BacktestResult) -> float:
    """The break-even cost (money rule 1), in basis points of the traded value.

    It is the excess of log return over the excess of turnover. If each trade of both accounts cost so much more, the
    lead of the result would be gone. Below 0 the result is behind, and each trade would have to cost so much less.

    The figure is of first order, because an account shrinks by the cost of what it trades. It is right to about half
    the cost of one trade: to 1% where turning over the whole account costs 2%.

    Args:
        result: the policy's result.
        matched: its `exposure_matched` baseline, combined like it.

    Returns:
        NaN where one of the two has nothing left, or where the result does not trade more than the matched one, by
        least MIN_EXCESS_TURNOVER of its own turnover.
    """
    traded = float(result.turnover.sum() - matched.turnover.sum())
    growth = [one.equity[-1] for one in (result, matched)]
    if min(growth) <= 0 or traded <= MIN_EXCESS_TURNOVER * float(result.turnover.sum()):
        return math.nan
    return 1e4 * math.log(growth[0] / growth[1]) / traded


def of_each_symbol(baseline: Baseline, market: Market, result: BacktestResult) -> BacktestResult:
    """The baseline of each symbol of a result, combined like the result."""
    found = {name: baseline(market, one) for name, one in result.accounts.items()}
    return combine(found, result.periods_per_year) if result.by_symbol else found[result.name]


def fillable(market: Market, result: BacktestResult) -> Bool[np.ndarray, "bar A"]:
    """Whether an order given at each bar of a result can fill at the bar of its fill.

    The asset needs a bar there. Impact needs a traded value that is known before. An order that would fill after the
    last bar counts as one that can.
    """
    fillable, rows = np.ones(result.targets.shape, bool), rows_of(market, result)
    if market.present is not None:
        present = market.present[rows][result.rules.bars_to_fill :]
        fillable[: len(present)] = present
    if result.costs.has("impact"):
        assert market.adv is not None, "simulate refuses impact without it"
        known = market.adv[rows][result.rules.delay :] > VALUE_FLOOR
        fillable[: len(known)] &= known
    return fillable


def hold(market: Market, result: BacktestResult, targets: np.ndarray, **changes: Any) -> BacktestResult:
    """Simulate targets on the bars and costs of a result, by those of its rules that bind a holder."""
    rules = result.rules.replace(**{"flat_at_session_end": False, "volume_cap": None, "min_trade": None} | changes)
    start = rows_of(market, result).start
    return simulate(market, targets, costs=result.costs, start=start, symbol=result.name, rules=rules)


def rows_of(market: Market, result: BacktestResult) -> slice:
    """The rows of the market that a result was run on."""
    symbol = result.name
    if symbol not in market.symbols:
        raise ValueError(
            f"the result is of {symbol}, and the market has {', '.join(market.symbols)}; give the result's market"
        )
    history, _, end = (int(row) for row in market.segments[market.symbols.index(symbol)])
    start = history + int(np.searchsorted(market.times[history:end], result.times[0]))
    if not np.array_equal(market.times[start:end], result.times):
        raise ValueError(
            f"the {len(result)} bars of the result of {symbol}, {result.times[0]} to {result.times[-1]}, are not the "
            "last ones of the market; give the market, or the part of it, that the result was run on"
        )
    return slice(start, end)
