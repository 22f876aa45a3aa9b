"""Markets that need no file: daily stocks and currencies that come with the package, and the synthetic processes.

`data/PROVENANCE.md` names the sources. All of the stocks are survivors, so a result on them should be shown with the
result of buying and holding them. Currencies have no such choice.
"""

from collections.abc import Sequence
from pathlib import Path

from jaxtrader.market.bar_checks import PRICES
from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.errors import DataError
from jaxtrader.market.histories import symbol_names
from jaxtrader.market.synthetic import AR1 as AR1
from jaxtrader.market.synthetic import HiddenRegime as HiddenRegime
from jaxtrader.market.synthetic import OrnsteinUhlenbeck as OrnsteinUhlenbeck
from jaxtrader.market.synthetic import RandomWalk as RandomWalk

STOCKS = Path(__file__).parent / "data" / "stocks.csv.gz"
CURRENCIES = Path(__file__).parent / "data" / "currencies.csv.gz"
PAIRS = ("EURUSD", "EURJPY", "EURGBP", "EURCHF", "EURAUD")


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


def load_currencies(symbols: str | Sequence[str] = PAIRS) -> Bars | tuple[Bars, ...]:
    """Load what a euro cost on each business day from 1999-01-04 to 2026-10-30: the fixings of the ECB.

    A day has one price. It is the open, high, low and close of its bar, so that an order fills at the next fixing.
    There is no volume. The interest of the two currencies is not in the prices.

    Args:
        symbols: one of EURUSD, EURJPY, EURGBP, EURCHF and EURAUD, or several. EURUSD is in dollars.

    Returns:
        One `Bars` for a string, and a tuple of them for a sequence.

    Raises:
        DataError: a symbol is unknown.

    Example:
        >>> dollar, yen = jt.datasets.load_currencies(("EURUSD", "EURJPY"))
        >>> len(dollar), float(dollar.close[0, 0]), float(yen.close[0, 0])
        (7126, 1.1789, 133.73)
    """
    import pandas as pd

    fixings = pd.read_csv(CURRENCIES, index_col="Date", parse_dates=True)
    names = symbol_names(symbols)
    for name in names:
        if name not in PAIRS:
            raise DataError(f"{name!r} is not among the currencies; there are {', '.join(PAIRS)}")
    found = []
    for name in names:
        columns = dict.fromkeys(PRICES, fixings[name]) | {"volume": 0.0}
        bars = load_bars(pd.DataFrame(columns), symbol=name)
        assert isinstance(bars, Bars)
        found.append(bars)
    return found[0] if isinstance(symbols, str) else tuple(found)
