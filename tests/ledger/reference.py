"""The money rules as scalar loops in float64: the oracle that `jaxtrader.ledger` is tested against.

It is written from the rules alone, one `if` for each sentence of them, without arrays and without JAX. It shares only
the names and defaults of the settings with the package. It is slow on purpose and serves tests only.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtrader.ledger.cost_rates import CostRates
from jaxtrader.ledger.rules import Rules

NAN = math.nan
RATES = tuple(each.name for each in dataclasses.fields(CostRates))
# The reasons of a fill, in the words of a result.
REASONS = ORDER, STOP, TAKE, LIQUIDATION, RUIN, DELISTED, SESSION, TRAIL = (
    "order",
    "stop",
    "take profit",
    "liquidation",
    "ruin",
    "delisted",
    "session end",
    "trailing stop",
)


class Settings:
    """Rules and costs by the names of their fields. Nothing is charged and no band is kept unless it is given.

    A cost is a number, a list with one number for each asset, or None.

    Attributes:
        rules: how orders fill.
        costs: what trading and holding cost.
        dust: the share of equity below which an order is rounding.
    """

    def __init__(self, dust: float = 1e-12, **settings: Any) -> None:
        rates = {name: settings.pop(name, None) for name in RATES}
        self.rules = Rules(**{"rebalance_band": 0.0, **settings})
        self.costs = CostRates(**{name: x.tolist() if hasattr(x, "tolist") else x for name, x in rates.items()})
        self.dust = dust

    def rate(self, name: str, bar: Bar, a: int = 0) -> float:
        """A cost of asset a in a bar, 0 where there is none. `bar.rates` holds those that name a column."""
        rate = bar.rates.get(name, getattr(self.costs, name))
        return (rate[a] if isinstance(rate, list | tuple) else rate) or 0.0

    def each(self, name: str, a: int) -> float:
        """A rule of asset a that may be one number an asset, 1 where there is none."""
        given = getattr(self.rules, name)
        return (given[a] if isinstance(given, tuple) else given) or 1.0

    @property
    def capital(self) -> float:
        """Currency in a unit of equity."""
        return 1.0 if self.rules.capital is None else self.rules.capital

    @property
    def margin(self) -> float | None:
        """Rule 8: the maintenance margin. By default none without leverage, else half of what the leverage leaves."""
        if self.rules.maintenance_margin is not None:
            return self.rules.maintenance_margin or None  # 0: none
        return 0.5 / self.rules.max_leverage if self.rules.max_leverage > 1 else None


@dataclass
class Bar:
    """The move from close[t] to close[t+1] in a market's columns, one number for each asset.

    `present`, `delisted` and `session_end` are of the bar t+1, and with `was_` of the bar t. `volatility` and `adv` are
    of bars up to t. `dt` is the time in years between the closes, of which `bar_dt` lies after open[t+1]. `stop_loss`
    and `take_profit` are fractions of the entry price, inf for none. `rates` are the costs that have a column.
    """

    prev_close: list[float]
    open: list[float]
    close: list[float]
    high: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    dt: float = 0.0
    bar_dt: float = 0.0
    funding: list[float] = field(default_factory=list)
    dividend: list[float] = field(default_factory=list)
    price_factor: list[float] = field(default_factory=list)
    volatility: list[float] = field(default_factory=list)
    adv: list[float] = field(default_factory=list)
    present: list[bool] = field(default_factory=list)
    was_present: list[bool] = field(default_factory=list)
    delisted: list[bool] = field(default_factory=list)
    was_delisted: list[bool] = field(default_factory=list)
    session_end: bool = False
    was_session_end: bool = False
    stop_loss: list[float] = field(default_factory=list)
    take_profit: list[float] = field(default_factory=list)
    trailing_stop: list[float] = field(default_factory=list)
    rates: dict[str, list[float]] = field(default_factory=dict)
    was_price_factor: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)  # the price that a fill never goes beyond: its limit

    def __post_init__(self) -> None:
        prices = list(zip(self.open, self.close, strict=True))
        self.high = self.high or [max(pair) for pair in prices]
        self.low = self.low or [min(pair) for pair in prices]
        defaults = {
            "funding": 0.0,
            "dividend": 0.0,
            "price_factor": 1.0,
            "stop_loss": math.inf,
            "take_profit": math.inf,
        }
        defaults |= {"trailing_stop": math.inf}
        defaults |= {"present": True, "was_present": True, "delisted": False, "was_delisted": False}
        for name, default in defaults.items():
            setattr(self, name, getattr(self, name) or [default] * len(prices))
        self.was_price_factor = self.was_price_factor or self.price_factor


@dataclass
class Execution:
    """One fill of one asset. `equity` is the account's value at the prices of the event, before its costs."""

    asset: int
    units: float
    price: float
    fee: float
    slippage: float
    reason: str
    equity: float


@dataclass
class Move:
    """What one bar did: fills in the order of time (at one moment by asset), financing, cuts and drops. `beyond_cap`: a
    closing that could not wait was larger than the volume cap."""

    executions: list[Execution] = field(default_factory=list)
    financing: float = 0.0
    clipped: bool = False
    dropped: bool = False
    beyond_cap: bool = False
    unmet: bool = False


@dataclass
class Orders:
    """Units to trade of each asset, before costs and before the cut to cash."""

    units: list[float]
    clipped: bool = False
    dropped: bool = False
    unfilled: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.unfilled = [False] * len(self.units)


