"""How messages name settings, and checks of their types with the same words. They need the standard library alone.

An argument that is wrong is a ValueError in the whole package, also where its type is wrong.
"""

from __future__ import annotations

import sys
from numbers import Integral, Number, Real
from typing import TypeGuard

MOST_SHOWN = 60  # characters of a value
NO_VALUE = object()


def setting(name: str, value: object = NO_VALUE) -> str:
    """Return a setting as messages name it: as Python in backquotes, `window` or `window=250`.

    The command line finds what stands in backquotes, and writes it as its flag or as the key of a file. Text stays
    whole, since it may be a path. Another long value is cut, and stands in one line.
    """
    if value is NO_VALUE:
        return f"`{name}`"
    if isinstance(value, str):
        return f"`{name}={value!r}`"
    # NumPy's `repr` of a number has its type, and that of a table several lines.
    text = str(value) if isinstance(value, Number) else " ".join(repr(value).split())
    return f"`{name}={text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 3] + '...'}`"


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is one real number of Python or NumPy. True and False are not numbers."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether a value is an integer of Python or NumPy. True and False are not numbers."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_labelled(value: object) -> bool:
    """Return whether a value is a Series or DataFrame of pandas, which is not imported for this."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.Series | pandas.DataFrame)


def check_unlabelled(name: str, value: object) -> None:
    """Raise ValueError where numbers have labels, which would be dropped. The text names the setting."""
    if is_labelled(value):
        raise ValueError(
            f"`{name}` is a {type(value).__name__}, whose labels are not read; give `{name}.to_numpy()`, with the "
            "assets in the market's order"
        )


def with_article(kind: type) -> str:
    """Return the name of a type as a text says it: "a Market", "an int"."""
    name = kind.__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def check_type(user: str, value: object, kind: type, way_out: str) -> None:
    """Raise ValueError where an object is of another type than its user needs. The text names both types."""
    if not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else with_article(type(value))
        raise ValueError(f"{user} needs {with_article(kind)}, not {given}; {way_out}")


def check_number(name: str, value: object) -> None:
    """Raise ValueError where a setting is not a number. The text names the setting."""
    if not is_number(value):
        raise ValueError(f"{setting(name, value)} must be a number")


def check_flag(name: str, value: object) -> None:
    """Raise ValueError where a setting is neither True nor False. The text names the setting."""
    if not isinstance(value, bool):
        raise ValueError(f"{setting(name, value)} must be True or False")


def check_whole(name: str, value: object, least: int = 1, most: int | None = None, unit: str = "") -> int:
    """Return a setting as an int. Raise ValueError where it is not a whole number from `least` to `most`.

    The text names the setting. A number of NumPy becomes one of Python, since files hold only those.

    Args:
        name: the setting.
        value: its value.
        least: the lowest allowed value.
        most: the highest allowed value. None: there is none.
        unit: what the number counts, such as "bars", for the text.
    """
    if is_whole(value) and least <= value and (most is None or value <= most):
        return int(value)
    of_unit = f" of {unit}" if unit else ""
    limits = f"at least {least}" if most is None else f"from {least} to {most:,}"
    way_out = f"; write {int(value)}" if isinstance(value, float) and value.is_integer() else ""
    raise ValueError(f"{setting(name, value)} must be a whole number{of_unit}, {limits}{way_out}")
