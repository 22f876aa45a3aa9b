"""Backtests of given targets by vectorbt (many paths at once) or backtesting.py (one path, a Python call a bar)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from results import vectorbt_portfolio
from turns import Work, serve


def vectorbt(open_: np.ndarray, targets: np.ndarray, close: np.ndarray, **costs: float) -> tuple[Work, dict[str, Any]]:
    """Target shares of equity of the bar before, filled at the open. The equity of every bar is computed too."""
    late = np.concatenate([np.full_like(targets[:1], np.nan), targets[:-1]])

    def run() -> np.ndarray:
        return vectorbt_portfolio(close, open_, late, 1.0, costs).value(group_by=False).to_numpy()

    def work() -> int:
        run()
        return targets.size

    return work, {"final": run()[-1].tolist()}


def backtesting(
    open_: np.ndarray, targets: np.ndarray, close: np.ndarray, **costs: float
) -> tuple[Work, dict[str, Any]]:
    """The first path: flat, or a share of equity bought when the target changes, at the close it was decided on."""
    from backtesting import Strategy
    from backtesting.lib import FractionalBacktest

    wanted = targets[:, 0]
    prices = {"Open": open_[:, 0], "High": np.maximum(open_, close)[:, 0], "Low": np.minimum(open_, close)[:, 0]}
    index = pd.date_range("2000-01-01", periods=len(close), freq="h")
    frame = pd.DataFrame({**prices, "Close": close[:, 0], "Volume": 1.0}, index)

    class Follow(Strategy):
        """Does what `wanted` says."""

        def init(self) -> None:
            """Nothing to compute."""

        def next(self) -> None:
            """Trade where the target changed."""
            row = len(self.data) - 1
            if wanted[row] != wanted[row - 1]:
                self.position.close()
                if wanted[row] > 0:
                    self.buy(size=wanted[row])

    test = FractionalBacktest(frame, Follow, cash=1e6, trade_on_close=True, fractional_unit=1e-9)

    def run() -> float:
        return float(test.run()["Equity Final [$]"]) / 1e6

    def work() -> int:
        run()
        return len(wanted)

    return work, {"final": [run()]}


def prepare(settings: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    """One backtest of `kind` on the columns in `market`."""
    with np.load(settings["market"]) as stored:
        columns = [stored[name] for name in ("open", "targets", "close")]
    return {"vectorbt": vectorbt, "backtesting.py": backtesting}[settings["kind"]](
        *columns, **{name: settings[name] for name in ("fee", "slippage") if name in settings}
    )


if __name__ == "__main__":
    serve(prepare, "vectorbt", "backtesting", "numba", "pandas")
