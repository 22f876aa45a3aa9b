"""What tests of the command share: a training that takes a moment, its prices, and the line of a refusal."""

import numpy as np
import pandas as pd

from jaxtrader.cli import main

FEATURES = "log_return_5,volatility_10"
TINY = [
    *("--num-envs", "8", "--rollout-length", "16", "--episode-length", "32", "--hidden", "8"),
    *("--num-minibatches", "2", "--num-epochs", "1", "--eval-every", "2"),
]
SMALL = [*TINY, "--features", FEATURES, "--seeds", "1"]


class Killed(BaseException):
    """The process is dead."""


def prices(rows=300, seed=0, first_day="2020-01-01"):
    """Daily bars with the column names of a user's file."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, rows)))
    first = close * np.exp(rng.normal(0, 0.003, rows))
    top, bottom = np.maximum(first, close) * 1.004, np.minimum(first, close) * 0.996
    days = pd.date_range(first_day, periods=rows, freq="D").strftime("%Y-%m-%d")
    return pd.DataFrame({"Date": days, "Open": first, "High": top, "Low": bottom, "Close": close, "Volume": 1000.0})


def pair(rows=300, seed=0, **given):
    """The bars of two symbols, UP and DN. All trainings on a pair of 300 rows each share their programs."""
    both = [prices(rows, seed=seed + i, **given).assign(Ticker=name) for i, name in enumerate(("UP", "DN"))]
    return pd.concat(both)


def refused(capsys, argv, code=2):
    """The one line that a command gives on standard error."""
    assert main([str(word) for word in argv]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jaxtrader: error: ")
    return line