@dataclass
class Ledger:
    """A scalar account of A assets worth 1.0."""

    assets: int
    settings: Settings = field(default_factory=Settings)
    cash: float = 1.0
    units: list[float] = field(default_factory=list)
    entry: list[float] = field(default_factory=list)
    target: list[float] = field(default_factory=list)
    equity: float = 1.0
    ruined: bool = False
    stopped: list[int] = field(default_factory=list)
    waiting: list[list[float]] = field(default_factory=list)
    unfilled: list[bool] = field(default_factory=list)
    late: list[bool] = field(default_factory=list)
    best: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rules = self.settings.rules
        self.units = self.units or [0.0] * self.assets
        self.entry = self.entry or [0.0] * self.assets
        self.target = self.target or [0.0] * self.assets
        self.stopped = self.stopped or [0] * self.assets
        self.unfilled = self.unfilled or [False] * self.assets
        self.late = self.late or [False] * self.assets
        self.best = self.best or list(self.entry)

    def value(self, prices: Sequence[float]) -> float:
        return self.cash + sum(self.units[a] * prices[a] for a in range(self.assets))

    def gross(self, prices: Sequence[float]) -> float:
        return sum(abs(self.units[a]) * prices[a] for a in range(self.assets))

    # --- rule 2: a bar, in order --------------------------------------------------------------------------------------

    def step(self, target, prev_close, open, close, **more) -> Move:
        """From close[t] to close[t+1], with the target decided at close[t]. `more` are the other fields of `Bar`."""
        bar = Bar(list(map(float, prev_close)), list(map(float, open)), list(map(float, close)), **more)
        target = self.pop_delayed_target(target)
        move = Move()
        if self.rules.fill == "close":
            fillable = open_at_the_close(bar.was_present, bar.was_delisted, bar.was_session_end, self.rules)
            self.order(target, bar.prev_close, fillable, bar, move)
        self.advance(target, bar, move)
        return move

    def pop_delayed_target(self, target) -> list[float]:
        """The target that fills now. A delay of k bars gives that of k bars ago, and none during the first k."""
        while len(self.waiting) < self.rules.delay:
            self.waiting.append([NAN] * self.assets)
        # Rule 3: a target of no more than dust is a target of 0.
        self.waiting.append([0.0 if abs(w) <= self.settings.dust else float(w) for w in target])
        return self.waiting.pop(0)

    def advance(self, target: list[float], bar: Bar, move: Move) -> None:
        """Rule 2b to 2g."""
        if self.ruined:  # rule 7: the account is frozen, but for what had no bar at the ruin
            equity = self.value(bar.open)
            for a in range(self.assets):
                if self.units[a] != 0 and bar.present[a]:
                    self.force(a, bar.open[a], RUIN, equity, bar, move)
            prices = self.delisted_prices(bar)
            equity = self.value(prices)
            for a in range(self.assets):  # rule 9: or for what is delisted before it has one
                if self.units[a] != 0 and bar.delisted[a]:
                    self.force(a, prices[a], DELISTED, equity, bar, move)
        else:
            resting, limits = self.place(target, bar, move) if self.rules.fill == "limit" else (None, [])
            self.pay_interest(bar.prev_close, bar.dt - bar.bar_dt, bar, move)
            paid = sum(self.units[a] * bar.dividend[a] for a in range(self.assets))  # rule 6a
            self.cash, move.financing = self.cash + paid, move.financing + paid
            cancelled = self.at_open(target, bar, move)
            if resting is not None:
                self.cancel(resting, cancelled, move.executions)
            if self.rules.fill == "next_open":
                self.order(target, bar.open, bar.present, bar, move, cancelled)
            self.pay_interest(bar.open, bar.bar_dt, bar, move)
            if resting is not None:
                move.clipped, move.dropped = resting.clipped, resting.dropped
                self.rest(resting, limits, bar, move)
            elif self.within(bar, move):
                cancelled = True
            self.pay_funding(bar, move)
            if self.rules.fill == "next_close":
                self.order(target, bar.close, bar.present, bar, move, cancelled)
            self.at_close(bar, move)
        self.equity = self.value(bar.close)

    def pay_interest(self, prices: Sequence[float], years: float, bar: Bar, move: Move) -> None:
        """Rule 6: on what is held at these prices, for so many years."""
        if self.ruined:
            return
        short = lending = 0.0
        for a in range(self.assets):
            worth = self.units[a] * prices[a]
            if worth < 0:
                short += -worth
                lending += self.settings.rate("short_rate", bar, a) * -worth
        free = self.cash - short
        paid = self.settings.rate("cash_rate", bar) * years * max(0.0, free)
        paid -= self.settings.rate("borrow_rate", bar) * years * max(0.0, -free)
        paid -= lending * years
        self.cash += paid
        move.financing += paid

    def pay_funding(self, bar: Bar, move: Move) -> None:
        """Rule 6: longs pay and shorts get it at close[t+1], on what is held up to the orders of that close."""
        if self.ruined:
            return
        paid = -sum(bar.funding[a] * self.units[a] * bar.close[a] for a in range(self.assets))
        self.cash += paid
        move.financing += paid

    def at_open(self, target: list[float], bar: Bar, move: Move) -> bool:
        """Rule 2c: margin first, then what had no bar at a session's end, then the brackets that the open has passed.

        Whether the order is cancelled.
        """
        late = [self.late[a] and bar.present[a] for a in range(self.assets)]
        self.late = [self.late[a] and not bar.present[a] for a in range(self.assets)]
        if self.below_margin(bar.open):
            self.liquidate(bar.open, bar, move)
            return True
        traded = [0.0] * self.assets
        if self.rules.fill == "next_open":  # does the order trade the asset at this open? The cut to cash comes later.
            self.unblock(target)
            orders = wanted(self, target, bar.open, bar.present, bar)
            if self.value(bar.open) > self.rules.ruin_level:
                limit(orders, self, bar.open, bar)
                keep_within_leverage(orders, self, bar.open, bar)
            else:  # everything is closed there
                orders.units = [1.0] * self.assets
            traded = orders.units
        equity = self.value(bar.open)
        for a in range(self.assets):
            if self.units[a] == 0 or not bar.present[a] or traded[a] != 0:
                continue
            stop, take = self.levels(a, bar)
            trail = self.trail(a, bar, self.best[a])
            p = bar.open[a]
            long = self.units[a] > 0
            if not late[a] and ((long and trail > stop and p <= trail) or (not long and stop > trail <= p)):
                self.force(a, p, TRAIL, equity, bar, move)
            elif late[a]:
                self.force(a, p, SESSION, equity, bar, move)
            elif (long and p <= stop) or (not long and p >= stop):
                self.force(a, p, STOP, equity, bar, move)
            elif (long and p >= take) or (not long and p <= take):
                self.force(a, p, TAKE, equity, bar, move)
        return False

    def place(self, target: list[float], bar: Bar, move: Move) -> tuple[Orders, list[float]]:
        """Rule 12: orders of the sizes of close[t], and the limits at which they rest."""
        self.unblock(target)
        was = dataclasses.replace(bar, price_factor=bar.was_price_factor)
        orders = wanted(self, target, bar.prev_close, [True] * self.assets, was)
        limit(orders, self, bar.prev_close, was)
        keep_within_leverage(orders, self, bar.prev_close, was)
        limits = [
            p * (1 - sign(d) * (self.rules.limit_offset or 0.0))
            for d, p in zip(orders.units, bar.prev_close, strict=True)
        ]
        if self.rules.tick is not None:  # a limit on the tick that prices reach last
            limits = [on_tick(a, -orders.units[a], limits[a], was, self.settings) for a in range(self.assets)]
        capped = list(orders.unfilled)
        self.remember(target, [capped[a] or orders.units[a] != 0 for a in range(self.assets)])
        orders.unfilled = capped
        return orders, limits

    def cancel(self, resting: Orders, liquidated: bool, closed: list[Execution]) -> None:
        """Rule 12: the orders of what was closed, and all of a liquidated account."""
        if liquidated:
            resting.units = [0.0] * self.assets
            self.unfilled = [False] * self.assets
        for each in closed:
            resting.units[each.asset] = 0.0

    def rest(self, resting: Orders, limits: list[float], bar: Bar, move: Move) -> None:
        """Rule 12: at the open or beyond it, then stops and margin, then at the limit, then what that opened."""
        mine, first = self.settings, len(move.executions)
        at_open = [self.touches(d, bar.open[a], limits[a], bar.present[a]) for a, d in enumerate(resting.units)]
        self.meet(resting, at_open, bar.open, dataclasses.replace(bar, worst=limits), move)
        later = []
        for a, d in enumerate(resting.units):  # an order that adds before the level of what it adds to
            stop, _ = self.levels(a, bar)
            levels = [x for x in (self.margin_price(), stop) if x is not None] if self.units[a] != 0 else []
            if d * self.units[a] > 0:
                nearest = max(levels) if d > 0 else min(levels)
                nearest = min(nearest, bar.open[a]) if d > 0 else max(nearest, bar.open[a])
                if (limits[a] > nearest) if d > 0 else (limits[a] < nearest):
                    later.append(a)
        start = len(move.executions)
        liquidated = self.within(bar, move, [a for a in range(self.assets) if a not in later])
        self.cancel(resting, liquidated, move.executions[start:])
        inside = [
            self.touches(d, bar.low[a] if d > 0 else bar.high[a], limits[a], bar.present[a])
            for a, d in enumerate(resting.units)
        ]
        prices = [limits[a] if inside[a] else bar.open[a] for a in range(self.assets)]
        rates = {name: rate for name, rate in bar.rates.items() if name not in ("slippage", "impact")}
        costs = dataclasses.replace(mine.costs, slippage=None, impact=None)
        if mine.costs.maker_fee is not None:
            costs = dataclasses.replace(costs, fee=costs.maker_fee)
            rates |= {"fee": rates["maker_fee"]} if "maker_fee" in rates else {}
        self.settings = copy.copy(mine)
        self.settings.costs, self.settings.rules = costs, mine.rules.replace(tick=None)
        self.meet(resting, inside, prices, dataclasses.replace(bar, rates=rates), move)
        self.settings = mine
        self.within(dataclasses.replace(bar, open=prices), move, [a for a in range(self.assets) if inside[a]])
        move.unmet = any(d != 0 for d in resting.units)
        # A result lists the orders of a bar before its exits, and knows one worth of the account for them.
        done = sorted(move.executions[first:], key=lambda each: (each.reason != ORDER, each.asset))
        if any(at_open):
            worth = next((each.equity for each in move.executions[first:] if at_open[each.asset]), None)
            done = [dataclasses.replace(x, equity=worth) if x.reason == ORDER and worth else x for x in done]
        move.executions[first:] = done

    def touches(self, d: float, price: float, level: float, present: bool) -> bool:
        """Whether a price is at or beyond the limit of an order."""
        return present and d != 0 and (price <= level if d > 0 else price >= level)

    def meet(self, resting: Orders, met: list[bool], prices, bar: Bar, move: Move) -> None:
        """Fill some resting orders. What sales bring is no cash of these buys."""
        orders = Orders([d if met[a] else 0.0 for a, d in enumerate(resting.units)])
        equity, own, proceeds, start = self.value(prices), 0.0, 0.0, len(move.executions)
        for a, d in enumerate(orders.units):
            paid, fee, slippage = charge(a, d, prices[a], bar, self.settings)
            own += fee + slippage
            proceeds += max(0.0, d * paid + fee) if d < 0 else 0.0
        self.buy(orders, prices, equity, own, bar, move, proceeds)
        for a, d in enumerate(orders.units):
            if d < 0:
                self.fill(a, self.leaves_no_dust(a, d, prices[a], equity), prices[a], ORDER, equity, bar, move)
            if met[a]:
                self.unfilled[a] = resting.unfilled[a]
                resting.units[a] = 0.0
        move.executions[start:] = sorted(move.executions[start:], key=lambda each: each.asset)
        move.clipped, move.dropped = move.clipped or orders.clipped, move.dropped or orders.dropped

    def within(self, bar: Bar, move: Move, assets: Sequence[int] | None = None) -> bool:
        """Rule 2e: adverse side first, the level nearest the open first, then the take-profit. Whether liquidated."""
        for a in range(self.assets) if assets is None else assets:
            if self.units[a] == 0 or not bar.present[a]:
                continue
            long = self.units[a] > 0
            stop, take = self.levels(a, bar)
            best = max(self.best[a], bar.open[a]) if long else min(self.best[a], bar.open[a])
            trail = self.trail(a, bar, best)
            adverse: list[tuple[float, str]] = []  # distance is from the open, so the nearest price comes first
            # Rule 8a: the nearer of the two stops, also where both are beyond the open.
            nearer = (trail, TRAIL) if (trail > stop if long else trail < stop) else (stop, STOP)
            for level, reason in ((self.margin_price(), LIQUIDATION), nearer):
                if level is None:
                    continue
                if long and bar.low[a] <= level:
                    adverse.append((min(level, bar.open[a]), reason))
                if not long and bar.high[a] >= level:
                    adverse.append((max(level, bar.open[a]), reason))
            price, reason = NAN, ORDER
            if adverse:
                # At equal prices the margin comes first, as it does at the open (`min` keeps the first of equals).
                price, reason = min(adverse, key=lambda found: abs(found[0] - bar.open[a]))
            elif long and bar.low[a] <= self.trail(a, bar, max(best, min(bar.high[a], max(take, bar.open[a])))):
                # Rule 8a: the bar may have been at its best first, but for what the take-profit cuts off.
                price, reason = self.trail(a, bar, max(best, min(bar.high[a], max(take, bar.open[a])))), TRAIL
            elif not long and bar.high[a] >= self.trail(a, bar, min(best, max(bar.low[a], min(take, bar.open[a])))):
                price, reason = self.trail(a, bar, min(best, max(bar.low[a], min(take, bar.open[a])))), TRAIL
            elif long and bar.high[a] >= take:
                price, reason = max(take, bar.open[a]), TAKE
            elif not long and bar.low[a] <= take:
                price, reason = min(take, bar.open[a]), TAKE
            self.best[a] = max(best, bar.high[a]) if long else min(best, bar.low[a])
            if reason == ORDER:
                continue
            prices = [price if b == a else bar.open[b] for b in range(self.assets)]
            self.force(a, price, reason, self.value(prices), bar, move)
            if reason == LIQUIDATION:
                return True
        return False

    def delisted_prices(self, bar: Bar) -> list[float]:
        """Rule 9: the closes, at which a delisted asset has lost its part."""
        return [bar.close[a] * (1 + self.rules.delist_return * bar.delisted[a]) for a in range(self.assets)]

    def at_close(self, bar: Bar, move: Move) -> None:
        """Rule 2g: what ends at this bar is closed, then margin, then ruin."""
        start = len(move.executions)
        prices = self.delisted_prices(bar)
        ends = [ORDER] * self.assets
        for a in range(self.assets):
            if bar.delisted[a]:
                ends[a] = DELISTED
            elif self.rules.flat_at_session_end and bar.session_end:
                if bar.present[a]:
                    ends[a] = SESSION
                else:  # nobody trades it here: it is closed at the open of its next bar
                    self.late[a] = True
        equity = self.value(prices)
        for a in range(self.assets):
            if ends[a] != ORDER and self.units[a] != 0:
                self.force(a, prices[a], ends[a], equity, bar, move)
        if self.below_margin(bar.close):
            self.liquidate(bar.close, bar, move)
        if not self.ruined and self.value(bar.close) <= self.rules.ruin_level:
            self.ruin(bar.close, bar, move)
        closed: dict[int, Execution] = {}
        for each in move.executions[start:]:  # ruin closes what the volume cap left of a liquidation: that is one fill
            first = closed.get(each.asset)
            closed[each.asset] = each if first is None else merged(first, each)
        move.executions[start:] = sorted(closed.values(), key=lambda each: each.asset)

    # --- orders -------------------------------------------------------------------------------------------------------

    def order(self, target, prices, fillable, bar: Bar, move: Move, cancelled: bool = False) -> None:
        """Rules 3, 4, 5, 7 and 8: the order fills at `prices`. A liquidation has cancelled it, or not."""
        if self.ruined:
            return
        equity = self.value(prices)
        if equity <= self.rules.ruin_level:  # rule 7: everything is closed, the order is cancelled
            self.ruin(prices, bar, move)
            return
        self.unblock(target)  # what a cancelled order asked for still counts for the block and for `on_change`
        orders = wanted(self, [NAN] * self.assets if cancelled else target, prices, fillable, bar)
        limit(orders, self, prices, bar)
        keep_within_leverage(orders, self, prices, bar)
        own = 0.0
        for a, d in enumerate(orders.units):
            _, fee, slippage = charge(a, d, prices[a], bar, self.settings)
            own += fee + slippage
        # Rule 5: sells first.
        start = len(move.executions)
        for a, d in enumerate(orders.units):
            if d < 0:
                self.fill(a, self.leaves_no_dust(a, d, prices[a], equity), prices[a], ORDER, equity, bar, move)
        self.buy(orders, prices, equity, own, bar, move)
        move.executions[start:] = sorted(move.executions[start:], key=lambda each: each.asset)
        move.clipped = move.clipped or orders.clipped
        move.dropped = move.dropped or orders.dropped
        self.remember(target, orders.unfilled)

    def buy(
        self, orders: Orders, prices, equity: float, own: float, bar: Bar, move: Move, proceeds: float = 0.0
    ) -> None:
        """Rule 5: without leverage, one common factor cuts the buys to the cash that is there."""
        buys = [a for a in range(self.assets) if orders.units[a] > 0]
        need = 0.0
        fixed = 0.0
        for a in buys:
            d = orders.units[a]
            paid, fee, _ = charge(a, d, prices[a], bar, self.settings)
            fixed += self.settings.rate("fixed_fee", bar, a) / self.settings.capital
            need += d * paid + fee
        need -= fixed
        budget = self.cash - proceeds - fixed
        if not buys or self.rules.max_leverage > 1 or need <= budget:
            for a in buys:
                d = self.leaves_no_dust(a, orders.units[a], prices[a], equity)
                self.fill(a, d, prices[a], ORDER, equity, bar, move)
            return
        if need - max(budget, 0.0) > own + self.settings.dust * equity:
            orders.clipped = True
        if budget <= 0:  # given up, free of fee, and counted
            orders.dropped = True
            return
        k = budget / need
        filled = 0
        for a in buys:
            d = k * orders.units[a]
            if self.settings.costs.min_fee is not None or self.settings.costs.max_fee is not None:
                paid, fee, _ = charge(a, orders.units[a], prices[a], bar, self.settings)
                own = orders.units[a] * paid + fee - self.settings.rate("fixed_fee", bar, a) / self.settings.capital
                d = bought_for(k * own, a, orders.units[a], paid, bar, self.settings)
                if self.settings.costs.min_fee is not None and d <= 1e-18:
                    orders.dropped = True
            d = whole_lots(a, d, bar.price_factor[a], self.settings)
            if d * prices[a] <= self.settings.dust * equity:
                continue
            if below_min_trade(d, prices[a], self.settings):
                orders.dropped = True
                continue
            self.fill(a, self.leaves_no_dust(a, d, prices[a], equity), prices[a], ORDER, equity, bar, move)
            filled += 1
        # Rule 3: no cash is left. A smaller order has less impact, and whole lots leave a rest: cash remains there.
        if filled == len(buys) and self.rules.lot is None and self.settings.costs.impact is None:
            self.cash = proceeds

    def leaves_no_dust(self, a: int, d: float, p: float, equity: float) -> float:
        """Rule 3: a fill that would leave no more than dust goes flat."""
        return -self.units[a] if abs(self.units[a] + d) * p <= self.settings.dust * equity else d

    def unblock(self, target: list[float]) -> None:
        """Rule 8: a stopped asset may be entered again once its target has left that sign. NaN says nothing."""
        for a in range(self.assets):
            if not math.isnan(target[a]) and sign(target[a]) != self.stopped[a]:
                self.stopped[a] = 0

    def remember(self, target: list[float], unfilled: list[bool]) -> None:
        """The last target, and whether its order found no bar or too little volume: then it is tried again."""
        for a in range(self.assets):
            if not self.ruined and not math.isnan(target[a]):
                self.target[a] = target[a]
                self.unfilled[a] = unfilled[a]

    # --- forced closes ------------------------------------------------------------------------------------------------

    def levels(self, a: int, bar: Bar) -> tuple[float, float]:
        """Rule 8: stop and take-profit of the position held, as prices."""
        side = sign(self.units[a])
        return self.entry[a] * (1 - side * bar.stop_loss[a]), self.entry[a] * (1 + side * bar.take_profit[a])

    def trail(self, a: int, bar: Bar, best: float) -> float:
        """Rule 8a: the trailing stop for a best price, as far away as can be where there is none."""
        side = sign(self.units[a])
        return -side * math.inf if math.isinf(bar.trailing_stop[a]) else best * (1 - side * bar.trailing_stop[a])

    def below_margin(self, prices) -> bool:
        if self.settings.margin is None or self.gross(prices) == 0:
            return False
        return self.value(prices) < self.settings.margin * self.gross(prices)

    def margin_price(self) -> float | None:
        """Where equity = margin * position value, for one asset: cash + u p = m |u| p."""
        if self.settings.margin is None or self.assets > 1:
            return None
        return self.cash / (self.settings.margin * abs(self.units[0]) - self.units[0])

    def liquidate(self, prices, bar: Bar, move: Move) -> None:
        """Everything that has a real bar is sold. The account goes on."""
        equity = self.value(prices)
        for a in range(self.assets):
            if self.units[a] != 0 and bar.present[a]:
                self.force(a, prices[a], LIQUIDATION, equity, bar, move)

    def ruin(self, prices, bar: Bar, move: Move) -> None:
        """Rule 7: everything that has a bar is closed. The account is frozen."""
        equity = self.value(prices)
        for a in range(self.assets):
            if self.units[a] != 0 and bar.present[a]:
                self.force(a, prices[a], RUIN, equity, bar, move)
        self.ruined = True

    def force(self, a: int, p: float, reason: str, equity: float, bar: Bar, move: Move) -> None:
        """Close asset a at p, with costs. Dust is exchanged for its value, without any (rule 3)."""
        if reason != RUIN and abs(self.units[a]) * p <= self.settings.dust * equity:
            self.cash += self.units[a] * p
            self.units[a] = self.entry[a] = 0.0
            return
        side, d, cut = sign(self.units[a]), -self.units[a], False
        if self.rules.volume_cap is not None:
            most = self.rules.volume_cap * known_volume(bar.adv[a]) / (self.settings.capital * p)
            if abs(d) > most * (1 + self.settings.dust):
                if reason in (STOP, TAKE, TRAIL, LIQUIDATION):  # the rest can be closed later
                    d, cut = self.leaves_no_dust(a, sign(d) * most, p, equity), True
                else:
                    move.beyond_cap = True
        if d == 0:
            return
        self.fill(a, d, p, reason, equity, bar, move)
        self.unfilled[a] = cut and reason != LIQUIDATION  # the rest of a bracket's exit is sold by the next orders
        if reason in (STOP, TAKE, TRAIL):
            self.stopped[a] = side

    def fill(self, a: int, d: float, p: float, reason: str, equity: float, bar: Bar, move: Move) -> None:
        """Rule 4, and the entry price of rule 8."""
        paid, fee, slippage = charge(a, d, p, bar, self.settings)
        self.cash = self.cash - d * paid - fee
        before, after = self.units[a], self.units[a] + d
        if before == 0 or before * after < 0:  # from flat, or through zero
            self.entry[a] = self.best[a] = p
        elif abs(after) > abs(before):  # adds move the average, partial exits don't
            self.entry[a] += (p - self.entry[a]) * (d / after)  # so that adds at one price leave it there exactly
        self.units[a] = after
        if after == 0:
            self.entry[a] = 0.0
        move.executions.append(Execution(a, d, p, fee, slippage, reason, equity))


