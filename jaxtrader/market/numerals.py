"""Turns columns of text into numbers: thousands separators, decimal commas, currency signs, 55.20K.

A mark that may be a decimal or a thousands separator is never guessed. What it means is concluded from values that have
one reading, such as `1,234.5` and `96,57`, and holds for the whole table. A decimal point of prices says nothing
of a volume, because vendors write volumes in ways of their own.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxtrader.market.bar_checks import RowName
from jaxtrader.market.errors import DataError, shown
from jaxtrader.setting_checks import setting

if TYPE_CHECKING:
    import pandas as pd

MISSING = r"|[-\u2013\u2014]+|\.|n/?a|n\.a\.|nan|null|none|<na>"
CURRENCY = r"[$€£¥₹₩₽₿]|US\$|USD|EUR|GBP|INR|Rs\.?"
PLAIN = (np.dtype(np.float64), np.dtype(np.int64))
SPACES = "\u0020\u00a0\u2009\u202f'\u2019"  # between thousands
SCALES = {"k": "e3", "m": "e6", "mn": "e6", "b": "e9", "bn": "e9", "t": "e12", "万": "e4", "亿": "e8"}
SCALED = rf"({'|'.join(sorted(SCALES, key=len, reverse=True))})$"

# Values whose marks have one reading, after signs, currencies and scales were taken off.
COMMA_GROUPS, POINT_GROUPS = r"\d{1,3}(?:,\d\d\d?)*,\d{3}", r"\d{1,3}(?:\.\d\d\d?)*\.\d{3}"  # 1,234 and 12,34,567
COMMAS_GROUP = rf"{COMMA_GROUPS}\.\d*|\d{{1,3}}(?:,\d\d\d?)+,\d{{3}}"  # 1,234.5 or 1,234,567
POINTS_GROUP = rf"{POINT_GROUPS},\d*|\d{{1,3}}(?:\.\d\d\d?)+\.\d{{3}}"
COMMA_EITHER, POINT_EITHER = r"[1-9]\d{0,2},\d{3}", r"[1-9]\d{0,2}\.\d{3}"  # 1,234
EITHER = rf"{COMMA_EITHER}|{POINT_EITHER}"
ONE_COMMA, ONE_POINT = r"\d*,\d*", r"\d*\.\d*"
POINT_OR_WHOLE = rf"{POINT_EITHER}|\d{{1,3}}"
PROVES_NO_GROUPS = re.compile(rf"[-+]?(?!(?:{POINT_EITHER})$)(?:\d*\.\d+|\d{{4,}})")
NEIGHBOURS = 30.0  # times. Prices side by side differ by less, and by 1,000 where only one of them is read wrong.


@dataclasses.dataclass(frozen=True)
class _Example:
    """A value of the table that shows what a mark means."""

    column: str
    row: int
    value: str


def needs_text(values: "pd.Series") -> bool:
    """Whether a column of text may hold numbers whose marks have to be looked at."""
    marks = r"^[^\dA-Za-z]*(?:\d[\d.]*,\d|\d{1,3}(?:\.\d{3}){2,}(?!\d))"  # 1,5 or 1.234.567
    return bool(values.astype("str").str.match(marks).any())


def may_be_groups(values: np.ndarray) -> bool:
    """Whether the text of numbers [T] may be 5.560 or 7 throughout, which is 5560 where points group thousands.

    All of them have up to three digits before the point and up to three behind it.
    """
    for part in (values[:1000], values):  # the first rows show it for most columns
        size = np.abs(part[~np.isnan(part)])
        with np.errstate(invalid="ignore", over="ignore"):
            thousandths = np.abs(size * 1000 - np.round(size * 1000)) <= 1e-6
        if not ((size == 0) | ((size >= 1) & (size < 1000) & thousandths)).all():
            return False
    return bool((values != 0).any())


def read_numbers(
    frame: "pd.DataFrame",
    needed: Sequence[Sequence[str]],
    wanted: Sequence[str],
    decimal: str | None,
    row_name: RowName,
    points: str = "unknown",
) -> tuple[dict[str, np.ndarray], str | None]:
    """Read columns as numbers.

    Args:
        frame: T rows. Columns of numbers are taken as they are.
        needed: groups of columns that must hold numbers. In a group, which is written alike, a decimal comma of one
            value is one of all values.
        wanted: columns that are left out unless all their values are numbers.
        decimal: the decimal mark, "." or ",". None concludes it.
        row_name: names a row in a message.
        points: whether points are "decimal" in the layout of the table, or "likely" so, or "unknown".

    Returns:
        [T] float64 by column, where a missing value is NaN, and a note on a reading that is likely, or None.

    Raises:
        DataError: a value of a needed column is no number, or has two readings.
    """
    import pandas as pd

    out: dict[str, np.ndarray] = {}
    texts = {}
    columns = [name for group in needed for name in group] + list(wanted)
    if len(columns) > 100:  # one array of all is far faster than a series of each
        plain = [name for name, kind in zip(columns, frame.dtypes[columns], strict=True) if kind in PLAIN]
        out |= dict(zip(plain, frame[plain].to_numpy(np.float64).T.copy(), strict=True))
        columns = [name for name in columns if name not in out]
    for column in columns:
        values = frame[column]
        kind = getattr(values.dtype, "kind", "O")
        if kind in "mMcb" and column not in wanted:  # NumPy would convert dates, durations and booleans
            raise DataError(
                f"{row_name(0)}: the column {shown(column)} holds {values.dtype}, not numbers; correct or rename it"
            )
        if kind in "mMc":
            continue
        if pd.api.types.is_numeric_dtype(values):
            out[column] = values.to_numpy(np.float64, na_value=np.nan)
        else:
            texts[column] = _bare(values)
    if not texts:
        return out, None
    marks = _Marks(texts, out.copy(), needed, decimal, row_name, points)
    for column in texts:
        optional = column in wanted
        read, bad = marks.read(column, optional)
        if not bad.size:
            out[column] = read
        elif not optional:
            marks.refuse(column, frame[column], int(bad[0]))
    return out, marks.note


def _bare(values: "pd.Series") -> "pd.Series":
    """Text without spaces, currencies and scales. It is missing where it stands for a missing value."""
    text = values.astype("str").str.strip().mask(values.isna().to_numpy(bool))
    plain = text.isna() | text.str.fullmatch(r"[-+]?[\d.,]+").fillna(False).astype(bool)
    if plain.all():
        return text
    odd = text[~plain].str.lower()
    odd = odd.mask(odd.str.fullmatch(MISSING).fillna(False).astype(bool))
    odd = odd.str.replace("\u2212", "-").str.replace(
        rf"^([-+]?)\s*(?:{CURRENCY})\s*", r"\1", regex=True, flags=re.IGNORECASE
    )
    odd = odd.str.replace(rf"\s*(?:{CURRENCY})$", "", regex=True, flags=re.IGNORECASE)
    odd = odd.str.replace(rf"(?<=\d)[{SPACES}](?=\d{{3}}(?!\d))", "", regex=True)
    odd = odd.str.replace(rf"(?<=[\d.])\s*{SCALED}", lambda found: SCALES[found[1]], regex=True)
    text = text.copy()
    text[~plain] = odd
    return text


class _Marks:
    """What commas and points mean in the columns of a table."""

    def __init__(
        self,
        texts: "dict[str, pd.Series]",
        numbers: dict[str, np.ndarray],
        groups: Sequence[Sequence[str]],
        decimal: str | None,
        row_name: RowName,
        points: str,
    ) -> None:
        self.texts, self.numbers, self.decimal, self.row_name, self.points = texts, numbers, decimal, row_name, points
        self.note: str | None = None
        self.mantissas = {name: text.str.replace(r"^[-+]|e[-+]?\d+$", "", regex=True) for name, text in texts.items()}
        self.group_of = {name: list(group) for group in groups for name in group}
        columns = [name for name in self.group_of if name in texts]
        self.commas_group = self._example(columns, COMMAS_GROUP)
        self.points_group = self._example(columns, POINTS_GROUP)
        self.own_way: list[str] = []  # columns whose points group, where others have decimal points
        if self.points_group and decimal is None and self._has_point_elsewhere(self.points_group):
            self.own_way, self.points_group = self.group_of[self.points_group.column], None
        decimal_commas = (self._example([name], ONE_COMMA, unlike=EITHER) for name in columns)
        self.decimal_comma = self.points_group or next((found for found in decimal_commas if found), None)
        if not self.commas_group and not self.decimal_comma:  # a turnover may tell it where the volume does not
            self.commas_group = self._example(list(texts), COMMAS_GROUP)
        if decimal is None and self.commas_group and self.decimal_comma:
            one, other = self.commas_group, self.decimal_comma
            raise DataError(
                f"{row_name(other.row)}: {shown(other.column)} is '{shown(other.value)}' with a decimal comma, but "
                f"{shown(one.column)} is '{shown(one.value)}' in {row_name(one.row)} with a comma between thousands; "
                "write all numbers alike"
            )

    def _example(self, columns: Sequence[str], pattern: str, unlike: str | None = None) -> _Example | None:
        """The first value of these columns, where they are text, that is written in a way."""
        for column in columns:
            if column not in self.mantissas:
                continue
            text = self.mantissas[column]
            found = text.str.fullmatch(pattern).fillna(False).to_numpy(bool)
            if unlike is not None and found.any():
                found = found & ~text.str.fullmatch(unlike).fillna(False).to_numpy(bool)
            if found.any():
                row = int(np.argmax(found))
                return _Example(column, row, str(self.texts[column].iloc[row]))
        return None

    def read(self, column: str, optional: bool) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of a column, and the rows that hold none. Raise DataError where a value has two readings."""
        import pandas as pd

        text, decimal = self.texts[column], self.decimal
        if decimal is None:
            group = self.group_of.get(column, [column])
            commas = self.points_group or self._example(group, ONE_COMMA, unlike=EITHER) or column in self.own_way
            decimal = "," if commas else "."
            either = None
            if commas:
                is_shown = self.points_group or column in self.own_way
                either = None if is_shown else self._example([column], POINT_EITHER)
            elif not self.commas_group:
                either = self._example([column], EITHER if self.decimal_comma else COMMA_EITHER)
                if not either and column in self.group_of:
                    either = self._point_in_groups(column)
            if either and optional:
                return np.empty(0), np.array([either.row])
            if either:
                self._refuse_either(either)
        mark, groups = (",", COMMA_GROUPS) if decimal == "." else (".", POINT_GROUPS)
        marked = text.str.contains(mark, regex=False).fillna(False).to_numpy(bool)
        clean = text
        if marked.any():
            whole = self.mantissas[column].str.fullmatch(rf"{groups}(?:\{decimal}\d*)?").fillna(False).to_numpy(bool)
            clean = text.str.replace(mark, "", regex=False).mask(marked & ~whole, "?")
        if decimal == ",":
            clean = clean.str.replace(",", ".", regex=False)
        read = pd.to_numeric(clean, errors="coerce")
        bad = np.flatnonzero((read.isna() & clean.notna() & (clean.str.lower() != "nan")).to_numpy(bool))
        return read.to_numpy(np.float64, na_value=np.nan), bad

    def _point_in_groups(self, column: str) -> _Example | None:
        """A value whose point may stand between thousands, without a proof in the table that points are decimals."""
        either = self._example([column], POINT_EITHER)
        group = self.group_of[column]
        if either is None or self.points == "decimal" or not all(map(self._may_have_groups, group)):
            return None
        if len(group) == 1:
            return either
        if self._example(group, r"\d{1,3}"):
            return None if self._side_by_side(group) else either
        if any(self._has_decimal_points(name) for name in (*self.texts, *self.numbers) if name not in group):
            return None
        if self.points != "likely":
            return either
        value = shown(either.value)
        self.note = (
            f"Prices such as '{value}' were read with a decimal point; `decimal=','` reads them as "
            f"{value.replace('.', '')}."
        )
        return None

    def _may_have_groups(self, name: str) -> bool:
        """Whether all values of a column are such as 5.560 or 7."""
        if name not in self.texts:
            return may_be_groups(self.numbers[name])
        text = self.mantissas[name]
        return bool((text.isna() | text.str.fullmatch(POINT_OR_WHOLE).fillna(False).astype(bool)).all())

    def _has_decimal_points(self, name: str) -> bool:
        """Whether a column has a value with a point that stands between no thousands."""
        if name in self.texts:
            return self._example([name], ONE_POINT, unlike=POINT_EITHER) is not None
        values = self.numbers[name]
        values = values[np.isfinite(values)]
        return bool((values != np.floor(values)).any() and not may_be_groups(values))

    def _has_point_elsewhere(self, example: _Example) -> bool:
        """Whether points group whole numbers in the columns of an example, and are decimal in others that are needed.

        As in a volume of 1.765.591 beside a price of 9.88.
        """
        group = self.group_of[example.column]
        if self._example(group, r".*,.*"):
            return False
        return any(self._has_decimal_points(name) for name in self.group_of if name not in group)

    def _side_by_side(self, group: Sequence[str]) -> bool:
        """Whether prices with decimal points are near to those beside and above them."""
        import pandas as pd

        columns = [
            pd.to_numeric(self.mantissas[name], errors="coerce") if name in self.texts else self.numbers[name]
            for name in group
        ]
        with np.errstate(all="ignore"):
            logs = np.log(np.stack(columns, axis=1).astype(np.float64))
        steps = [np.abs(np.diff(logs, axis=axis)) for axis in (0, 1)]
        return all(step[np.isfinite(step)].max(initial=0.0) < np.log(NEIGHBOURS) for step in steps)

    def _refuse_either(self, either: _Example) -> None:
        value = either.value
        mark = "," if "," in value else "."
        digits, point = value.replace(mark, ""), value.replace(mark, ".")
        other = "." if mark == "," else ","
        raise DataError(
            f"{self.row_name(either.row)}: {shown(either.column)} is '{shown(value)}', which is {shown(digits)} with a "
            f"separator of thousands and {shown(point)} with a decimal one; say which by "
            f"{setting('decimal', other)} or {setting('decimal', mark)}"
        )

    def refuse(self, column: str, values: "pd.Series", row: int) -> None:
        """Raise DataError on a value that is no number."""
        written = "" if self.decimal is None else f" with {setting('decimal', self.decimal)}"
        if self.decimal is None and self.decimal_comma is not None and re.search(r"\d[.,]\d", str(values.iloc[row])):
            seen = self.decimal_comma
            written = f", as '{shown(seen.value)}' in {self.row_name(seen.row)} has a decimal comma"
        raise DataError(
            f"{self.row_name(row)}: {shown(column)} is '{shown(values.iloc[row])}', which is not a number{written}; "
            "correct the row, or remove text from the column"
        )
