"""Equity at every bar by another library, for the cases of an .npz: `python results.py PEER IN.npz OUT.npz`."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

Columns = dict[str, np.ndarray]
# Large: what is below 1e-12 units is no order to vectorbt, with an account of 1.0 that is up to 5e-10 of it at a time.
CAPITAL = 1e6
UNIT = 1e-9  # the smallest fraction of a share that backtesting.py trades


def vectorbt(columns: Columns, settings: dict[str, Any]) -> np.ndarray:
    """Target shares of equity, one cash for all assets, marked at each close after the trades up to it.

    Of futures a contract is what is bought, so prices are those of a contract.
    """
    if "trailing_stop" in settings:
        return vectorbt_trailing(columns, settings)
    columns = {name: x * (1 if name == "targets" else settings.get("multiplier", 1.0)) for name, x in columns.items()}
    targets, price = columns["targets"], columns["close"]
    if settings["fill"] == "next_open":
        targets = np.concatenate([np.full_like(targets[:1], np.nan), targets[:-1]])
        price = columns["open"]
    together = {"group_by": True, "cash_sharing": True, "call_seq": "auto"} if targets.shape[1] > 1 else {}
    further = {"fixed_fees": settings.get("fixed_fee", 0.0), "size_granularity": settings.get("lot", np.nan)}
    portfolio = vectorbt_portfolio(columns["close"], price, targets, CAPITAL, settings, **further, **together)
    return portfolio.value().to_numpy().reshape(len(targets)) / CAPITAL


def vectorbt_portfolio(
    close: np.ndarray, price: np.ndarray, targets: np.ndarray, cash: float, costs: Mapping[str, Any], **further: Any
) -> Any:
    """vectorbt's account of target shares of equity that fill at a price of their own bar."""
    import vectorbt as vbt

    return vbt.Portfolio.from_orders(
        close,
        size=targets,
        size_type="targetpercent",
        direction="both",
        price=price,
        fees=costs["fee"],
        slippage=costs["slippage"],
        init_cash=cash,
        **further,
    )


def vectorbt_trailing(columns: Columns, settings: dict[str, Any]) -> np.ndarray:
    """Entries and exits at the close, with vectorbt's own trailing stop. NaN holds, and no target turns a position.

    Its signals know no share of equity, so each size is worked out from the value of what came before.
    """
    import vectorbt as vbt

    wanted, close = columns["targets"][:, 0], columns["close"][:, 0]
    sizes, until = np.zeros(len(wanted)), np.arange(len(wanted))
    entries = np.flatnonzero(~np.isnan(wanted) & (wanted != 0))

    def value(end: int) -> np.ndarray:
        """Its value at each bar, of the orders before bar `end`."""
        known = until < end
        portfolio = vbt.Portfolio.from_signals(
            close,
            entries=(wanted > 0) & known,
            short_entries=(wanted < 0) & known,
            exits=(wanted == 0) & known,
            short_exits=(wanted == 0) & known,
            size=sizes,
            size_type="amount",
            open=columns["open"][:, 0],
            high=columns["high"][:, 0],
            low=columns["low"][:, 0],
            sl_stop=settings["trailing_stop"],
            sl_trail=True,
            stop_entry_price="close",
            stop_exit_price="stopmarket",
            fees=settings["fee"],
            slippage=settings["slippage"],
            init_cash=CAPITAL,
        )
        return portfolio.value().to_numpy().reshape(len(wanted))

    for row in entries:
        sizes[row] = abs(wanted[row]) * value(row)[row] / close[row]
    return value(len(wanted)) / CAPITAL


