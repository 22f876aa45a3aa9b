"""`jaxtrader data`: what is in a file, or the first thing that is wrong with it."""

from __future__ import annotations

import shlex

import numpy as np
from rich.console import Console

import jaxtrader as jt
from jaxtrader.cli import inputs, phrases
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import OK, DataFile, Source, of
from jaxtrader.evaluation import tables
from jaxtrader.market.bar_checks import spacing


def describe_file(values: Values, console: Console) -> int:
    """`jaxtrader data`."""
    file, source = DataFile(**of(DataFile, values)).file, Source(**of(Source, values))
    with inputs.checked():
        histories = inputs.read_bars(file, source)
    for bars in histories:
        further = ", ".join(bars.columns) or "none"
        columns = f"open, high, low, close, volume; further numbers: {further}"
        notes = [("  note", note) for note in bars.notes]
        tables.print_facts(console, [(bars.symbols[0], _history(bars)), ("  columns", columns), *notes])
    longest = max(jt.features.DEFAULT, key=lambda feature: feature.lookback)
    names = ", ".join(feature.name for feature in jt.features.DEFAULT)
    warm_up = f"the default ones are {names}; they warm up over {longest.lookback - 1} bars ({longest.name})"
    try:
        jt.Market.from_bars(histories)
    except jt.DataError as error:
        last = ("problem", f"the default features cannot be had: {error}")
    else:
        last = ("next", " ".join(["jaxtrader train --data", shlex.quote(file), *phrases.reading(source)]))
    tables.print_facts(console, [("features", warm_up), last])
    return OK


def _history(bars: jt.Bars) -> str:
    """One line on one history."""
    first, last = (str(moment)[:16].replace("T", " ") for moment in (bars.times[0], bars.times[-1]))
    text = f"{len(bars):,} bars, {first} to {last} UTC"
    if len(bars) < 2:
        return text
    # The shortest look-back there is: a history may be too short for the default features.
    periods = jt.Market.from_bars(bars, features=("log_return_1",)).periods_per_year
    return f"{text}, every {phrases.span(spacing(bars.times) / np.timedelta64(1, 's'))}, {periods:,.6g} periods a year"
