"""Each known format is recognised from a small file, and gives the times, prices and volume that the file shows."""

import re
from pathlib import Path

import numpy as np
import pytest

import jaxtrader
from jaxtrader.market.bars import load_bars
from jaxtrader.market.errors import DataError
from jaxtrader.market.formats import FORMATS, YFINANCE, format_of, headerless_format_of

# Above each file: its format, the time of its last bar, and what that bar's open, high, low, close and volume are.
FILES = """
### Binance klines without a header | 2024-11-01T01:00 | 70292.01 70470 70146.8 70173.73 840.45
1730419200000,70292.01,70470.00,70146.80,70173.73,840.45,1730422799999,59096143.37,128807,448.83,31559502.40,0
1730422800000,70292.01,70470.00,70146.80,70173.73,840.45,1730426399999,59096143.37,128807,448.83,31559502.40,0
### Binance klines without a header | 2025-01-01T00:00 | 70292.01 70470 70146.8 70173.73 840.45
1735686000000,70292.01,70470.00,70146.80,70173.73,840.45,1735689599999,59096143.37,128807,448.83,31559502.40,0
1735689600000000,70292.01,70470.00,70146.80,70173.73,840.45,1735693199999999,59096143.37,128807,448.83,31559502.40,0
### MetaTrader 4 without a header | 2024-03-01T02:00 | 1.7 1.8 1.1 1.3 90
2024.03.01,01:00,1.5,1.9,1.2,1.7,120
2024.03.01,02:00,1.7,1.8,1.1,1.3,90
### MetaTrader 4 without a header | 2024-03-01T02:00 | 1.7 1.8 1.1 1.3 90
2024.03.01 01:00\t1.5\t1.9\t1.2\t1.7\t120
2024.03.01 02:00\t1.7\t1.8\t1.1\t1.3\t90
### MetaTrader 4 without a header | 2024-03-02T00:00 | 1.7 1.8 1.1 1.3 90
2024.03.01,1.5,1.9,1.2,1.7,120
2024.03.02,1.7,1.8,1.1,1.3,90
### MetaTrader 5 without a header | 2024-03-01T02:00 | 1.7 1.8 1.1 1.3 90
2024.03.01\t01:00:00\t1.5\t1.9\t1.2\t1.7\t120\t0\t3
2024.03.01\t02:00:00\t1.7\t1.8\t1.1\t1.3\t90\t0\t3
### Bybit without a header | 2024-03-01T01:00 | 1.7 1.8 1.1 1.3 2.5
1709254800000,1.7,1.8,1.1,1.3,2.5,9.1
1709251200000,1.5,1.9,1.2,1.7,0.5,8.1
### OKX without a header | 2024-03-01T01:00 | 1.7 1.8 1.1 1.3 2.5
1709254800000,1.7,1.8,1.1,1.3,2.5,9,9.1,1
1709251200000,1.5,1.9,1.2,1.7,0.5,8,8.1,1
### HistData without a header | 2024-03-01T01:01 | 1.7 1.8 1.1 1.3 5
20240301 010000;1.5;1.9;1.2;1.7;0
20240301 010100;1.7;1.8;1.1;1.3;5
### Kraken without a header | 2024-03-01T01:00 | 1.7 1.8 1.1 1.3 2.5
1709251200,1.5,1.9,1.2,1.7,0.5,4
1709254800,1.7,1.8,1.1,1.3,2.5,9
### Kraken without a header | 2024-03-01T01:00 | 1.7 1.8 1.1 1.3 2.5
1709251200,1.5,1.9,1.2,1.7,1.6,0.5,4
1709254800,1.7,1.8,1.1,1.3,1.4,2.5,9
### Coinbase without a header | 2024-03-01T01:00 | 1.7 1.8 1.1 1.3 2.5
1709254800,1.1,1.8,1.7,1.3,2.5
1709251200,1.2,1.9,1.5,1.7,0.5
### Bitfinex without a header | 2024-03-01T01:00 | 1.7 1.8 1.1 1.3 2.5
1709251200000,1.5,1.7,1.9,1.2,0.5
1709254800000,1.7,1.3,1.8,1.1,2.5
### KuCoin without a header | 2024-03-01T01:00 | 1.7 1.8 1.1 1.3 2.5
1709254800,1.7,1.3,1.8,1.1,2.5,4.1
1709251200,1.5,1.7,1.9,1.2,0.5,0.7
### ccxt without a header | 2024-03-01T01:00 | 1.7 1.8 1.1 1.3 2.5
1709251200000,1.5,1.9,1.2,1.7,0.5
1709254800000,1.7,1.8,1.1,1.3,2.5
### FirstRate Data without a header | 2024-03-01T09:31 | 1.7 1.8 1.1 1.3 2500
2024-03-01 09:30:00,1.5,1.9,1.2,1.7,500
2024-03-01 09:31:00,1.7,1.8,1.1,1.3,2500
### FirstRate Data without a header | 2024-03-02T00:00 | 1.7 1.8 1.1 1.3 2500
2024-03-01,1.5,1.9,1.2,1.7,500
2024-03-02,1.7,1.8,1.1,1.3,2500
### FirstRate Data without a header | 2024-03-01T09:31 | 1.7 1.8 1.1 1.3 0
2024-03-01 09:30:00,1.5,1.9,1.2,1.7
2024-03-01 09:31:00,1.7,1.8,1.1,1.3
### FirstRate Data without a header | 2024-03-01T14:31 | 1.7 1.8 1.1 1.3 2500
2024-03-01T09:30:00-05:00,1.5,1.9,1.2,1.7,500
2024-03-01T09:31:00-05:00,1.7,1.8,1.1,1.3,2500
### Kibot without a header | 2009-09-02T09:30 | 1.7 1.8 1.1 1.3 2500
09/01/2009,09:30,1.5,1.9,1.2,1.7,500
09/02/2009,09:30,1.7,1.8,1.1,1.3,2500
### Kibot without a header | 2009-09-02T00:00 | 1.7 1.8 1.1 1.3 2500
09/01/2009,1.5,1.9,1.2,1.7,500
09/02/2009,1.7,1.8,1.1,1.3,2500
### Binance klines | 2024-03-01T00:00 | 1.5 1.9 1.2 1.7 3
open_time,open,high,low,close,volume,close_time,quote_volume,count,ignore
1709251200000,1.5,1.9,1.2,1.7,3,1709254799999,9,2,0
### CryptoDataDownload | 2020-09-19T07:00 | 1.7 1.8 1.1 1.3 87.6
https://www.CryptoDataDownload.com
Unix Timestamp,Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USD
1600498800.0,2020-09-19 07-AM,BTCUSD,1.7,1.8,1.1,1.3,87.6,958970.4
1600495200.0,2020-09-19 06-AM,BTCUSD,1.5,1.9,1.2,1.7,92.5,953649.21
### CryptoDataDownload | 2020-09-19T19:00 | 1.7 1.8 1.1 1.3 87.6
Date,Symbol,Open,High,Low,Close,Volume ETH,Volume USD
2020-09-19 07-PM,ETHUSD,1.7,1.8,1.1,1.3,87.6,9
### CryptoCompare | 2019-07-04T01:00 | 1.7 1.8 1.1 1.3 303.61
Date,Symbol,Open,High,Low,Close,VolumeFrom,VolumeTo
2019-07-04 01:00,BTCUSD,1.7,1.8,1.1,1.3,303.61,3589.1
### Nasdaq.com | 2025-03-02T00:00 | 1.7 1.8 1.1 1.3 42
Date,Close/Last,Volume,Open,High,Low
03/02/2025,$1.3,42,$1.7,$1.8,$1.1
03/01/2025,$1.7,48,$1.5,$1.9,$1.2
### investing.com | 2022-02-01T00:00 | 38475.6 39230 38037.9 38709.7 55200
\ufeff"Date","Price","Open","High","Low","Vol.","Change %"
"Feb 01, 2022","38,709.7","38,475.6","39,230.0","38,037.9","55.20K","0.55%"
"Jan 31, 2022","38,498.6","37,923.8","38,701.4","36,672.8","1.27M","1.53%"
### investing.com | 2022-05-31T00:00 | 1.7 1.8 1.1 1.3 0
Date,Price,Open,High,Low,Vol.,Change %
May 31 2022,1.3,1.7,1.8,1.1,-,0.5%
### investing.com | 2022-05-31T00:00 | 1.7 1.8 1.1 1.3 0
Date,Price,Open,High,Low,Vol.,Change %
May 31 2022,1.3,1.7,1.8,1.1,-,0.5%
May 30 2022,1.3,1.7,1.8,1.1,2.50B,0.5%
### investing.com | 2022-05-31T00:00 | 1.7 1.8 1.1 1.3 0
Date,Price,Open,High,Low,Change %
May 31 2022,1.3,1.7,1.8,1.1,0.5%
### Alpha Vantage | 2024-03-02T00:00 | 1.7 1.8 1.1 1.3 5
timestamp,1. open,2. high,3. low,4. close,5. volume
2024-03-02,1.7,1.8,1.1,1.3,5
2024-03-01,1.5,1.9,1.2,1.7,4
### Alpha Vantage | 2024-03-02T00:00 | 1.7 1.8 1.1 1.3 5
timestamp,1a. open (EUR),1b. open (USD),2a. high (EUR),2b. high (USD),3a. low (EUR),4a. close (EUR),5. volume
2024-03-02,1.7,9,1.8,9,1.1,1.3,5
### Alpha Vantage | 2024-03-02T00:00 | 1.7 1.8 1.1 1.3 5
timestamp,open (EUR),high (EUR),low (EUR),close (EUR),open (USD),high (USD),low (USD),close (USD),volume
2024-03-02,1.7,1.8,1.1,1.3,9,9,9,9,5
### Polygon aggregates | 2024-03-01T00:00 | 1.7 1.8 1.1 1.3 19.5
v,vw,o,c,h,l,t,n
19.5,1.6,1.7,1.3,1.8,1.1,1709251200000,10
### Polygon aggregates | 2024-03-01T00:00 | 1.7 1.8 1.1 1.3 19.5
T,v,vw,o,c,h,l,t,n
AAPL,19.5,1.6,1.7,1.3,1.8,1.1,1709251200000,10
### Polygon flat file | 2024-03-01T00:00 | 1.7 1.8 1.1 1.3 19
ticker,volume,open,close,high,low,window_start,transactions
A,19,1.7,1.3,1.8,1.1,1709251200000000000,10
### Databento | 2024-03-01T00:00 | 1.7 1.8 1.1 1.3 19
ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol
2024-03-01T00:00:00.000000000Z,33,1,5,1700000000,1800000000,1100000000,1300000000,19,ESH4
### Databento | 2024-03-01T00:00 | 1.7 1.8 1.1 1.3 19
ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol
1709251200000000000,33,1,5,1.7,1.8,1.1,1.3,19,ESH4
### Alpaca | 2024-03-01T00:00 | 1.7 1.8 1.1 1.3 19
timestamp,close,high,low,trade_count,open,volume,vwap
2024-03-01 00:00:00+00:00,1.3,1.8,1.1,20,1.7,19,1.5
### Dukascopy | 2021-10-10T21:00 | 1.7 1.8 1.1 1.3 878.43
Local time,Open,High,Low,Close,Volume
11.10.2021 05:00:00.000 GMT+0800,1.7,1.8,1.1,1.3,878.43
### Dukascopy | 2021-01-02T05:00 | 1.7 1.8 1.1 1.3 878.43
Gmt time,Open,High,Low,Close,Volume
02.01.2021 05:00:00.000,1.7,1.8,1.1,1.3,878.43
### Dukascopy | 2021-01-02T05:00 | 1.7 1.8 1.1 1.3 878.43
Etc/UTC,Open,High,Low,Close,Volume
02.01.2021 05:00:00.000 UTC,1.7,1.8,1.1,1.3,878.43
### MetaTrader 5 | 2024-03-01T01:00 | 1.7 1.8 1.1 1.3 1392
<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>
2024.03.01\t01:00:00\t1.7\t1.8\t1.1\t1.3\t1392\t0\t0
### Stooq or Finam | 2024-03-01T09:30 | 1.7 1.8 1.1 1.3 19
<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>
A.US,60,20240301,093000,1.7,1.8,1.1,1.3,19
### NSE | 2020-05-01T00:00 | 1.7 1.8 1.1 1.3 304078039
Date,Open,High,Low,Close,Shares Traded,Turnover (Rs. Cr)
01-May-20,1.7,1.8,1.1,1.3,304078039,9.5
### NSE | 2024-04-30T00:00 | 1002.5 1003 1001.1 1002.2 304078
"Date ","series ","OPEN ","HIGH ","LOW ","PREV. CLOSE ","ltp ","close ","vwap ","VOLUME ","VALUE "
"30-Apr-2024","EQ","1,002.50","1,003.00","1,001.10","1,001.00","1,002.0","1,002.20","1,002.1","3,04,078","9.5"
### NSE | 2024-05-03T00:00 | 102.5 103 101.1 102.2 2500
Symbol,Series,Date,Prev Close,Open Price,High Price,Low Price,Last Price,Close Price,Total Traded Quantity
X,EQ,03-May-2024,101,102.5,103,101.1,102,102.2,"2,500"
### NSE bhavcopy | 2020-01-01T00:00 | 1.7 1.8 1.1 1.3 19
SYMBOL,SERIES,OPEN,HIGH,LOW,CLOSE,LAST,PREVCLOSE,TOTTRDQTY,TOTTRDVAL,TIMESTAMP
INFY,EQ,1.7,1.8,1.1,1.3,1.31,1.2,19,99,01-JAN-2020
### BSE | 2024-04-30T00:00 | 1.7 1.8 1.1 1.3 19
Date,Open Price,High Price,Low Price,Close Price,WAP,No.of Shares,No. of Trades,Spread High-Low,
30-April-2024,1.7,1.8,1.1,1.3,1.4,19,3,0.7,
### akshare | 2024-03-01T00:00 | 1.7 1.8 1.1 1.3 19
日期,股票代码,开盘,收盘,最高,最低,成交量,成交额
2024-03-01,000001,1.7,1.3,1.8,1.1,19,99
### akshare | 2024-03-01T00:00 | 1.7 1.8 1.1 1.3 19
日期,开盘(元),收盘(元),最高(元),最低(元),成交量(手)
2024-03-01,1.7,1.3,1.8,1.1,19
### yucezhe | 2024-03-01T00:00 | 1.7 1.8 1.1 1.3 19
更多数据请看网站
股票代码,股票名称,交易日期,开盘价,最高价,最低价,收盘价,成交量
sh600000,银行,2024-03-01,1.7,1.8,1.1,1.3,19
### Tushare | 2024-03-02T00:00 | 1.7 1.8 1.1 1.3 19
ts_code,trade_date,open,high,low,close,vol
000001.SZ,20240302,1.7,1.8,1.1,1.3,19
000001.SZ,20240301,2,2,2,2,1
### baostock | 2024-03-01T00:00 | 1.7 1.8 1.1 1.3 19
date,code,open,high,low,close,volume,adjustflag
2024-03-01,sh.600000,1.7,1.8,1.1,1.3,19,3
### FinRL | 2024-03-01T00:00 | 1.7 1.8 1.1 1.3 19
,date,open,high,low,close,volume,tic,day
0,2024-02-29,1.5,1.9,1.2,1.7,4,A,3
1,2024-03-01,1.7,1.8,1.1,1.3,19,A,4
### yfinance | 2024-03-04T00:00 | 1.7 1.8 1.1 1.3 19
Price,Close,High,Low,Open,Volume
2024-03-01,1.7,1.9,1.2,1.5,4
2024-03-04,1.3,1.8,1.1,1.7,19
### Ariva | 2024-03-01T00:00 | 1.7 1.8 1.1 1.3 1019500
Datum;Erster;Hoch;Tief;Schlusskurs;Stuecke;Volumen
2024-03-01;1,7;1,8;1,1;1,3;1.019.500;99.000.000
"""
CASES = [
    (*(part.strip() for part in block.partition("\n")[0].split("|")), block.partition("\n")[2])
    for block in FILES.split("### ")[1:]
]


