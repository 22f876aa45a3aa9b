"""Recognises the time, price, volume and other columns of a table by their names.

The constants below hold the spellings of data vendors. Case, spaces and punctuation are ignored, and so is a prefix or
suffix that all four price columns share (BTC.open, Close_AAPL). Values are never read.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

from jaxtrader.market.errors import DataError

INDEX = "__index__"  # `formats` moves an index of times into a column of this name
TIMESTAMPS = ("datetime", "timestamp", "datetimeutc", "timestamputc")
TIMES_OF_DAY = ("time", "hour", "timeofday")
DATES = ("date", "day", "dt", "tradedate", "tradingday", "dates")
OTHER_TIMES = ("opentime", "ts", "unix", "unixtime", "unixtimestamp", "epoch", "closetime", "index0")
TIMES = (*TIMESTAMPS, *TIMES_OF_DAY, *DATES, *OTHER_TIMES)
SYMBOL = ("symbol", "ticker", "sym", "instrument", "tic")
PRICES = {
    "open": ("open", "o", "openprice"),
    "high": ("high", "h", "highprice"),
    "low": ("low", "l", "lowprice"),
    "close": ("close", "c", "last", "closelast", "price", "prices", "closeprice"),
}
VOLUME = ("volume", "vol", "v", "tickvol", "tickvolume", "totalvolume")
ADJUSTED = ("adjclose", "adjustedclose", "adjusted", "closeadj", "closeadjusted", "adjcloseprice", "adj")
FUNDING = ("funding", "fundingrate")

Affix = Callable[[str], str]


@dataclasses.dataclass(frozen=True)
class ColumnRoles:
    """The column that plays each role.

    Attributes:
        time: one column, or a date column and a time-of-day column.
        prices: the columns of open, high, low and close, by these names.
        volume: None if the table has no volume.
        adjusted: the adjusted close, or None.
        funding: the funding rate, or None. It is also in `others`, so that a feature can use it.
        symbol: None if the table holds one symbol.
        others: all further columns, in the order of the table.
        prefix: the prefix or suffix that the price columns share, or None.
    """

    time: tuple[str, ...]
    prices: dict[str, str]
    volume: str | None
    adjusted: str | None
    funding: str | None
    symbol: str | None
    others: tuple[str, ...]
    prefix: str | None


def canonical(name: object) -> str:
    """Return a name in lower case without spaces and punctuation: `Adj. Close` becomes `adjclose`."""
    return re.sub(r"[\W_]", "", str(name).lower()) if name is not None else ""


def recognise_columns(names: Sequence[str], source: str) -> ColumnRoles:
    """Assign a role to each column.

    Args:
        names: the columns of the table.
        source: names the table in the message.

    Raises:
        DataError: the time or a price is missing, or several assets stand side by side.
    """
    remaining = {name: canonical(name) for name in names if name != INDEX}
    symbol = _pop(remaining, SYMBOL)
    time = (INDEX,) if INDEX in names else _pop_time(remaining)
    prices, prefix, with_affix = _pop_prices(remaining, source)
    missing = [role for role in PRICES if role not in prices]
    if not time:
        missing.insert(0, "time")
    if missing:
        shown = [name[:40] for name in names if name != INDEX]
        listed = ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
        raise DataError(
            f"{source} has no column for {' and '.join(missing)}; it has {listed or 'none'}: name the columns time, "
            "open, high, low, close and volume (the first line of a file must be the names)."
        )
    volume = _pop(remaining, tuple(map(with_affix, VOLUME))) or _pop(remaining, VOLUME)
    adjusted = _pop(remaining, tuple(map(with_affix, ADJUSTED))) or _pop(remaining, ADJUSTED)
    funding = _find(remaining, tuple(map(with_affix, FUNDING))) or _find(remaining, FUNDING)
    unwanted = re.compile(r"|index|unnamed\d+")  # row numbers that pandas saved with the table
    others = tuple(name for name, key in remaining.items() if key not in TIMES and not unwanted.fullmatch(key))
    return ColumnRoles(time, prices, volume, adjusted, funding, symbol, others, prefix)


def _pop(remaining: dict[str, str], keys: Sequence[str]) -> str | None:
    """Remove and return the first column whose canonical name is in `keys`. Earlier keys go first."""
    name = _find(remaining, keys)
    if name is not None:
        del remaining[name]
    return name


def _find(remaining: dict[str, str], keys: Sequence[str]) -> str | None:
    return next((name for key in keys for name, canonical_name in remaining.items() if canonical_name == key), None)


def _pop_time(remaining: dict[str, str]) -> tuple[str, ...]:
    stamp = _pop(remaining, TIMESTAMPS)
    if stamp:
        return (stamp,)
    date = _pop(remaining, DATES)
    clock = _pop(remaining, TIMES_OF_DAY)
    if date or clock:
        return tuple(name for name in (date, clock) if name)
    other = _pop(remaining, OTHER_TIMES)
    if other:
        return (other,)
    first = next(iter(remaining), None)
    if first is not None and re.fullmatch(r"(unnamed0|)", remaining[first]):
        del remaining[first]
        return (first,)
    return ()


def _pop_prices(remaining: dict[str, str], source: str) -> tuple[dict[str, str], str | None, Affix]:
    """Return the price columns, the affix that they share, and the function that adds it to a canonical name."""
    plain = all(any(key in remaining.values() for key in keys) for keys in PRICES.values())
    shared = [] if plain else _affixes(remaining)
    if len(shared) > 1:
        texts = ", ".join(text for text, _ in shared)
        raise DataError(
            f"{source} holds several assets side by side ({texts}); give a dict of symbol to frame, or one row a "
            "symbol and bar with a symbol column."
        )
    text, with_affix = shared[0] if shared else (None, str)
    prices = {}
    for role, keys in PRICES.items():
        name = _pop(remaining, [with_affix(role)] if text else keys)
        if name is not None:
            prices[role] = name
    return prices, text, with_affix


def _affixes(remaining: dict[str, str]) -> list[tuple[str, Affix]]:
    """Return each prefix or suffix that open, high, low and close share, as written and as a function."""
    found: list[tuple[str, Affix]] = []
    names = set(remaining.values())
    for name, key in remaining.items():
        for with_affix in (_prefixed(key.removesuffix("close")), _suffixed(key.removeprefix("close"))):
            if with_affix("close") == key != "close" and all(with_affix(role) in names for role in PRICES):
                at = name.lower().find("close")
                found.append((re.sub(r"^[\W_]+|[\W_]+$", "", name[:at] + name[at + len("close") :]), with_affix))
    return found


def _prefixed(text: str) -> Affix:
    return lambda role: text + role


def _suffixed(text: str) -> Affix:
    return lambda role: role + text
