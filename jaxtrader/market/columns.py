"""Recognises the time, price, volume and other columns of a table by their names.

The constants below hold the spellings of data vendors. Case, spaces and punctuation are ignored, and so is a prefix or
suffix that all four price columns share (BTC.open, Close_AAPL). Values are never read.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Sequence

from jaxtrader.market.errors import DataError, listed, shown
from jaxtrader.market.formats import CHINESE_UNIT, Format

INDEX = "__index__"  # an index of times is moved into a column of this name
TIMESTAMPS = ("datetime", "timestamp", "datetimeutc", "timestamputc")
EPOCHS = ("unix", "unixtime", "unixtimestamp", "epoch", "windowstart", "tsevent")
TIMES_OF_DAY = ("time", "hour", "timeofday", "时间")
DATES = (
    *("date", "day", "dt", "tradedate", "tradingday", "tradingdate", "dates", "traddt", "bizdt"),
    *("日期", "交易日期", "日付", "日付け", "날짜", "일자", "datum", "fecha", "data", "дата", "trddt"),
)
OTHER_TIMES = (
    *("localtime", "gmttime", "utctime", "utc", "timeutc", "timegmt", "timeeet", "gmt", "tradetime", "bartime"),
    *("opentime", "starttime", "ts", "t", "closetime", "endtime", "index0", "timekey", "etcutc"),
)
TIMES = (*TIMESTAMPS, *EPOCHS, *TIMES_OF_DAY, *DATES, *OTHER_TIMES)
SYMBOL = ("symbol", "ticker", "sym", "instrument", "tic", "tscode", "tckrsymb", "股票代码", "证券代码")
# Columns of these names hold symbols, or something else. `symbols.py` looks at their values.
MAYBE_SYMBOL = (
    *("asset", "stock", "code", "name", "security", "secid", "pair", "coin", "market", "permno", "isin", "figi"),
    *("cusip", "ric", "sid", "gvkey", "epic", "etf", "fund", "scrip", "crypto", "cryptocurrency", "underlying"),
    *("instrumentid", "conid", "assetid", "stockid", "symbolid", "investmentid", "orderbookid", "symbols"),
    *("currency", "currencypair", "company", "contract", "product", "level1", "stkcd", "isincode"),
    *("indexname", "companyname", "securityname", "stockname", "scripname", "brandname", "stocksymbol", "actsymbol"),
    *("tickersymbol", "tradingsymbol", "stockcode", "secucode", "seccode", "securitycode", "securitiescode"),
    *("windcode", "代码", "名称", "股票名称", "银行", "股票", "品种", "合约", "合约代码", "证券简称", "简称"),
)
PRICE_SPELLINGS = {
    "open": (
        *("open", "o", "openprice", "pxopen", "opnpric", "openingprice", "startprice"),
        *("开盘", "开盘价", "開盤", "開盤價", "始値", "시가", "opnprc"),
        *("eröffnung", "eröffn", "eroffnung", "erster", "ouverture", "ouv"),
        *("apertura", "abertura", "otwarcie", "открытие", "откр"),
    ),
    "high": (
        *("high", "h", "highprice", "max", "pxhigh", "hghpric", "最高", "最高价", "最高價", "高値", "고가"),
        *("hoch", "haut", "plushaut", "máximo", "maximo", "máxima", "najwyzszy", "максимум"),
        *("massimo", "hoog", "макс", "高", "hiprc"),
    ),
    "low": (
        *("low", "l", "lowprice", "min", "pxlow", "lwpric", "最低", "最低价", "最低價", "安値", "저가"),
        *("tief", "bas", "plusbas", "mínimo", "minimo", "mínima", "najnizszy", "минимум"),
        *("laag", "мин", "低", "loprc"),
    ),
    "close": (
        *("close", "c", "closeprice", "last", "closelast", "price", "prices", "pxlast", "clspric", "closingprice"),
        *("lastprice", "closevalue", "收盘", "收盘价", "收盤", "收盤價", "終値", "종가"),
        *("schluss", "schlusskurs", "zuletzt"),
        *("dernier", "clôture", "cloture", "clot", "último", "ultimo", "cierre", "fechamento", "zamkniecie"),
        *("закрытие", "laatste", "ostatnio", "цена", "latest", "clsprc", "closeclosepriceadjustedforsplits"),
    ),
}
VOLUME = (
    *("volume", "vol", "v", "realvolume", "tickvol", "tickvolume", "totalvolume", "pxvolume", "volumefrom"),
    *("sharestraded", "noofshares", "tottrdqty", "totaltradedquantity", "totaltradequantity", "ttltradgvol", "qty"),
    *("成交量", "成交股數", "交易量", "出来高", "거래량", "volumen", "stuecke", "wolumen", "wol", "объем", "объём"),
    *("tradedvolume", "dnshrtrd"),
)
ADJUSTED = (
    *("adjclose", "adjustedclose", "adjusted", "closeadj", "closeadjusted", "adjcloseprice", "adj"),
    "adjcloseadjustedclosepriceadjustedforsplitsanddividendandorcapitalgaindistributions",  # as copied from a page
)
ADJUSTED_VOLUME = ("adjvolume", "adjustedvolume", "volumeadj", "adjvol")
FUNDING = ("funding", "fundingrate")
# By these names a header is told from data. Those of one letter and of many meanings say too little.
NAMES = frozenset(
    {*TIMES, *SYMBOL, *VOLUME, *ADJUSTED, *(name for names in PRICE_SPELLINGS.values() for name in names)}
    - {"v", "data", "min"}
)

ROW_NUMBERS = re.compile(r"|index|unnamed\d+")  # which pandas saves with a table. Text there may be symbols.

Affix = tuple[str, str]
"""What stands before and behind a name that all price columns share it with."""


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
        other_times: further columns that may hold the times, if `time` cannot be read.
        other_volumes: further columns that may hold the volume, if `volume` is 0 throughout. They are also in `others`.
        maybe_symbol: columns that may hold symbols, if `symbol` is None. They are also in `others`,
            except what is named like row numbers.
    """

    time: tuple[str, ...]
    prices: dict[str, str]
    volume: str | None
    adjusted: str | None
    funding: str | None
    symbol: str | None
    others: tuple[str, ...]
    prefix: str | None
    other_times: tuple[tuple[str, ...], ...] = ()
    other_volumes: tuple[str, ...] = ()
    maybe_symbol: tuple[str, ...] = ()