@pytest.mark.parametrize(("name", "time", "values", "text"), CASES, ids=[case[0] for case in CASES])
def test_a_file_of_a_known_format_is_read_with_a_note(tmp_path, name, time, values, text):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    bars = load_bars(tmp_path / "a.csv")
    assert bars.format.startswith(name)
    assert f"Read as {name}." in bars.notes
    assert bars.times[-1] == np.datetime64(time)
    last = [getattr(bars, field)[-1, 0] for field in ("open", "high", "low", "close", "volume")]
    np.testing.assert_allclose(last, [float(value) for value in values.split()], rtol=1e-15)


def test_each_format_has_a_file_here():
    assert {case[0] for case in CASES} == {known.name for known in FORMATS}


def test_the_table_in_the_readme_lists_each_format():
    readme = (Path(jaxtrader.__file__).parent / "market" / "README.md").read_text(encoding="utf-8")
    listed = {
        told: cells.split(", ") for told, cells in re.findall(r"^\| ([\w, ]+?) \| (.+) \|$", readme, re.MULTILINE)
    }
    names = {True: [], False: []}
    for known in FORMATS:
        names[bool(known.cells)].append(known.name.removesuffix(" without a header"))
    assert sorted(listed["cells without a header"]) == sorted(set(names[True]))
    assert sorted(listed["names of columns"]) == sorted(set(names[False]))
    assert listed["lines of names"] == [YFINANCE.name.partition(" (")[0]]


