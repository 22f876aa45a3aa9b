"""What does the same trading come to under gym-trading-env's money rules and under ours?

Positions on 13 years of AAPL are traded at the close where they change. Without costs the two agree at every bar.
With a fee they differ by a hundredth of what was paid: gym-trading-env meets the position after the fee, we size before
costs. It sets its interest anew at each bar and does not add it up. So a debt pays for its last bar only, and for none
once it is repaid. What the interest took is the final equity without interest less the one with it, in units of the
capital.

    python benchmarks/money.py [--quick] [--write] [--peers gymtrading] [--peer-python PEER=PYTHON]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from machine import report
from peers.install import asked
from peers.parity_cases import Case, answered, gym_cases

PEER = "gym-trading-env"
STORED = Path(__file__).parent.parent / "tests" / "parity" / f"{PEER}.npz"
COLUMNS = ("case", "bars", "theirs", "ours", "difference", "their interest", "our interest")


def rows_of(found: list[tuple[Case, np.ndarray]]) -> list[list[Any]]:
    """A row for each case: final equities, and what interest took of each."""
    pairs = [(case, theirs / 1000, case.result().equity) for case, theirs in found]
    without = {key(case): (theirs[-1], ours[-1]) for case, theirs, ours in pairs if not case.settings["rate"]}
    rows = []
    for case, theirs, ours in pairs:
        took = [before - after for before, after in zip(without[key(case)], (theirs[-1], ours[-1]), strict=True)]
        rows.append([case.name, len(ours), theirs[-1], ours[-1], float(np.abs(theirs / ours - 1).max()), *took])
    return rows


def key(case: Case) -> tuple[bytes, float]:
    """What two cases share that differ in interest alone."""
    return case.targets.tobytes(), case.settings["fee"]


def main() -> None:
    """Ask gym-trading-env, or take what it answered before, and report how ours compares."""
    given, python = asked(__doc__, "gymtrading")
    found, versions = answered(STORED, PEER, gym_cases, python, given.write)
    facts = {
        "work": "equities at the end, their largest relative difference over all bars, and what interest took",
        **versions,
    }
    report("money_quick" if given.quick else "money", COLUMNS, rows_of(found[-2:] if given.quick else found), facts)


if __name__ == "__main__":
    main()