@functools.lru_cache(1 << 19)
def canonical(name: object) -> str:
    """Return a name in lower case without numbering, spaces and punctuation.

    `Adj. Close` becomes `adjclose`, `4. close` becomes `close`, and `收盘价(元)` becomes `收盘价`.
    """
    if name is None:
        return ""
    text = re.sub(r"^\d+[a-z]?\.\s+(?=[^\W\d])", "", str(name).lower())
    return re.sub(r"[\W_]", "", CHINESE_UNIT.sub("", text))


def recognize_columns(names: Sequence[str], source: str, format: Format | None = None) -> ColumnRoles:
    """Assign a role to each column.

    Args:
        names: the columns of the table.
        source: names the table in the message.
        format: the known format of the table, if it has one.

    Raises:
        DataError: the time or a price is missing, a role has two columns, or several assets stand side by side.
    """
    remaining = {name: canonical(name) for name in names if name != INDEX}
    for role, pattern in zip(PRICE_SPELLINGS, format.prices if format else (), strict=False):
        remaining |= {name: role for name in remaining if re.fullmatch(pattern, name.strip().lower())}
    symbol = format.symbol if format and format.symbol in remaining else None
    if symbol:
        del remaining[symbol]
    _refuse_twice(remaining, source)
    symbol = symbol or _pop(remaining, SYMBOL)
    candidates = _time_candidates(remaining)
    if not candidates and format and format.time:
        candidates = [(name,) for name in remaining if re.fullmatch(format.time, name.strip().lower())]
    if INDEX in names:
        candidates = [(INDEX,), *candidates]
    for name in candidates[0] if candidates else ():
        remaining.pop(name, None)
    prices, prefix, affix = _pop_prices(remaining, source)
    missing = [role for role in PRICE_SPELLINGS if role not in prices]
    if not candidates:
        missing.insert(0, "time")
    if missing:
        raise _missing(missing, names, source)
    volumes = _volumes(remaining, affix, format)
    if volumes:
        del remaining[volumes[0]]
    adjusted = _pop(remaining, (*_with(affix, ADJUSTED), *ADJUSTED))
    funding = _first(remaining, (*_with(affix, FUNDING), *FUNDING))
    times = {name for candidate in candidates for name in candidate}
    others = tuple(name for name, key in remaining.items() if name not in times and not ROW_NUMBERS.fullmatch(key))
    maybe = [
        *_find_all(remaining, MAYBE_SYMBOL),
        *(name for name, key in remaining.items() if ROW_NUMBERS.fullmatch(key)),
    ]
    return ColumnRoles(
        time=candidates[0],
        prices=prices,
        volume=volumes[0] if volumes else None,
        adjusted=adjusted,
        funding=funding,
        symbol=symbol,
        others=others,
        prefix=prefix,
        other_times=tuple(candidates[1:]),
        other_volumes=tuple(name for name in volumes[1:] if canonical(name) in VOLUME),
        maybe_symbol=() if symbol else tuple(name for name in dict.fromkeys(maybe) if name not in times),
    )


