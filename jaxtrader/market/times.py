"""Parses timestamps (ISO text, offsets, epoch numbers, YYYYMMDD, day-first dates) into datetime64[ns] in UTC.

A timestamp that can be read in two ways is an error. The order and the number of the timestamps never change.
"""

import contextlib
import re
from typing import TYPE_CHECKING

import numpy as np

from jaxtrader.market.bar_checks import RowName
from jaxtrader.market.clock import time_zone
from jaxtrader.market.date_text import read_dates
from jaxtrader.market.errors import DataError, shown
from jaxtrader.market.zones import check_clocks_never_go_back, name_of_zone, wall_to_utc, zone_of_offsets

if TYPE_CHECKING:
    import pandas as pd

OFFSET = re.compile(r"(?::\d{2}(?:[.,]\d+)?|[.,]\d{3,})(\s*(?:Z|z|(?:UTC|GMT)?([+-]\d{2}):?(\d{2})?|UTC|GMT))$")
NAMED = re.compile(r"(?:\d|[AaPp]\.?[Mm]\.?)(\s*([A-Z]{1,4}T))$")
ZONE = re.compile(r"[\dMm](\s+([A-Z][A-Za-z]+(?:/[A-Za-z_]+)+))$")
# Hours from UTC by the name of a zone. Names of several zones, such as CST, IST and BST, are not here.
ABBREVIATIONS = {
    **{"EST": -5, "EDT": -4, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7},
    **{"WET": 0, "CET": 1, "EET": 2, "HKT": 8, "SGT": 8, "JST": 9, "KST": 9, "AEST": 10, "AEDT": 11, "NZST": 12},
    **{"WEST": 1, "CEST": 2, "EEST": 3, "NZDT": 13},
}
ENDING = 18  # characters in which an offset is looked for: with nanoseconds, but so few that many rows share them
# (lowest, highest, nanoseconds a unit) for s, ms, us and ns: the years 1973 to 2286. The ranges do not overlap.
EPOCHS = ((1e8, 1e10, 10**9), (1e11, 1e13, 10**6), (1e14, 1e16, 10**3), (1e17, 9.2e18, 1))
FIRST_YEAR, LAST_YEAR = 1678, 2261  # that nanoseconds since 1970 hold whole
ROWS_AT_ONCE = 1 << 18
PLAIN_ISO = r"\d{4}-\d\d-\d\d(?:$|[ T])"
NUMBER = r"[0-9]+([.][0-9]+)?"
DIGITS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


def parse_times(
    stamps: "pd.Series",
    tz: str | None,
    row_name: RowName,
    *,
    histories: np.ndarray | None = None,
    day_first: bool | None = None,
) -> tuple[np.ndarray, str | None]:
    """Parse timestamps.

    Args:
        stamps: T timestamps: text, numbers or datetimes.
        tz: zone of the wall clock that timestamps without an offset show, and in which the exchange lives. A timestamp
            with an offset, or a count since 1970, is a moment, which `tz` does not move. None takes timestamps without
            an offset as UTC.
        row_name: names a row in a message.
        histories: [T] number of the history that each row belongs to. None is one history.
        day_first: the order of day and month in numeric dates. None concludes it from the whole column.

    Returns:
        [T] datetime64[ns], UTC, and the zone of the wall clock: `tz`, or that of the timestamps. None is UTC.

    Raises:
        DataError: a timestamp is missing, unreadable or ambiguous, or `tz` skips or repeats it at a clock change.
    """
    import pandas as pd

    if tz is not None:
        time_zone(tz)
    missing = np.flatnonzero(stamps.isna())
    if missing.size:
        raise DataError(f"{row_name(missing[0])}: the time is missing; correct or remove the row")
    try:
        zone = None
        if pd.api.types.is_datetime64_any_dtype(stamps):
            index = pd.DatetimeIndex(stamps)
            zone = None if index.tz is None else name_of_zone(index)
        elif stamps.dtype.kind in "cb":
            raise DataError(
                f"{row_name(0)}: the time {shown(stamps.iloc[0])} is of type {stamps.dtype}; write ISO times"
            )
        elif pd.api.types.is_numeric_dtype(stamps):
            index = _from_numbers(stamps.to_numpy(), row_name)
        else:
            index, zone = _from_text(stamps, tz, row_name, histories, day_first)
        index = _in_nanoseconds(index, stamps, row_name)
    except pd.errors.OutOfBoundsDatetime as error:
        unread = pd.to_datetime(stamps.astype("str"), format="ISO8601", errors="coerce").isna()
        raise _beyond_years(int(np.argmax(unread)), stamps, row_name) from error
    return _to_utc(index, tz, histories, row_name), tz or zone


def _to_utc(index: "pd.DatetimeIndex", tz: str | None, histories: np.ndarray | None, row_name: RowName) -> np.ndarray:
    """Convert times to UTC, [T] datetime64[ns]. Those without a zone are of the wall clock of `tz`."""
    if index.tz is None and tz is not None:
        index = wall_to_utc(index, tz, histories, row_name)
    elif index.tz is None:
        check_clocks_never_go_back(index.to_numpy(), histories, row_name)
    utc = index if index.tz is None else index.tz_convert("UTC").tz_localize(None)
    return utc.to_numpy().astype("datetime64[ns]")


