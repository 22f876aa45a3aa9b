"""The scalar reference on a case of `parity_cases`, by the rules, costs and brackets of the case."""

from __future__ import annotations

from typing import Any

from ledger.reference import Settings, result
from parity_cases import BRACKETS, Case


def reference_of(case: Case) -> dict[str, Any]:
    """What the reference makes of the case, see `ledger.reference.result`."""
    columns, settings = {name: values.tolist() for name, values in case.columns().items()}, dict(case.settings)
    settings.pop("marked", None)
    bars, assets = case.targets.shape
    brackets = {name: [[settings.pop(name)] * assets] * bars for name in BRACKETS if name in settings}
    further = {name: columns[name] for name in ("high", "low")} | brackets
    return result(columns["open"], columns["close"], columns["targets"], Settings(**settings), **further)