def merged(first: Execution, second: Execution) -> Execution:
    """Two fills of one asset at one price, under the reason of the second."""
    sums = {name: getattr(first, name) + getattr(second, name) for name in ("units", "fee", "slippage")}
    return dataclasses.replace(second, **sums)


# --- from a target to an order ----------------------------------------------------------------------------------------


def sign(x: float) -> int:
    return int(x > 0) - int(x < 0)


def open_at_the_close(present: list[bool], delisted: list[bool], session_end: bool, rules: Rules) -> list[bool]:
    """Rule 2g before an order at the same close: what has just been closed for good is not bought back there."""
    shut = rules.flat_at_session_end and session_end
    return [present[a] and not delisted[a] and not shut for a in range(len(present))]


def wanted(account: Ledger, target: list[float], prices: list[float], fillable: list[bool], bar: Bar) -> Orders:
    """Rules 5 and 3: the cap, then size, dust and band. Nothing is booked."""
    rules, dust = account.rules, account.settings.dust
    assets = range(len(target))
    if account.settings.costs.impact is not None:  # rule 4: what has no known volume cannot be ordered
        fillable = [fillable[a] and known_volume(bar.adv[a]) > 0 for a in assets]
    equity = account.value(prices)
    asked_for = list(target)
    blocked = [account.stopped[a] != 0 and sign(target[a]) == account.stopped[a] for a in assets]
    # Rule 8: what the volume cap has left of a bracket's exit.
    left = [account.stopped[a] != 0 and sign(account.units[a]) == account.stopped[a] for a in assets]
    if rules.volume_cap is not None:
        target = [0.0 if left[a] else target[a] for a in assets]
        blocked = [blocked[a] and not left[a] for a in assets]
    hold = [math.isnan(target[a]) for a in assets]
    free = [fillable[a] and not hold[a] and not blocked[a] for a in assets]

    # Rule 5: positions that cannot be traded now use up the leverage first.
    held = sum(abs(account.units[a] * prices[a]) / equity for a in assets if not free[a])
    # Of all that is asked for, also what cannot be ordered: rule 9, its weight stays in cash.
    asked = sum(abs(asked_for[a]) for a in assets if not math.isnan(asked_for[a]))
    scale = 1.0 if asked <= rules.max_leverage else rules.max_leverage / asked
    gross = scale * sum(abs(target[a]) for a in assets if free[a])
    room = max(rules.max_leverage - held, 0.0)
    clipped = asked > rules.max_leverage * (1 + dust) or gross > room * (1 + dust)
    if gross > room:
        scale *= room / gross
    orders = Orders([0.0] * len(target), clipped=clipped)

    for a in assets:
        if hold[a] or blocked[a]:
            continue
        unchanged = target[a] == account.target[a] != 0 and not account.unfilled[a]
        if rules.rebalance == "on_change" and unchanged:
            continue
        d = target[a] * scale * equity / prices[a] - account.units[a]
        if abs(d) * prices[a] <= dust * equity:
            continue
        if abs(d) * prices[a] < rules.rebalance_band * equity and target[a] != 0:
            continue
        if not fillable[a]:  # rule 9: cancelled and counted
            orders.dropped = True
            orders.unfilled[a] = True
            continue
        orders.units[a] = d
    return orders


