"""What the reference ledger trades under and how it turns targets into orders: scalar loops, from the rules alone.

One `if` per sentence of the rules, no arrays, no JAX. `ledger_reference.py` calls this; not for use outside the tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

NAN = math.nan


@dataclass
class Terms:
    """What the account trades under. A cost may be one number or a list, one per asset; None is absent.

    Rates are fractions (a year, for the three of carry); `fixed_fee`, `min_trade` and `capital` are in currency, `lot`
    in raw shares; `impact` is Y of money rule 4; `volume_cap` a share of the average traded value.
    """

    fee: float | list[float] = 0.0
    slippage: float | list[float] = 0.0
    fill: str = "next_open"
    band: float = 0.0
    on_change: bool = False
    ruin_level: float = 0.01
    dust: float = 1e-12
    leverage: float = 1.0
    fixed_fee: float | list[float] = 0.0
    cash_rate: float = 0.0
    borrow_rate: float = 0.0
    short_rate: float | list[float] = 0.0
    impact: float | list[float] | None = None
    volume_cap: float | None = None
    capital: float = 1.0
    lot: float | None = None
    min_trade: float = 0.0
    maintenance: float | None = None
    delay: int = 0
    delist_return: float = 0.0
    flat_at_session_end: bool = False

    def of(self, name: str, a: int) -> float:
        """A cost of asset a."""
        rate = getattr(self, name)
        return rate[a] if isinstance(rate, list) else rate

    @property
    def margin(self) -> float | None:
        """Rule 8: the maintenance margin; by default none without leverage, else half of what the leverage leaves."""
        if self.maintenance is not None:
            return self.maintenance or None  # 0: none
        return 0.5 / self.leverage if self.leverage > 1 else None


@dataclass
class Bar:
    """The move from close[t] to close[t+1]: one number per asset, and what else the rules of the move need.

    `present`: a real bar of the asset stands at t+1. `last`: it is the asset's last before it is delisted.
    `session_end`: it ends a trading session. The three with `was_` say the same of the bar at t. `volatility` and `adv`
    are of bars up to t. `stop` and `take` are fractions of the entry price, inf for none.
    """

    prev_close: list[float]
    open: list[float]
    close: list[float]
    high: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    years: float = 0.0
    funding: list[float] = field(default_factory=list)
    factor: list[float] = field(default_factory=list)
    volatility: list[float] = field(default_factory=list)
    adv: list[float] = field(default_factory=list)
    present: list[bool] = field(default_factory=list)
    was_present: list[bool] = field(default_factory=list)
    last: list[bool] = field(default_factory=list)
    was_last: list[bool] = field(default_factory=list)
    session_end: bool = False
    was_session_end: bool = False
    stop: list[float] = field(default_factory=list)
    take: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        assets = len(self.close)
        self.high = self.high or [max(pair) for pair in zip(self.open, self.close, strict=True)]
        self.low = self.low or [min(pair) for pair in zip(self.open, self.close, strict=True)]
        self.funding = self.funding or [0.0] * assets
        self.factor = self.factor or [1.0] * assets
        self.present = self.present or [True] * assets
        self.was_present = self.was_present or [True] * assets
        self.last = self.last or [False] * assets
        self.was_last = self.was_last or [False] * assets
        self.stop = self.stop or [math.inf] * assets
        self.take = self.take or [math.inf] * assets


@dataclass
class Orders:
    """Units to trade per asset, before costs and before the cut to cash."""

    units: list[float]
    clipped: bool = False
    dropped: bool = False
    unfilled: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.unfilled = [False] * len(self.units)


def sign(x: float) -> int:
    return (x > 0) - (x < 0)


def costs_of(a: int, d: float, p: float, bar: Bar, terms: Terms) -> tuple[float, float, float]:
    """Rule 4: p' = p (1 + slippage sign(d)), the fee on |d| p' with the fixed fee, and what slippage took."""
    if d == 0:
        return p, 0.0, 0.0
    rate = terms.of("slippage", a)
    if terms.impact is not None and bar.adv[a] > 1e-6:  # as little stands for none that is known
        rate += terms.of("impact", a) * bar.volatility[a] * math.sqrt(abs(d) * p * terms.capital / bar.adv[a])
        rate = min(rate, 1.0)  # a sale brings nothing at worst
    paid = p * (1 + rate * sign(d))
    fee = terms.of("fee", a) * abs(d) * paid + terms.of("fixed_fee", a) / terms.capital
    return paid, fee, abs(d) * abs(paid - p)


def open_at_the_close(present: list[bool], last: list[bool], session_end: bool, terms: Terms) -> list[bool]:
    """Rule 2g before an order at the same close: what has just been closed for good is not bought back there."""
    shut = terms.flat_at_session_end and session_end
    return [present[a] and not last[a] and not shut for a in range(len(present))]


def wanted(account: Any, target: list[float], prices: list[float], tradable: list[bool], terms: Terms) -> Orders:
    """Rules 5 and 3: the cap, then size, dust and band. Nothing is booked."""
    assets = range(len(target))
    equity = account.value(prices)
    hold = [math.isnan(target[a]) for a in assets]
    blocked = [account.stopped[a] != 0 and sign(target[a]) == account.stopped[a] for a in assets]
    free = [tradable[a] and not hold[a] and not blocked[a] for a in assets]

    # Rule 5: positions that cannot be traded now use up L first.
    held = sum(abs(account.units[a] * prices[a]) / equity for a in assets if not free[a])
    # Of all that is asked for, also what cannot be ordered: rule 9, its weight stays in cash.
    asked = sum(abs(target[a]) for a in assets if not hold[a])
    scale = 1.0 if asked <= terms.leverage else terms.leverage / asked
    gross = scale * sum(abs(target[a]) for a in assets if free[a])
    room = max(terms.leverage - held, 0.0)
    clipped = asked > terms.leverage * (1 + terms.dust) or gross > room * (1 + terms.dust)
    if gross > room:
        scale *= room / gross
    orders = Orders([0.0] * len(target), clipped=clipped)

    for a in assets:
        if hold[a] or blocked[a]:
            continue
        if terms.on_change and target[a] == account.target[a] and not account.unfilled[a]:
            continue
        d = target[a] * scale * equity / prices[a] - account.units[a]
        if abs(d) * prices[a] <= terms.dust * equity:
            continue
        if abs(d) * prices[a] < terms.band * equity and target[a] != 0:
            continue
        if not tradable[a]:  # rule 9: cancelled and counted
            orders.dropped = True
            orders.unfilled[a] = True
            continue
        orders.units[a] = d
    return orders


def limit(orders: Orders, account: Any, prices: list[float], bar: Bar, terms: Terms) -> None:
    """Rules 4 and 8, in this order: the cap on volume, lots, the minimum trade."""
    equity = account.value(prices)
    for a, d in enumerate(orders.units):
        if d == 0:
            continue
        closes_exactly = d == -account.units[a]
        if terms.volume_cap is not None:
            most = terms.volume_cap * bar.adv[a] / terms.capital
            if abs(d) * prices[a] > most:
                d = sign(d) * most / prices[a]
                orders.clipped = True
                orders.unfilled[a] = True
                closes_exactly = False
                if abs(d) * prices[a] <= terms.dust * equity:
                    d = 0.0
        if not closes_exactly:
            d = whole_lots(d, bar.factor[a], terms)
        if d != 0 and abs(d) * prices[a] * terms.capital < terms.min_trade:
            d = 0.0
            orders.dropped = True
        orders.units[a] = d


def keep_within_leverage(orders: Orders, account: Any, prices: list[float], bar: Bar, terms: Terms) -> None:
    """Rule 5 again after the cuts: where what could not be sold takes up L, what raises positions gets what is left."""
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
    room = max(terms.leverage * equity - stays, 0.0)
    if adds <= room + terms.dust * equity:
        return
    orders.clipped = True
    for a, d in enumerate(orders.units):
        before, size = account.units[a], raised[a] * room / adds
        if raised[a] == 0:
            continue
        if before * (before + d) < 0:
            turn = whole_lots(sign(d) * (abs(before) + size), bar.factor[a], terms)
            orders.units[a] = turn if abs(turn) > abs(before) else -before
            continue
        if room <= terms.dust * equity:  # nothing is left: given up, and counted
            orders.dropped = True
        orders.units[a] = whole_lots(sign(d) * size, bar.factor[a], terms)
        if abs(orders.units[a]) * prices[a] <= terms.dust * equity:
            orders.units[a] = 0.0
        elif abs(orders.units[a]) * prices[a] * terms.capital < terms.min_trade:
            orders.units[a] = 0.0
            orders.dropped = True


def whole_lots(d: float, factor: float, terms: Terms) -> float:
    """Rule 8: raw shares = units * capital * factor, rounded towards zero to a multiple of the lot."""
    if terms.lot is None:
        return d
    shares = d * terms.capital * factor
    return math.trunc(shares / terms.lot) * terms.lot / (terms.capital * factor)
