"""A file of each kind that users have, from Python and from the command line: the bars, or one sentence with a way out.

Each file is a small one of our own. What the formats of vendors are is tested in `market/test_formats.py`.
"""

import json

import numpy as np
import pandas as pd
import pytest
from cli.tiny_runs import SMALL, prices

import jaxtrader as jt
from jaxtrader.cli import main
from jaxtrader.cli.settings import resolved
from jaxtrader.cli.sweep_command import read_file
from jaxtrader.cli.walk_forward_command import plan_walk_forward

PLAIN = "date,open,high,low,close,volume\n"
KLINE = "{},10,14,9,{},5,{},1,2,1,1,0"
HOURS = [1730419200000 + 3600000 * i for i in range(3)]
KLINES = "\n".join(KLINE.format(hour, 11 + i, hour + 3599999) for i, hour in enumerate(HOURS))
DAYS = [str(day.date()) for day in pd.bdate_range("2024-03-01", periods=30)]
AUTUMN = ["2023-10-29 01:00:00", "2023-10-29 02:00:00", "2023-10-29 02:00:00", "2023-10-29 03:00:00"]
TWO = "\n".join(f"{day},{10 + i},{14 + i},{9 + i},{11 + i},5,{name}" for name in "AB" for i, day in enumerate(DAYS[:3]))
RAW = [100 + 0.25 * (i % 5) if i < 15 else (100 + 0.25 * (i % 5)) / 4 * 1.022 for i in range(30)]  # 4:1 and a move
ADJUSTED = [f"{day},{p},{p + 1},{p - 1},{p * 0.87:.4f},5" for day, p in zip(DAYS, range(100, 130), strict=True)]
HOLIDAY = [
    f"{day},{'null,null,null,null,null' if i == 1 else f'{100 + i},{100 + i},{100 + i},{100 + i},5'}"
    for i, day in enumerate(DAYS)
]
JOINED = [
    f"{day},{p},{p},{p},{p},5,{name}"
    for day, p, name in zip(DAYS, [140] * 15 + [520] * 15, "A" * 15 + "B" * 15, strict=True)
]


def rows(*cells):
    """Lines of three days, in which `{i}` is the number of the day."""
    return "\n".join(",".join(cells).format(i=i, day=DAYS[i]) for i in range(3))