def limit(orders: Orders, account: Ledger, prices: list[float], bar: Bar) -> None:
    """Rules 4 and 8, in this order: the cap on volume, lots, the minimum trade."""
    settings = account.settings
    equity = account.value(prices)
    for a, d in enumerate(orders.units):
        if d == 0:
            continue
        closes_exactly = d == -account.units[a]
        if settings.rules.volume_cap is not None:
            most = settings.rules.volume_cap * known_volume(bar.adv[a]) / settings.capital
            if abs(d) * prices[a] > most * (1 + settings.dust):
                d = sign(d) * most / prices[a]
                orders.clipped = True
                orders.unfilled[a] = True
                closes_exactly = False
                if abs(d) * prices[a] <= settings.dust * equity:
                    d = 0.0
        if not closes_exactly:
            d = whole_lots(a, d, bar.price_factor[a], settings)
        if d != 0 and below_min_trade(d, prices[a], settings):
            d = 0.0
            orders.dropped = True
        orders.units[a] = d


def keep_within_leverage(orders: Orders, account: Ledger, prices: list[float], bar: Bar) -> None:
    """Rule 5 after the cuts: what could not be sold uses up leverage, the rest is for what raises positions."""
    settings = account.settings
    if account.assets == 1:
        return
    equity = account.value(prices)
    stays = adds = 0.0
    raised = []
    for a, d in enumerate(orders.units):
        before, after = account.units[a], account.units[a] + d
        if before * after < 0:  # sold to flat, and all of the other side is new
            raised.append(abs(after))
        elif abs(after) > abs(before):
            raised.append(abs(after) - abs(before))
        else:
            raised.append(0.0)
        stays += (abs(after) - raised[a]) * prices[a]
        adds += raised[a] * prices[a]
    room = max(settings.rules.max_leverage * equity - stays, 0.0)
    if adds <= room + settings.dust * equity:
        return
    orders.clipped = True
    for a, d in enumerate(orders.units):
        before, size = account.units[a], raised[a] * room / adds
        if raised[a] == 0:
            continue
        if before * (before + d) < 0:
            turn = whole_lots(a, sign(d) * (abs(before) + size), bar.price_factor[a], settings)
            orders.units[a] = turn if abs(turn) > abs(before) else -before
            continue
        if room <= settings.dust * equity:  # nothing is left: given up, and counted
            orders.dropped = True
        orders.units[a] = whole_lots(a, sign(d) * size, bar.price_factor[a], settings)
        if abs(orders.units[a]) * prices[a] <= settings.dust * equity:
            orders.units[a] = 0.0
        elif below_min_trade(orders.units[a], prices[a], settings):
            orders.units[a] = 0.0
            orders.dropped = True


