"""Parses timestamps (ISO text, offsets, epoch numbers, YYYYMMDD, day-first dates) into datetime64[ns] in UTC.

A timestamp that can be read in two ways is an error. The order and the number of the timestamps never change.
"""

from typing import TYPE_CHECKING

import numpy as np

from jaxtrader.market.bar_checks import RowName
from jaxtrader.market.clock import check_time_zone
from jaxtrader.market.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

OFFSET = r"(:\d{2}(?:[.,]\d+)?)\s*(?:Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$"
YEAR_FIRST = r"^(\d{4})[./](\d{1,2})[./](\d{1,2})"
YEAR_LAST = r"^(\d{1,2})[./-](\d{1,2})[./-](\d{4})(.*)$"
# (lowest, highest, nanoseconds a unit) for s, ms, us and ns: the years 1973 to 2286. The ranges do not overlap.
EPOCHS = ((1e8, 1e10, 10**9), (1e11, 1e13, 10**6), (1e14, 1e16, 10**3), (1e17, 9.2e18, 1))
DIGITS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


def parse_times(stamps: "pd.Series", tz: str | None, row_name: RowName) -> np.ndarray:
    """Parse timestamps.

    Args:
        stamps: T timestamps: text, numbers or datetimes.
        tz: zone of the wall clock that they show. An offset in the text is then ignored. None reads the offset, and
            takes timestamps without one as UTC.
        row_name: names a row in a message.

    Returns:
        [T] datetime64[ns], UTC.

    Raises:
        DataError: a timestamp is missing, unreadable or ambiguous, or `tz` skips or repeats it at a clock change.
    """
    import pandas as pd

    missing = np.flatnonzero(stamps.isna())
    if missing.size:
        raise DataError(f"{row_name(missing[0])}: the time is missing; correct or remove the row.")
    try:
        if pd.api.types.is_datetime64_any_dtype(stamps):
            index = pd.DatetimeIndex(stamps)
        elif pd.api.types.is_numeric_dtype(stamps):
            index = _from_numbers(stamps.to_numpy(), tz, row_name)
        else:
            index = _from_text(stamps, tz, row_name)
        return _to_utc(index.as_unit("ns"), tz, row_name)
    except pd.errors.OutOfBoundsDatetime as error:
        raise DataError(
            f"{row_name(0)} or a later row: the time is outside of the years 1678 to 2261; correct it."
        ) from error


