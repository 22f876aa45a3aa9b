"""The rates of `Costs`, without JAX: the command line derives its flags and their help from this class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BPS = ("fee", "slippage", "maker_fee")  # rates that `Costs.from_bps` and the command line take in basis points
A_BP = 1e-4
Rate = float | Any | None  # a number, one number for each asset, or the name of a column. None is not charged.


@dataclass(frozen=True)
class CostRates:
    """What trading and holding cost. Rates are fractions: 1e-4 is one basis point. The default is not free.

    Each rate is a number, or one number for each asset. The rates on cash are one number. In Python a rate may name a
    column of the bars, which holds it for each bar, as a fraction too. A rate that is None is not charged and not
    compiled.

    Attributes:
        fee: The fee of each fill, relative to the traded value.
        slippage: How far the price moves against each order, relative to the price. Half the spread is part of it.
        fixed_fee: The fee of each fill in the market's currency. It needs the capital.
        cash_rate: The interest a year on idle cash, such as 0.02. Cash that covers short positions earns nothing.
        borrow_rate: The interest a year on debt.
        short_rate: The fee a year on the value of short positions.
        impact: The factor Y of the square-root law of market impact (Almgren et al. 2005, Toth et al. 2011), about 1.
            Slippage grows by Y * volatility * sqrt(order / traded value of an average bar), up to 1 in all. An asset
            with no traded value yet is not ordered. Without two known returns the volatility counts as 0. It needs the
            capital.
        share_fee: The fee of each raw share in the market's currency, such as 0.005. It is added to the fee.
        min_fee: The least that fee and share_fee come to in one order, in the market's currency, such as 1. It needs
            the capital.
        max_fee: The most that fee, share_fee and min_fee come to in one order, as a share of the traded value, such as
            0.01. It needs a share_fee or a min_fee.
        maker_fee: The fee, in place of the other, of a limit order that rests and fills at its limit. By default it is
            the same.
    """

    fee: Rate = 1e-4
    slippage: Rate = 5e-4
    fixed_fee: Rate = None
    cash_rate: Rate = None
    borrow_rate: Rate = None
    short_rate: Rate = None
    impact: Rate = None
    share_fee: Rate = None
    min_fee: Rate = None
    max_fee: Rate = None
    maker_fee: Rate = None
