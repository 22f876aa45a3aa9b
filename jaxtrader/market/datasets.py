"""Markets that need no file: real bars that come with the package, and synthetic ones whose best policy is known.

The real ones make every example run offline; see data/PROVENANCE.md for their source.
The embedded histories go through `load_bars` like a user's own file. They are survivors: show buy-and-hold beside a
result.
"""

from collections.abc import Sequence
from pathlib import Path

from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.synthetic import AR1 as AR1
from jaxtrader.market.synthetic import OrnsteinUhlenbeck as OrnsteinUhlenbeck
from jaxtrader.market.synthetic import RandomWalk as RandomWalk

STOCKS = Path(__file__).parent / "data" / "stocks.csv.gz"


def load_bundled(symbols: str | Sequence[str] = ("AAPL", "IBM", "MSFT", "GOOG")) -> Bars | tuple[Bars, ...]:
    """Daily bars 2000-03-01..2013-03-01 (GOOG from 2004-08-19), adjusted for splits and dividends.

    A name gives one `Bars`, a sequence of names a tuple. FB (196 bars from 2012-05-18) is too short for the default
    features and comes only when asked for. Raises DataError, which lists the symbols, for an unknown one.
    """
    if isinstance(symbols, str):
        return load_bars(STOCKS, symbol=symbols)
    return load_bars(STOCKS, symbols=symbols)
