"""Too few bars, one short listing among many, and portfolios of many names. Nothing is trained here."""

import contextlib

import pandas as pd
import pytest
from cli.tiny_runs import prices

from jaxtrader.cli import inputs, main, phrases, waiting
from jaxtrader.cli.command_settings import Source
from jaxtrader.cli.settings import BadInput, resolved
from jaxtrader.cli.train_command import make_plan
from jaxtrader.evaluation import tables


def write(folder, symbols):
    """A file of these symbols, with a number of bars each."""
    file = folder / "many.csv"
    pd.concat(prices(bars).assign(symbol=name) for name, bars in symbols.items()).to_csv(file, index=False)
    return str(file)


@pytest.mark.parametrize("bars", [1, 2, 3, 30, 452, 453])
def test_train_keeps_what_data_promises(tmp_path, capsys, bars):
    # 252 bars of history, 64 to trade and one more are 317, which are 70% of 453.
    file, enough = write(tmp_path, {"X": bars}), bars >= 453
    assert main(["data", file]) == 0
    assert ("next " in capsys.readouterr().out) == enough
    with contextlib.nullcontext() if enough else pytest.raises(BadInput, match=r"317 \(about 453 in the file\)"):
        make_plan(resolved("train", {"data": file, "seeds": 1}))


def test_the_parts_of_a_portfolio_are_counted_on_the_calendar_of_all(tmp_path):
    values = {"data": write(tmp_path, {"LONG": 460, "NEW": 300}), "portfolio": True, "seeds": 1}
    assert make_plan(resolved("train", values)).market.symbols == ("LONG,NEW",)
    with pytest.raises(BadInput, match="too few"):
        make_plan(resolved("train", {**values, "data": write(tmp_path, {"A": 300, "B": 300})}))


def test_one_short_listing_among_many_is_left_out(tmp_path, capsys):
    file = write(tmp_path, {"S0": 460, "S1": 460, "NEW": 60})
    market = inputs.read_market(file, Source(), None)
    assert market.symbols == ("S0", "S1")
    assert any(note.startswith("NEW: Left out") for note in market.notes)
    assert main(["data", file]) == 0
    assert "NEW: Left out, because its 60 bars" in " ".join(capsys.readouterr().out.split())
    assert inputs.read_market(file, Source(), ("gap",)).symbols == ("S0", "S1", "NEW")
    assert inputs.read_market(file, Source(min_bars=61), ("gap",)).symbols == ("S0", "S1")
    with inputs.checked(), pytest.raises(ValueError, match="`min_bars=461`"):
        inputs.read_market(file, Source(min_bars=461), ("gap",))


def test_a_portfolio_of_many_names_works_by_default(tmp_path):
    file = write(tmp_path, {f"S{i}": 90 + i for i in range(30)})
    values = {"data": file, "portfolio": True, "features": ("gap",)}
    market = inputs.read_market(file, Source(), ("gap",), portfolio=True)
    env = inputs.environment(resolved("train", values), market)
    assert "no trade below 0.0167 of equity" in phrases.rules(env)
    assert "S0, S1" in phrases.data(market)
    assert "and 22 more" in phrases.data(market)
    assert len(tables.grouped(market.notes)) < 5
    with inputs.checked(), pytest.raises(ValueError, match=r"rebalance_band=0\.05` is an equal weight"):
        inputs.environment(resolved("train", {**values, "rebalance_band": 0.05}), market)


def test_data_sums_many_symbols_up(tmp_path, capsys):
    file = write(tmp_path, {f"S{i}": 460 + i for i in range(20)})
    assert main(["data", file]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) < 20
    assert " ".join(out.split()).startswith("symbols 20: S0, S1, S2, S3, S4, S5, S6, S7 and 12 more")
    assert "9,390, from 460 of S0 to 479 of S19" in " ".join(out.split())
    assert out.splitlines()[-1].startswith("next")


def test_a_large_file_is_named_before_it_is_read(tmp_path, capsys, monkeypatch):
    file = write(tmp_path, {"X": 40})
    monkeypatch.setattr(waiting, "LARGE", 1000)
    waiting.say_reading(file)
    waiting.say_reading(str(tmp_path))
    waiting.say_reading(str(tmp_path / "missing.csv"))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [f"reading {file}", f"reading {tmp_path}"]
