"""Market data that comes with the package, so that every example runs offline; see data/PROVENANCE.md for its source.

The embedded histories go through `load_bars` like a user's own file. They are survivors: show buy-and-hold beside a
result.
"""

from collections.abc import Sequence
from pathlib import Path

from jaxtrader.market.bars import Bars, load_bars

STOCKS = Path(__file__).parent / "data" / "stocks.csv.gz"


def load_bundled(symbols: str | Sequence[str] = ("AAPL", "IBM", "MSFT", "GOOG")) -> Bars | tuple[Bars, ...]:
    """Daily bars 2000-03-01..2013-03-01 (GOOG from 2004-08-19), adjusted for splits and dividends.

    A name gives one `Bars`, a sequence of names a tuple. FB (196 bars from 2012-05-18) is too short for the default
    features and comes only when asked for. Raises DataError, which lists the symbols, for an unknown one.
    """
    if isinstance(symbols, str):
        return load_bars(STOCKS, symbol=symbols)
    return load_bars(STOCKS, symbols=symbols)
