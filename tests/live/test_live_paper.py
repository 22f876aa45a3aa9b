"""The example of a paper account: its equity is that of a backtest."""

from __future__ import annotations

import re

import pytest

from jaxtrader.examples import live_paper


@pytest.mark.slow
def test_a_file_that_is_replayed_ends_with_the_equity_of_the_backtest(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    live_paper.main(quick=True)
    out = capsys.readouterr().out
    live, backtest = re.search(r"equity (\S+), and (\S+) in a backtest", out).groups()
    assert live == backtest
    assert "-> target" in out
