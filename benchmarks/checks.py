"""Does `jaxtrader check` pass on honest bars, and does it fail where a leak is planted?

Every run is the command itself on a file, with its defaults. The bundled stocks and random walks are honest: a failure
there is a false alarm. Leaks of each kind are planted in a walk and in the stocks, beside two honest features. A leak
is a column of the file or a function in a Python file. "by" is the check that is made for its kind. No leak is planted
for `oracle`, which finds a learner that does not learn. Programs compiled before are not used (JAXTRADER_CACHE=off),
but rows of the same shape share a compilation.

    python benchmarks/checks.py [--quick] [--seeds N]
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import arguments, parsed, report

import jaxtrader as jt
from jaxtrader.cli import main as jaxtrader
from jaxtrader.cli.settings import BUNDLED

MINE = """
import numpy as np
import pandas as pd
import jaxtrader as jt


def next_move(bars):
    return np.log(np.append(bars.close[1:], bars.close[-1:], axis=0) / bars.close)


def deviations(bars):
    values = jt.features.log_return(20).compute(bars)
    return (values - np.nanmean(values)) / np.nanstd(values)


def above_average(bars):
    return np.log(bars.close / pd.DataFrame(bars.close).ewm(span=50).mean().to_numpy())


ahead = jt.features.Feature("ahead", 1, next_move)
short = jt.features.Feature("short", 20, above_average)
standardized = jt.features.Feature("standardized", 21, deviations)
"""
HONEST_FEATURES = "log_return_20,volatility_20"  # honest features beside a planted one
# What is planted, the features it comes in, the check that is made for it.
LEAKS = [
    ("a function that sees the next bar", "mine.py:ahead", "past_only"),
    ("a look-back declared too short", "mine.py:short", "past_only"),
    ("deviations of the whole history", "mine.py:standardized", "past_only"),
    ("a column: next fill to fill, half noise", "half", "plausible"),
    ("a column: next fill to fill, 9/10 noise", "tenth", "plausible"),
    ("a column: next fill to fill, 49/50 noise", "trace", "plausible"),  # too little to be told from chance in one walk
    ("a column known one bar early", "early", "plausible"),
    ("a column: the fill to fill after the next, half noise", "after", "plausible"),
    ("two columns, a leak only together", "locked,key", "one_bar_late"),
]
COLUMNS = ("market", "planted", "by", "exit code", "failed", "seconds")
TRAIN_NOTHING = ("--only", "past_only,plausible")
VERDICT = re.compile(r"^(\w[\w ]*?)  +(pass|FAIL) +(\S+)  at (most|least) (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """What the command said: its exit code, each check's figure and limit, those that failed, and how long it took."""

    code: int
    figures: dict[str, str]
    failed: list[str]
    seconds: float


def check(*words: str) -> Run:
    """`jaxtrader check WORDS`. What it printed is read back."""
    said = io.StringIO()
    began = time.perf_counter()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = jaxtrader(["check", *words])
    seconds = time.perf_counter() - began
    verdicts = VERDICT.findall(said.getvalue())
    if not verdicts:
        raise SystemExit(f"jaxtrader check {' '.join(words)} checked nothing:\n{said.getvalue()}")
    figures = {name.strip(): f"{figure} (at {side} {limit})" for name, _, figure, side, limit in verdicts}
    return Run(code, figures, [name.strip() for name, verdict, *_ in verdicts if verdict == "FAIL"], seconds)


def walk(bars: int, seed: int) -> pd.DataFrame:
    """Daily bars of a random walk with fat tails, gaps over night, a drift, and a volume that follows the move."""
    rng = np.random.default_rng(seed)
    gap, move = rng.standard_t(4, (2, bars)) * [[0.004], [0.01]]
    close = 50 * np.exp(np.cumsum(0.0003 + gap + move))
    first = close * np.exp(-move)
    reach = np.abs(rng.normal(0, 0.004, (2, bars)))
    prices = {
        "open": first,
        "high": np.maximum(first, close) * np.exp(reach[0]),
        "low": np.minimum(first, close) * np.exp(-reach[1]),
        "close": close,
        "volume": rng.lognormal(12, 0.5, bars) * (1 + 50 * np.abs(move)),
    }
    return pd.DataFrame({"symbol": "WALK", "time": pd.bdate_range("2000-01-03", periods=bars)} | prices)


def stocks() -> pd.DataFrame:
    """The bundled stocks, adjusted as the command has them."""
    names = ("open", "high", "low", "close", "volume")
    return pd.concat(
        pd.DataFrame({"symbol": bars.symbols[0], "time": bars.times} | {n: getattr(bars, n)[:, 0] for n in names})
        for bars in jt.load_bundled(BUNDLED)
    )


