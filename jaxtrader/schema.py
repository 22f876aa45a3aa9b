"""Checks what a file holds against a schema: a dataclass whose annotations say what each field may be.

A file that somebody has changed is refused here, with the name of the field, and not by a traceback somewhere later.
Whether the parts of a file fit each other is for its reader to say.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from jaxtrader.printable import shown

MAX_TEXT = 10_000  # characters of a text, such as the name of a symbol
MAX_ITEMS = 100_000  # of a list or a dict
MOST_SHOWN = 60  # characters of a value in a message


class SchemaError(ValueError):
    """What a file holds is not what its schema says. The message names the field, its value, and what it must be."""


@dataclass(frozen=True)
class Range:
    """The lowest and the highest number that a field may be. It annotates int or float.

    NaN is in no range.
    """

    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Length:
    """The largest number of items, where it is below MAX_ITEMS. It annotates list and tuple."""

    most: int


@dataclass(frozen=True)
class Array:
    """The number format of an array and the number of its axes (None: any). It annotates np.ndarray."""

    dtype: str
    ndim: int | None = None


Count = Annotated[int, Range(1, 2**31 - 1)]
Natural = Annotated[int, Range(0, 2**63 - 1)]


def parse(value: Any, hint: Any, where: str = "") -> Any:
    """Return a value of a file as its type, where it is what the type says.

    Args:
        value: what `files.load` returned, or a part of it.
        hint: bool, int, float, str, None, Any, Literal, a union, np.ndarray with `Array`, list[X], tuple[X, ...],
            tuple[X, Y], dict[str, X], or a dataclass. A float may be an int, and a tuple may be a list. int and float
            may be annotated with a `Range`, list and tuple with a `Length`. A dataclass stands for a dict of its
            fields, where those with a default may be missing. Others may be there only where its class has `FURTHER =
            True`. They are then left out.
        where: the name of the value, for messages.

    Raises:
        SchemaError: the value, or a part of it, is something else.

    Example:
        >>> parse({"low": 1}, Range)
        Range(low=1, high=inf)
    """
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        return _parse_annotated(value, hint, where)
    if origin in (Union, types.UnionType):
        return _parse_union(value, hint, where)
    if dataclasses.is_dataclass(hint):
        return _parse_fields(value, hint, where)
    if origin is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in get_args(hint)):
            raise _wrong(value, hint, where)
        return value
    if origin in _CONTAINERS:
        if type(value) in (list, tuple, dict) and len(value) > MAX_ITEMS:
            raise SchemaError(f"{where or 'the file'} has {len(value):,} items, and may have {MAX_ITEMS:,}")
        return _CONTAINERS[origin](value, hint, where)
    if hint is float:
        wanted: tuple[type, ...] = (float, int)
    else:
        wanted = (type(None),) if hint is None else (hint,)
    if type(value) not in wanted or (hint is str and len(value) > MAX_TEXT):
        raise _wrong(value, hint, where)
    return value


def misfit(stored: Any, template: Any) -> str | None:
    """Return where a tree of arrays has another shape or type than a template, and None where it fits.

    Args:
        stored: nested containers of arrays, such as what `files.load` returned.
        template: the same with the right shapes and types. Its numbers do not matter.

    Example:
        >>> misfit({"rate": np.zeros(2)}, {"rate": np.zeros(3)})
        "['rate'] is ((2,), 'float64'), not ((3,), 'float64')"
    """
    found, expected = _shapes(stored), _shapes(template)
    for place in dict.fromkeys((*expected, *found)):
        if found.get(place) != expected.get(place):
            return f"{place} is {found.get(place)}, not {expected.get(place)}"
    return None


def _shapes(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each array of a tree, by its place."""
    import jax

    shapes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = leaf if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) else np.asarray(leaf)
        shapes[jax.tree_util.keystr(path)] = array.shape, str(array.dtype)
    return shapes


def _parse_annotated(value: Any, hint: Any, where: str) -> Any:
    kind, *limits = get_args(hint)
    if kind is np.ndarray:
        return _parse_array(value, hint, where)
    for limit in limits:  # before the items are read
        if isinstance(limit, Length) and type(value) in (list, tuple) and len(value) > limit.most:
            raise _wrong(value, hint, where)
    found = parse(value, kind, where)
    for limit in limits:
        if isinstance(limit, Range) and not limit.low <= found <= limit.high:
            raise _wrong(value, hint, where)
    return found


def _parse_array(value: Any, hint: Any, where: str) -> np.ndarray:
    _, array = get_args(hint)
    fits = isinstance(value, np.ndarray) and value.dtype.name == array.dtype
    if not fits or (array.ndim is not None and value.ndim != array.ndim):
        raise _wrong(value, hint, where)
    return value


