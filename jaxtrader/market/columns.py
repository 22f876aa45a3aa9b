"""Tells which column of a user's table is the time, the open, the volume and so on, by the spellings vendors use.

Case, spaces and punctuation do not matter, nor does a prefix or suffix that the price columns share (BTC.open,
Close_AAPL). It reads names only, never values.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

from jaxtrader.market.checks import DataError

INDEX = "__index__"  # the column into which an index of times was put
STAMPS = ("datetime", "timestamp", "datetimeutc", "timestamputc")
CLOCKS = ("time", "hour", "timeofday")
DATES = ("date", "day", "dt", "tradedate", "tradingday", "dates")
OTHER_TIMES = ("opentime", "ts", "unix", "unixtime", "unixtimestamp", "epoch", "closetime", "index0")
TIMES = (*STAMPS, *CLOCKS, *DATES, *OTHER_TIMES)
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
class Roles:
    """Column names by role; `time` holds one name, or a date and a time of day to be joined."""

    time: tuple[str, ...]
    prices: dict[str, str]  # open, high, low, close
    volume: str | None
    adjusted: str | None
    funding: str | None  # also one of the others: a feature may use it
    symbol: str | None
    others: tuple[str, ...]  # what is left, in the file's order
    prefix: str | None  # the asset's name where the price columns carry it


def canonical(name: object) -> str:
    """A column name without case, spaces and punctuation: `Adj. Close` is `adjclose`."""
    return re.sub(r"[\W_]", "", str(name).lower()) if name is not None else ""


def recognise(names: Sequence[str], source: str) -> Roles:
    """The role of each column; DataError names what is missing and what the table has."""
    left = {name: canonical(name) for name in names if name != INDEX}
    symbol = _pick(left, SYMBOL)
    time = (INDEX,) if INDEX in names else _pick_time(left)
    prices, prefix, affixed = _pick_prices(left, source)
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
    volume = _pick(left, tuple(map(affixed, VOLUME))) or _pick(left, VOLUME)
    adjusted = _pick(left, tuple(map(affixed, ADJUSTED))) or _pick(left, ADJUSTED)
    funding = _find(left, tuple(map(affixed, FUNDING))) or _find(left, FUNDING)
    unwanted = re.compile(r"|index|unnamed\d+")  # row numbers that were saved with the table
    others = tuple(name for name, key in left.items() if key not in TIMES and not unwanted.fullmatch(key))
    return Roles(time, prices, volume, adjusted, funding, symbol, others, prefix)


def _pick(left: dict[str, str], keys: Sequence[str]) -> str | None:
    """Take out of `left` the first column that is spelt as one of `keys`, in the order of `keys`."""
    name = _find(left, keys)
    if name is not None:
        del left[name]
    return name


def _find(left: dict[str, str], keys: Sequence[str]) -> str | None:
    return next((name for key in keys for name, spelt in left.items() if spelt == key), None)


def _pick_time(left: dict[str, str]) -> tuple[str, ...]:
    stamp = _pick(left, STAMPS)
    if stamp:
        return (stamp,)
    date = _pick(left, DATES)
    clock = _pick(left, CLOCKS)
    if date or clock:
        return tuple(name for name in (date, clock) if name)
    other = _pick(left, OTHER_TIMES)
    if other:
        return (other,)
    first = next(iter(left), None)
    if first is not None and re.fullmatch(r"(unnamed0|)", left[first]):
        del left[first]
        return (first,)
    return ()


def _pick_prices(left: dict[str, str], source: str) -> tuple[dict[str, str], str | None, Affix]:
    """The four price columns, the affix they share as written, and the function that puts it on a canonical name."""
    plain = all(any(key in left.values() for key in keys) for keys in PRICES.values())
    shared = [] if plain else _affixes(left)
    if len(shared) > 1:
        texts = ", ".join(text for text, _ in shared)
        raise DataError(
            f"{source} holds several assets side by side ({texts}); give a dict of symbol to frame, or one row a "
            "symbol and bar with a symbol column."
        )
    text, affixed = shared[0] if shared else (None, str)
    prices = {}
    for role, keys in PRICES.items():
        name = _pick(left, [affixed(role)] if text else keys)
        if name is not None:
            prices[role] = name
    return prices, text, affixed


def _affixes(left: dict[str, str]) -> list[tuple[str, Affix]]:
    """Each prefix or suffix with which open, high, low and close are all spelt, as written and as a function."""
    found: list[tuple[str, Affix]] = []
    spelt = set(left.values())
    for name, key in left.items():
        for affixed in (_before(key.removesuffix("close")), _after(key.removeprefix("close"))):
            if affixed("close") == key != "close" and all(affixed(role) in spelt for role in PRICES):
                at = name.lower().find("close")
                found.append((re.sub(r"^[\W_]+|[\W_]+$", "", name[:at] + name[at + len("close") :]), affixed))
    return found


def _before(text: str) -> Affix:
    return lambda role: text + role


def _after(text: str) -> Affix:
    return lambda role: role + text