def whole_lots(a: int, d: float, price_factor: float, settings: Settings) -> float:
    """Rule 8: raw shares = units * capital * price_factor, rounded towards zero to a multiple of the lot."""
    lot = settings.rules.lot
    if lot is None:
        return d
    lot *= settings.each("multiplier", a)  # of contracts
    shares = d * settings.capital * price_factor
    return math.trunc(shares / lot) * lot / (settings.capital * price_factor)


def known_volume(adv: float) -> float:
    """Rule 4: the average traded value. At most 1e-6 stands for one that is not known yet."""
    return adv if adv > 1e-6 else 0.0


def below_min_trade(d: float, p: float, settings: Settings) -> bool:
    """Rule 8: whether the traded value is below the minimum trade."""
    return settings.rules.min_trade is not None and abs(d) * p * settings.capital < settings.rules.min_trade


def charge(a: int, d: float, p: float, bar: Bar, settings: Settings) -> tuple[float, float, float]:
    """Rule 4: p' = p (1 + slippage sign(d)), the fee on |d| p' with the fixed fee, and what slippage took."""
    if d == 0:
        return p, 0.0, 0.0
    rate = settings.rate("slippage", bar, a)
    if settings.costs.impact is not None and known_volume(bar.adv[a]):
        share = abs(d) * p * settings.capital / bar.adv[a]
        rate += settings.rate("impact", bar, a) * bar.volatility[a] * math.sqrt(share)
        rate = min(rate, 1.0)  # a sale brings nothing at worst
    paid = p * (1 + rate * sign(d))
    if settings.rules.tick is not None:
        paid = on_tick(a, d, paid, bar, settings)
    if bar.worst:
        paid = min(paid, bar.worst[a]) if d > 0 else max(paid, bar.worst[a])
    fee = value_fee(a, d, paid, bar, settings) + settings.rate("fixed_fee", bar, a) / settings.capital
    return paid, fee, abs(d) * abs(paid - p)


