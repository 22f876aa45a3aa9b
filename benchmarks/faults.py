"""Does a broken price file give bars or one sentence, and never a traceback or a hang?

Files of many layouts are mutated (bytes, cells, lines, separators, encodings, compression), and tables and frames are
drawn by hypothesis. Each goes to `load_bars`, or to `jaxtrader data`, under options that are drawn as well. What is
wanted is bars, or a `DataError` of one line. A refusal of more than 1,000 characters counts as a fault too.

    python benchmarks/faults.py [--minutes M] [--seed N] [--quick]
"""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st
from machine import Hang, arguments, parsed, report, time_limit

import jaxtrader as jt
from jaxtrader.cli import main as jaxtrader

HANG_SECONDS = 30  # for files of some kilobytes
COLUMNS = ("kind", "tries", "read", "refused", "tracebacks", "hangs", "long sentences", "slowest, s")
ROWS = [f"2024-01-{day:02d},{10 + day}.5,{13 + day},{9 + day},{11 + day}.25,{1000 * day}" for day in range(1, 29)]
FILES = [
    "Date,Open,High,Low,Close,Volume\n" + "\n".join(ROWS),
    "symbol,Date,Open,High,Low,Close,Volume\n" + "\n".join(f"{name},{row}" for name in "AB" for row in ROWS),
    "Price,Close,High,Low,Open,Volume\nTicker,A,A,A,A,A\nDate,,,,,\n2024-01-02,11,12,9,10,5\n2024-01-03,11,12,9,10,5\n",
    ",A,A,A,A,B,B,B,B\n,Open,High,Low,Close,Open,High,Low,Close\nDate,,,,,,,,\n2024-01-02,10,12,9,11,10,12,9,11\n",
    (
        '"Date","Price","Open","High","Low","Vol.","Change %"\n"May 01, 2022","38,709.7","38,475.6","39,230.0",'
        '"38,037.9","55.20K","0.55%"\n"Apr 30, 2022","38,498.6","37,923.8","38,701.4","36,672.8","1.27M","1.53%"\n'
    ),
    "Datum;Erster;Hoch;Tief;Schlusskurs;Stuecke\n31.12.2024;1.000,5;1.002,25;999,5;1.001;1.234.567\n",
    "1730419200000,1.5,1.9,1.2,1.7,3,1730422799999,9,2,1,1,0\n1730422800000,1.5,1.9,1.2,1.7,3,1730426399999,9,2,1,1,0\n",
    "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\n2024.03.01\t01:00:00\t2\t3\t1\t2\t5\t0\n",
    "Local time,Open,High,Low,Close,Volume\n11.10.2021 05:00:00.000 GMT+0800,1.7,1.8,1.1,1.3,878.43\n",
    "unix,date,symbol,open,high,low,close,Volume BTC\n1600498800.0,2020-09-19 07-AM,BTCUSD,1.7,1.8,1.1,1.3,87.6\n",
    "股票代码,交易日期,开盘价,最高价,最低价,收盘价,成交量\nsh600000,2024-03-01,1.7,1.8,1.1,1.3,19\n",
    '[{"Date":"2024-01-02","Open":10,"High":12,"Low":9,"Close":11,"Volume":5}]',
]
ODD = [
    *("", " ", "nan", "NaN", "inf", "-inf", "1e39", "1e400", "1e-320", "9.5", "20150101.5", "0", "-1", "-0.0", "1_000"),
    *("'", '"', "\x00", "\ufeff", "é", "\uff11\uff12", "1,002", "1.002,5", "12,34,567", "55.20K", "$5", "€1", "0x10"),
    *("2024-13-01", "2024-02-30", "1677-01-01", "9999-12-31", "NaT", "May 5", "31/12/2024", "01/02/2024", "24:00:00"),
    *("2024-01-05T10:00:00+99:99", "2024-01-05 10:00:00Z", "2024-01-05 10:00 EST", "05.01.24", "24-01-05", "10:00"),
    *("true", "None", "#N/A", "Date", "Open", "Ticker", "=1+1", "1709251200", "1709251200000000000", "%", "()"),
    *("9" * 400, "x" * 20000, "\\", "\r", "\n", ";", "\t", "|", "1e18"),
]
TZ = [None, None, None, "", "UTC", "America/New_York", "Mars", "../x", "Europe/London"]


