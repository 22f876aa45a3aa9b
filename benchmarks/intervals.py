"""Do the intervals of the verdict cover the truth as often as they say, and is a random walk told from skill?

The first table draws returns whose Sharpe ratio is known: independent normal ones, Student's t with 4 degrees of
freedom, and an AR(1) of 0.2. It counts how often a nominal 95% interval holds the truth, for the mean, the Sharpe
ratio, and the difference to a baseline that is correlated by 0.7. The second counts the verdicts on accounts that hold
while the last return is above 0, by the ledger and beside their baselines. On a random walk that is chance, and on an
AR(1) it is a signal. Nothing here is timed.

    python benchmarks/intervals.py [--quick] [--samples N] [--parts PART ...]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from machine import arguments, parsed, report
from workload import candles, opens_of

import jaxtrader as jt
from jaxtrader.evaluation import bootstrap
from jaxtrader.evaluation.baselines import baselines
from jaxtrader.evaluation.evaluation_log import Trials
from jaxtrader.evaluation.verdict import POLICY, verdict

PARTS = ("coverage", "verdicts")
TRUTH = 0.05  # the Sharpe ratio of a bar
CORRELATION = 0.7
KINDS = ("iid normal", "t(4)", "AR(0.2)")
LENGTHS = (250, 500, 2000)
VERDICT_LENGTHS, COEFFICIENTS = (500, 2500), (0.0, 0.05, 0.1, 0.2)
WORDS = ("Better", "Not distinguishable", "Worse")
NO_COSTS = jt.Costs(fee=0.0, slippage=0.0)


def standard(kind: str, bars: int, rng: np.random.Generator) -> np.ndarray:
    """Returns of mean 0 and deviation 1."""
    if kind == "t(4)":
        return rng.standard_t(4, bars) / np.sqrt(2)
    noise = rng.normal(size=bars + 100)
    if kind == "AR(0.2)":
        for t in range(1, len(noise)):
            noise[t] += 0.2 * noise[t - 1]
        noise *= np.sqrt(1 - 0.04)
    return noise[100:]


def coverage(kind: str, bars: int, samples: int, draws: int) -> list[float]:
    """The share of samples whose interval holds the truth: of the mean, the Sharpe ratio and the difference."""
    rng = np.random.default_rng(bars)
    other = TRUTH * (CORRELATION + np.sqrt(1 - CORRELATION**2))
    hits = np.zeros(3)
    for seed in range(samples):
        own, noise = standard(kind, bars, rng) + TRUTH, standard(kind, bars, rng) + TRUTH
        baseline = CORRELATION * own + np.sqrt(1 - CORRELATION**2) * noise
        found = (
            (bootstrap.mean_interval(own, draws=draws, seed=seed), TRUTH),
            (bootstrap.sharpe_interval(own, draws=draws, seed=seed), TRUTH),
            (bootstrap.sharpe_difference_interval(own, baseline, draws=draws, seed=seed), TRUTH - other),
        )
        hits += [one.low <= truth <= one.high for one, truth in found]
    return list(hits / samples)


def verdicts(coefficient: float, bars: int, samples: int) -> list[float]:
    """The shares of "better", "not distinguishable" and "worse" among the verdicts on so many accounts.

    Args:
        coefficient: of the AR(1) that the bar returns follow. The account holds while the last return is above 0. At 0
            the market is a random walk, and this is as good as chance.
        bars: of each account.
        samples: how many accounts.
    """
    counts = np.zeros(len(WORDS))
    for seed in range(samples):
        rng = np.random.default_rng(seed)
        returns = rng.normal(0, 0.01, bars)
        for t in range(1, bars):
            returns[t] += coefficient * returns[t - 1]
        close = 100 * np.exp(np.cumsum(returns))
        frame = candles(opens_of(close), close, freq="D")
        market = jt.Market.from_bars(jt.load_bars(frame), features=["log_return_1"])
        held = market.features[market.segments[0, 1] :, 0, 0] > 0
        result = jt.simulate(market, held, costs=NO_COSTS)
        part = {POLICY: result, **baselines(market, result)}
        said = verdict({"test": part}, trials=Trials(evaluations=1, count=1, variance=1 / bars))[0]
        counts += [said.startswith(word) for word in WORDS]
    return list(counts / samples)


def main() -> None:
    parser = arguments(__doc__, "few samples: only shows that the script runs")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    given = parsed(parser)
    samples = 5 if given.quick else given.samples
    if "coverage" in given.parts:
        print_coverage(samples, given.quick)
    if "verdicts" in given.parts:
        print_verdicts(samples, given.quick)


def print_coverage(samples: int, quick: bool) -> None:
    """Print the first table."""
    draws, rows = 100 if quick else 500, []
    for bars in LENGTHS[:1] if quick else LENGTHS:
        for kind in KINDS:
            rows.append([kind, bars, *(f"{share:.1%}" for share in coverage(kind, bars, samples, draws))])
            print(*rows[-1], sep=" | ", flush=True)
    work = (
        f"share of {samples} samples whose nominal {bootstrap.LEVEL:.0%} interval holds the truth, {draws} draws each"
    )
    report("intervals", ["returns", "bars", "mean", "Sharpe ratio", "difference"], rows, {"work": work}, quick)


def print_verdicts(samples: int, quick: bool) -> None:
    """Print the second table."""
    rows: list[list[Any]] = []
    for bars in VERDICT_LENGTHS[:1] if quick else VERDICT_LENGTHS:
        for coefficient in COEFFICIENTS:
            accounts = samples if coefficient == 0 else -(-samples // 5)  # of a signal a rough share is enough
            shares = verdicts(coefficient, bars, accounts)
            rows.append([coefficient, bars, accounts, *(f"{share:.1%}" for share in shares)])
            print(*rows[-1], sep=" | ", flush=True)
    columns = ["AR(1) coefficient", "bars", "accounts", *(word.lower() for word in WORDS)]
    work = "verdicts on accounts without costs that hold while the last return is above 0"
    report("verdicts", columns, rows, {"work": work}, quick)


if __name__ == "__main__":
    main()
