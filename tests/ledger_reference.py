"""The money rules in float64 scalar loops: the independent oracle of `jaxtrader.envs.ledger`, from the rules alone.

One `if` per sentence of the rules, no arrays, no JAX. Slow on purpose; not for use outside the tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

NAN = math.nan


@dataclass
class Terms:
    """What the account trades under."""

    fee: float = 0.0
    slippage: float = 0.0
    fill: str = "next_open"
    band: float = 0.0
    on_change: bool = False
    ruin_level: float = 0.01
    dust: float = 1e-12
    leverage: float = 1.0


@dataclass
class Execution:
    """What one order did, per asset; `equity` is before costs."""

    units: list[float]
    price: list[float]
    fee: list[float]
    slippage: list[float]
    equity: float
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

    def __post_init__(self) -> None:
        self.units = self.units or [0.0] * self.assets
        self.entry = self.entry or [0.0] * self.assets
        self.target = self.target or [0.0] * self.assets

    def value(self, prices: list[float]) -> float:
        return self.cash + sum(self.units[a] * prices[a] for a in range(self.assets))

    def step(self, target, prev_close, open_, close, terms: Terms) -> tuple[Execution, Execution]:
        """Rule 2: the order fills where `fill` says, then the bar is marked at its close."""
        target, prev_close, open_, close = (list(map(float, row)) for row in (target, prev_close, open_, close))
        fill = self.execute(target, {"close": prev_close, "next_open": open_, "next_close": close}[terms.fill], terms)
        return fill, self.mark(close, terms)

    def execute(self, target, prices, terms: Terms) -> Execution:
        equity = self.value(prices)
        done = self._nothing(prices, equity)
        if self.ruined:  # rule 7: frozen
            return done
        if equity <= terms.ruin_level:  # rule 7: everything is closed, the order is cancelled
            self._close_all(done, prices, terms)
            self._remember(target)
            return done

        # Rule 5: the cap, before costs; what NaN holds uses up the leverage first.
        held = sum(abs(self.units[a] * prices[a]) / equity for a in range(self.assets) if math.isnan(target[a]))
        gross = sum(abs(w) for w in target if not math.isnan(w))
        room = max(terms.leverage - held, 0.0)
        scale = 1.0 if gross <= room else room / gross
        done.clipped = gross > room * (1 + terms.dust)

        # Rule 3: sizing, dust, band.
        wanted = [0.0] * self.assets
        for a in range(self.assets):
            if math.isnan(target[a]):
                continue
            if terms.on_change and target[a] == self.target[a]:
                continue
            d = target[a] * scale * equity / prices[a] - self.units[a]
            if abs(d) * prices[a] <= terms.dust * equity:
                continue
            if abs(d) * prices[a] < terms.band * equity and target[a] != 0:
                continue
            wanted[a] = d

        # Rule 5: sells first.
        own_costs = sum(sum(self._costs(wanted[a], prices[a], terms)) for a in range(self.assets))
        for a in range(self.assets):
            if wanted[a] < 0:
                self._fill(done, a, wanted[a], prices[a], terms)
                if target[a] == 0:
                    self._flat(a)
        # Then the buys, cut by one common factor.
        buys = [a for a in range(self.assets) if wanted[a] > 0]
        need = 0.0
        for a in buys:
            paid = prices[a] * (1 + terms.slippage)
            need += wanted[a] * paid + terms.fee * wanted[a] * paid
        if buys and need > self.cash:
            shortfall = need - max(self.cash, 0.0)
            done.clipped = done.clipped or shortfall > own_costs + terms.dust * equity
            if self.cash <= 0:
                done.dropped = True
            else:
                k = self.cash / need
                some = False
                for a in buys:
                    if k * wanted[a] * prices[a] > terms.dust * equity:
                        self._fill(done, a, k * wanted[a], prices[a], terms)
                        some = True
                if some:
                    self.cash = 0.0
        else:
            for a in buys:
                self._fill(done, a, wanted[a], prices[a], terms)
                if target[a] == 0:
                    self._flat(a)
        self._remember(target)
        return done

    def mark(self, close, terms: Terms) -> Execution:
        """Rules 2g and 7."""
        equity = self.value(close)
        done = self._nothing(close, equity)
        if not self.ruined and equity <= terms.ruin_level:
            self._close_all(done, close, terms)
        self.equity = self.value(close)
        return done

    def _nothing(self, prices, equity) -> Execution:
        zero = [0.0] * self.assets
        return Execution(list(zero), list(prices), list(zero), list(zero), equity)

    def _costs(self, d: float, p: float, terms: Terms) -> tuple[float, float]:
        """Rule 4: the fee is on p', slippage is the distance from p to p'."""
        sign = 1 if d > 0 else -1
        paid = p * (1 + terms.slippage * sign)
        return terms.fee * abs(d) * paid, abs(d) * abs(paid - p)

    def _fill(self, done: Execution, a: int, d: float, p: float, terms: Terms) -> None:
        sign = 1 if d > 0 else -1
        paid = p * (1 + terms.slippage * sign)
        self.cash = self.cash - d * paid - terms.fee * abs(d) * paid
        before, after = self.units[a], self.units[a] + d
        if before == 0 or before * after < 0:  # from flat, or through zero
            self.entry[a] = p
        elif abs(after) > abs(before):  # rule 8: adds move the average, partial exits don't
            self.entry[a] = (abs(before) * self.entry[a] + abs(d) * p) / abs(after)
        self.units[a] = after
        if after == 0:
            self.entry[a] = 0.0
        done.units[a] = d
        done.fee[a], done.slippage[a] = self._costs(d, p, terms)

    def _flat(self, a: int) -> None:
        self.units[a] = 0.0
        self.entry[a] = 0.0

    def _close_all(self, done: Execution, prices, terms: Terms) -> None:
        for a in range(self.assets):
            if self.units[a] != 0:
                self._fill(done, a, -self.units[a], prices[a], terms)
                self._flat(a)
        self.ruined = True

    def _remember(self, target) -> None:
        if not self.ruined:
            self.target = [self.target[a] if math.isnan(target[a]) else target[a] for a in range(self.assets)]


def book(opens, closes, targets, terms: Terms) -> dict[str, list]:
    """Rule 10: equity[t] is marked at close[t] after every fill up to and including close[t].

    Prices and targets are [bars][assets]. Returns equity, units and fills (bar, asset, units, price, fee, slippage),
    the bar of ruin, and the rows at which an order was clipped or dropped.
    """
    bars, assets = len(closes), len(closes[0])
    ledger = Ledger(assets)
    out: dict[str, list] = {"equity": [], "units": [], "fills": [], "ruined_at": [], "clipped": [], "dropped": []}

    def note(t: int, done: Execution) -> None:
        for a in range(assets):
            if done.units[a] != 0:
                out["fills"].append((t, a, done.units[a], done.price[a], done.fee[a], done.slippage[a]))
        if done.clipped:
            out["clipped"].append(t)
        if done.dropped:
            out["dropped"].append(t)

    for t in range(bars):
        was = ledger.ruined
        if terms.fill == "close":
            note(t, ledger.mark(closes[t], terms))
            note(t, ledger.execute(targets[t], closes[t], terms))
        else:
            if t > 0:
                price = opens[t] if terms.fill == "next_open" else closes[t]
                note(t, ledger.execute(targets[t - 1], price, terms))
            note(t, ledger.mark(closes[t], terms))
        if ledger.ruined and not was:
            out["ruined_at"].append(t)
        out["equity"].append(ledger.value(closes[t]))
        out["units"].append(list(ledger.units))
    return out
