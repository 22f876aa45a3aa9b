"""The money rules once more, as a scalar loop over Python floats.

It was written from `jaxtrader/ledger/README.md` alone, before its author saw any other code of the ledger. The columns
of a `Market`, such as the average traded value, are taken as they are. Trailing stops and limit orders were added
later, from the text of rules 8a and 12.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

import jaxtrader as jt

DUST = 1e-12  # rule 1, float64
UNKNOWN_ADV = 1e-6  # rule 4
BRACKETS = ("stop", "take profit", "trailing stop")  # reasons


@dataclass
class Record:
    """What one account did. A fill is `(bar, asset, units, price, fee, slippage, reason)`. The last three hold bars."""

    equity: list[float] = field(default_factory=list)
    units: list[list[float]] = field(default_factory=list)
    fills: list[tuple] = field(default_factory=list)
    ruined_at: int | None = None
    clipped: set[int] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)
    beyond_cap: set[int] = field(default_factory=set)
    unmet: set[int] = field(default_factory=set)


@dataclass
class Rates:
    """The rates of one row."""

    fee: list[float]
    maker_fee: list[float]
    slippage: list[float]
    fixed_fee: list[float]  # in units of the capital
    impact: list[float] | None
    cash_rate: float
    borrow_rate: float
    short_rate: list[float]
    share_fee: list[float]  # of a unit, in units of the capital
    min_fee: list[float] | None  # in units of the capital
    max_fee: list[float] | None
    worst: list[float] | None = None  # the prices beyond which limit orders pay nothing


@dataclass
class Orders:
    """What rule 5 makes of the targets, up to step 6."""

    size: list[float]
    given_up: list[bool]  # no bar
    capped: list[bool]
    clipped: bool
    dropped: bool


@dataclass
class Resting:
    """Limit orders that rest for one bar (rule 12)."""

    size: list[float]  # 0 where nothing rests
    limit: list[float]
    capped: list[bool]

    def cancel(self, assets) -> None:
        for i in assets:
            self.size[i] = 0.0


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)


class Ledger:
    """One account on the one history of a market."""

    def __init__(self, market: jt.Market, targets, rules: jt.Rules, costs: jt.Costs, **brackets):
        self.market, self.rules, self.costs = market, rules, costs
        self.bars, self.assets = np.shape(targets)
        self.all = range(self.assets)
        start = int(market.segments[0, 2]) - self.bars
        rows = slice(start, start + self.bars)

        def table(x, default):
            shape = (self.bars, self.assets)
            return np.full(shape, default).tolist() if x is None else x[rows].tolist()

        self.open, self.high, self.low, self.close = (
            table(x, 0.0) for x in (market.open, market.high, market.low, market.close)
        )
        self.present, self.delisted = table(market.present, True), table(market.delisted, False)
        self.funding, self.price_factor = table(market.funding, 0.0), table(market.price_factor, 1.0)
        self.adv, self.volatility = table(market.adv, 0.0), table(market.volatility, 0.0)
        self.columns = {name: table(x, 0.0) for name, x in market.columns.items()}
        self.dt = market.dt[rows].tolist()
        self.bar_dt = None if market.bar_dt is None else market.bar_dt[rows].tolist()
        ends = market.session_end if rules.flat_at_session_end else None
        self.session_end = [False] * self.bars if ends is None else ends[rows].tolist()

        self.targets = [[0.0 if abs(w) <= DUST else w for w in row] for row in np.asarray(targets, float).tolist()]
        self.stop, self.take, self.trail = (
            self._brackets(brackets.get(name)) for name in ("stop_loss", "take_profit", "trailing_stop")
        )
        self.capital = 1.0 if rules.capital is None else rules.capital
        self.multiplier = np.broadcast_to(1.0 if rules.multiplier is None else rules.multiplier, self.assets).tolist()
        self.tick = None if rules.tick is None else np.broadcast_to(rules.tick, self.assets).tolist()
        self.leverage = rules.max_leverage
        self.band = rules.rebalance_band or 0.0
        self.margin = rules.maintenance_margin
        if self.margin is None:
            self.margin = 0.5 / self.leverage if self.leverage > 1 else 0.0
        self.second_cut = self.assets > 1 and (
            self.band > 0
            or rules.rebalance == "on_change"
            or any(x is not None for x in (rules.volume_cap, rules.lot, rules.min_trade))
        )

        self.cash = 1.0
        self.units, self.entry = [0.0] * self.assets, [0.0] * self.assets
        self.best = [0.0] * self.assets  # the best price since the entry (rule 8a)
        self.block = [0] * self.assets  # the sign of the position that a bracket has closed
        self.last_target = [0.0] * self.assets
        self.again = [False] * self.assets  # the mark of rule 3
        self.missed_end = [False] * self.assets
        self.ruined = False
        self.record = Record()

    def _brackets(self, fractions) -> list[list[float]]:
        given = math.nan if fractions is None else fractions
        given = np.asarray(given, float)
        given = given[:, None] if given.ndim == 1 and self.assets == 1 else given
        full = np.broadcast_to(given, (self.bars, self.assets))
        return np.where(np.isinf(full), math.nan, full).tolist()

    def run(self) -> Record:
        """Trade all bars."""
        for t in range(self.bars - 1):
            self._order_at_decision(t)
            if self.rules.fill == "close":
                self._mark(t)
            elif t == 0:
                self._mark(0)
            self._step(t)
            if self.rules.fill != "close":
                self._mark(t + 1)
        if self.rules.fill == "close":
            self._order_at_decision(self.bars - 1)
        if self.rules.fill == "close" or self.bars == 1:
            self._mark(self.bars - 1)
        return self.record

    def _mark(self, t: int) -> None:
        self.record.equity.append(self._equity(self.close[t]))
        self.record.units.append(list(self.units))

    def _equity(self, prices) -> float:
        return self.cash + sum(u * p for u, p in zip(self.units, prices, strict=True))

    def _gross(self, prices) -> float:
        return sum(abs(u) * p for u, p in zip(self.units, prices, strict=True))

    def _rates(self, row: int) -> Rates:
        def each(name) -> list[float]:
            rate = getattr(self.costs, name)
            if isinstance(rate, str):
                return self.columns[rate][row]
            return np.broadcast_to(0.0 if rate is None else np.asarray(rate, float), (self.assets,)).tolist()

        return Rates(
            fee=each("fee"),
            maker_fee=each("fee" if self.costs.maker_fee is None else "maker_fee"),
            slippage=each("slippage"),
            fixed_fee=[x / self.capital for x in each("fixed_fee")],
            impact=None if self.costs.impact is None else each("impact"),
            cash_rate=each("cash_rate")[0],
            borrow_rate=each("borrow_rate")[0],
            short_rate=each("short_rate"),
            share_fee=[
                x * f / m for x, f, m in zip(each("share_fee"), self.price_factor[row], self.multiplier, strict=True)
            ],
            min_fee=None if self.costs.min_fee is None else [x / self.capital for x in each("min_fee")],
            max_fee=None if self.costs.max_fee is None else each("max_fee"),
        )

    # From close[t] to close[t+1] (rule 2)

    def _order_at_decision(self, t: int) -> None:
        """2a, at close[t]."""
        if self.rules.fill != "close" or self.ruined:
            return
        ended = [self.delisted[t][i] or self.session_end[t] for i in self.all]
        tradable = [self.present[t][i] and not ended[i] for i in self.all]
        self._fill_targets(t, bar=t, prices=self.close[t], present=self.present[t], tradable=tradable, cancelled=False)

    def _step(self, t: int) -> None:
        """2b to 2g."""
        rules, bar = self.rules, t + 1
        present, opens, closes = self.present[bar], self.open[bar], self.close[bar]
        rates = self._rates(bar)
        resting = self._place(t, bar) if rules.fill == "limit" and not self.ruined else None
        if not self.ruined:
            night = self.dt[bar] if self.bar_dt is None else self.dt[bar] - self.bar_dt[bar]
            self._interest(rates, self.close[t], night)  # 2b
            if rules.dividends is not None:  # 6a
                paid = self.columns[rules.dividends][bar]
                self.cash += sum(u * x for u, x, here in zip(self.units, paid, present, strict=True) if here)

        # 2c
        cancelled, closed = False, set()
        if self.ruined:
            for i in self.all:
                if present[i]:
                    self._close(i, opens, "ruin", t, bar, rates)
                elif self.delisted[bar][i]:
                    self._delist(i, t, bar, rates)
            return
        if self._below_margin(opens):
            cancelled = True
            self._liquidate(opens, t, bar, rates)
        elif not (rules.fill == "next_open" and self._equity(opens) <= rules.ruin_level):
            closed = self._close_at_open(t, bar, rates)
        self.missed_end = [self.missed_end[i] and not present[i] for i in self.all]

        # 2d
        if rules.fill == "next_open":
            self._fill_targets(t, bar, opens, present, present, cancelled)
            if self.ruined:
                return
        if self.bar_dt is not None:
            self._interest(rates, opens, self.bar_dt[bar])

        if resting is None:
            cancelled = "liquidation" in self._close_inside(t, bar, rates).values() or cancelled  # 2e
        else:
            resting.cancel(self.all if cancelled else closed)
            self._inside_with_limits(resting, t, bar, rates)

        # 2f
        for i in self.all:
            self.cash -= self.funding[bar][i] * self.units[i] * closes[i]
        if rules.fill == "next_close":
            self._fill_targets(t, bar, closes, present, present, cancelled)
            if self.ruined:
                return

        # 2g
        for i in self.all:
            if self.delisted[bar][i]:
                self._delist(i, t, bar, rates)
            elif self.session_end[bar] and present[i]:
                self._close(i, closes, "session end", t, bar, rates)
            elif self.session_end[bar] and self.units[i] != 0:
                self.missed_end[i] = True
        before = len(self.record.fills)
        if self._below_margin(closes):
            self._liquidate(closes, t, bar, rates)
        if self._equity(closes) <= rules.ruin_level:
            self._ruin(closes, present, t, bar, rates)
            self._join_records(before)

    def _interest(self, rates: Rates, prices, years: float) -> None:
        """Rule 6."""
        shorts = [max(0.0, -u) * p for u, p in zip(self.units, prices, strict=True)]
        free = self.cash - sum(shorts)
        earned = rates.cash_rate * max(0.0, free) - rates.borrow_rate * max(0.0, -free)
        self.cash += (earned - sum(r * x for r, x in zip(rates.short_rate, shorts, strict=True))) * years

    def _below_margin(self, prices) -> bool:
        return self.margin > 0 and self._equity(prices) < self.margin * self._gross(prices)

    def _liquidate(self, prices, t: int, bar: int, rates: Rates) -> None:
        for i in self.all:
            if self.present[bar][i]:
                self._close(i, prices, "liquidation", t, bar, rates)

    def _delist(self, i: int, t: int, bar: int, rates: Rates) -> None:
        """Rule 9."""
        prices = list(self.close[bar])
        prices[i] *= 1 + self.rules.delist_return
        self._close(i, prices, "delisted", t, bar, rates)

    def _ruin(self, prices, present, t: int, bar: int, rates: Rates) -> None:
        """Rule 7."""
        self.ruined = True
        self.record.ruined_at = bar
        for i in self.all:
            if present[i]:
                self._close(i, prices, "ruin", t, bar, rates)

    def _levels(self, i: int, t: int) -> tuple[float, float, float]:
        """The prices of stop, trailing stop and take-profit, NaN where there is none (rules 8 and 8a)."""
        side = _sign(self.units[i])
        return (
            self.entry[i] * (1 - side * self.stop[t][i]),
            self.best[i] * (1 - side * self.trail[t][i]),
            self.entry[i] * (1 + side * self.take[t][i]),
        )

    def _close_at_open(self, t: int, bar: int, rates: Rates) -> set[int]:
        """2c, step 3. Returns the assets that it closes."""
        opens, present, closed = self.open[bar], self.present[bar], set()
        traded = [False] * self.assets
        if self.rules.fill == "next_open":
            asked = self._due(t)
            self._lift_blocks(asked)
            traded = [d != 0 for d in self._size(asked, t, bar, opens, present).size]
        held = [i for i in self.all if self.units[i] != 0 and present[i] and not traded[i]]
        for i, (stop, trail, take) in [(i, self._levels(i, t)) for i in held]:
            side, p = _sign(self.units[i]), opens[i]
            passed = [x for x in ((stop, "stop"), (trail, "trailing stop")) if side * (p - x[0]) <= 0]
            if self.missed_end[i]:
                reason = "session end"
            elif passed:
                reason = max(passed, key=lambda each: side * each[0])[1]
            elif side * (p - take) >= 0:
                reason = "take profit"
            else:
                continue
            closed.add(i)
            self._close(i, opens, reason, t, bar, rates)
        return closed

    def _adverse(self, i: int, t: int, p: float) -> list[tuple[float, str]]:
        """Margin and the nearer stop of a position whose bar opened at p, the first of two at one price first."""
        u, side = self.units[i], _sign(self.units[i])
        margin = math.nan
        if self.margin > 0 and self.assets == 1:
            margin = -self.cash / ((1 - self.margin) * u) if u > 0 else self.cash / ((1 + self.margin) * -u)
            margin = math.nan if u > 0 and margin <= 0 else margin
        stop, trail, _ = self._levels(i, t)
        stops = [each for each in ((stop, "stop"), (trail, "trailing stop")) if not math.isnan(each[0])]
        nearer = [max(stops, key=lambda each: side * each[0])] if stops else []
        levels = [(margin, "liquidation"), *nearer]
        return [(side * min(side * x, side * p), reason) for x, reason in levels if not math.isnan(x)]

    def _close_inside(self, t: int, bar: int, rates: Rates, assets=None, opens=None) -> dict[int, str]:
        """2e for some assets whose bar begins at `opens`. Returns what it closes, with the reasons."""
        opens, closed = self.open[bar] if opens is None else opens, {}
        for i in self.all if assets is None else assets:
            u, p = self.units[i], opens[i]
            if u == 0 or not self.present[bar][i]:
                continue
            side = _sign(u)
            against, favour = (self.low[bar][i], self.high[bar][i])[::side]
            self._see(i, p)
            found = [each for each in self._adverse(i, t, p) if side * (against - each[0]) <= 0]
            take = self._levels(i, t)[2]
            reached = favour if math.isnan(take) else side * min(side * favour, max(side * take, side * p))
            if found:
                price, reason = max(found, key=lambda each: side * each[0])  # the first of two at one price
            else:
                self._see(i, reached)
                trail = self._levels(i, t)[1]
                if side * (against - trail) <= 0:
                    price, reason = trail, "trailing stop"
                elif side * (favour - take) >= 0:
                    price, reason = side * max(side * take, side * p), "take profit"
                else:
                    self._see(i, favour)
                    continue
            prices = list(opens)
            prices[i] = price
            closed[i] = reason
            self._close(i, prices, reason, t, bar, rates)
            self._see(i, favour)
        return closed

    def _see(self, i: int, price: float) -> None:
        """Move the best price of a position (rule 8a)."""
        if self.units[i] != 0:
            self.best[i] = (max if self.units[i] > 0 else min)(self.best[i], price)

    # Limit orders (rule 12)

    def _place(self, t: int, bar: int) -> Resting:
        """Place orders at close[t]."""
        asked, closes, none = self._due(t), self.close[t], [True] * self.assets
        self._lift_blocks(asked)
        orders = self._size(asked, t, t, closes, none)
        self._count(orders, bar)
        for i, w in enumerate(asked):
            if not math.isnan(w):
                self.last_target[i], self.again[i] = w, orders.capped[i] or orders.given_up[i]
        limit = []
        for i in self.all:
            side = _sign(orders.size[i])
            price = closes[i] * (1 - side * (self.rules.limit_offset or 0.0))
            limit.append(price if self.tick is None or side == 0 else self._on_tick(i, price, -side, t))
        return Resting(orders.size, limit, orders.capped)

    def _inside_with_limits(self, resting: Resting, t: int, bar: int, rates: Rates) -> None:
        """Steps 2 to 5 of rule 12."""
        opens, present = self.open[bar], self.present[bar]
        low, high = self.low[bar], self.high[bar]

        def met(lows, highs) -> list[int]:
            return [
                i
                for i in self.all
                if present[i]
                and (
                    (resting.size[i] > 0 and lows[i] <= resting.limit[i])
                    or (resting.size[i] < 0 and highs[i] >= resting.limit[i])
                )
            ]

        self._fill_limits(resting, met(opens, opens), t, bar, opens, rates)  # 2

        def order_first(i: int) -> bool:
            """Whether the order adds at a limit that is nearer the open than the first adverse level."""
            u, d = self.units[i], resting.size[i]
            if u * d <= 0:
                return False
            side = _sign(u)
            return all(side * (resting.limit[i] - level) > 0 for level, _ in self._adverse(i, t, opens[i]))

        closed = self._close_inside(t, bar, rates, [i for i in self.all if not order_first(i)])  # 3
        resting.cancel(self.all if "liquidation" in closed.values() else closed)
        makers = met(low, high)
        prices = [resting.limit[i] if i in makers else opens[i] for i in self.all]
        as_maker = replace(rates, fee=rates.maker_fee, slippage=[0.0] * self.assets, impact=None)
        self._fill_limits(resting, makers, t, bar, prices, as_maker)  # 4
        self._close_inside(t, bar, rates, makers, prices)  # 5
        if any(resting.size):
            self.record.unmet.add(bar)
        for i in self.all:
            self.again[i] |= resting.size[i] != 0

    def _fill_limits(self, resting: Resting, assets, t: int, bar: int, prices, rates: Rates) -> None:
        sizes = [resting.size[i] if i in assets else 0.0 for i in self.all]
        orders = Orders(sizes, [False] * self.assets, resting.capped, clipped=False, dropped=False)
        resting.cancel(assets)
        self._pay(orders, t, bar, prices, replace(rates, worst=resting.limit))

    # The order (rules 3, 5 and 8)

    def _due(self, t: int) -> list[float]:
        """The targets whose time to fill has come in the step from close[t]."""
        t -= self.rules.delay
        return self.targets[t] if t >= 0 else [math.nan] * self.assets

    def _lift_blocks(self, asked) -> None:
        for i, w in enumerate(asked):
            if not math.isnan(w) and _sign(w) != self.block[i]:
                self.block[i] = 0

    def _fill_targets(self, t: int, bar: int, prices, present, tradable, cancelled: bool) -> None:
        """2a, 2d or 2f."""
        asked, rates = self._due(t), self._rates(bar)
        if self._equity(prices) <= self.rules.ruin_level:
            self._ruin(prices, present, t, bar, rates)
            return
        self._lift_blocks(asked)
        orders = None if cancelled else self._size(asked, t, bar, prices, tradable)
        for i, w in enumerate(asked):
            if not math.isnan(w):
                self.again[i] = orders is not None and (orders.given_up[i] or orders.capped[i])
                self.last_target[i] = w
        if orders is not None:
            self._pay(orders, t, bar, prices, rates)

    def _size(self, asked, t: int, bar: int, prices, tradable) -> Orders:
        """Steps 1 to 6 of rule 5."""
        rules, equity = self.rules, self._equity(prices)
        w = list(asked)
        for i in self.all:
            if self.block[i] != 0 and _sign(self.units[i]) == self.block[i]:
                w[i] = 0.0  # what the cap left of a bracket's exit (rule 8)
            elif self.block[i] != 0 and _sign(asked[i]) == self.block[i]:
                w[i] = math.nan
        if self.costs.impact is not None:
            tradable = [tradable[i] and self.adv[t][i] > UNKNOWN_ADV for i in self.all]

        # 1
        asked_gross = sum(abs(x) for x in asked if not math.isnan(x))
        first = min(1.0, self.leverage / asked_gross) if asked_gross > 0 else 1.0
        can = [tradable[i] and not math.isnan(w[i]) for i in self.all]
        held = sum(abs(self.units[i]) * prices[i] / equity for i in self.all if not can[i])
        room = max(0.0, self.leverage - held)
        gross = first * sum(abs(w[i]) for i in self.all if can[i])
        factor = first * min(1.0, room / gross) if gross > 0 else first
        clipped = asked_gross > self.leverage * (1 + DUST) or gross > room * (1 + DUST)
        dropped = False

        # 2
        size, given_up, capped = [0.0] * self.assets, [False] * self.assets, [False] * self.assets
        for i in self.all:
            if math.isnan(w[i]):
                continue
            d = -self.units[i] if w[i] == 0 else factor * w[i] * equity / prices[i] - self.units[i]
            value = abs(d) * prices[i]
            if value <= DUST * equity or (w[i] != 0 and value < self.band * equity):
                continue
            unchanged = w[i] == self.last_target[i] != 0 and not self.again[i]
            if rules.rebalance == "on_change" and unchanged:
                continue
            if tradable[i]:
                size[i] = d
            else:
                given_up[i] = dropped = True

        # 3 to 5
        for i in self.all:
            if rules.volume_cap is not None and size[i] != 0:
                most = self._most(i, t)
                if abs(size[i]) * prices[i] > most * (1 + DUST):
                    size[i] = math.copysign(most / prices[i], size[i]) if most > DUST * equity else 0.0
                    capped[i] = clipped = True
            size[i] = self._lots(i, size[i], bar)
            if self._too_small(size[i], prices[i]):
                size[i], dropped = 0.0, True

        # 6
        if self.second_cut:
            after = [u + d for u, d in zip(self.units, size, strict=True)]
            reverses = [_sign(a) * _sign(u) < 0 for a, u in zip(after, self.units, strict=True)]
            new = [
                abs(after[i]) if reverses[i] else max(0.0, abs(after[i]) - abs(self.units[i])) if size[i] != 0 else 0.0
                for i in self.all
            ]
            kept = sum((abs(after[i]) - new[i]) * prices[i] for i in self.all)
            room = max(0.0, self.leverage * equity - kept)
            wanted = sum(x * p for x, p in zip(new, prices, strict=True))
            if wanted > room + DUST * equity:
                cut, clipped = room / wanted, True
                for i in self.all:
                    if new[i] == 0:
                        continue
                    d = cut * after[i] - self.units[i] if reverses[i] else cut * size[i]
                    d = self._lots(i, d, bar)
                    if reverses[i] and abs(d) < abs(self.units[i]):
                        d = -self.units[i]
                    if abs(d) * prices[i] <= DUST * equity:
                        d = 0.0
                    if not reverses[i]:
                        dropped |= room <= DUST * equity
                        if self._too_small(d, prices[i]):
                            d, dropped = 0.0, True
                    size[i] = d
        return Orders(size, given_up, capped, clipped, dropped)

    def _pay(self, orders: Orders, t: int, bar: int, prices, rates: Rates) -> None:
        """Steps 7 and 8 of rule 5, and the fills."""
        size, equity = orders.size, self._equity(prices)
        exhausted = False
        if self.leverage <= 1:
            fixed = rates.fixed_fee
            paid = [self._paid(i, size[i], prices[i], t, bar, rates) for i in self.all]
            buys, sales = [i for i in self.all if size[i] > 0], [i for i in self.all if size[i] < 0]
            fee = [self._commission(i, size[i], paid[i], rates) for i in self.all]
            spent = [size[i] * paid[i] + fee[i] + fixed[i] for i in sales]
            cash = self.cash - sum(spent if rates.worst is None else [max(0.0, x) for x in spent])
            cash -= sum(fixed[i] for i in buys)
            need = sum(size[i] * paid[i] + fee[i] for i in buys)
            if buys and need > cash:
                all_costs = sum(fee[i] + fixed[i] + abs(size[i] * (paid[i] - prices[i])) for i in buys + sales)
                orders.clipped |= need - max(0.0, cash) > all_costs + DUST * equity
                orders.dropped |= cash <= 0
                cut = max(0.0, cash) / need
                exhausted = self.rules.lot is None and rates.impact is None and (rates.worst is None or not sales)
                for i in buys:
                    d = self._payable(i, cut * (size[i] * paid[i] + fee[i]), paid[i], rates)
                    orders.dropped |= d == 0 and cash > 0
                    d = self._lots(i, d, bar)
                    if abs(d) * prices[i] <= DUST * equity:
                        d = 0.0
                    if self._too_small(d, prices[i]):
                        d, orders.dropped = 0.0, True
                    size[i] = d
                    exhausted &= d != 0
        self._count(orders, bar)
        for i in self.all:
            if size[i] != 0:
                leaves_dust = abs(self.units[i] + size[i]) * prices[i] <= DUST * equity
                self._fill(i, -self.units[i] if leaves_dust else size[i], prices[i], "order", t, bar, rates)
        if exhausted:
            self.cash = 0.0

    def _count(self, orders: Orders, bar: int) -> None:
        if orders.clipped:
            self.record.clipped.add(bar)
        if orders.dropped:
            self.record.dropped.add(bar)

    def _lots(self, i: int, d: float, bar: int) -> float:
        if self.rules.lot is None or d == -self.units[i]:
            return d
        share = self.capital * self.price_factor[bar][i] / (self.rules.lot * self.multiplier[i])
        n = d * share
        whole = round(n) if abs(n - round(n)) <= DUST * max(1.0, abs(n)) else math.trunc(n)
        return whole / share

    def _too_small(self, d: float, price: float) -> bool:
        return self.rules.min_trade is not None and 0 < abs(d) * price * self.capital < self.rules.min_trade

    def _most(self, i: int, t: int) -> float:
        """The value that the volume cap allows. It is 0 where the traded value is not known (rule 4)."""
        return self.rules.volume_cap * self.adv[t][i] / self.capital if self.adv[t][i] > UNKNOWN_ADV else 0.0

    # Fills (rule 4)

    def _friction(self, i: int, d: float, price: float, t: int, rates: Rates) -> float:
        """Slippage plus impact."""
        if rates.impact is None:
            return rates.slippage[i]
        if self.adv[t][i] <= UNKNOWN_ADV:
            return min(1.0, rates.slippage[i])
        share = abs(d) * price * self.capital / self.adv[t][i]
        return min(1.0, rates.slippage[i] + rates.impact[i] * self.volatility[t][i] * math.sqrt(share))

    def _paid(self, i: int, d: float, price: float, t: int, bar: int, rates: Rates) -> float:
        paid = price * (1 + self._friction(i, d, price, t, rates) * _sign(d))
        if self.tick is not None:
            paid = self._on_tick(i, paid, d, bar)
        if rates.worst is not None:
            paid = min(paid, rates.worst[i]) if d > 0 else max(paid, rates.worst[i])
        return paid

    def _on_tick(self, i: int, price: float, up: float, row: int) -> float:
        """The price on a tick (rule 4b), up where `up` is above 0."""
        assert self.tick is not None
        tick = self.tick[i] * self.price_factor[row][i]
        whole = round(price / tick)
        if abs(price / tick - whole) > DUST * max(1, whole):
            whole = math.ceil(price / tick) if up > 0 else math.floor(price / tick)
        return whole * tick

    def _commission(self, i: int, d: float, paid: float, rates: Rates) -> float:
        """The fee of d units without the fixed fee."""
        if d == 0:
            return 0.0
        fee = rates.fee[i] * abs(d) * paid + rates.share_fee[i] * abs(d)
        fee = fee if rates.min_fee is None else max(fee, rates.min_fee[i])
        return fee if rates.max_fee is None else min(fee, rates.max_fee[i] * abs(d) * paid)

    def _payable(self, i: int, budget: float, paid: float, rates: Rates) -> float:
        """The units that cost `budget` with their commission: on the line of the rates, of the least or of the most."""
        units = budget / (paid * (1 + rates.fee[i]) + rates.share_fee[i])
        if rates.min_fee is not None:
            units = min(units, max(0.0, budget - rates.min_fee[i]) / paid)
        return units if rates.max_fee is None else max(units, budget / (paid * (1 + rates.max_fee[i])))

    def _fill(self, i: int, d: float, price: float, reason: str, t: int, bar: int, rates: Rates) -> None:
        paid = self._paid(i, d, price, t, bar, rates)
        fee = self._commission(i, d, paid, rates) + rates.fixed_fee[i]
        self.cash -= d * paid + fee
        u, after = self.units[i], self.units[i] + d
        if _sign(u) * _sign(after) <= 0:
            self.entry[i] = self.best[i] = price
        elif abs(after) > abs(u):
            self.entry[i] += (price - self.entry[i]) * (d / after)  # so that adds at one price leave it there exactly
        self.units[i] = 0.0 if d == -u else after
        self.record.fills.append((bar, i, d, price, fee, abs(d * (paid - price)), reason))

    def _close(self, i: int, prices, reason: str, t: int, bar: int, rates: Rates) -> None:
        """Close one asset without an order. `prices` are those at which the equity is taken."""
        u, price, equity = self.units[i], prices[i], self._equity(prices)
        if u == 0:
            return
        self.again[i] = False
        if reason != "ruin" and abs(u) * price <= DUST * equity:
            self.cash, self.units[i] = self.cash + u * price, 0.0
            return
        if reason in BRACKETS:
            self.block[i] = _sign(u)
        if self.rules.volume_cap is not None:
            most = self._most(i, t)
            if abs(u) * price > most * (1 + DUST):
                if reason in (*BRACKETS, "liquidation"):
                    self.again[i] = reason != "liquidation"
                    left = abs(u) - most / price
                    if most <= DUST * equity:
                        return
                    if left * price > DUST * equity:
                        u = math.copysign(most / price, u)
                else:
                    self.record.beyond_cap.add(bar)
        self._fill(i, -u, price, reason, t, bar, rates)

    def _join_records(self, first: int) -> None:
        """Make one record of a liquidation and the ruin that follows it at the same close (rule 8)."""
        fills, joined = self.record.fills, {}
        for bar, i, d, price, fee, slippage, reason in fills[first:]:
            if i in joined:
                old = joined[i]
                d, fee, slippage = d + old[2], fee + old[4], slippage + old[5]
            joined[i] = (bar, i, d, price, fee, slippage, reason)
        fills[first:] = joined.values()


def trade(market, targets, rules, costs, **brackets) -> Record:
    """Trade the one history of a market by targets `[N, A]` and brackets by their names (money rule 2)."""
    return Ledger(market, targets, rules, costs, **brackets).run()
