"""Adjusts raw prices by the dividends and splits that a file lists in columns of their own, without an adjusted close.

Many files list them beside prices that are adjusted already. The prices themselves tell: raw prices drop by a dividend
at its date, and by the ratio of a split.
"""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from jaxtrader.market.bar_checks import PRICE_LIMITS, RowName, format_time
from jaxtrader.market.columns import canonical
from jaxtrader.market.errors import DataError
from jaxtrader.market.share_splits import SMALLEST

DIVIDENDS = ("dividends", "dividend", "dividendamount", "dividendpershare", "cashdividend", "divcash", "exdividend")
SPLITS = ("stocksplits", "stocksplit", "splits", "split", "splitratio", "splitfactor", "splitcoefficient")
LIMITS = {"dividend": (0.0, PRICE_LIMITS[1]), "split": (1e-6, 1e6)}
RARE = 0.2  # share of the rows. A column with more values lists no events.
ERRORS = 3.0  # standard errors that make a difference
# Opens drop by less than the dividend (Elton and Gruber 1970, https://doi.org/10.2307/1927599). They dropped by 0.6 of
# it and more for most of 60 stocks in 2000 to 2012.
SMALLEST_DROP = 0.35
EXTREME = 5.0  # usual jumps. Larger ones are cut to this, so that a crash does not decide on dividends.
SMALLEST_NOISE = 1e-4


@dataclasses.dataclass(frozen=True, eq=False)
class Actions:
    """The columns of dividends and splits.

    Attributes:
        dividend_name: the column, or None.
        dividends: [T] cash for each share, paid to who held it at the last close. 0 where there is none.
        split_name: the column, or None.
        splits: [T] new shares for an old one, from this bar on. 1 where there is none.
    """

    dividend_name: str | None
    dividends: np.ndarray
    split_name: str | None
    splits: np.ndarray


def read_actions(columns: Mapping[str, np.ndarray], row_name: RowName) -> Actions | None:
    """Find the columns of dividends and splits and check their values.

    Args:
        columns: the numeric columns that have no other role, [T] each.
        row_name: names a row in the message.

    Returns:
        The actions, or None if there are no such columns, or nothing is in them.

    Raises:
        DataError: a dividend or a split is outside LIMITS.
    """
    found: dict[str, tuple[str | None, np.ndarray]] = {}
    for kind, spellings, nothing in (("dividend", DIVIDENDS, 0.0), ("split", SPLITS, 1.0)):
        name = next((name for name in columns if re.sub(r"^\d+", "", canonical(name)) in spellings), None)
        if name is None:
            continue
        values = np.where(np.isnan(columns[name]) | (columns[name] == 0), nothing, columns[name])
        if not 0 < np.count_nonzero(values != nothing) <= max(1, RARE * len(values)):
            continue
        lowest, highest = LIMITS[kind]
        bad = np.flatnonzero(~((values >= lowest) & (values <= highest)))
        if bad.size:
            raise DataError(
                f"{row_name(bad[0])}: {name} is {values[bad[0]]:g}, but a {kind} must be 0 or from {lowest:g} to "
                f"{highest:g}; correct the row, or drop the column"
            )
        found[kind] = name, values
    if not found:
        return None
    bars = len(next(iter(found.values()))[1])
    return Actions(*found.get("dividend", (None, np.zeros(bars))), *found.get("split", (None, np.ones(bars))))