def _missing(missing: Sequence[str], names: Sequence[str], source: str) -> DataError:
    names = [name for name in names if name != INDEX]
    numbers = sum(bool(re.fullmatch(r"[-\d.: ]*\d(\.\d+)?", shown(name))) for name in names)
    if numbers > len(names) / 2:
        way_out = (
            "its first line is data: read the file with header=None, or write the names time, open, high, low, close "
            "and volume above it"
        )
    else:
        way_out = (
            "name the columns time, open, high, low, close and volume (the first line of a file must be the names)"
        )
    return DataError(
        f"{source} has no column for {' and '.join(missing)}; it has {listed(names, 12) or 'none'}: {way_out}"
    )


def _refuse_twice(remaining: dict[str, str], source: str) -> None:
    """Raise DataError where two columns have one name, up to case and punctuation, and it is one with a role."""
    first: dict[str, str] = {}
    for name, key in remaining.items():
        if key in NAMES and key in first:
            raise DataError(
                f"{source} has two columns named '{shown(first[key])}' and '{shown(name)}', which mean the same; "
                "rename or drop one"
            )
        first[key] = name


def _pop(remaining: dict[str, str], keys: Sequence[str]) -> str | None:
    """Remove and return the first column whose canonical name is in `keys`. Earlier keys go first."""
    name = _first(remaining, keys)
    if name is not None:
        del remaining[name]
    return name


def _first(remaining: dict[str, str], keys: Sequence[str]) -> str | None:
    return next(iter(_find_all(remaining, keys)), None)


def _find_all(remaining: dict[str, str], keys: Sequence[str]) -> list[str]:
    """The columns whose canonical names are in `keys`, in the order of `keys`."""
    order = {key: place for place, key in reversed(list(enumerate(keys)))}
    return sorted((name for name, key in remaining.items() if key in order), key=lambda name: order[remaining[name]])


def _time_candidates(remaining: dict[str, str]) -> list[tuple[str, ...]]:
    """The columns that may hold the times, the best first. A date and a time of day are one time."""
    stamps, epochs = _find_all(remaining, TIMESTAMPS), _find_all(remaining, EPOCHS)
    date, clock = _first(remaining, DATES), _first(remaining, TIMES_OF_DAY)
    joined = [tuple(name for name in (date, clock) if name)] if date or clock else []
    alone = [(date,), (clock,)] if date and clock else []
    found = [*((name,) for name in (*stamps, *epochs)), *joined, *alone]
    found += [(name,) for name in _find_all(remaining, OTHER_TIMES)]
    return found or [(name,) for name, key in remaining.items() if re.fullmatch(r"unnamed0|index|", key)]


def _volumes(remaining: dict[str, str], affix: Affix, format: Format | None) -> list[str]:
    """The columns that may hold the volume, the best first: a `Volume BTC` comes before a `Volume USD` behind it."""
    found = _find_all(remaining, (*(format.volume if format else ()), *_with(affix, VOLUME), *VOLUME))
    found += [name for name, key in remaining.items() if re.fullmatch(r"volume[a-z]{2,8}", key)]
    return list(dict.fromkeys(found))


def _pop_prices(remaining: dict[str, str], source: str) -> tuple[dict[str, str], str | None, Affix]:
    """Return the price columns, and what they share beside the role: as it is written, and in canonical names."""
    keys = set(remaining.values())
    plain = all(any(key in keys for key in spellings) for spellings in PRICE_SPELLINGS.values())
    shared = [] if plain else _affixes(remaining)
    if len(shared) > 1:
        raise DataError(
            f"{source} holds several assets side by side ({listed([text for text, _ in shared], 10)}); give a dict of "
            "symbol to frame, or one row a symbol and bar with a symbol column"
        )
    text, affix = shared[0] if shared else (None, ("", ""))
    found = {
        role: _pop(remaining, _with(affix, [role]) if text else spellings)
        for role, spellings in PRICE_SPELLINGS.items()
    }
    return {role: name for role, name in found.items() if name is not None}, text, affix


def _affixes(remaining: dict[str, str]) -> list[tuple[str, Affix]]:
    """Return each prefix or suffix that open, high, low and close share, as it is written and in canonical names."""
    found: list[tuple[str, Affix]] = []
    names = set(remaining.values())
    for name, key in remaining.items():
        for affix in ((key.removesuffix("close"), ""), ("", key.removeprefix("close"))):
            if key == f"{affix[0]}close{affix[1]}" != "close" and names.issuperset(_with(affix, PRICE_SPELLINGS)):
                at = name.lower().find("close")
                found.append((re.sub(r"^[\W_]+|[\W_]+$", "", name[:at] + name[at + len("close") :]), affix))
    return found


def _with(affix: Affix, names: Iterable[str]) -> list[str]:
    return [f"{affix[0]}{name}{affix[1]}" for name in names]
