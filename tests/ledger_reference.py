"""The money rules in float64 scalar loops: the independent oracle of `jaxtrader.envs.ledger`, from the rules alone.

One `if` per sentence of the rules, no arrays, no JAX. Slow on purpose; not for use outside the tests. How a target
becomes an order is in `ledger_orders.py`; here is what happens to the account, in the order of money rule 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ledger_orders import (
    NAN,
    Bar,
    Orders,
    Terms,
    costs_of,
    keep_within_leverage,
    limit,
    open_at_the_close,
    sign,
    wanted,
    whole_lots,
)

ORDER, STOP, TAKE, LIQUIDATION, RUIN, LAST, SESSION = range(7)


@dataclass
class Execution:
    """One fill of one asset; `equity` is the account's value at the prices of the event, before its costs."""

    asset: int
    units: float
    price: float
    fee: float
    slippage: float
    reason: int
    equity: float


@dataclass
class Move:
    """What one bar did: fills in the order of time (at one moment by asset), carry booked to cash, cuts and drops."""

    executions: list[Execution] = field(default_factory=list)
    carry: float = 0.0
    clipped: bool = False
    dropped: bool = False


@dataclass
class Ledger:
    """A scalar account of A assets worth 1.0."""

    assets: int
    cash: float = 1.0
    units: list[float] = field(default_factory=list)
    entry: list[float] = field(default_factory=list)
    target: list[float] = field(default_factory=list)
    equity: float = 1.0
    ruined: bool = False
    stopped: list[int] = field(default_factory=list)
    waiting: list[list[float]] = field(default_factory=list)
    unfilled: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.units = self.units or [0.0] * self.assets
        self.entry = self.entry or [0.0] * self.assets
        self.target = self.target or [0.0] * self.assets
        self.stopped = self.stopped or [0] * self.assets
        self.unfilled = self.unfilled or [False] * self.assets

    def value(self, prices: Sequence[float]) -> float:
        return self.cash + sum(self.units[a] * prices[a] for a in range(self.assets))

    def gross(self, prices: Sequence[float]) -> float:
        return sum(abs(self.units[a]) * prices[a] for a in range(self.assets))

    # --- rule 2: a bar, in order --------------------------------------------------------------------------------------

    def step(self, target, prev_close, open_, close, terms: Terms, **more) -> Move:
        """From close[t] to close[t+1], with the order decided at close[t]; `more` are the other fields of `Bar`."""
        bar = Bar(list(map(float, prev_close)), list(map(float, open_)), list(map(float, close)), **more)
        due = self.due(target, terms)
        move = Move()
        if terms.fill == "close":
            tradable = open_at_the_close(bar.was_present, bar.was_last, bar.was_session_end, terms)
            self.order(due, bar.prev_close, tradable, bar, terms, move)
        self.advance(due, bar, terms, move)
        return move

    def due(self, target, terms: Terms) -> list[float]:
        """The order that fills now: a delay of k bars gives the target of k bars ago, and none during the first k."""
        while len(self.waiting) < terms.delay:
            self.waiting.append([NAN] * self.assets)
        self.waiting.append(list(map(float, target)))
        return self.waiting.pop(0)

    def advance(self, due: list[float], bar: Bar, terms: Terms, move: Move) -> None:
        """Rule 2b to 2g."""
        if not self.ruined:  # rule 7: a ruined book is frozen
            self.carry(bar, terms, move)
            cancelled = self.at_open(due, bar, terms, move)
            if terms.fill == "next_open" and not cancelled:
                self.order(due, bar.open, bar.present, bar, terms, move)
            if self.inside(bar, terms, move):
                cancelled = True
            if terms.fill == "next_close" and not cancelled:
                self.order(due, bar.close, bar.present, bar, terms, move)
            if terms.fill != "close" and cancelled:
                self.see(due)
            self.at_close(bar, terms, move)
        self.equity = self.value(bar.close)

    def carry(self, bar: Bar, terms: Terms, move: Move) -> None:
        """Rule 6: on what is held across close[t] -> open[t+1], valued at close[t]."""
        short = 0.0
        lending = 0.0
        funding = 0.0
        for a in range(self.assets):
            worth = self.units[a] * bar.prev_close[a]
            if worth < 0:
                short += -worth
                lending += terms.of("short_rate", a) * -worth
            funding += bar.funding[a] * worth
        move.carry = terms.cash_rate * bar.years * max(0.0, self.cash - short)
        move.carry -= terms.borrow_rate * bar.years * max(0.0, -self.cash)
        move.carry -= lending * bar.years
        move.carry -= funding
        self.cash += move.carry

    def at_open(self, due: list[float], bar: Bar, terms: Terms, move: Move) -> bool:
        """Rule 2c: margin first, then what the open jumped. Whether the order is cancelled."""
        if self.below_margin(bar.open, terms):
            self.liquidate(bar.open, bar, terms, move)
            return True
        traded = [0.0] * self.assets
        if terms.fill == "next_open":  # is the asset traded at this open anyway? what cash allows is not known yet
            orders = wanted(self, due, bar.open, bar.present, terms)
            if self.value(bar.open) > terms.ruin_level:
                limit(orders, self, bar.open, bar, terms)
                keep_within_leverage(orders, self, bar.open, bar, terms)
            traded = orders.units
        equity = self.value(bar.open)
        for a in range(self.assets):
            if self.units[a] == 0 or not bar.present[a] or traded[a] != 0:
                continue
            stop, take = self.levels(a, bar)
            p = bar.open[a]
            long = self.units[a] > 0
            if (long and p <= stop) or (not long and p >= stop):
                self.force(a, p, STOP, equity, bar, terms, move)
            elif (long and p >= take) or (not long and p <= take):
                self.force(a, p, TAKE, equity, bar, terms, move)
        return False

    def inside(self, bar: Bar, terms: Terms, move: Move) -> bool:
        """Rule 2e: adverse side first, the level nearest the open first, then the take-profit. Whether liquidated."""
        for a in range(self.assets):
            if self.units[a] == 0 or not bar.present[a]:
                continue
            long = self.units[a] > 0
            stop, take = self.levels(a, bar)
            adverse: list[tuple[float, int]] = []  # distance is from the open, so the nearest price comes first
            for level, reason in ((self.margin_price(terms), LIQUIDATION), (stop, STOP)):
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
            elif long and bar.high[a] >= take:
                price, reason = max(take, bar.open[a]), TAKE
            elif not long and bar.low[a] <= take:
                price, reason = min(take, bar.open[a]), TAKE
            if reason == ORDER:
                continue
            prices = [price if b == a else bar.open[b] for b in range(self.assets)]
            self.force(a, price, reason, self.value(prices), bar, terms, move)
            if reason == LIQUIDATION:
                return True
        return False

    def at_close(self, bar: Bar, terms: Terms, move: Move) -> None:
        """Rule 2g: what ends at this bar is closed, then margin, then ruin."""
        start = len(move.executions)
        prices = list(bar.close)
        ends = [ORDER] * self.assets
        for a in range(self.assets):
            if bar.last[a]:
                prices[a] = bar.close[a] * (1 + terms.delist_return)
                ends[a] = LAST
            elif terms.flat_at_session_end and bar.session_end:  # without a bar, at the last known close
                ends[a] = SESSION
        equity = self.value(prices)
        for a in range(self.assets):
            if ends[a] != ORDER and self.units[a] != 0:
                self.force(a, prices[a], ends[a], equity, bar, terms, move)
        if self.below_margin(bar.close, terms):
            self.liquidate(bar.close, bar, terms, move)
        if not self.ruined and self.value(bar.close) <= terms.ruin_level:
            self.ruin(bar.close, bar, terms, move)
        move.executions[start:] = sorted(move.executions[start:], key=lambda each: each.asset)

    # --- orders -------------------------------------------------------------------------------------------------------

    def order(self, due, prices, tradable, bar: Bar, terms: Terms, move: Move) -> None:
        """Rules 3, 4, 5, 7 and 8: the order fills at `prices`."""
        if self.ruined:
            return
        equity = self.value(prices)
        if equity <= terms.ruin_level:  # rule 7: everything is closed, the order is cancelled
            self.ruin(prices, bar, terms, move)
            return
        self.unblock(due)
        orders = wanted(self, due, prices, tradable, terms)
        limit(orders, self, prices, bar, terms)
        keep_within_leverage(orders, self, prices, bar, terms)
        own = 0.0
        for a, d in enumerate(orders.units):
            _, fee, slippage = costs_of(a, d, prices[a], bar, terms)
            own += fee + slippage
        # Rule 5: sells first.
        start = len(move.executions)
        for a, d in enumerate(orders.units):
            if d < 0:
                self.fill(a, d, prices[a], ORDER, equity, bar, terms, move)
        self.buy(orders, prices, equity, own, bar, terms, move)
        move.executions[start:] = sorted(move.executions[start:], key=lambda each: each.asset)
        move.clipped = move.clipped or orders.clipped
        move.dropped = move.dropped or orders.dropped
        self.remember(due, orders.unfilled)

    def buy(self, orders: Orders, prices, equity: float, own: float, bar: Bar, terms: Terms, move: Move) -> None:
        """Rule 5: at L <= 1 the buys are cut by one common factor to the cash that is there."""
        buys = [a for a in range(self.assets) if orders.units[a] > 0]
        need = 0.0
        fixed = 0.0
        for a in buys:
            d = orders.units[a]
            paid, fee, _ = costs_of(a, d, prices[a], bar, terms)
            fixed += terms.of("fixed_fee", a) / terms.capital
            need += d * paid + fee
        need -= fixed
        budget = self.cash - fixed
        if not buys or terms.leverage > 1 or need <= budget:
            for a in buys:
                self.fill(a, orders.units[a], prices[a], ORDER, equity, bar, terms, move)
            return
        if need + fixed - max(self.cash, 0.0) > own + terms.dust * equity:
            orders.clipped = True
        if budget <= 0:  # given up, free of fee, and counted
            orders.dropped = True
            return
        k = budget / need
        filled = 0
        for a in buys:
            d = whole_lots(k * orders.units[a], bar.factor[a], terms)
            if d * prices[a] <= terms.dust * equity:
                continue
            if d * prices[a] * terms.capital < terms.min_trade:
                orders.dropped = True
                continue
            self.fill(a, d, prices[a], ORDER, equity, bar, terms, move)
            filled += 1
        if filled == len(buys) and terms.lot is None and terms.impact is None:
            self.cash = 0.0  # rule 3; a smaller order has less impact, and whole lots leave a rest: there cash remains

    def see(self, due: list[float]) -> None:
        """A cancelled order: what was asked for still counts for the block and for `on_change`."""
        self.unblock(due)
        self.remember(due, [False] * self.assets)

    def unblock(self, due: list[float]) -> None:
        """Rule 8: a stopped asset may be entered again once its target has left that sign; NaN says nothing."""
        for a in range(self.assets):
            if not math.isnan(due[a]) and sign(due[a]) != self.stopped[a]:
                self.stopped[a] = 0

    def remember(self, due: list[float], unfilled: list[bool]) -> None:
        """What was said last, and whether its order found no bar or too little volume: then it is asked again."""
        for a in range(self.assets):
            if not self.ruined and not math.isnan(due[a]):
                self.target[a] = due[a]
                self.unfilled[a] = unfilled[a]

    # --- forced closes ------------------------------------------------------------------------------------------------

    def levels(self, a: int, bar: Bar) -> tuple[float, float]:
        """Rule 8: stop and take-profit of the position held, as prices."""
        side = sign(self.units[a])
        return self.entry[a] * (1 - side * bar.stop[a]), self.entry[a] * (1 + side * bar.take[a])

    def below_margin(self, prices, terms: Terms) -> bool:
        if terms.margin is None or self.gross(prices) == 0:
            return False
        return self.value(prices) < terms.margin * self.gross(prices)

    def margin_price(self, terms: Terms) -> float | None:
        """Where equity = margin * position value, for one asset: cash + u p = m |u| p."""
        if terms.margin is None or self.assets > 1:
            return None
        return self.cash / (terms.margin * abs(self.units[0]) - self.units[0])

    def liquidate(self, prices, bar: Bar, terms: Terms, move: Move) -> None:
        """Everything that has a real bar is sold; the account goes on."""
        equity = self.value(prices)
        for a in range(self.assets):
            if self.units[a] != 0 and bar.present[a]:
                self.force(a, prices[a], LIQUIDATION, equity, bar, terms, move)

    def ruin(self, prices, bar: Bar, terms: Terms, move: Move) -> None:
        """Rule 7: all is closed, also what has no bar, at its last close; the book is frozen."""
        equity = self.value(prices)
        for a in range(self.assets):
            if self.units[a] != 0:
                self.force(a, prices[a], RUIN, equity, bar, terms, move)
        self.ruined = True

    def force(self, a: int, p: float, reason: int, equity: float, bar: Bar, terms: Terms, move: Move) -> None:
        """Close asset a at p, with costs."""
        side = sign(self.units[a])
        self.fill(a, -self.units[a], p, reason, equity, bar, terms, move)
        self.unfilled[a] = False
        if reason in (STOP, TAKE):
            self.stopped[a] = side

    def fill(self, a: int, d: float, p: float, reason: int, equity: float, bar: Bar, terms: Terms, move: Move) -> None:
        """Rule 4, and the entry price of rule 8."""
        paid, fee, slippage = costs_of(a, d, p, bar, terms)
        self.cash = self.cash - d * paid - fee
        before, after = self.units[a], self.units[a] + d
        if before == 0 or before * after < 0:  # from flat, or through zero
            self.entry[a] = p
        elif abs(after) > abs(before):  # adds move the average, partial exits don't
            self.entry[a] = (abs(before) * self.entry[a] + abs(d) * p) / abs(after)
        self.units[a] = after
        if after == 0:
            self.entry[a] = 0.0
        move.executions.append(Execution(a, d, p, fee, slippage, reason, equity))


