"""The table of known file formats, as data. Nothing here reads a file.

Most files need no entry, because `columns.py` knows their names. An entry says what names alone do not. That is the
columns of a table without a header, the order of day and month, which end of its bar a time marks, or which of two
volumes counts.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

ISO = r"\d{4}-\d\d-\d\d"
OFFSET = r"(\.\d+)?(Z|[-+]\d\d:?\d\d)?"
DAY = r"\d{4}[-./]?\d\d[-./]?\d\d"
US_DAY = r"\d\d/\d\d/\d{4}"
CLOCK = r"\d\d:\d\d(:\d\d)?"
EPOCH_MS = r"1\d{12}|1\d{15}"  # of ms or us since 1970, from 2001 to 2033
EPOCH_S = r"\d{9,10}"
NUMBER = r"-?\d*\.?\d+([eE][-+]?\d+)?"
CHINESE_UNIT = re.compile(r"\s*[((][^()()]*[\u4e00-\u9fff][^()()]*[))]\s*$")  # behind a name, as in 收盘价(元)
MOST_NAMES = 200  # of a header are looked at
OHLCV = ("open", "high", "low", "close", "volume")
CLOSE_SECOND = ("open", "close", "high", "low", "volume")
WITH_TICKS = ("open", "high", "low", "close", "tickvol", "vol")
WITH_VWAP = ("open", "high", "low", "close", "vwap", "volume")


@dataclasses.dataclass(frozen=True)
class Format:
    """A known layout of a price table.

    Attributes:
        name: who writes it.
        names: patterns of names, in lower case, which all occur in the header. Empty for a table without a header.
        cells: for a table without a header, the name of each column and a pattern of its cells.
        volume: the canonical names of the volume, the preferred one first, where they differ from the usual ones.
        prices: patterns of the names of open, high, low and close, where their spelling does not tell them.
        stamps: the end of its bar that a time marks. None if it is the close, or unknown.
        day_first: the order of numeric dates. None if it is not known.
        price_unit: what 1 means in a price that is written as a whole number. None where it means 1.
        points_are_decimal: a program writes it, which never puts points between thousands.
        decimal: the decimal mark, where its numbers in text have commas between thousands.
        time: a pattern of the name of the first column, which holds the times if no other column may do so.
        symbol: the name of the symbols, where case alone tells it from another name.
    """

    name: str
    names: tuple[str, ...] = ()
    cells: tuple[tuple[str, str], ...] = ()
    volume: tuple[str, ...] = ()
    prices: tuple[str, ...] = ()
    stamps: str | None = None
    day_first: bool | None = None
    price_unit: float | None = None
    points_are_decimal: bool = False
    decimal: str | None = None
    time: str | None = None
    symbol: str | None = None


def _bar_cells(
    *first: tuple[str, str], order: Sequence[str] = OHLCV, further: Sequence[tuple[str, str]] = ()
) -> tuple[tuple[str, str], ...]:
    """The columns of a table without a header: times, open, high, low, close and volume, and further ones."""
    return (*first, *((name, NUMBER) for name in order), *further)


def _without_header(name: str, *cells: tuple[str, str], **options: Any) -> "Format":
    """A table that a program writes, whose times are the opens of its bars."""
    return Format(f"{name} without a header", cells=cells, stamps="open", points_are_decimal=True, **options)


BINANCE = (
    ("close_time", EPOCH_MS),
    *((name, NUMBER) for name in ("quote_volume", "count", "taker_buy_volume", "taker_buy_quote_volume", "ignore")),
)

OKX = (("volume_in_coin", NUMBER), ("volume_in_currency", NUMBER), ("confirmed", "[01]"))

# Alpha Vantage gives a coin's prices in a market's currency, and then (b) in dollars.
IN_TWO_CURRENCIES = tuple(rf"{number}a\. {name} \(.+\)" for number, name in enumerate(OHLCV[:4], start=1))
AND_IN_DOLLARS = tuple(rf"{name} \((?!usd).+\)" for name in OHLCV[:4])

# The first that fits is taken.
FORMATS = (
    _without_header("Binance klines", *_bar_cells(("open_time", EPOCH_MS), further=BINANCE)),
    _without_header("MetaTrader 4", *_bar_cells(("date", DAY), ("time", CLOCK))),
    _without_header("MetaTrader 4", *_bar_cells(("datetime", rf"\d{{4}}\.\d\d\.\d\d( {CLOCK})?"))),
    _without_header(
        "MetaTrader 5", *_bar_cells(("date", DAY), ("time", CLOCK), order=WITH_TICKS, further=[("spread", r"\d+")])
    ),
    _without_header("HistData", *_bar_cells(("datetime", r"\d{8} \d{6}"))),
    _without_header("Kraken", *_bar_cells(("unix", EPOCH_S), further=[("trades", r"\d+")])),
    _without_header("Kraken", *_bar_cells(("unix", EPOCH_S), order=WITH_VWAP, further=[("trades", r"\d+")])),
    _without_header("Coinbase", *_bar_cells(("unix", EPOCH_S), order=("low", "high", "open", "close", "volume"))),
    _without_header("Bitfinex", *_bar_cells(("timestamp", EPOCH_MS), order=CLOSE_SECOND)),
    _without_header("KuCoin", *_bar_cells(("unix", EPOCH_S), order=CLOSE_SECOND, further=[("turnover", NUMBER)])),
    _without_header("ccxt", *_bar_cells(("timestamp", EPOCH_MS))),
    _without_header("Bybit", *_bar_cells(("timestamp", EPOCH_MS), further=[("turnover", NUMBER)])),
    _without_header("OKX", *_bar_cells(("timestamp", EPOCH_MS), further=OKX)),
    _without_header("FirstRate Data", *_bar_cells(("datetime", f"{ISO}([ T]{CLOCK}{OFFSET})?"))),
    _without_header("FirstRate Data", *_bar_cells(("datetime", f"{ISO}[ T]{CLOCK}{OFFSET}"), order=OHLCV[:4])),
    _without_header("Kibot", *_bar_cells(("date", US_DAY), ("time", CLOCK)), day_first=False),
    _without_header("Kibot", *_bar_cells(("date", US_DAY)), day_first=False),
    Format(
        "Binance klines", names=("open.?time", "close.?time", "quote.*|taker.*"), stamps="open", points_are_decimal=True
    ),
    Format(
        "CryptoDataDownload",
        names=("unix( timestamp)?", "date", "symbol", "volume .+"),
        stamps="open",
        points_are_decimal=True,
    ),
    Format("CryptoDataDownload", names=("date", "symbol", "open", "volume .+"), stamps="open", points_are_decimal=True),
    Format("CryptoCompare", names=("volume ?from", "volume ?to"), stamps="open"),
    Format("Nasdaq.com", names=("date", "close/last", "open"), day_first=False, decimal="."),
    Format("investing.com", names=("date", "price", "open", "vol\\.", "change %"), decimal="."),
    Format("investing.com", names=("date", "price", "open", "high", "low", "change %"), decimal="."),
    Format("Alpha Vantage", names=IN_TWO_CURRENCIES, prices=IN_TWO_CURRENCIES),
    Format("Alpha Vantage", names=(*AND_IN_DOLLARS, r"open \(usd\)"), prices=AND_IN_DOLLARS),
    Format("Alpha Vantage", names=(r"1a?\. open.*", r"2a?\. high.*", r"4a?\. close.*")),
    Format(
        "Polygon aggregates",
        names=("o", "h", "l", "c", "vw", "t"),
        stamps="open",
        points_are_decimal=True,
        symbol="T",
    ),
    Format("Polygon flat file", names=("window_start", "transactions"), stamps="open", points_are_decimal=True),
    Format(
        "Databento",
        names=("ts_event", "open", "close", "rtype|instrument_id|publisher_id|symbol"),
        stamps="open",
        price_unit=1e-9,
        points_are_decimal=True,
    ),
    Format("Alpaca", names=("timestamp", "trade_count", "vwap"), stamps="open", points_are_decimal=True),
    Format(
        "Dukascopy",
        names=("local time|gmt time|(etc/)?utc|time \\(.+\\)", "open", "close"),
        stamps="open",
        day_first=True,
        points_are_decimal=True,
    ),
    Format("MetaTrader 5", names=("<date>", "<open>", "<tick_?vol>"), stamps="open", points_are_decimal=True),
    Format("Stooq or Finam", names=("<date>", "<per>", "<open>")),
    Format("NSE", names=("date", "open", "shares traded|turnover.*cr.*"), decimal="."),
    Format("NSE", names=("series", "prev\\.? ?close", "ltp|last price|vwap|average price"), decimal="."),
    Format("NSE bhavcopy", names=("tottrdqty|ttltradgvol", "prevclose|prvsclsgpric")),
    Format("BSE", names=("wap", "no\\. ?of shares"), decimal="."),
    Format("akshare", names=("日期|时间", "开盘", "收盘", "最高", "最低")),
    Format("yucezhe", names=("股票代码", "交易日期", "开盘价", "收盘价")),
    Format("Tushare", names=("ts_code", "trade_date|trade_time")),
    Format("baostock", names=("code", "date", "adjustflag")),
    Format("FinRL", names=("date", "tic")),
    Format("yfinance", names=("price", "close", "high", "low", "open"), time="price", points_are_decimal=True),
    Format("Ariva", names=("datum", "erster", "schlusskurs"), volume=("stuecke", "stücke")),
)

# Told by the lines of its header, or by the levels of a frame's columns.
YFINANCE = Format("yfinance (a header of several lines)", points_are_decimal=True)


def format_of(names: Sequence[str]) -> Format | None:
    """Return the format whose names are all among these, or None."""
    written = [CHINESE_UNIT.sub("", name.strip().lower()) for name in names[:MOST_NAMES]]
    for each in FORMATS:
        if not each.names or (each.time and not re.fullmatch(each.time, "".join(written[:1]))):
            continue
        if all(any(re.fullmatch(pattern, name) for name in written) for pattern in each.names):
            return each
    return None


def headerless_format_of(rows: Sequence[Sequence[str]]) -> Format | None:
    """Return the format without a header that all rows (of text) have, or None.

    Highs and lows must enclose opens and closes, so that no other order of columns is taken for it.
    """
    without_header = (each for each in FORMATS if each.cells and rows)
    return next((each for each in without_header if all(_fits(row, each.cells) for row in rows)), None)


def _fits(row: Sequence[str], columns: Sequence[tuple[str, str]]) -> bool:
    """Whether a row has the cells of a format, and its low and high enclose its open and close."""
    if len(row) != len(columns):
        return False
    if not all(re.fullmatch(pattern, cell.strip()) for (_, pattern), cell in zip(columns, row, strict=True)):
        return False
    cells = {name: cell for (name, _), cell in zip(columns, row, strict=True)}
    low, open_, close, high = (float(cells[name]) for name in ("low", "open", "close", "high"))
    return low <= min(open_, close) and max(open_, close) <= high