def test_plain_names_are_of_no_known_format():
    assert format_of(["date", "open", "high", "low", "close", "volume"]) is None
    assert format_of(["date", "open", "high", "low", "close", "price"]) is None
    assert format_of([]) is None


def test_rows_without_a_header_are_of_a_format_only_if_highs_and_lows_enclose_the_bar(tmp_path):
    right, other = (
        ["1709251200", "1.5", "1.9", "1.2", "1.7", "1", "4"],
        ["1709251200", "1.2", "1.9", "1.5", "1.7", "1", "4"],
    )
    assert headerless_format_of([right])
    assert headerless_format_of([right, other]) is None  # low, high, open, close
    (tmp_path / "a.csv").write_text("\n".join(",".join(other) for _ in range(3)))
    with pytest.raises(DataError, match=r"no header.*first line of a file must be the names"):
        load_bars(tmp_path / "a.csv")


def test_a_format_whose_times_are_opens_is_noted_and_label_open_settles_it(tmp_path):
    text = next(case[-1] for case in CASES if case[0] == "Kraken without a header")
    (tmp_path / "a.csv").write_text(text)
    assert any("`label='open'`" in note for note in load_bars(tmp_path / "a.csv").notes)
    bars = load_bars(tmp_path / "a.csv", label="open")
    assert bars.times[-1] == np.datetime64("2024-03-01T02:00")
    assert not any("`label='open'`" in note for note in bars.notes)
