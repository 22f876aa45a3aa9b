"""gym-trading-env 0.3.5's money, formula by formula, so that ours can be held against it. Its rules are not ours.

The operations stand in the order of its `utils/portfolio.py` and `environments.py`, so that a figure is the same to the
last bit. It computes with scalar floats, for tests only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Portfolio:
    """Units of the asset, fiat money, and what is owed in interest on a debt of either."""

    asset: float
    fiat: float
    interest_asset: float = 0.0
    interest_fiat: float = 0.0

    def value(self, p: float) -> float:
        return sum([self.asset * p, self.fiat, -self.interest_asset * p, -self.interest_fiat])

    def trade(self, x: float, p: float, fee: float) -> None:
        """To the position x: settles a part of the interest, then trades so that x is met after the fee."""
        now = self.asset * p / self.value(p)
        kept = 1.0
        if x <= 0 and now < 0:
            kept = min(1, x / now)
        elif x >= 1 and now > 1:
            kept = min(1, (x - 1) / (now - 1))
        if kept < 1:
            self.asset = self.asset - (1 - kept) * self.interest_asset
            self.fiat = self.fiat - (1 - kept) * self.interest_fiat
            self.interest_asset = kept * self.interest_asset
            self.interest_fiat = kept * self.interest_fiat
        d = x * self.value(p) / p - self.asset
        if d > 0:  # the fee is taken in units
            d = d / (1 - fee + fee * x)
            self.asset = self.asset + d * (1 - fee)
            self.fiat = self.fiat + -d * p
        else:  # in fiat
            d = d / (1 - fee * x)
            self.asset = self.asset + d
            self.fiat = self.fiat + -d * p * (1 - fee)

    def charge(self, rate: float) -> None:
        """One bar's interest. It is set, not added: the bars before are forgotten."""
        self.interest_asset = max(0, -self.asset) * rate
        self.interest_fiat = max(0, -self.fiat) * rate


def valuations(closes: Sequence[float], positions: Sequence[float], fee: float, rate: float) -> list[float]:
    """What it reports at each close from 1000 in cash. positions[t] is asked for at close[t], a change is traded."""
    portfolio, held, found = Portfolio(0.0, 1000.0), 0.0, [1000.0]
    for t in range(len(closes) - 1):
        if positions[t] != held:
            portfolio.trade(positions[t], closes[t], fee)
            held = positions[t]
        portfolio.charge(rate)
        found.append(portfolio.value(closes[t + 1]))
    return found
