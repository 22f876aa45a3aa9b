"""Do the intervals of the verdict cover the truth as often as they say, and is a random walk told from skill?

The first table draws returns whose Sharpe ratio is known: independent normal ones, Student's t with 4 degrees of
freedom, and an AR(1) of 0.2. It counts how often a nominal 95% interval holds the truth, for the mean, the Sharpe
ratio, and the difference to a baseline that is correlated by 0.7. The second draws accounts that are in and out of a
random walk by chance, and accounts that know a part of the next bar, and counts the verdicts. Nothing here is timed.

    python benchmarks/intervals.py [--quick] [--samples N]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from machine import parsed, report

from jaxtrader.evaluation import bootstrap

LEVEL, TRUTH = 0.95, 0.05  # nominal coverage, and the Sharpe ratio of a bar
CORRELATION = 0.7
KINDS = ("iid normal", "t(4)", "AR(0.2)")
LENGTHS = (250, 500, 2000)


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
            (bootstrap.mean_interval(own, level=LEVEL, draws=draws, seed=seed), TRUTH),
            (bootstrap.sharpe_interval(own, level=LEVEL, draws=draws, seed=seed), TRUTH),
            (bootstrap.sharpe_difference_interval(own, baseline, level=LEVEL, draws=draws, seed=seed), TRUTH - other),
        )
        hits += [one.low <= truth <= one.high for one, truth in found]
    return list(hits / samples)


def verdicts(skill: float, bars: int, samples: int, draws: int) -> list[float]:
    """The shares of "better", "no different" and "worse" than holding the mean exposure.

    Args:
        skill: correlation of the exposure with the next return.
        bars: of each account.
        samples: how many accounts.
        draws: of each bootstrap.
    """
    counts = np.zeros(3)
    for seed in range(samples):
        rng = np.random.default_rng(seed)
        market = rng.normal(0, 0.01, bars)
        seen = skill * market / 0.01 + np.sqrt(1 - skill**2) * rng.normal(size=bars)
        held = (seen > 0).astype(float)
        found = bootstrap.sharpe_difference_interval(held * market, held.mean() * market, draws=draws, seed=seed)
        counts += [found.low > 0, found.low <= 0 <= found.high, found.high < 0]
    return list(counts / samples)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few samples: only shows that the script runs")
    parser.add_argument("--samples", type=int, default=1000)
    given = parsed(parser)
    samples, draws = (20, 100) if given.quick else (given.samples, 500)
    ending = "_quick" if given.quick else ""
    rows: list[list[Any]] = []
    for bars in LENGTHS[:1] if given.quick else LENGTHS:
        for kind in KINDS:
            rows.append([kind, bars, *(f"{share:.1%}" for share in coverage(kind, bars, samples, draws))])
            print(*rows[-1], sep=" | ", flush=True)
    work = f"share of {samples} samples whose nominal {LEVEL:.0%} interval holds the truth, {draws} draws each"
    facts = {"work": work}
    report(f"intervals{ending}", ["returns", "bars", "mean", "Sharpe ratio", "difference"], rows, facts)
    rows = []
    for skill in (0.0, 0.05, 0.1, 0.2):
        shares = verdicts(skill, 500, samples, draws)
        rows.append([skill, *(f"{share:.1%}" for share in shares)])
        print(*rows[-1], sep=" | ", flush=True)
    facts = {"work": f"verdicts on {samples} accounts of 500 bars against holding their mean exposure"}
    report(f"verdicts{ending}", ["correlation with the next bar", "better", "no different", "worse"], rows, facts)


if __name__ == "__main__":
    main()
