"""The return of a decision, from its own fill to the fill of the next decision. No feature may know it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxtrader.ledger.rules import FillTime
from jaxtrader.market.market import Market


def fill_to_fill(market: Market, fill: FillTime, ahead: int = 0) -> Float[np.ndarray, "time asset"]:
    """Return the log return of the decision at each close, from its fill to the next decision's fill.

    Row t holds log(open[t+2] / open[t+1]) for "next_open" and "limit", log(close[t+2] / close[t+1]) for "next_close",
    and log(close[t+1] / close[t]) for "close". It is NaN where the history ends before the second fill. All bars of a
    segment count, also those on which nothing may be traded.

    Args:
        market: the bars.
        fill: where decisions fill, see `Rules`.
        ahead: row t holds the return of the decision at t + ahead.
    """
    price, delay = (market.open if fill in ("next_open", "limit") else market.close), int(fill != "close")
    out = np.full(price.shape, np.nan)
    for start, _, end in market.segments:
        moves = np.diff(np.log(price[start:end]), axis=0)[delay + ahead :]
        out[start : start + len(moves)] = moves
    return out