def on_tick(a: int, d: float, paid: float, bar: Bar, settings: Settings) -> float:
    """Rule 4b: the raw price, up to the next tick for a buy and down for a sale, but for a rounding error."""
    tick = settings.each("tick", a) * bar.price_factor[a]
    ticks = paid / tick
    if abs(ticks - round(ticks)) <= settings.dust * max(1.0, round(ticks)):
        return round(ticks) * tick
    return (math.ceil(ticks) if d > 0 else math.floor(ticks)) * tick


def value_fee(a: int, d: float, paid: float, bar: Bar, settings: Settings) -> float:
    """Rule 4: the fee of the value and of the shares, at least `min_fee`, and at most the share `max_fee`."""
    shares = abs(d) * settings.capital * bar.price_factor[a] / settings.each("multiplier", a)
    fee = settings.rate("fee", bar, a) * abs(d) * paid
    fee += settings.rate("share_fee", bar, a) * shares / settings.capital
    if settings.costs.min_fee is not None:
        fee = max(fee, settings.rate("min_fee", bar, a) / settings.capital)
    if settings.costs.max_fee is not None:
        fee = min(fee, settings.rate("max_fee", bar, a) * abs(d) * paid)
    return fee


def bought_for(budget: float, a: int, d: float, paid: float, bar: Bar, settings: Settings) -> float:
    """Rule 5: the most units, of d, that a budget pays for with their fee. The fee never falls with the units."""
    low, high = 0.0, d
    for _ in range(100):
        middle = (low + high) / 2
        if middle * paid + value_fee(a, middle, paid, bar, settings) <= budget:
            low = middle
        else:
            high = middle
    return low


