"""All histories have one length, so that those of one kind share a program."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def one_length() -> Iterator[None]:
    """Lengths are rounded up to 5120 bars. tests/evaluation/test_simulate.py shows that padding changes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxtrader.evaluation.simulate.round_length", lambda rows: rows + -rows % 5120)
        yield
