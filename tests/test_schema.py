"""schema.py: what fits its schema is taken over, and what does not is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest

from jaxtrader.schema import MAX_ITEMS, MAX_TEXT, Array, Count, Length, Range, SchemaError, misfit, parse


@dataclass(frozen=True)
class Inner:
    """A part."""

    kind: Literal["a", "b"]
    share: Annotated[float, Range(0, 1)] = 0.5


@dataclass(frozen=True)
class Other:
    """Another part."""

    depth: Count


@dataclass(frozen=True)
class Open:
    """A part that may have more."""

    FURTHER: ClassVar[bool] = True

    name: str


@dataclass(frozen=True)
class Whole:
    """A file."""

    inner: Inner | Other | None
    sizes: tuple[int, ...]
    pair: tuple[str, float]
    weights: Annotated[np.ndarray, Array("float32", 1)] | None
    names: list[str]
    notes: dict[str, str] = field(default_factory=dict)
    opened: Open | None = None
    flag: bool = False
    few: Annotated[tuple[int, ...], Length(2)] = ()


SOUND: dict[str, Any] = {
    "inner": {"kind": "a"},
    "sizes": [1, 2],
    "pair": ("x", 3),
    "weights": np.zeros(2, np.float32),
    "names": ["x"],
}


def test_what_fits_comes_back_as_its_types() -> None:
    whole: Whole = parse({**SOUND, "opened": {"name": "n", "more": 1}}, Whole)
    assert whole.inner == Inner("a", 0.5)
    assert (whole.sizes, whole.pair, whole.names) == ((1, 2), ("x", 3), ["x"])
    assert whole.weights is SOUND["weights"]
    assert whole.opened == Open("n")
    assert (whole.notes, whole.flag) == ({}, False)
    assert parse({**SOUND, "inner": {"depth": 3}}, Whole).inner == Other(3)
    assert parse({**SOUND, "inner": None}, Whole).inner is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"inner": {"kind": "c"}}, "inner.kind is 'c', and must be one of 'a', 'b'"),
        ({"inner": {"kind": ["a"]}}, r"inner.kind is \['a'\], and must be one of"),
        ({"inner": {"kind": "a", "share": 1.5}}, "inner.share is 1.5, and must be a number from 0 to 1"),
        ({"inner": {"kind": "a", "share": float("nan")}}, "inner.share is nan, and must be a number from 0 to 1"),
        ({"inner": {"kind": "a", "share": True}}, "inner.share is True, and must be a number"),
        ({"inner": {"depth": 2**31}}, "inner.depth is 2147483648, and must be a whole number from 1 to 2,147,483,647"),
        ({"inner": {"depth": 1.0}}, "inner.depth is 1.0, and must be a whole number"),
        ({"inner": {}}, "inner.kind is missing"),
        ({"inner": 3}, "inner is 3, and must be a dict of fields or a dict of fields or None"),
        ({"sizes": [1, "x"]}, r"sizes\[1\] is 'x', and must be a whole number"),
        ({"sizes": {1: 2}}, "sizes is {1: 2}, and must be a list, each of whose parts is a whole number"),
        ({"pair": ["x"]}, r"pair is \['x'\], and must be a list of 2 parts"),
        ({"weights": np.zeros(2)}, r"weights is an array of float64 and shape \[2\], and must be an array of float32 "),
        ({"weights": np.zeros((1, 2), np.float32)}, "with 1 axes"),
        ({"weights": [0.0]}, r"weights is \[0.0\], and must be an array of float32 with 1 axes"),
        ({"names": "x"}, "names is 'x', and must be a list"),
        ({"names": ["x" * (MAX_TEXT + 1)]}, r"names\[0\] is 'x+\.\.\.x+', and must be a text of at most 10,000"),
        ({"notes": {"a\x1b[2J": 1}}, r"notes.a \[2J is 1, and must be a text"),
        ({"opened": {}}, "opened.name is missing"),
        ({"opened": [], "flag": 1}, r"opened is \[\], and must be a dict of fields"),
        ({"few": [1, 2, 3]}, r"few is \[1, 2, 3\], and must be a list, .*, with at most 2 of them"),
        ({"sizes": [1] * (MAX_ITEMS + 1)}, "sizes has 100,001 items, and may have 100,000"),
        ({"flag": 1}, "flag is 1, and must be True or False"),
        ({"more": 1}, "more is a field that is not known"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SchemaError, match=says) as no:
        parse({**SOUND, **changes}, Whole)
    assert len(str(no.value)) < 300
    assert str(no.value).isprintable()


@pytest.mark.parametrize("value", [None, [], 3, "x", np.zeros(1)])
def test_a_file_that_is_no_dict_is_refused(value: object) -> None:
    with pytest.raises(SchemaError, match=r"the file is .*, and must be a dict of fields"):
        parse(value, Whole)


def test_any_number_but_nan_is_a_number() -> None:
    assert parse(float("inf"), Annotated[float, Range()]) == float("inf")
    with pytest.raises(SchemaError, match="nan"):
        parse(float("nan"), Annotated[float, Range()])


def test_a_tree_of_arrays_that_is_not_as_its_template_is_named_by_its_place() -> None:
    template = {"layer": {"kernel": np.zeros((2, 3), np.float32)}, "count": np.int32(0)}
    assert misfit({"layer": {"kernel": np.ones((2, 3), np.float32)}, "count": np.int32(7)}, template) is None
    for tree, says in (
        ({**template, "layer": {"kernel": np.zeros((3, 2), np.float32)}}, "['layer']['kernel'] is ((3, 2), 'float32')"),
        ({**template, "count": 0.0}, "['count'] is ((), 'float64'), not ((), 'int32')"),
        ({"count": np.int32(0)}, "['layer']['kernel'] is None"),
        ({**template, "more": np.zeros(1)}, "['more'] is ((1,), 'float64'), not None"),
    ):
        assert says in str(misfit(tree, template))
