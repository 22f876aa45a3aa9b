"""Checks 3 to 5: what an agent learns from features that come late, from the future itself, and from shuffled bars.

Each trains by `trials.py` and judges on held-out bars by the excess over buy-and-hold at the policy's mean exposure.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtrader.market.bars import Bars
from jaxtrader.market.features import Feature
from jaxtrader.market.market import Market
from jaxtrader.training.checks.result import Check
from jaxtrader.training.checks.returns import fill_to_fill
from jaxtrader.training.checks.trials import Setting, Trial, attempt, foresight, t_statistic

MOST_T = 3.0  # one sided: by chance once in 740
LEAST_KEPT = 0.5
LEAST_CAPTURED = 0.8


def delayed(
    bars: Bars | Sequence[Bars], features: Sequence[str | Feature] | None = None, setting: Setting | None = None
) -> Check:
    """Train twice, as it is and with every feature one bar later, with the same seed and settings: no collapse.

    A collapse is all of three: the excess as it is has t > 3; the paired t of the difference, bar by bar, is > 3; and
    late the agent keeps less than half of the excess. The figure is the smaller of the two t, and 0 where half or more
    is kept. Features of the past fade slowly, a leak of the next return is worth nothing once it has been earned. So a
    leak over many bars passes here, and a true signal that fades within one bar fails: its defence is a proof of when
    it was known, which no figure can give.
    """
    setting = setting or Setting()
    market = Market.from_bars(bars, features=features)
    now, late = shared(attempt(market, setting), attempt(one_bar_later(market), setting))
    earned, lost = t_statistic(now), t_statistic(now - late)
    kept = late.mean() / now.mean() if now.mean() > 0 else np.inf
    figure = min(earned, lost) if kept < LEAST_KEPT else 0.0
    return Check(
        name="one bar late",
        passed=figure <= MOST_T,
        figure=figure,
        limit=MOST_T,
        measure="t of what one bar of delay costs (0: it keeps half of it)",
        text=(
            f"above its mean exposure the agent earns {_points(now)} a bar (t {earned:+.1f}), with every "
            f"feature one bar later {_points(late)}; the difference has t {lost:+.1f}"
        ),
        meaning=(
            "what the agent earns is gone one bar later: a feature knows the return that comes next, or the signal "
            "is so fast that you must prove, from its source, that it was known before the fill"
        ),
    )


def oracle(
    bars: Bars | Sequence[Bars], features: Sequence[str | Feature] | None = None, setting: Setting | None = None
) -> Check:
    """Add the return of the decision, fill to fill, to the features: the agent must get rich on held-out bars.

    The figure is its log growth as a share of that of the best position for the sign of the same column at every bar,
    at the same costs and through the same ledger. At least 80% must be captured: a learner that works gets nearly all
    of it. Without learning the share is the correlation of an untrained network's decisions with the column: 0 on
    average, hardly ever 80% among many features, but once in five seeds beside a single one; another seed tells. It is
    a test of the learner, of the market's fills and of the features' alignment at once, at costs at which the future
    is worth knowing (see `Setting.affordable`).
    """
    setting = setting or Setting()
    market = Market.from_bars(bars, features=features)
    future = np.nan_to_num(fill_to_fill(market, setting.fill))
    trial = attempt(market, setting, future)
    best = foresight(trial, future, setting)
    captured = trial.growth / best if best > 0 else 0.0
    return Check(
        name="oracle",
        passed=captured >= LEAST_CAPTURED,
        figure=captured,
        limit=LEAST_CAPTURED,
        measure="share of perfect foresight that is captured",
        text=(
            f"told the return to come, the agent earns {_points(trial.growth)} a bar, where the best position for its "
            f"sign earns {_points(best)}"
        ),
        meaning=(
            "the agent does not even use the future when it is told: the learner or its settings are broken for this "
            "market, so that it finds nothing in it says nothing"
        ),
        least=True,
    )


def shuffled(
    bars: Bars | Sequence[Bars], features: Sequence[str | Feature] | None = None, setting: Setting | None = None
) -> Check:
    """Shuffle the bars, compute the features again, train: nothing can be known, so nothing may be earned.

    The figure is the t of the excess on held-out bars, at most 3. Where it is more, bars are shuffled and an agent is
    trained once again, and the smaller t counts: chance passes 3 once in 740 times, or in some 200 where a policy
    trades against its recent past (its mean exposure, known only in hindsight, then leans against the drift that the
    bars happened to have), but hardly ever twice in a row. So a failure means that a feature function sees later bars,
    or that the evaluation pays for what is not there. A column that was computed elsewhere moves with its bar and
    knows nothing of the new next one: checks 2 and 3 are for those.
    """
    setting = setting or Setting()
    histories = (bars,) if isinstance(bars, Bars) else tuple(bars)
    rng = np.random.default_rng(setting.seed)
    trials: list[Trial] = []
    while len(trials) < 2 and all(t_statistic(trial.excess) > MOST_T for trial in trials):
        market = Market.from_bars([shuffle(history, rng) for history in histories], features=features)
        trials.append(attempt(market, setting))
    trial = min(trials, key=lambda one: t_statistic(one.excess))
    figure = t_statistic(trial.excess)
    return Check(
        name="shuffled",
        passed=figure <= MOST_T,
        figure=figure,
        limit=MOST_T,
        measure="t of what is earned on shuffled bars",
        text=(
            f"on bars in random order the agent earns {_points(trial.excess)} a bar above its mean exposure "
            f"(t {figure:+.1f})"
        ),
        meaning=(
            "the agent earns where nothing can be known: a feature function sees later bars, or the evaluation is "
            "wrong, so no result on this market can be believed"
        ),
    )


def _points(returns: float | np.ndarray) -> str:
    """A mean log return in basis points."""
    return f"{1e4 * float(np.mean(returns)):+.3g} bp"


def shared(*trials: Trial) -> tuple[np.ndarray, ...]:
    """The excess of each trial on the bars that all of them have: late features make a late history start later."""
    times = functools.reduce(np.intersect1d, (trial.times for trial in trials))
    return tuple(trial.excess[np.isin(trial.times, times)] for trial in trials)


def one_bar_later(market: Market) -> Market:
    """The market in which every feature is known one bar later: row t holds what row t - 1 held."""
    features = np.full_like(market.features, np.nan)
    for start, _, end in market.segments:
        features[start + 1 : end] = market.features[start : end - 1]
    return dataclasses.replace(market, features=features, lookback=market.lookback + 1)


def shuffle(bars: Bars, rng: np.random.Generator) -> Bars:
    """The bars in random order, all but the first: prices are built again from each bar's moves, times stay.

    A bar's open, high, low and close move together, as logs relative to the close before it, and its volume and the
    user's columns with them. So every bar keeps its shape and the history its end, and only the order is lost. Bars on
    which a column still warms up stay in front, where its gap may be.
    """
    still = max(1, _warm_up(bars))
    drawn = still + rng.permutation(len(bars) - still)
    order = np.concatenate([np.arange(still), drawn])
    before = np.log(bars.close[drawn - 1])
    moves = {name: np.log(getattr(bars, name)[drawn]) - before for name in ("open", "high", "low", "close")}
    start = np.log(bars.close[still - 1 : still])
    level = start + np.concatenate([np.zeros_like(start), moves["close"].cumsum(0)])
    prices: dict[str, Any] = {
        name: np.concatenate([getattr(bars, name)[:still], np.exp(level[:-1] + move)]) for name, move in moves.items()
    }
    # Rounding must not put a high below the close that it was.
    prices["high"] = np.maximum.reduce([prices["high"], prices["open"], prices["close"]])
    prices["low"] = np.minimum.reduce([prices["low"], prices["open"], prices["close"]])
    columns = {name: values[order] for name, values in bars.columns.items()}
    return dataclasses.replace(bars, **prices, volume=bars.volume[order], columns=columns)


def _warm_up(bars: Bars) -> int:
    """Rows before every column is known, of the columns that are known from some row on."""
    rows = [0]
    for values in bars.columns.values():
        holes = np.flatnonzero(np.isnan(values).any(1))
        if holes.size and holes[-1] + 1 == holes.size < len(bars):
            rows.append(holes.size)
    return max(rows)
