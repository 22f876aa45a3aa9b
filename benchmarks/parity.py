"""Do vectorbt and backtesting.py come to the same money, bar by bar, where their rules can say the same?

The figure is the largest relative difference of equity over all closes, ours in float64 and float32. What is compared
is in `peers/parity_cases.py`. `--write` stores the peers' answers where `tests/parity` reads them: run it when a pin in
`peers/install.py` changes. Nothing here is timed.

    python benchmarks/parity.py [--quick] [--write] [--peers backtests] [--peer-python PEER=PYTHON]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from machine import report
from peers.install import asked
from peers.parity_cases import Case, answered, backtesting_cases, vectorbt_cases

HERE = Path(__file__).parent
STORED = HERE.parent / "tests" / "parity"
COLUMNS = ("case", "bars", "fee", "slippage", "float64", "float32")
CASES = {"vectorbt": vectorbt_cases, "backtesting": backtesting_cases}


def differences(case: Case, answer: np.ndarray) -> list[float]:
    """The largest relative difference over all bars, in float64 and in float32."""
    return [float(np.abs(case.marks(dtype) / answer - 1).max()) for dtype in ("float64", "float32")]


def main() -> None:
    """Ask the peers, or take what they answered before, and report how ours compares."""
    given, python = asked(__doc__, "backtests")
    rows: list[list[Any]] = []
    versions: dict[str, str] = {}
    for peer, make in CASES.items():
        found, by = answered(STORED / f"{peer}.npz", peer, make, python, given.write)
        versions |= by
        for case, answer in found[:2] if given.quick else found:
            costs = [case.settings["fee"], case.settings["slippage"]]
            rows.append([f"{peer}: {case.name}", len(answer), *costs, *differences(case, answer)])
    facts = {"work": "largest relative difference of equity over all bars", **versions}
    report("parity_quick" if given.quick else "parity", COLUMNS, rows, facts)


if __name__ == "__main__":
    main()
