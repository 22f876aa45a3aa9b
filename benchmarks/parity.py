"""Is it the same money as vectorbt's, backtesting.py's and gym-trading-env's, bar by bar?

The first table has the largest relative difference of equity over all closes, ours in float64 and float32, where the
rules of vectorbt and backtesting.py can say the same.

The second has positions on 13 years of AAPL, traded at the close where they change, beside gym-trading-env. Without
costs the two agree at every bar. With a fee they differ by a hundredth of what was paid: gym-trading-env meets the
position after the fee, we size before costs. It sets its interest anew at each bar and does not add it up. So a debt
pays for its last bar only, and for none once it is repaid. What the interest took is the final equity without interest
less the one with it, in units of the capital.

What is compared is in `peers/parity_cases.py`. `--write` stores the peers' answers where `tests/parity` reads them: run
it when a pin in `peers/install.py` changes. `--quick` and `--peers ''` take the stored answers. Nothing here is timed.

    python benchmarks/parity.py [--quick] [--write] [--peers backtests,gymtrading] [--peer-python PEER=PYTHON]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from machine import arguments, parsed, report
from peers.install import add_options, interpreters
from peers.parity_cases import Case, answered, backtesting_cases, gym_cases, vectorbt_cases

STORED = Path(__file__).parent.parent / "tests" / "parity"
# By library.
SAME = {"vectorbt": vectorbt_cases, "backtesting": backtesting_cases}
GYM = "gym-trading-env"


def differences(case: Case, answer: np.ndarray) -> list[float]:
    """The largest relative difference over all bars, in float64 and in float32."""
    return [float(np.abs(case.marks(dtype) / answer - 1).max()) for dtype in ("float64", "float32")]


def interest_rows(found: list[tuple[Case, np.ndarray]]) -> list[list[Any]]:
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
    """Ask the peers, or take what they answered before, and print how ours compares."""
    parser = arguments(__doc__, "two cases of each peer, from the stored answers")
    parser.add_argument("--write", action="store_true", help="store the answers for the tests")
    add_options(parser, "backtests", "gymtrading")
    given = parsed(parser)
    pythons = {} if given.quick else interpreters(given)
    rows: list[list[Any]] = []
    versions: dict[str, str] = {}
    for peer, make in SAME.items():
        found, by = answered(STORED / f"{peer}.npz", peer, make, pythons.get("backtests"), given.write)
        versions |= by
        for case, answer in found[:2] if given.quick else found:
            costs = [case.settings["fee"], case.settings["slippage"]]
            rows.append([f"{peer}: {case.name}", len(answer), *costs, *differences(case, answer)])
    columns = ["case", "bars", "fee", "slippage", "float64", "float32"]
    facts = {"work": "largest relative difference of equity over all bars", **versions}
    report("parity", columns, rows, facts, given.quick)

    found, versions = answered(STORED / f"{GYM}.npz", GYM, gym_cases, pythons.get("gymtrading"), given.write)
    columns = ["case", "bars", "theirs", "ours", "difference", "their interest", "our interest"]
    work = "equities at the end, their largest relative difference over all bars, and what interest took"
    rows = interest_rows(found[-2:] if given.quick else found)
    report("parity_interest", columns, rows, {"work": work, **versions}, given.quick)


if __name__ == "__main__":
    main()