def options(draw: random.Random) -> dict[str, Any]:
    """How a file is read, mostly by the defaults."""
    if draw.random() < 0.6:
        return {}
    chosen = {
        "tz": draw.choice(TZ),
        "label": draw.choice(["close", "close", "open"]),
        "repair": draw.choice([None, None, "clip", "drop"]),
        "decimal": draw.choice([None, None, None, ".", ","]),
        "adjust": draw.choice([True, True, False]),
    }
    if draw.random() < 0.1:
        chosen["symbols"] = draw.choice([["A"], ["B", "A"], ["x"], []])
    return chosen


def mutated(draw: random.Random) -> bytes:
    """A file with some faults in it."""
    text = draw.choice(FILES)
    for _ in range(draw.choice([0, 1, 1, 2, 3, 6])):
        text = draw.choice([_cell, _cell, _line, _column, _text, _separator])(text, draw)
    data = text.encode(draw.choice(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "gb18030", "cp1252"]), errors="replace")
    if draw.random() < 0.2:
        data = _bytes(data, draw)
    pack = draw.random()
    if pack < 0.05:
        data = gzip.compress(data)
    elif pack < 0.1:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for i in range(draw.choice([1, 1, 2])):
                archive.writestr(draw.choice(["a.csv", "b.csv", "c.txt", "x-2024-01.csv"])[i:], data)
        data = packed.getvalue()
    elif pack < 0.13:
        packed = io.BytesIO()
        pd.DataFrame({"date": ["2024-01-02"], "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0}).to_parquet(packed)
        data = packed.getvalue()
    return _bytes(data, draw) if 0 < pack < 0.13 and draw.random() < 0.5 else data


def _cell(text: str, draw: random.Random) -> str:
    lines = text.split("\n")
    row = draw.randrange(len(lines))
    mark = max(",;\t", key=lines[row].count)
    cells = lines[row].split(mark)
    cells[draw.randrange(len(cells))] = draw.choice(ODD)
    lines[row] = mark.join(cells)
    return "\n".join(lines)


def _column(text: str, draw: random.Random) -> str:
    """One column has other values throughout, or is there twice, or is gone."""
    mark = max(",;\t", key=text.count)
    rows = [line.split(mark) for line in text.split("\n")]
    at, other, value = draw.randrange(8), draw.randrange(8), draw.choice(ODD)
    kind = draw.randrange(4)
    for number, row in enumerate(rows):
        if at < len(row):
            if kind == 0 and number:
                row[at] = value
            elif kind == 1:
                row.insert(at, row[at])
            elif kind == 2:
                del row[at]
            elif other < len(row):
                row[at], row[other] = row[other], row[at]
    return "\n".join(mark.join(row) for row in rows)


def _line(text: str, draw: random.Random) -> str:
    lines = text.split("\n")
    at, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    kind = draw.randrange(5)
    if kind == 0:
        lines.insert(at, lines[other])
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 3:
        lines.insert(at, draw.choice(["", "# a comment", ",,,,,", "prose without cells", "Price,Ticker", "Date,,,,,"]))
    else:
        lines.reverse()
    return "\n".join(lines)


def _text(text: str, draw: random.Random) -> str:
    at = draw.randrange(len(text) + 1)
    kind = draw.randrange(3)
    if kind == 0:
        return text[:at]
    if kind == 1:
        return text[:at] + draw.choice(ODD) + text[at:]
    return text[:at] + text[at + draw.randrange(40) :]


def _separator(text: str, draw: random.Random) -> str:
    one, other = draw.sample([",", ";", "\t", "|", ".", " ", "-", '"'], 2)
    return text.replace(one, other)


def _bytes(data: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice([1, 1, 3, 20])):
        if out:
            at = draw.randrange(len(out))
            out[at : at + draw.randrange(3)] = bytes(draw.randrange(256) for _ in range(draw.randrange(3)))
    return bytes(out)


CELLS = st.one_of(
    st.sampled_from(ODD),
    st.floats().map(str),
    st.integers().map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(lambda value: f"{value:,}"),
    st.datetimes().map(str),
    st.dates().map(lambda day: day.strftime("%d %b %Y")),
    st.text(max_size=8),
)
USUAL = [
    *("Date", "Time", "Open", "High", "Low", "Close", "Volume", "symbol", "Name", "Price", "Ticker", "unix"),
    *("t", "o", "h", "l", "c", "v", "tic", "code"),
]
NAMES = st.one_of(st.sampled_from(USUAL), st.text(max_size=8))


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A table of text that may have any names and any cells."""
    names = draw(st.lists(NAMES, min_size=1, max_size=9))
    if draw(st.booleans()):
        names = ["Date", "Open", "High", "Low", "Close", *names[:3]]
    few = draw(st.lists(CELLS, min_size=1, max_size=6))  # so that columns are alike
    rows = draw(st.lists(st.lists(st.sampled_from(few), min_size=len(names), max_size=len(names)), max_size=6))
    if draw(st.booleans()):  # sound rows but for some columns
        places = draw(st.sets(st.integers(0, len(names) - 1), max_size=3))
        for number, row in enumerate(rows):
            sound = [f"2024-01-{number + 1:02d}", "10.5", "12", "9", "11"]
            row[:5] = [cell if i in places else sound[i] for i, cell in enumerate(row[:5])]
    mark = draw(st.sampled_from(",,,;\t|"))
    quote = (lambda cell: f'"{cell}"') if draw(st.booleans()) else str
    text = "\n".join(mark.join(map(quote, row)) for row in [names, *rows])
    return text.encode("utf-8", errors="replace")


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """A frame of columns of any type, with an index of any type."""
    length = draw(st.integers(1, 5))

    def column(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=length, max_size=length))

    kinds = [
        lambda: np.array(column(st.floats()), np.float64),
        lambda: np.array(column(st.integers(-(2**63), 2**63 - 1)), np.int64),
        lambda: pd.array(column(st.one_of(st.none(), st.integers(0, 9))), "Int64"),
        lambda: column(CELLS),
        lambda: np.array(column(st.datetimes(min_value=pd.Timestamp(1700, 1, 1).to_pydatetime())), "datetime64[us]"),
        lambda: pd.Categorical(column(CELLS)),
        lambda: column(st.one_of(st.none(), st.booleans(), st.floats(), CELLS)),
        lambda: np.array(column(st.complex_numbers()), np.complex128),
        lambda: pd.to_timedelta(column(st.integers(0, 10**6)), unit="s"),
        lambda: pd.date_range("2024-01-01", periods=length, tz=draw(st.sampled_from([None, "UTC", "Asia/Tokyo"]))),
        lambda: np.linspace(1, 2, length),
        lambda: [10.0] * length,
    ]
    names: list[Any] = ["Date", "Open", "High", "Low", "Close", *draw(st.lists(NAMES, max_size=3))]
    frame = pd.concat([pd.Series(draw(st.sampled_from(kinds))()) for _ in names], axis=1)
    if draw(st.booleans()):  # sound prices, so that what comes behind them is reached
        for place in range(1, 5):
            frame.isetitem(place, np.full(length, 10.0))
    if draw(st.booleans()):
        frame.isetitem(0, pd.date_range("2024-01-01", periods=length))
    frame.columns = draw(st.permutations(names)) if draw(st.integers(0, 3)) == 0 else names
    if draw(st.integers(0, 3)) == 0:
        frame.columns = pd.MultiIndex.from_tuples([(name, draw(st.sampled_from(["A", "B", ""]))) for name in names])
    if draw(st.booleans()):
        frame.index = pd.Index(draw(st.sampled_from(kinds))(), name=draw(st.sampled_from([None, "Date", "x", 5])))
    return frame


class Tally:
    """Counts what became of the tries of each kind, and keeps each fault once."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.slowest: dict[str, float] = {}
        self.faults: dict[str, str] = {}

    def attempt(self, kind: str, read: Callable[[], object], what: object) -> None:
        """Try to read something."""
        began = time.perf_counter()
        outcome, message = "read", ""
        try:
            with time_limit(HANG_SECONDS), warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                read()
        except (jt.DataError, _Refused) as error:
            outcome, message = "refused", str(error)
            if "\n" in message or len(message) > 1000:
                outcome = "long sentences"
        except Hang:
            outcome, message = "hangs", traceback.format_exc()
        except Exception:
            outcome, message = "tracebacks", traceback.format_exc()
        self.counts.setdefault(kind, Counter())[outcome] += 1
        self.slowest[kind] = max(self.slowest.get(kind, 0.0), time.perf_counter() - began)
        if outcome in ("tracebacks", "hangs", "long sentences"):
            place = "".join(message.splitlines(keepends=True)[-4:])
            if place not in self.faults:
                self.faults[place] = f"{outcome} in {kind}\n{message[-3000:]}\n{str(what)[:2000]}"
                print(self.faults[place], flush=True)

    def rows(self) -> list[list[Any]]:
        """A row for each kind."""
        return [
            [kind, counts.total(), *(counts[name] for name in COLUMNS[2:7]), round(self.slowest[kind], 2)]
            for kind, counts in self.counts.items()
        ]


class _Refused(Exception):
    """The command refused a file, in the way that it is meant to."""


def command(path: Path, chosen: dict[str, Any]) -> None:
    """Run `jaxtrader data` on a file. Raise _Refused where it says in a line that the input is bad."""
    flags = [
        f"--{name}={chosen[name]}" for name in ("tz", "label", "repair", "decimal") if chosen.get(name) is not None
    ]
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = jaxtrader(["data", str(path), *flags])
    if code not in (0, 2):
        raise RuntimeError(f"exit code {code}")
    if code == 2:
        raise _Refused(error.getvalue().strip())


def fuzz(tally: Tally, folder: Path, seed: int, tries: int) -> None:
    """Some tries of each kind."""
    draw = random.Random(seed)
    for _ in range(tries):
        data, chosen = mutated(draw), options(draw)
        path = folder / draw.choice(["a.csv", "a.csv", "a.csv.gz", "a.zip", "a.parquet", "BTC-2024-01.csv"])
        path.write_bytes(data)
        if draw.random() < 0.15:
            tally.attempt("mutated files, the command", lambda p=path, c=chosen: command(p, c), (chosen, data))
        else:
            tally.attempt("mutated files", lambda p=path, c=chosen: jt.load_bars(p, **c), (chosen, data))
        path.unlink()

    common = settings(
        max_examples=tries,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @hypothesis_seed(seed)
    @common
    @given(tables(), st.randoms(use_true_random=False))
    def drawn_tables(data: bytes, own: random.Random) -> None:
        chosen, path = options(own), folder / "t.csv"
        path.write_bytes(data)
        tally.attempt("drawn tables", lambda: jt.load_bars(path, **chosen), (chosen, data))

    @hypothesis_seed(seed)
    @common
    @given(frames(), st.randoms(use_true_random=False))
    def drawn_frames(frame: pd.DataFrame, own: random.Random) -> None:
        chosen = options(own)
        tally.attempt("drawn frames", lambda: jt.load_bars(frame, **chosen), (chosen, frame.dtypes, frame))

    drawn_tables()
    drawn_frames()


def main() -> None:
    parser = arguments(__doc__, "some tries of each kind")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to look for faults")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    given_ = parsed(parser)
    tally, seed, began = Tally(), given_.seed, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        while True:
            fuzz(tally, Path(folder), seed, 8 if given_.quick else 200)
            seed += 1
            if given_.quick or time.monotonic() - began > 60 * given_.minutes:
                break
    facts = {
        "work": f"rounds {given_.seed} to {seed - 1}; a try hangs where it takes more than {HANG_SECONDS} s",
        "faults": len(tally.faults),
    }
    report("faults", COLUMNS, tally.rows(), facts, given_.quick)


if __name__ == "__main__":
    main()
