"""`jaxtrader data`: what is in a file, or the first thing that is wrong with it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console

import jaxtrader as jt
from jaxtrader.cli import inputs, phrases
from jaxtrader.cli.command_settings import MarketSettings, Source
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import OK, SHARES, BadInput, build, resolved
from jaxtrader.cli.wording import translated
from jaxtrader.evaluation import tables
from jaxtrader.market.clock import common_zone, wall_clock
from jaxtrader.market.market import check_min_bars, long_enough
from jaxtrader.market.periods import check_periods


def describe_file(values: Values, console: Console) -> int:
    """`jaxtrader data`."""
    file, source, wanted = values["file"], build(Source, values), build(MarketSettings, values)
    with inputs.checked():
        if wanted.periods_per_year is not None:
            check_periods(wanted.periods_per_year)
        check_min_bars(source.min_bars)
        histories = inputs.read_bars(file, source)
    if len(histories) > tables.MAX_SYMBOLS:
        tables.print_facts(console, _summary(histories, wanted))
    else:
        for bars in histories:
            facts = [
                (bars.symbols[0], _history(bars, wanted)),
                ("  format", bars.format),
                ("  columns", _columns(bars)),
                *(("  note", translated(note)) for note in _notes(bars, wanted)),
            ]
            tables.print_facts(console, facts)
    longest = max(jt.features.DEFAULT, key=lambda feature: feature.lookback)
    names = ", ".join(feature.name for feature in jt.features.DEFAULT)
    warm_up = f"the default ones are {names}; they warm up over {longest.lookback - 1} bars ({longest.name})"
    facts = [("features", warm_up)]
    try:
        facts += phrases.notes(_check_promise(histories, source))
        command = f"jaxtrader train --data {shlex.quote(file)}"
        facts.append(("next", " ".join([command, *phrases.reading(source), *phrases.reading(wanted)])))
    except BadInput as error:
        facts.append(("problem", translated(str(error))))
    tables.print_facts(console, facts)
    return OK


def _check_promise(histories: Sequence[jt.Bars], source: Source) -> list[str]:
    """Return a note on each symbol that `jaxtrader train` leaves out.

    Raises BadInput where it would not find bars enough, or could not have the default features.
    """
    with inputs.checked():
        values = resolved("train", {})
        inputs.check_bars_to_train(histories, None, values, SHARES)
        kept, notes = long_enough(histories, jt.features.DEFAULT, source.min_bars)
        for bars in kept:
            for feature in jt.features.DEFAULT:  # one at a time, to save memory
                jt.features.compute_features(bars, (feature,))
        longest = max(jt.features.DEFAULT, key=lambda feature: feature.lookback)
        parts = inputs.market_of(kept, source, (longest.name,)).split(*SHARES)
        inputs.environment_over(parts, values)
    return notes


def _columns(bars: jt.Bars) -> str:
    return f"open, high, low, close, volume; further numbers: {', '.join(bars.columns) or 'none'}"


def _notes(bars: jt.Bars, wanted: MarketSettings) -> Sequence[str]:
    """Return the notes of loading, and the doubt about the calendar."""
    if wanted.periods_per_year is not None or bars.calendar is None or bars.calendar.doubt is None:
        return bars.notes
    return (*bars.notes, bars.calendar.doubt)


def _summary(histories: Sequence[jt.Bars], wanted: MarketSettings) -> Iterator[tuple[str, str]]:
    """Describe many histories together. What they share is said once."""
    yield "symbols", f"{len(histories):,}: {tables.listed([bars.symbols[0] for bars in histories])}"
    fewest, most = min(histories, key=len), max(histories, key=len)
    counts = f"from {len(fewest):,} of {fewest.symbols[0]} to {len(most):,} of {most.symbols[0]}"
    ends = np.array([min(bars.times[0] for bars in histories), max(bars.times[-1] for bars in histories)])
    span = _span(ends, common_zone(bars.tz for bars in histories))
    yield "bars", f"{sum(map(len, histories)):,}, {counts}, {span}"
    yield "longest", f"{most.symbols[0]}: {_history(most, wanted)}"
    lines: dict[str, list[str]] = {"format": [], "columns": [], "note": []}
    for bars in histories:
        name = bars.symbols[0]
        lines["format"].append(f"{name}: {bars.format}")
        lines["columns"].append(f"{name}: {_columns(bars)}")
        lines["note"] += [f"{name}: {translated(note)}" for note in _notes(bars, wanted)]
    for label, texts in lines.items():
        for line in tables.grouped(texts):
            yield label, line


def _span(ends: np.ndarray, tz: str | None) -> str:
    """From the first time to the last, by the wall clock of `tz`."""
    first, last = (str(moment)[:16].replace("T", " ") for moment in wall_clock(ends, tz))
    return f"{first} to {last} {tz or 'UTC'}"


def _history(bars: jt.Bars, wanted: MarketSettings) -> str:
    """One line on one history."""
    text = f"{len(bars):,} bars, {_span(bars.times[[0, -1]], bars.tz)}"
    if bars.calendar is None:
        return text
    periods = bars.calendar.describe()
    if wanted.periods_per_year is not None:
        periods = f"{wanted.periods_per_year:,.6g} periods a year"
    step = phrases.span(bars.calendar.bar / np.timedelta64(1, "s"))
    return f"{text}, every {step}, {periods}"
