"""`jaxtrader data`: what is in a file, or the first thing that is wrong with it."""

from __future__ import annotations

import shlex

import numpy as np
from rich.console import Console

from jaxtrader.cli import inputs, phrases
from jaxtrader.cli.config import OK, DataConfig
from jaxtrader.evaluation import report
from jaxtrader.market import features
from jaxtrader.market.bars import Bars
from jaxtrader.market.checks import DataError, spacing
from jaxtrader.market.market import Market


def describe_file(config: DataConfig, console: Console) -> int:
    """`jaxtrader data`."""
    with inputs.checked():
        histories = inputs.read_bars(config.file, config)
    for bars in histories:
        further = ", ".join(bars.columns) or "none"
        columns = f"open, high, low, close, volume; further numbers: {further}"
        notes = [("  note", note) for note in bars.notes]
        report.print_facts(console, [(bars.symbols[0], _history(bars)), ("  columns", columns), *notes])
    longest = max(features.DEFAULT, key=lambda feature: feature.lookback)
    names = ", ".join(feature.name for feature in features.DEFAULT)
    warm_up = f"the default ones are {names}; they warm up over {longest.lookback - 1} bars ({longest.name})"
    try:
        Market.from_bars(histories)
    except DataError as error:
        last = ("problem", f"the default features cannot be had: {error}")
    else:
        last = ("next", " ".join(["jaxtrader train --data", shlex.quote(config.file), *phrases.reading(config)]))
    report.print_facts(console, [("features", warm_up), last])
    return OK


def _history(bars: Bars) -> str:
    """One line on one history."""
    first, last = (str(moment)[:16].replace("T", " ") for moment in (bars.times[0], bars.times[-1]))
    text = f"{len(bars):,} bars, {first} to {last} UTC"
    if len(bars) < 2:
        return text
    # The shortest look-back there is: a history may be too short for the default features.
    periods = Market.from_bars(bars, features=("log_return_1",)).periods_per_year
    return f"{text}, every {phrases.span(spacing(bars.times) / np.timedelta64(1, 's'))}, {periods:,.6g} periods a year"
