"""The defaults for real bars: on random walks the policy holds, cheaply, and where a signal pays it trades."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxtrader as jt
from jaxtrader.agents.ppo_settings import PPOSettings
from jaxtrader.cli import inputs
from jaxtrader.cli.settings import of, resolved
from jaxtrader.evaluation.baselines import exposure_matched, of_each_symbol
from jaxtrader.training.train_settings import TrainSettings
from jaxtrader.training.walk_forward import WalkForward

BARS, SYMBOLS, FOLDS = 1_600, 4, 2


def walks(known: float) -> jt.Market:
    """Random walks with a drift of 8% and a volatility of 24% a year, and a signal of each next bar's return.

    `known` is the correlation of the two. The other features are the default ones.
    """
    rng = np.random.default_rng(1)
    frames = {}
    for i in range(SYMBOLS):
        signal, noise = rng.normal(size=(2, BARS))
        moves = 0.08 / 252 + 0.015 * (known * np.roll(signal, 1) + np.sqrt(1 - known**2) * noise)
        # A decision at a close fills at the next open, which is near.
        close = 50 * np.exp(np.cumsum(moves))
        first = np.concatenate([[50], close[:-1]])
        frame = pd.DataFrame({"open": first, "close": close, "volume": 1e6, "signal": signal})
        frame["high"], frame["low"] = np.maximum(first, close) * 1.001, np.minimum(first, close) * 0.999
        frames[f"W{i}"] = frame.set_index(pd.bdate_range("2000-01-03", periods=BARS))
    bars = [jt.load_bars(frame, symbol=symbol) for symbol, frame in frames.items()]
    return jt.Market.from_bars(bars, features=[*jt.features.DEFAULT, "signal"])


def walked(market: jt.Market, folder: Path) -> tuple[WalkForward, float, float]:
    """A walk-forward with the defaults of the command, its excess over its mean exposure held a year, and its t."""
    values = resolved("walk-forward", {"total_steps": 250_000, "seeds": 2})
    settings = of(TrainSettings, values) | {"run_dir": folder, "progress": False}
    env = inputs.environment(values, market)
    found = jt.walk_forward(env, jt.PPOAgent(**of(PPOSettings, values)), FOLDS, **settings)
    matched = of_each_symbol(exposure_matched, market, found.result)
    pairs = [(one, matched.by_symbol[symbol]) for symbol, one in found.result.by_symbol.items()]
    excess = np.mean([one.excess_returns - other.excess_returns for one, other in pairs], axis=0)
    error = float(excess.std()) / np.sqrt(len(excess))
    return found, 252 * float(excess.mean()), float(excess.mean()) / error if error else 0.0


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_random_walks_are_held_and_a_signal_is_traded(tmp_path):
    found, excess, t = walked(walks(0.0), tmp_path / "none")
    assert abs(excess) < 0.002
    assert t > -3
    assert found.result.metrics["turnover"] < 1
    assert not any(fold.training.proof.is_better for fold in found.folds)

    found, excess, t = walked(walks(0.3), tmp_path / "signal")
    assert excess > 0.1
    assert t > 4
    assert all(fold.training.proof.is_better for fold in found.folds)
