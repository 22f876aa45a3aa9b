"""What the examples share: the flag `--quick`, the size of a training, and the table at the end."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jaxtrader as jt
from jaxtrader.evaluation.baselines import baselines

COLUMNS = ["total_return", "sharpe", "max_drawdown", "mean_exposure", "turnover"]


def run(main: Callable[..., None], **options: Any) -> None:
    """Call an example's `main(quick, ...)` with what the command line says.

    Args:
        main: the example.
        options: further flags by name, with their help.
    """
    parser = argparse.ArgumentParser(description=(main.__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="train for a few seconds only, to see that it runs")
    for name, text in options.items():
        parser.add_argument(f"--{name}", help=text)
    main(**vars(parser.parse_args()))


def size(quick: bool, steps: int = 300_000) -> Any:
    """Return the settings of a `Trainer`: a real training, or one of two updates."""
    if quick:
        return {"num_envs": 16, "rollout_length": 16, "total_steps": 512, "progress": False}
    return {"num_envs": 256, "rollout_length": 32, "total_steps": steps}


def hidden(quick: bool) -> tuple[int, ...]:
    """Return the widths of the layers."""
    return (8,) if quick else (64, 64)


def show(market: jt.Market, results: dict[str, jt.BacktestResult]) -> None:
    """Print the figures of results, beside holding the market."""
    import pandas as pd

    rows = results | baselines(market, next(iter(results.values())))
    table = pd.DataFrame({name: each.metrics for name, each in rows.items()}).T[COLUMNS]
    print(table.astype(float).round(2).to_string())