# --- rule 10: a whole result ------------------------------------------------------------------------------------------


def result(opens, closes, targets, settings: Settings, **columns) -> dict[str, list]:
    """Rule 10: equity[t] is marked at close[t] after every fill up to and including close[t].

    Prices and targets are [bars][assets]. `columns` are further fields of `Bar`, one row for each bar, as a market has
    them. Prices and flags are in the row of the bar, and `dt`, `bar_dt` and `funding` in the row of the bar that they
    end at. `volatility` and `adv` are in the row of the last bar they know, `stop_loss` and `take_profit` in that of
    the decision.

    Returns equity, units, financing and fills (bar, asset, units, price, fee, slippage) with their reasons and the
    equity before their costs (`worth`). It also returns the bar of ruin, and the rows where an order was clipped or
    dropped, or a closing was larger than the volume cap.
    """
    bars, assets = len(closes), len(closes[0])
    rules, ledger = settings.rules, Ledger(assets, settings)
    names = (
        "equity",
        "units",
        "financing",
        "fills",
        "reasons",
        "worth",
        "ruined_at",
        "clipped",
        "dropped",
        "beyond_cap",
        "unmet",
    )
    out: dict[str, list] = {name: [] for name in names}

    def note(t: int, move: Move) -> None:
        for each in move.executions:
            out["fills"].append((t, each.asset, each.units, each.price, each.fee, each.slippage))
            out["reasons"].append(each.reason)
            out["worth"].append(each.equity)
        if move.clipped:
            out["clipped"].append(t)
        if move.dropped:
            out["dropped"].append(t)
        if move.beyond_cap:
            out["beyond_cap"].append(t)
        if move.unmet:
            out["unmet"].append(t)

    target = [NAN] * assets
    for t in range(bars):
        was = ledger.ruined
        earlier = max(t - 1, 0)
        known = {name: rows[earlier if name in KNOWN_AT_DECISION else t] for name, rows in columns.items()}
        if "price_factor" in columns:
            known["was_price_factor"] = columns["price_factor"][earlier]
        bar = Bar(closes[earlier], opens[t], closes[t], **known)
        moved = Move()
        if t > 0:
            if rules.fill != "close":
                target = ledger.pop_delayed_target(targets[t - 1])
            ledger.advance(target, bar, moved)
        note(t, moved)
        if rules.fill == "close":
            now = {name: rows[t] for name, rows in columns.items()}
            bar = Bar(closes[t], opens[t], closes[t], **now)
            target = ledger.pop_delayed_target(targets[t])
            traded = Move()
            fillable = open_at_the_close(bar.present, bar.delisted, bar.session_end, rules)
            ledger.order(target, closes[t], fillable, bar, traded)
            note(t, traded)
        if ledger.ruined and not was:
            out["ruined_at"].append(t)
        out["financing"].append(moved.financing)
        out["equity"].append(ledger.value(closes[t]))
        out["units"].append(list(ledger.units))
    return out


KNOWN_AT_DECISION = ("volatility", "adv", "stop_loss", "take_profit", "trailing_stop")
