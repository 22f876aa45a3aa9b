"""Each rule and cost has a test that is found by its name, and a bar worked out by hand in which it is switched on."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest
from ledger.reference import RATES

from jaxtrader.ledger.rules import Rules

FIELDS = [*(field.name for field in dataclasses.fields(Rules)), *RATES, "stop_loss", "take_profit", "funding"]
MODULES = [importlib.import_module(f"ledger.{path.stem}") for path in Path(__file__).parent.glob("test_*.py")]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_is_named_by_the_test_that_is_about_it(field):
    assert any(f"`{field}`" in module.__doc__ for module in MODULES)


def test_the_worked_bars_switch_every_field_on():
    cases = [case for module in MODULES for case in getattr(module, "CASES", ()) if isinstance(case, dict)]
    on = {name for case in cases for part in (case.get("settings", {}), *case["bars"]) for name in part}
    assert set(FIELDS) <= on