def join_date_and_time(dates: "pd.Series", times_of_day: "pd.Series") -> "pd.Series":
    """Join a date column and a time-of-day column (text, or numbers such as 930 or 93000) into timestamps."""
    import pandas as pd

    if _are_whole_numbers(times_of_day):
        if times_of_day.max() > 240000:  # these are whole timestamps since 1970, beside a date
            return times_of_day
        digits = times_of_day.astype("int64").astype(str).str.zfill(6 if times_of_day.max() > 2400 else 4)
        times_of_day = digits.str.replace(
            r"^(\d\d)(\d\d)(\d\d)?$", lambda m: ":".join(filter(None, m.groups())), regex=True
        )
    if pd.api.types.is_datetime64_any_dtype(dates):
        dates = dates.dt.strftime("%Y-%m-%d")
    elif _are_whole_numbers(dates):
        dates = dates.astype("int64").astype(str).str.replace(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", regex=True)
    joined = dates.astype(str).str.strip() + " " + times_of_day.astype(str).str.strip()
    return joined.mask((dates.isna() | times_of_day.isna()).to_numpy(bool))


def _are_whole_numbers(values: "pd.Series") -> bool:
    """Whether these are numbers without a fraction, so that their digits can be a date or a clock."""
    import pandas as pd

    if not pd.api.types.is_numeric_dtype(values) or values.dtype.kind in "cb":
        return False
    numbers = values.to_numpy(np.float64, na_value=np.nan)
    return bool((np.isfinite(numbers) & (np.abs(numbers) < 1e18)).all() and (numbers == np.floor(numbers)).all())


def _from_numbers(values: np.ndarray, row_name: RowName) -> "pd.DatetimeIndex":
    import pandas as pd

    for width, form in DIGITS.items():
        low, high = 1900 * 10.0 ** (width - 4), 2100 * 10.0 ** (width - 4)
        if ((values >= low) & (values < high)).all():
            text = pd.Series(values.astype(np.int64)).astype(str)
            parsed = pd.to_datetime(text, format=form, errors="coerce").mask(values != np.floor(values))
            _check_parsed(parsed, pd.Series(values), row_name)
            return pd.DatetimeIndex(parsed)
    scale = np.zeros(len(values), np.int64)
    for low, high, nanoseconds in EPOCHS:
        scale[(values >= low) & (values < high)] = nanoseconds
    if not scale[0]:
        raise DataError(
            f"{row_name(0)}: the number {shown(values[0])} is not a time; use ISO dates, YYYYMMDD, or seconds, ms, us "
            "or ns since 1970"
        )
    if not scale.all():
        bad = int(np.argmin(scale))
        raise DataError(
            f"{row_name(bad)}: the number {shown(values[bad])} is not a time as the first one, {shown(values[0])}; "
            "use seconds, ms, us or ns since 1970"
        )
    whole = values.astype(np.int64)
    # Float64 tells microseconds apart in seconds since 1970, and not much less.
    rest = (np.round((values - whole) * (scale / 1000)) * 1000).astype(np.int64)
    times = whole * scale + np.where(scale >= 1000, rest, 0)
    # Exchanges changed from ms to us. What runs in order in both is right, since no time fits two units.
    steps = np.diff(times)
    other = np.flatnonzero(scale != scale[0])
    if other.size and not ((steps > 0).all() or (steps < 0).all()):
        raise DataError(
            f"{row_name(other[0])}: the time {values[other[0]]} is not in the unit of the first one, {values[0]}, and "
            "the times do not run in order; write all times in one unit (seconds, ms, us or ns since 1970)"
        )
    return pd.DatetimeIndex(times.astype("datetime64[ns]"), tz="UTC")


def _from_text(
    stamps: "pd.Series", tz: str | None, row_name: RowName, histories: np.ndarray | None, day_first: bool | None
) -> tuple["pd.DatetimeIndex", str | None]:
    """Parse text. Return the times and the zone of their offsets. Without any offset the times have no zone."""
    import pandas as pd

    if re.match(PLAIN_ISO, str(stamps.iloc[0])):  # most files need no look at each text
        with contextlib.suppress(ValueError, TypeError):
            index = _from_iso(stamps)
            if index.tz is None:
                return index, None
    text = stamps.astype("str").str.strip()
    if re.fullmatch(NUMBER, text.iloc[0]) and text.str.fullmatch(NUMBER).all():
        return _from_numbers(pd.to_numeric(text).to_numpy(), row_name), None
    text, named = _without_zone(text)
    if named is not None:
        wall = _in_nanoseconds(_from_wall_text(text, stamps, row_name, day_first), stamps, row_name)
        return wall_to_utc(wall, named, histories, row_name), named
    text, offsets = _without_offsets(text, row_name)
    wall = _in_nanoseconds(_from_wall_text(text, stamps, row_name, day_first), stamps, row_name)
    has_offset = ~np.isnan(offsets)
    if not has_offset.any():
        return wall, None
    moments = wall.to_numpy() - np.nan_to_num(offsets).astype("timedelta64[m]")
    if has_offset.all():
        return pd.DatetimeIndex(moments, tz="UTC"), zone_of_offsets(moments, offsets)
    if tz is None:
        odd = int(np.flatnonzero(has_offset != has_offset[0])[0])
        raise DataError(
            f"{row_name(odd)}: only some times carry an offset ('{shown(stamps.iloc[0])}' and "
            f"'{shown(stamps.iloc[odd])}'); write all of them with one, or name the zone of the wall clock with `tz`"
        )
    rows = np.flatnonzero(~has_offset)
    own = None if histories is None else histories[rows]
    without = wall_to_utc(wall[rows], tz, own, lambda row: row_name(int(rows[row])))
    moments[rows] = without.tz_localize(None).to_numpy()
    return pd.DatetimeIndex(moments, tz="UTC"), None


def _without_zone(text: "pd.Series") -> tuple["pd.Series", str | None]:
    """Cut the name of a zone off the texts, as in "20240105 09:30:00 US/Eastern". None where they do not share one."""
    match = ZONE.search(text.iloc[0])
    if match is None or not text.str.endswith(match[1]).all():
        return text, None
    return text.str[: -len(match[1])], match[2]


def _without_offsets(text: "pd.Series", row_name: RowName) -> tuple["pd.Series", np.ndarray]:
    """Cut the offset off the end of each text. Return the rest, and the offsets in minutes [T], NaN without one.

    Raises DataError where an offset is the name of several zones.
    """
    import pandas as pd

    codes, endings = pd.factorize(text.str[-ENDING:])
    minutes, length = np.full(len(endings), np.nan), np.zeros(len(endings), np.int64)
    for i, ending in enumerate(endings):
        if match := OFFSET.search(ending):
            hours = int(match[2] or 0)
            minutes[i] = 60 * hours + np.copysign(int(match[3] or 0), -1 if (match[2] or "").startswith("-") else 1)
            length[i] = len(match[1])
        elif match := NAMED.search(ending):
            if match[2] not in ABBREVIATIONS:
                row = int(np.argmax(codes == i))
                raise DataError(
                    f"{row_name(row)}: the time ends in '{match[2]}', which names several zones or none known; "
                    "write an offset such as +01:00, or remove it and name the zone with `tz`"
                )
            minutes[i], length[i] = 60 * ABBREVIATIONS[match[2]], len(match[1])
    cuts = np.unique(length)
    if len(cuts) == 1:
        return (text.str[: -int(cuts[0])] if cuts[0] else text), minutes[codes]
    for cut in cuts[cuts > 0]:
        text = text.where(length[codes] != cut, text.str[: -int(cut)])
    return text, minutes[codes]


def _from_wall_text(
    text: "pd.Series", stamps: "pd.Series", row_name: RowName, day_first: bool | None
) -> "pd.DatetimeIndex":
    """Parse text without offsets. A message shows the text as it was in `stamps`."""
    import pandas as pd

    try:
        return _from_iso(text)
    except pd.errors.OutOfBoundsDatetime:
        raise
    except ValueError:
        pass
    wall = read_dates(text, day_first, row_name)
    _check_parsed(pd.Series(wall), stamps, row_name)
    return pd.DatetimeIndex(wall)


def _from_iso(text: "pd.Series") -> "pd.DatetimeIndex":
    """Parse ISO text some rows at a time, because pandas makes objects of all texts that it is given."""
    import pandas as pd

    pieces = [text.iloc[start : start + ROWS_AT_ONCE] for start in range(0, len(text), ROWS_AT_ONCE)]
    first, *others = (pd.DatetimeIndex(pd.to_datetime(piece, format="ISO8601")) for piece in pieces)
    return pd.DatetimeIndex(first.append(others))


def _in_nanoseconds(index: "pd.DatetimeIndex", stamps: "pd.Series", row_name: RowName) -> "pd.DatetimeIndex":
    """Return the times in nanoseconds. Raise DataError where one is outside of the years that these hold."""
    outside = (index.year < FIRST_YEAR) | (index.year > LAST_YEAR)
    if outside.any():
        raise _beyond_years(int(np.argmax(outside)), stamps, row_name)
    return index.as_unit("ns")


def _beyond_years(row: int, stamps: "pd.Series", row_name: RowName) -> DataError:
    return DataError(
        f"{row_name(row)}: the time '{shown(stamps.iloc[row])}' is outside of the years {FIRST_YEAR} to {LAST_YEAR}; "
        "correct it"
    )


def _check_parsed(parsed: "pd.Series", text: "pd.Series", row_name: RowName) -> None:
    bad = np.flatnonzero(parsed.isna())
    if bad.size:
        raise DataError(
            f"{row_name(bad[0])}: '{shown(text.iloc[bad[0]])}' is not a readable time; write ISO times such as "
            "2024-01-31 or 2024-01-31 15:30"
        )