def join_date_and_time(dates: "pd.Series", times_of_day: "pd.Series") -> "pd.Series":
    """Join a date column and a time-of-day column (text, or numbers such as 930 or 93000) into timestamps."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(times_of_day):
        if times_of_day.max() > 240000:  # these are whole timestamps since 1970, beside a date
            return times_of_day
        digits = times_of_day.astype("Int64").astype(str).str.zfill(6 if times_of_day.max() > 2400 else 4)
        times_of_day = digits.str.replace(
            r"^(\d\d)(\d\d)(\d\d)?$", lambda m: ":".join(filter(None, m.groups())), regex=True
        )
    if pd.api.types.is_datetime64_any_dtype(dates):
        dates = dates.dt.strftime("%Y-%m-%d")
    elif pd.api.types.is_numeric_dtype(dates):
        dates = dates.astype("Int64").astype(str).str.replace(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", regex=True)
    return dates.astype(str).str.strip() + " " + times_of_day.astype(str).str.strip()


def _from_numbers(values: np.ndarray, tz: str | None, row_name: RowName) -> "pd.DatetimeIndex":
    import pandas as pd

    for width, form in DIGITS.items():
        low, high = 1900 * 10.0 ** (width - 4), 2100 * 10.0 ** (width - 4)
        if ((values >= low) & (values < high)).all():
            text = pd.Series(values.astype(np.int64)).astype(str)
            parsed = pd.to_datetime(text, format=form, errors="coerce")
            _check_parsed(parsed, text, row_name)
            return pd.DatetimeIndex(parsed)
    for low, high, scale in EPOCHS:
        if low <= values[0] < high:
            bad = np.flatnonzero(~((values >= low) & (values < high)))
            if bad.size:
                raise DataError(
                    f"{row_name(bad[0])}: the time {values[bad[0]]} is not in the unit of the first one, {values[0]}; "
                    "write all times in one unit (seconds, ms, us or ns since 1970)."
                )
            if tz is not None:
                raise DataError(
                    f"{row_name(0)}: the time {values[0]} counts from 1970 in UTC and shows no wall clock, so "
                    f"tz='{tz}' cannot apply; leave tz out."
                )
            whole = values.astype(np.int64)
            rest = (np.round((values - whole) * 1e6) * (scale // 1000)).astype(np.int64) if scale >= 1000 else 0 * whole
            return pd.DatetimeIndex((whole * scale + rest).astype("datetime64[ns]"), tz="UTC")
    raise DataError(
        f"{row_name(0)}: the number {values[0]} is not a time; use ISO dates, YYYYMMDD, or seconds, ms, us or ns since "
        "1970."
    )


def _from_text(stamps: "pd.Series", tz: str | None, row_name: RowName) -> "pd.DatetimeIndex":
    import pandas as pd

    text = stamps.astype("str").str.strip()
    if text.str.fullmatch(r"\d+(\.\d+)?").all():
        number = pd.to_numeric(text)
        return _from_numbers(number.to_numpy(), tz, row_name)
    has_offset = text.str.contains(OFFSET.replace("(:", "(?::", 1), regex=True).to_numpy(bool)
    if has_offset.any() and not has_offset.all() and tz is None:
        odd = int(np.flatnonzero(has_offset != has_offset[0])[0])
        raise DataError(
            f"{row_name(odd)}: only some times carry an offset ('{text.iloc[0]}' and '{text.iloc[odd]}'); write all "
            "of them with one, or name the zone of the wall clock with tz= (--tz)."
        )
    utc = bool(has_offset.any()) and tz is None
    if has_offset.any() and tz is not None:
        text = text.str.replace(OFFSET, r"\1", regex=True)
    try:
        return pd.DatetimeIndex(pd.to_datetime(text, format="ISO8601", utc=utc))
    except pd.errors.OutOfBoundsDatetime:
        raise
    except ValueError:
        pass
    text = text.str.replace(YEAR_FIRST, r"\1-\2-\3", regex=True)
    text = text.str.replace(r"^(\d{4}-)(\d)(?=-)", r"\g<1>0\2", regex=True).str.replace(
        r"^(\d{4}-\d\d-)(\d)(?!\d)", r"\g<1>0\2", regex=True
    )
    last = text.str.extract(YEAR_LAST)
    if last[0].notna().mean() > 0.5:
        text = _iso_from_year_last(text, last, row_name)
    named_month = text.str.contains(r"[A-Za-z]{3}", regex=True).all()
    parsed = pd.to_datetime(text, format=None if named_month else "ISO8601", errors="coerce", utc=utc)
    _check_parsed(parsed, stamps, row_name)
    return pd.DatetimeIndex(parsed)


def _iso_from_year_last(text: "pd.Series", parts: "pd.DataFrame", row_name: RowName) -> "pd.Series":
    """Rewrite day-first or month-first dates as ISO text. Raise DataError if both orders or neither fit all rows."""
    numbers = parts[[0, 1]].astype(float)
    first, second = numbers[0].max(), numbers[1].max()
    if (first > 12) == (second > 12):
        why = "either order fits every row" if first <= 12 else "neither order fits every row"
        raise DataError(
            f"{row_name(0)}: the date '{text.iloc[0]}' could be day-first or month-first ({why}); write dates as "
            "YYYY-MM-DD."
        )
    day, month = (0, 1) if first > 12 else (1, 0)
    iso = parts[2] + "-" + parts[month].str.zfill(2) + "-" + parts[day].str.zfill(2) + parts[3].fillna("")
    return iso.where(iso.notna(), text)


def _check_parsed(parsed: "pd.Series", text: "pd.Series", row_name: RowName) -> None:
    bad = np.flatnonzero(parsed.isna())
    if bad.size:
        raise DataError(
            f"{row_name(bad[0])}: '{text.iloc[bad[0]]}' is not a readable time; write ISO times such as "
            "2024-01-31 or 2024-01-31 15:30."
        )


def _to_utc(index: "pd.DatetimeIndex", tz: str | None, row_name: RowName) -> np.ndarray:
    if tz is None:
        naive = index if index.tz is None else index.tz_convert("UTC").tz_localize(None)
        return naive.to_numpy().astype("datetime64[ns]")
    check_time_zone(tz)
    wall = index if index.tz is None else index.tz_localize(None)
    local = wall.tz_localize(tz, ambiguous="NaT", nonexistent="NaT")
    bad = np.flatnonzero(local.isna())
    if bad.size:
        one = wall[bad[:1]]
        skipped = one.tz_localize(tz, ambiguous=np.array([True]), nonexistent="NaT").isna()[0]
        fault = "does not exist" if skipped else "happens twice"
        raise DataError(
            f"{row_name(bad[0])}: the wall-clock time {one[0]} {fault} in {tz}, where the clocks change; give the "
            "times in UTC or with offsets, and leave tz out."
        )
    return local.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ns]")
