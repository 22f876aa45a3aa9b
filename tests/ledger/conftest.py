"""Short histories stay short: `simulate` would carry 64 bars through 512 rows, of which 448 say nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def short_programs() -> Iterator[None]:
    """Lengths are rounded up to 64 bars. tests/evaluation/test_simulate.py shows that padding changes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxtrader.evaluation.simulate.round_length", lambda rows: rows + -rows % 64)
        yield