def _parse_union(value: Any, hint: Any, where: str) -> Any:
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    if value is None and len(kinds) < len(get_args(hint)):
        return None
    errors: dict[Any, SchemaError] = {}
    for kind in kinds:
        try:
            return parse(value, kind, where)
        except SchemaError as error:
            errors[kind] = error
    # Where the value may be told for one of them, the message names the part of it that is wrong.
    schemas = [kind for kind in kinds if dataclasses.is_dataclass(kind)] if type(value) is dict else []
    if len(kinds) > 1 and not schemas:
        raise _wrong(value, hint, where)
    nearest = max(schemas, key=lambda kind: len(value.keys() & _hints(kind).keys())) if schemas else kinds[0]
    raise errors[nearest]


def _parse_fields(value: Any, schema: Any, where: str) -> Any:
    if type(value) is not dict:
        raise SchemaError(f"{where or 'the file'} is {_described(value)}, and must be a dict of fields")
    hints = _hints(schema)
    wanted = {field.name: field for field in dataclasses.fields(schema) if field.init}
    for name in value:
        if name not in wanted and not getattr(schema, "FURTHER", False):
            raise SchemaError(f"{_part(where, name)} is a field that is not known")
    for name, field in wanted.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in value:
            raise SchemaError(f"{_part(where, name)} is missing")
    return schema(**{name: parse(value[name], hints[name], _part(where, name)) for name in wanted if name in value})


@functools.cache
def _hints(schema: Any) -> dict[str, Any]:
    return get_type_hints(schema, include_extras=True)


def _parse_list(value: Any, hint: Any, where: str) -> list[Any]:
    if type(value) is not list:
        raise _wrong(value, hint, where)
    (kind,) = get_args(hint)
    return [parse(item, kind, f"{where}[{i}]") for i, item in enumerate(value)]


def _parse_tuple(value: Any, hint: Any, where: str) -> tuple[Any, ...]:
    kinds = get_args(hint)
    if type(value) not in (list, tuple):
        raise _wrong(value, hint, where)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise _wrong(value, hint, where)
    return tuple(parse(item, kind, f"{where}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True)))


def _parse_dict(value: Any, hint: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise _wrong(value, hint, where)
    _, kind = get_args(hint)
    return {name: parse(item, kind, _part(where, name)) for name, item in value.items()}


_CONTAINERS: Mapping[Any, Callable[[Any, Any, str], Any]] = {
    list: _parse_list,
    tuple: _parse_tuple,
    dict: _parse_dict,
}


def _part(where: str, name: str) -> str:
    return f"{where}.{shown(name)}" if where else shown(name)


def _wrong(value: Any, hint: Any, where: str) -> SchemaError:
    return SchemaError(f"{where or 'the file'} is {_described(value)}, and must be {_meaning(hint)}")


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} and shape {shown(list(value.shape))}"
    if isinstance(value, bool | int | float | str | list | tuple | dict | None):
        return shown(reprlib.repr(value), MOST_SHOWN)  # reprlib does not write out what is long
    return f"a {type(value).__name__}"


_MEANINGS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: f"a text of at most {MAX_TEXT:,} characters",
    None: "None",
    type(None): "None",
}


def _meaning(hint: Any) -> str:
    origin, kinds = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated_meaning(*kinds)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_meaning, kinds))
    if origin is Literal:
        return f"one of {', '.join(map(repr, kinds))}" if len(kinds) > 1 else repr(kinds[0])
    if origin is tuple and kinds[-1] is not Ellipsis:
        return f"a list of {len(kinds)} parts"
    if origin in (list, tuple):
        return f"a list, each of whose parts is {_meaning(kinds[0])}"
    if origin is dict:
        return f"a dict, each of whose values is {_meaning(kinds[1])}" if kinds[1] is not Any else "a dict"
    return _MEANINGS.get(hint, "a dict of fields" if dataclasses.is_dataclass(hint) else str(hint))


def _annotated_meaning(kind: Any, limit: Any, *_: Any) -> str:
    if isinstance(limit, Length):
        return f"{_meaning(kind)}, with at most {limit.most} of them"
    if isinstance(limit, Array):
        return f"an array of {limit.dtype}" + ("" if limit.ndim is None else f" with {limit.ndim} axes")
    low, high = (f"{x:,}" if isinstance(x, int) else f"{x:g}" for x in (limit.low, limit.high))
    return f"{_meaning(kind)} from {low} to {high}"
