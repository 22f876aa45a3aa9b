"""Equity at every bar by vectorbt or backtesting.py for the cases of an .npz: `python books.py PEER IN.npz OUT.npz`."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

import numpy as np

Columns = dict[str, np.ndarray]
# Large: what is below 1e-12 units is no order to vectorbt, with an account of 1.0 that is up to 5e-10 of it at a time.
CAPITAL = 1e6


def vectorbt(columns: Columns, settings: dict[str, Any]) -> np.ndarray:
    """Target shares of equity, one cash for all assets; marked at each close after the trades up to it."""
    import vectorbt as vbt

    targets, price = columns["targets"], columns["close"]
    if settings["fill"] == "next_open":
        targets = np.concatenate([np.full_like(targets[:1], np.nan), targets[:-1]])
        price = columns["open"]
    together = {"group_by": True, "cash_sharing": True, "call_seq": "auto"} if targets.shape[1] > 1 else {}
    portfolio = vbt.Portfolio.from_orders(
        columns["close"],
        size=targets,
        size_type="targetpercent",
        direction="both",
        price=price,
        fees=settings["fee"],
        slippage=settings["slippage"],
        init_cash=CAPITAL,
        **together,
    )
    return portfolio.value().to_numpy().reshape(len(targets)) / CAPITAL


PEERS = {"vectorbt": (vectorbt, ("vectorbt", "numba", "numpy", "pandas"))}


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