def backtesting(columns: Columns, settings: dict[str, Any]) -> np.ndarray:
    """Orders of absolute size, worked out by the money rules: its own sizing leaves room for the commission.

    Under next_open that needs a look at the open that the order will fill at, as do the brackets, which are fractions
    of it. An order to close takes its brackets away first: they would be looked at before it, over the whole bar.
    Equity is marked at each close before the trade at that close. Of futures a contract is what is bought. A limit
    order is cancelled where it has rested for a bar. Its maker's fee is of a fill that is not at the open.
    """
    from backtesting import Strategy
    from backtesting.lib import FractionalBacktest

    unit = settings.get("lot", UNIT)
    frame = {x.title(): columns[x][:, 0] * settings.get("multiplier", 1.0) for x in ("open", "high", "low", "close")}
    wanted, opens, closes = columns["targets"][:, 0], frame["Open"] * unit, frame["Close"] * unit
    stop, take = settings.get("stop_loss"), settings.get("take_profit")
    late, rests = settings["fill"] == "next_open", settings["fill"] == "limit"
    now = 0  # the bar of the last decision
    index = pd.date_range("2000-01-01", periods=len(wanted), freq="D")

    class Follow(Strategy):
        """Does what `wanted` says."""

        def init(self) -> None:
            """Nothing to compute."""

        def next(self) -> None:
            """The order of this close, where NaN holds."""
            nonlocal now
            now = t = len(self.data) - 1
            for order in self.orders if rests else ():
                order.cancel()
            if np.isnan(wanted[t]):
                return
            if late and wanted[t] == 0:
                for trade in self.trades:
                    trade.sl = trade.tp = None
                self.position.close()
                return
            price = opens[t + 1] if late else closes[t]
            worth = self.equity + self.position.size * (price - closes[t])
            size = wanted[t] * worth / price - self.position.size
            size = int(np.trunc(size) if "lot" in settings else round(size))
            side = np.sign(size)
            levels = {"sl": price * (1 - side * stop), "tp": price * (1 + side * take)} if stop else {}
            levels |= {"limit": price * (1 - side * settings["limit_offset"])} if rests else {}
            if size:
                (self.buy if size > 0 else self.sell)(size=abs(size), **levels)

    def commission(size: float, price: float) -> float:
        value, rate = abs(size) * price, settings["fee"]
        if rests and price != opens[now + 1]:
            rate = settings["maker_fee"]
        paid = max(rate * value + settings.get("share_fee", 0.0) * abs(size) * unit, settings.get("min_fee", 0.0))
        return min(paid, settings.get("max_fee", 1.0) * value)

    test = FractionalBacktest(
        pd.DataFrame(frame, index).assign(Volume=1.0),
        Follow,
        cash=CAPITAL,
        commission=commission,
        margin=0.5,
        trade_on_close=not (late or rests),
        fractional_unit=unit,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*canceled")  # an order that is not carried out must not pass unseen
        return test.run()["_equity_curve"]["Equity"].to_numpy() / CAPITAL


def gym_trading_env(columns: Columns, settings: dict[str, Any]) -> np.ndarray:
    """Its portfolio's valuations from 1000 in cash, as they are. `rate` is its interest of one step."""
    import gym_trading_env  # noqa: F401  registers "TradingEnv"
    import gymnasium

    close, wanted = columns["close"][:, 0], columns["targets"][:, 0].tolist()
    positions = sorted({0.0, *wanted})
    index = pd.date_range("2000-01-01", periods=len(close), freq="D")
    env = gymnasium.make(
        "TradingEnv",
        df=pd.DataFrame({"close": close, "feature_none": 0.0}, index),
        positions=positions,
        trading_fees=settings["fee"],
        borrow_interest_rate=settings["rate"],
        initial_position=0.0,
        verbose=0,
        disable_env_checker=True,
    )
    env.reset()
    valuations = [1000.0]
    for position in wanted[:-1]:
        _, _, done, _, info = env.step(positions.index(position))
        valuations.append(float(info["portfolio_valuation"]))
        if done:
            raise SystemExit(f"gym-trading-env's account was lost at bar {len(valuations)}")
    return np.array(valuations)


PEERS = {
    "gym-trading-env": (gym_trading_env, ("gym-trading-env", "gymnasium", "numpy", "pandas")),
    "vectorbt": (vectorbt, ("vectorbt", "numba", "numpy", "pandas")),
    "backtesting": (backtesting, ("backtesting", "numpy", "pandas")),
}


def main(peer: str, source: str, result: str) -> None:
    """Every case of `source`, with the versions it was done by."""
    answer, packages = PEERS[peer]
    with np.load(source) as stored:
        cases = json.loads(str(stored["cases"]))
        found = {}
        for name, settings in cases.items():
            columns = {key.split("/")[1]: stored[key] for key in stored.files if key.startswith(f"{name}/")}
            found[name] = answer(columns, settings)
    np.savez(result, versions=np.array(json.dumps({name: version(name) for name in packages})), **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
