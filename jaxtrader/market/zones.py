"""Converts wall-clock times to UTC, and finds the zone that a table's offsets belong to.

An hour that comes twice where clocks go back is told by the order of the rows. What cannot be told is an error.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, available_timezones

import numpy as np

from jaxtrader.market.bar_checks import RowName, format_time, spacing
from jaxtrader.market.clock import HOUR, time_zone
from jaxtrader.market.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

# Zones of large exchanges. They are tried before others with the same clock changes.
EXCHANGES = (
    *("America/New_York", "Europe/London", "Europe/Berlin", "America/Chicago", "America/Toronto", "Australia/Sydney"),
    *("America/Sao_Paulo", "Asia/Jerusalem", "Europe/Athens", "Europe/Moscow", "Pacific/Auckland"),
)
MAX_COMPARED = 500  # moments of which the offset is compared with a zone's


def name_of_zone(index: "pd.DatetimeIndex") -> str | None:
    """Return the name of the zone of times with one, which `clock.wall_clock` accepts. None is UTC."""
    name = str(index.tz)
    if name == "UTC":
        return None
    try:
        time_zone(name)
    except DataError:  # a zone of another library, or one made by hand
        utc = index.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ns]")
        local = index.tz_localize(None).to_numpy().astype("datetime64[ns]")
        return zone_of_offsets(utc, (local - utc).astype("timedelta64[m]").astype(np.int64))
    return name


def zone_of_offsets(times: np.ndarray, offsets: np.ndarray) -> str | None:
    """Return a zone in which clocks differ from UTC by the given offsets at the given times.

    Args:
        times: [T] datetime64[ns], UTC.
        offsets: [T] int, minutes.

    Returns:
        A zone such as "America/New_York" where the offset changes as its clocks do, or "UTC-05:00" where it is always
        the same. None is UTC, also where no zone fits.
    """
    changes = np.flatnonzero(np.diff(offsets))
    if not changes.size:
        sign, (hours, minutes) = "-" if offsets[0] < 0 else "+", divmod(abs(int(offsets[0])), 60)
        return f"UTC{sign}{hours:02d}:{minutes:02d}" if offsets[0] else None
    rows = np.unique(np.concatenate([[0], changes, changes + 1, [len(times) - 1]]))
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_COMPARED)).astype(int)]
    moments = [datetime.fromisoformat(f"{time}+00:00") for time in times[rows].astype("datetime64[us]")]
    wanted = [timedelta(minutes=int(offset)) for offset in offsets[rows]]
    for zone in _zones():
        if all(m.astimezone(zone).utcoffset() == w for m, w in zip(moments, wanted, strict=True)):
            return zone.key
    return None


def wall_to_utc(
    wall: "pd.DatetimeIndex", tz: str, histories: np.ndarray | None, row_name: RowName
) -> "pd.DatetimeIndex":
    """Convert wall-clock times to UTC. Dates, without a time of day, become the first moment of the day.

    Args:
        wall: T times without a zone.
        tz: their zone.
        histories: [T] number of the history that each row belongs to. None is one history.
        row_name: names a row in a message.

    Raises:
        DataError: the zone is unknown, or a time is skipped where clocks go forward. Or it comes once where clocks go
            back, so that its hour is not known.
    """
    zone = time_zone(tz)
    if (wall == wall.normalize()).all():  # in some zones clocks change at midnight
        return wall.tz_localize(zone, ambiguous=np.ones(len(wall), bool), nonexistent="shift_forward").tz_convert("UTC")
    local = wall.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    unclear = np.flatnonzero(local.isna())
    if not unclear.size:
        return local.tz_convert("UTC")
    one = wall[unclear]
    skipped = np.flatnonzero(one.tz_localize(zone, ambiguous=np.ones(len(one), bool), nonexistent="NaT").isna())
    if skipped.size:
        row = int(unclear[skipped[0]])
        raise DataError(
            f"{row_name(row)}: the wall-clock time {wall[row]} does not exist in {tz}, where clocks go forward; give "
            "the times in UTC or with offsets, and leave `tz` out"
        )
    first_time = np.zeros(len(wall), bool)
    values = wall.to_numpy()
    for rows in _rows_by_history(values, histories):
        for run in _runs_of(rows, unclear):
            back = np.flatnonzero(np.diff(values[run]) <= np.timedelta64(0)) + 1
            if len(back) != 1:
                raise DataError(
                    f"{row_name(run[0])}: the wall-clock time {wall[run[0]]} happens twice in {tz}, where clocks go "
                    "back, and the rows do not show which of the two it is; give the times in UTC or with offsets, and "
                    "leave `tz` out"
                )
            first_time[run[: back[0]]] = True
    return wall.tz_localize(zone, ambiguous=first_time).tz_convert("UTC")


def check_clocks_never_go_back(wall: np.ndarray, histories: np.ndarray | None, row_name: RowName) -> None:
    """Raise DataError where an hour of times without a zone comes twice, as a wall clock shows it in autumn.

    Args:
        wall: [T] datetime64[ns].
        histories: see `wall_to_utc`.
        row_name: names a row in the message.
    """
    if _is_in_order(wall):  # as most are, without a copy of them
        return
    for rows in _rows_by_history(wall, histories):
        steps = np.diff(wall[rows])
        back = np.flatnonzero((steps <= np.timedelta64(0)) & (steps > -HOUR))
        # Bars of a day and more have no hour that comes twice. What comes twice elsewhere, too, is no change of clocks.
        different = np.unique(wall[rows])
        if not back.size or len(different) < 2 or spacing(different) > HOUR:
            continue
        first = int(back[0])
        time, row = wall[rows[first + 1]], int(rows[first + 1])
        if zone := _zone_that_repeats(time):
            raise DataError(
                f"{row_name(row)}: the time {format_time(time)} comes again after {format_time(wall[rows[first]])}, "
                f"because clocks go back there, as in {zone}; name the zone of the wall clock with `tz`"
            )


def _is_in_order(values: np.ndarray) -> bool:
    """Whether values [T] only grow, or only fall."""
    return bool((values[1:] > values[:-1]).all() or (values[1:] < values[:-1]).all())


def _rows_by_history(values: np.ndarray, histories: np.ndarray | None) -> Iterator[np.ndarray]:
    """Yield the rows of each history, from old to new."""
    everything = np.arange(len(values))
    by_history = [everything]
    if histories is not None:
        order = np.argsort(histories, kind="stable")
        by_history = np.split(order, np.flatnonzero(np.diff(histories[order])) + 1)
    for rows in by_history:
        steps = np.diff(values[rows]).astype(np.int64)
        yield rows[::-1] if (steps < 0).sum() > len(steps) / 2 else rows


def _runs_of(rows: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
    """Return the rows among `wanted`, in parts that follow each other."""
    at = np.flatnonzero(np.isin(rows, wanted))
    return [rows[part] for part in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if part.size]


def _zone_that_repeats(wall: np.datetime64) -> str | None:
    """Return a zone in which a wall-clock time comes twice, or None."""
    moment = datetime.fromisoformat(str(wall.astype("datetime64[us]")))
    for zone in _zones():
        first, second = (moment.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
        if first is not None and second is not None and first > second:
            return zone.key
    return None


@cache
def _zones() -> tuple[ZoneInfo, ...]:
    names = [*EXCHANGES, *sorted(name for name in available_timezones() if "/" in name)]
    return tuple(ZoneInfo(name) for name in dict.fromkeys(names) if not name.startswith("Etc/"))