# The name of the kind: the file, the flags, and what both sides say. READ is the closes, or a part of them.
READ = {
    "an offset and --tz": (
        "timestamp,close,high,low,trade_count,open,volume,vwap\n"
        + "\n".join(f"2026-08-11 08:0{i}:00+00:00,1{i + 1},14,9,2,10,5,11" for i in range(3)),
        {"tz": "America/New_York"},
        ([11, 12, 13], "04:00 to 2026-08-11 04:02 America/New_York"),
    ),
    "klines without a header": (KLINES, {}, ([11, 12, 13], "Read as Binance klines without a header.")),
    "Chinese text under a line of prose": (
        (
            "数据网站\n股票代码,股票名称,交易日期,开盘价,最高价,最低价,收盘价,成交量\n"
            + rows("sh1", "银行", "{day}", "10", "14", "9", "1{i}", "5")
        ).encode("gbk"),
        {},
        ([10, 11, 12], "The text was read as GBK."),
    ),
    "hours such as 07-AM": (
        "https://www.example.com\nUnix Timestamp,Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USD\n"
        + "\n".join(f"{1600498800 - 3600 * i}.0,2020-09-19 0{7 - i}-AM,BTCUSD,10,14,9,1{3 - i},5,50" for i in range(3)),
        {},
        ([11, 12, 13], "The newest bar came first"),
    ),
    "the newest first": (
        PLAIN + "\n".join(reversed(rows("{day}", "10", "14", "9", "1{i}", "5").split("\n"))),
        {},
        ([10, 11, 12], "The newest bar came first"),
    ),
    "a time with its offset": (
        "Local time,Open,High,Low,Close,Volume\n"
        + "\n".join(f"11.10.2021 0{i}:00:00.000 GMT+0800,10,14,9,1{i},5" for i in range(3)),
        {},
        ([10, 11, 12], "UTC+08:00"),
    ),
    "dates in a column without a name": (
        PLAIN.removeprefix("date") + rows("{day}", "10", "14", "9", "1{i}", "5"),
        {},
        ([10, 11, 12], "2024-03-01 00:00"),
    ),
    "prices in quotes with thousands": (
        (
            '"Date","Price","Open","High","Low","Vol.","Change %"\n'
            '"Feb 02, 2022","38,709.7","38,475.6","39,230.0","38,037.9","55.20K","1%"\n'
            '"Feb 01, 2022","38,498.6","37,923.8","38,701.4","36,672.8","1.27M","2%"'
        ),
        {},
        ([38498.6, 38709.7], "Read as investing.com."),
    ),
    "symbols in a column Name": (
        PLAIN.strip() + ",Name\n" + TWO,
        {},
        ([11, 12, 13], "'Name' holds the symbols (2 of them)."),
    ),
    "a volume of ticks": (
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
        + "\n".join(f"2024.03.01\t0{i}:00:00\t10\t14\t9\t1{i}\t7\t0\t0" for i in range(3)),
        {},
        ([10, 11, 12], "'<VOL>' is 0 in every bar, so '<TICKVOL>' is the volume."),
    ),
    "dollars": (
        "Date,Close/Last,Volume,Open,High,Low\n03/02/2025,$12,5,$10,$14,$9\n03/01/2025,$11,5,$10,$14,$9",
        {},
        ([11, 12], "Read as Nasdaq.com."),
    ),
    "May and April": (
        '"Date","Open","High","Low","Close"\n"02 May 2019","10","14","9","12"\n"30 Apr 2019","10","14","9","11"',
        {},
        ([11, 12], "2019-04-30"),
    ),
    "shares traded": (
        (
            "Date,Open,High,Low,Close,Shares Traded,Turnover (Rs. Cr)\n"
            "01-Jan-20,10,14,9,11,5,9.5\n02-Jan-20,10,14,9,12,5,9.5"
        ),
        {},
        ([11, 12], "volume 'Shares Traded'"),
    ),
    "names of one letter": (
        "v,vw,o,c,h,l,t,n\n" + "\n".join(f"5,11,10,1{i},14,9,{hour},3" for i, hour in enumerate(HOURS)),
        {},
        ([10, 11, 12], "Read as Polygon aggregates."),
    ),
    "a split without a note": (
        PLAIN + "\n".join(f"{day},{p},{p * 1.01},{p * 0.99},{p},5" for day, p in zip(DAYS, RAW, strict=True)),
        {},
        ([RAW[0]], "a 4-for-1 split"),
    ),
    "a volume from and to": (
        (
            "Date,Symbol,Open,High,Low,Close,VolumeFrom,VolumeTo\n"
            "2019-07-04 01:00,BTCUSD,10,14,9,12,5,59\n2019-07-04 00:00,BTCUSD,10,14,9,11,5,59"
        ),
        {},
        ([11, 12], "volume 'VolumeFrom'"),
    ),
    "two symbols after each other": (
        PLAIN.strip() + ",Name\n" + "\n".join(JOINED),
        {},
        ([140], "'Name' holds the symbols (2 of them)."),
    ),
    "thousands in quotes": (
        PLAIN
        + "\n".join(f'{day},"1,010.0","1,014.0","1,009.0","1,01{i}.0","34,411,900"' for i, day in enumerate(DAYS[:3])),
        {},
        ([1010, 1011, 1012], "1 day"),
    ),
    "tickers without names": (
        "Price,Close,High,Low,Open,Volume\nTicker,,,,,\nDate,,,,,\n" + rows("{day}", "1{i}", "14", "9", "10", "5"),
        {},
        ([10, 11, 12], "Read as yfinance"),
    ),
    "a high below the open by dust": (
        PLAIN + "2024-03-01,10.000000000000002,10,9,10,5\n2024-03-04,10,14,9,11,5",
        {},
        ([10, 11], "2 bars"),
    ),
    "a row of tickers": (
        "Price,Close,High,Low,Open,Volume\nTicker,A,A,A,A,A\nDate,,,,,\n" + rows("{day}", "1{i}", "14", "9", "10", "5"),
        {},
        ([10, 11, 12], "symbol 'symbol'"),
    ),
    "close alone adjusted, with --repair adjust": (
        PLAIN + "\n".join(ADJUSTED),
        {"repair": "adjust"},
        ([87], "multiplied open, high and low by 0.87"),
    ),
    "a holiday without prices, with --repair drop": (
        PLAIN + "\n".join(HOLIDAY),
        {"repair": "drop"},
        ([100, 102], "--repair drop left out 1 of 30 rows: 1 with a missing or impossible price (2024-03-04)."),
    ),
}
REFUSED = {
    "klines under too short a header": (
        PLAIN + KLINES,
        "the header has 6 names .* 12 values stand in a row; .*leave the header out",
    ),
    "an hour that comes twice": (
        PLAIN + "\n".join(f"{time},10,14,9,11,5" for time in AUTUMN),
        "because clocks go back there, .*`tz`",
    ),
    "close alone adjusted": (PLAIN + "\n".join(ADJUSTED), "The adjustment .* of close differs .*`repair='adjust'`"),
    "a holiday without prices": (PLAIN + "\n".join(HOLIDAY), "row 3: open is missing .*`repair='drop'`"),
    "JSON": (
        json.dumps([{"date": day, "open": 1, "high": 1, "low": 1, "close": 1} for day in DAYS]),
        r"is JSON, not CSV; convert it with: pd\.read_json",
    ),
    "a volume with two readings": (
        PLAIN.replace(",", "\t") + "\n".join(f"{day}\t10.5\t14.5\t9.5\t11.5\t765,591" for day in DAYS),
        "765591 .* 765.591 .*`decimal=",
    ),
    "two histories in one": (
        PLAIN.strip() + ",firm\n" + "\n".join(JOINED),
        "'firm' changes from 'A' to 'B', and the price from 140 to 520",
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_a_file_is_read(tmp_path, capsys, kind):
    content, flags, (closes, said) = READ[kind]
    (tmp_path / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    loaded = jt.load_bars(tmp_path / "a.csv", **flags)
    first = loaded[0] if isinstance(loaded, tuple) else loaded
    np.testing.assert_allclose(first.close[: len(closes), 0], closes, rtol=1e-12)
    assert (
        main(
            ["data", str(tmp_path / "a.csv"), *(word for name, value in flags.items() for word in (f"--{name}", value))]
        )
        == 0
    )
    printed = capsys.readouterr()
    assert said in " ".join(printed.out.split())
    assert printed.err == ""


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_is_refused_in_one_sentence(tmp_path, capsys, kind):
    content, why = REFUSED[kind]
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(jt.DataError, match=why):
        jt.load_bars(tmp_path / "a.csv")
    assert main(["data", str(tmp_path / "a.csv")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_repair_travels_with_a_run_and_is_taken_by_every_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = prices(300)
    table.loc[[5, 120, 299], ["Open", "High", "Low", "Close"]] = np.nan  # of training, and the last bar
    table.to_csv("a.csv", index=False)
    drop = ["--data", "a.csv", "--repair", "drop"]
    left_out = "--repair drop left out 3 of 300 rows: 3 with a missing or impossible price (2020-01-06, "

    def said(*argv):
        assert main(list(argv)) == 0
        return " ".join(capsys.readouterr().out.split())

    assert left_out in said("data", "a.csv", "--repair", "drop")
    train = ["train", *drop, *SMALL, "--total-steps", "200", "--no-report"]
    assert left_out in said(*train, "--run-dir", "one")
    assert 'repair = "drop"' in (tmp_path / "one/config.toml").read_text()
    said("train", "--config", "one/config.toml", "--run-dir", "two")
    assert (tmp_path / "two/policy.pkl").read_bytes() == (tmp_path / "one/policy.pkl").read_bytes()
    assert left_out in said("backtest", "one")
    assert left_out in said("backtest", "one", *drop)
    said("report", "one")
    decided = said("decide", "one")
    assert "2020-10-25" in decided  # the day before the row that was left out
    assert left_out in decided
    assert left_out in said("check", *drop, "--only", "past_only", "--features", "log_return_5")
    walk = {"data": "a.csv", "repair": "drop", "features": ("log_return_5",), "folds": 2, "quiet": True}
    planned = plan_walk_forward(resolved("walk-forward", walk)).env.market
    assert any("left out 3 of 300 rows" in note for note in planned.notes)
    (tmp_path / "sweep.toml").write_text('data = "a.csv"\nrepair = "drop"\n[sweep]\ngamma = [0.9, 0.99]\n')
    assert read_file(tmp_path / "sweep.toml").values["repair"] == "drop"
