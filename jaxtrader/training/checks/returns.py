"""What a decision earns: the return from its own fill to the next decision's fill, which no feature may know."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxtrader.envs.ledger import Fills
from jaxtrader.market.market import Market


def fill_to_fill(market: Market, fill: Fills, ahead: int = 0) -> Float[np.ndarray, "time asset"]:
    """Log return of the decision at close[t], from its fill to the next one's; NaN where a history ends before it.

    "next_open": log(open[t+2] / open[t+1]); "next_close": log(close[t+2] / close[t+1]); "close": log(close[t+1] /
    close[t]). The whole history of each segment counts, also where nothing may be traded. With `ahead`, row t holds the
    return of the decision so many bars later.
    """
    price, delay = (market.open if fill == "next_open" else market.close), int(fill != "close")
    out = np.full(price.shape, np.nan)
    for start, _, end in market.segments:
        moves = np.diff(np.log(price[start:end]), axis=0)[delay + ahead :]
        out[start : start + len(moves)] = moves
    return out