def book(opens, closes, targets, terms: Terms, **columns) -> dict[str, list]:
    """Rule 10: equity[t] is marked at close[t] after every fill up to and including close[t].

    Prices and targets are [bars][assets]; `columns` are further fields of `Bar`, one row per bar: prices and flags in
    the row of the bar, `years` and `funding` in the row of the bar that they end at, `volatility` and `adv` in the row
    of the last bar they know, `stop` and `take` in the row of the decision. Returns equity, units, carry and fills
    (bar, asset, units, price, fee, slippage) with their reasons and the equity before their costs (`worth`), the bar of
    ruin, and the rows where an order was clipped or dropped.
    """
    bars, assets = len(closes), len(closes[0])
    ledger = Ledger(assets)
    names = ("equity", "units", "carry", "fills", "reasons", "worth", "ruined_at", "clipped", "dropped")
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

    due = [NAN] * assets
    for t in range(bars):
        was = ledger.ruined
        earlier = max(t - 1, 0)
        known = {name: rows[earlier if name in _KNOWN_AT_DECISION else t] for name, rows in columns.items()}
        bar = Bar(closes[earlier], opens[t], closes[t], **known)
        moved = Move()
        if t > 0:
            if terms.fill != "close":
                due = ledger.due(targets[t - 1], terms)
            ledger.advance(due, bar, terms, moved)
        note(t, moved)
        if terms.fill == "close":
            now = {name: rows[t] for name, rows in columns.items()}
            bar = Bar(closes[t], opens[t], closes[t], **now)
            due = ledger.due(targets[t], terms)
            traded = Move()
            tradable = open_at_the_close(bar.present, bar.last, bar.session_end, terms)
            ledger.order(due, closes[t], tradable, bar, terms, traded)
            note(t, traded)
        if ledger.ruined and not was:
            out["ruined_at"].append(t)
        out["carry"].append(moved.carry)
        out["equity"].append(ledger.value(closes[t]))
        out["units"].append(list(ledger.units))
    return out


_KNOWN_AT_DECISION = ("volatility", "adv", "stop", "take")