def adjustment(
    actions: Actions, prices: Mapping[str, np.ndarray], row_name: RowName
) -> tuple[np.ndarray | None, list[str]]:
    """Compute the factors that adjust prices for the actions that the prices show.

    A split is in the prices where the jump to its open is nearer to its ratio than to none. Dividends are in the prices
    where a regression of the jumps on -dividend / last close has a slope above 0 by 3 standard errors. They are not
    where it is below SMALLEST_DROP by as many. A price before a split of k new shares for an old one is divided by k. A
    price before a dividend d is multiplied by 1 - d / last close, as CRSP and Yahoo do.

    Args:
        actions: dividends and splits.
        prices: open and close, [T] each.
        row_name: names a row in the message.

    Returns:
        The factor [T] of each row, or None if nothing is to be adjusted, and a sentence on each column.

    Raises:
        DataError: a dividend is not below the last close.
    """
    last, events = prices["close"][:-1], np.ones(len(prices["close"]))
    jumps = prices["open"][1:] / last
    splits = actions.splits[1:]
    shown = (splits != 1) & (np.abs(np.log(jumps * splits)) < np.abs(np.log(jumps)))
    notes = []
    if actions.split_name is not None:
        count, total = int(shown.sum()), int((splits != 1).sum())
        events[1:] = np.where(shown, 1 / splits, 1)
        notes.append(
            f"'{actions.split_name}' was used: the prices before {_share(count, total, 'split')} were divided by it."
            if count
            else f"'{actions.split_name}' was not used: the prices do not jump at its splits, so they are adjusted "
            "for them already."
        )
    if actions.dividend_name is not None:
        jumps = np.where(shown, jumps * splits, jumps)
        yields = actions.dividends[1:] * np.where(shown, splits, 1) / last
        raw = _drops_by(yields, jumps - 1, splits == 1)
        total = int(np.count_nonzero(yields))
        if raw:
            bad = np.flatnonzero(yields >= 1)
            if bad.size:
                raise DataError(
                    f"{row_name(bad[0] + 1)}: {actions.dividend_name} is {actions.dividends[bad[0] + 1]:g}, not below "
                    f"the last close of {last[bad[0]]:g}; correct the row, or drop the column"
                )
            events[1:] *= 1 - yields
        notes.append(_dividend_note(actions.dividend_name, raw, _share(total, total, "dividend")))
    if (events == 1).all():
        return None, notes
    factor = np.ones(len(events))
    factor[:-1] = np.cumprod(events[:0:-1])[::-1]
    return factor, notes


def volume_note(factor: np.ndarray, times: np.ndarray) -> str | None:
    """Name the splits at which a volume in shares of its day may jump, or return None without any.

    Args:
        factor: [T] by which raw prices were multiplied. It steps by the ratio of a split.
        times: [T] datetime64[ns].
    """
    rows = np.flatnonzero(np.abs(np.diff(np.log(factor))) > SMALLEST) + 1
    if not rows.size:
        return None
    return (
        f"Volume is taken as the shares of its day. So volume_ratio may jump at {_share(len(rows), len(rows), 'split')}"
        f", the first at {format_time(times[rows[0]])}."
    )


def _dividend_note(name: str, raw: bool | None, dividends: str) -> str:
    if raw:
        return f"'{name}' was used: the prices before {dividends} were multiplied by 1 - dividend / last close."
    if raw is None:
        return (
            f"'{name}' was not used: beside the usual moves, {dividends} are too few to tell whether the prices are "
            "adjusted for them; give an adjusted close if they are not."
        )
    return f"'{name}' was not used: the prices do not drop by its dividends, so they are adjusted for them already."


def _drops_by(yields: np.ndarray, jumps: np.ndarray, plain: np.ndarray) -> bool | None:
    """Say whether the jumps [T-1] contain the dividend yields [T-1]. None if that cannot be told.

    `plain` [T-1] are the jumps that measure the noise.
    """
    paid = yields > 0
    noise = jumps[plain & ~paid]
    power = float(np.sum(yields[paid] ** 2))
    if power == 0 or not len(noise):
        return None
    usual = max(float(np.median(np.abs(noise))) / 0.6745, SMALLEST_NOISE)
    deviation = max(float(np.sqrt(np.mean(np.clip(noise, -EXTREME * usual, EXTREME * usual) ** 2))), usual)
    slope, error = -float(np.sum(jumps[paid] * yields[paid])) / power, deviation / np.sqrt(power)
    drops, stays = slope > max(ERRORS * error, SMALLEST_DROP), slope < SMALLEST_DROP - ERRORS * error
    return drops if drops != stays else None


def _share(count: int, total: int, word: str) -> str:
    return f"{count:,} {word}{'s' * (count != 1)}" if count == total else f"{count:,} of {total:,} {word}s"