def planted(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The bars with the columns that leak. Rows hold what is said to be known at their close."""
    rng = np.random.default_rng(seed)

    def with_columns(bars: pd.DataFrame) -> pd.DataFrame:
        opens, closes = np.log(bars.open.to_numpy()), np.log(bars.close.to_numpy())
        earned = np.append(np.diff(opens)[1:], [0.0, 0.0])  # by a decision at this close
        earned /= earned.std()
        noise = rng.normal(size=(5, len(bars)))
        within = closes - opens
        imbalance = within / within.std() + noise[2]  # of a bar, known at its close
        key = rng.choice([-1.0, 1.0], len(bars))
        return bars.assign(
            half=np.sqrt(0.5) * earned + np.sqrt(0.5) * noise[0],
            tenth=np.sqrt(0.1) * earned + np.sqrt(0.9) * noise[1],
            trace=np.sqrt(0.02) * earned + np.sqrt(0.98) * noise[3],
            early=np.append(imbalance[1:], 0.0),
            after=np.sqrt(0.5) * np.append(earned[1:], 0.0) + np.sqrt(0.5) * noise[4],
            locked=key * earned,
            key=key,
        )

    return pd.concat(with_columns(bars) for _, bars in frame.groupby("symbol", sort=False))


def runs(folder: Path, seeds: int, quick: bool) -> list[tuple[str, str, str, Sequence[str]]]:
    """Market, what is planted, the check for it, and the words of the command. The files are written to the folder."""
    (folder / "mine.py").write_text(MINE)
    bars = 500 if quick else 3_000
    plan: list[tuple[str, str, str, Sequence[str]]] = []
    for seed in range(seeds):
        alone = ("--symbols", "AAPL") if quick else ()
        plan.append((f"bundled stocks, seed {seed}", "-", "-", ("--seed", str(seed), *alone)))
    hosts = [("random walk", walk(bars, 1_000))] + ([] if quick else [("bundled stocks", stocks())])
    for host, frame in hosts:
        path = folder / f"{host.split()[-1]}.csv"
        planted(frame, 0).to_csv(path, index=False)
        for what, features, by in LEAKS:
            if quick and by not in ("past_only", "plausible"):
                continue
            where = features.replace("mine.py", str(folder / "mine.py"))
            plan.append((host, what, by, ("--data", str(path), "--features", f"{HONEST_FEATURES},{where}")))
    for seed in range(seeds):
        path = folder / f"walk_{seed}.csv"
        walk(bars, seed).to_csv(path, index=False)
        few = ("--features", HONEST_FEATURES) if quick else ()
        plan.append((f"random walk, seed {seed}", "-", "-", ("--data", str(path), "--seed", str(seed), *few)))
    return plan


def summary(done: list[tuple[str, str, Run]]) -> dict[str, str]:
    """How many leaks were missed, and how often each check failed where nothing was planted."""
    leaking, honest = ([one for one in done if (one[0] != "-") == leak] for leak in (True, False))
    missed = [f"{what} ({by})" for what, by, run in leaking if by not in run.failed]
    alarms = [f"{name} {sum(name in run.failed for *_, run in honest)}" for name in honest[0][2].figures]
    return {
        "leaks not found by the check for them": f"{len(missed)} of {len(leaking)} {'; '.join(missed)}".strip(),
        f"false alarms in {len(honest)} honest runs": ", ".join(alarms),
    }


def main() -> None:
    parser = arguments(__doc__, "few bars, no trainings: only shows that the script runs")
    parser.add_argument("--seeds", type=int, default=5, help="runs on bundled stocks, and random walks")
    given = parsed(parser)
    os.environ["JAXTRADER_CACHE"] = "off"
    rows: list[list[Any]] = []
    done = []
    with tempfile.TemporaryDirectory() as folder:
        for market, what, by, words in runs(Path(folder), 1 if given.quick else given.seeds, given.quick):
            run = check(*words, *(TRAIN_NOTHING if given.quick else ()))
            done.append((what, by, run))
            rows.append([market, what, by, run.code, ", ".join(run.failed) or "-", round(run.seconds, 2)])
            print(*rows[-1], ", ".join(f"{name} {x}" for name, x in run.figures.items()), sep=" | ", flush=True)
    work = "jaxtrader check, all runs in one process that has JAX and pandas loaded; the first of a shape compiles"
    facts = {"work": work, **summary(done)}
    report("checks", COLUMNS, rows, facts, given.quick)


if __name__ == "__main__":
    main()
