"""Markets that need no file: daily stocks that come with the package, and the synthetic processes.

`data/PROVENANCE.md` names the source of the stocks. All of them are survivors, so a result on them should be shown with
the result of buying and holding them.
"""

from collections.abc import Sequence
from pathlib import Path

from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.synthetic import AR1 as AR1
from jaxtrader.market.synthetic import HiddenRegime as HiddenRegime
from jaxtrader.market.synthetic import OrnsteinUhlenbeck as OrnsteinUhlenbeck
from jaxtrader.market.synthetic import RandomWalk as RandomWalk

STOCKS = Path(__file__).parent / "data" / "stocks.csv.gz"


def load_bundled(symbols: str | Sequence[str] = ("AAPL", "IBM", "MSFT", "GOOG")) -> Bars | tuple[Bars, ...]:
    """Load daily bars of 2000-03-01 to 2013-03-01 (GOOG from 2004-08-19), adjusted for splits and dividends.

    Args:
        symbols: one symbol or several. FB is not among the default ones, because its 196 bars from 2012-05-18 are too
            few for the default features.

    Returns:
        One `Bars` for a string, and a tuple of them for a sequence.

    Raises:
        DataError: a symbol is unknown. The message lists the known ones.

    Example:
        >>> [bars.symbols[0] for bars in jt.load_bundled(("IBM", "GOOG"))]
        ['IBM', 'GOOG']
    """
    if isinstance(symbols, str):
        return load_bars(STOCKS, symbol=symbols)
    return load_bars(STOCKS, symbols=symbols)
